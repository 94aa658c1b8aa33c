"""Relaxation of cell and positions within the space group by an ASE calculator, with guards on the result."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixSymmetry
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from pymatgen.optimization.neighbors import find_points_in_spheres

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError, StructureError
from wyloop.models.physics.calculators import DEFAULT_CALCULATOR, calculator, check_elements, one_thread
from wyloop.models.wyckoff.encode import SYMPREC, encode, standardize

MAX_STEP = 0.1  # Å; LBFGS takes half of FIRE's steps (20 crystals strained by up to 20 % in volume)
LONGEST_RATIO = 1.5  # distances over the sum of covalent radii looked at; a crystal without any shorter is no crystal
SMALLEST_VOLUME = 1.0  # Å^3 per atom; solids have 5 and more


@dataclass(frozen=True)
class RelaxationSettings:
    """Settings and guards of a relaxation; `protocols.py` names and versions them."""

    calculator: str = DEFAULT_CALCULATOR
    max_force: float = 0.05
    """Force on an atom, and stress times volume on the cell, below which it is converged, eV/Å."""
    max_steps: int = 250
    time_limit: float = 60.0
    """Wall time, s."""
    min_volume_ratio: float = 0.4
    max_volume_ratio: float = 2.5
    min_distance_ratio: float = 0.6
    """Shortest distance over the sum of covalent radii; 0.65 is the lowest of 2 500 Materials Project crystals."""
    max_energy_per_atom: float = 5.0
    """Energies above this or below minus 30 eV/atom are outside the calculator's reach."""


@dataclass(frozen=True)
class Relaxation:
    """A relaxed crystal; `problems` says in words why it should not be believed, empty if it should."""

    crystal: Crystal
    energy_per_atom: float
    """eV/atom, on the calculator's own scale."""
    max_force: float
    """Largest force on an atom, eV/Å."""
    max_stress: float
    """Largest component of the stress, GPa."""
    n_steps: int
    converged: bool
    volume_ratio: float
    """Final over initial volume."""
    shortest_distance_ratio: float
    """Shortest distance between atoms over the sum of their covalent radii."""
    problems: tuple[str, ...]
    wall_time: float
    """Seconds."""

    @property
    def is_usable(self) -> bool:
        """Whether nothing speaks against the result."""
        return not self.problems


def relax(crystal: Crystal, settings: RelaxationSettings | None = None) -> Relaxation:
    """Relax the standard primitive cell of a crystal within its space group.

    Raises:
        CalculatorError: The calculator is missing or does not know an element.
        StructureError: The crystal is unphysical before it starts.
    """
    settings = settings or RelaxationSettings()
    check_elements(settings.calculator, crystal.species)
    start = standardize(crystal)
    with one_thread():
        return relax_with(start, calculator(settings.calculator), settings)


def relax_best(crystals: Sequence[Crystal], settings: RelaxationSettings | None = None) -> Relaxation:
    """Relax several starts of one gene and return the one of lowest energy, one without problems where there is one.

    Raises:
        CalculatorError: As for `relax`, or no start is given.
    """
    if not crystals:
        raise CalculatorError("no start to relax; expected at least one crystal")
    relaxations = [relax(crystal, settings) for crystal in crystals]
    return min(relaxations, key=lambda relaxation: (bool(relaxation.problems), relaxation.energy_per_atom))


def relax_with(start: Crystal, ase_calculator: Calculator, settings: RelaxationSettings) -> Relaxation:
    """Relax a standard primitive cell as it is with a calculator that knows its elements."""
    began = time.monotonic()
    atoms = start.to_ase()
    atoms.calc = ase_calculator
    n_steps, converged, problems = 0, False, list[str]()
    last = atoms.copy()
    try:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMPREC / 10))
        optimizer = LBFGS(FrechetCellFilter(atoms), logfile=None, maxstep=MAX_STEP)
        for is_converged in optimizer.irun(fmax=settings.max_force, steps=settings.max_steps):
            converged = bool(is_converged)
            n_steps, last = optimizer.nsteps, atoms.copy()
            if _shortest_distance_ratio(atoms) < 0.5 * settings.min_distance_ratio:
                problems.append("atoms collapsed onto each other")
                break
            if time.monotonic() - began > settings.time_limit:
                break
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        problems.append(f"the relaxation broke down: {str(error).splitlines()[0]}")
        converged = False
    return _result(start, last if problems else atoms, n_steps, bool(converged), problems, settings, began)


def _result(
    start: Crystal,
    atoms: Atoms,
    n_steps: int,
    converged: bool,
    problems: list[str],
    settings: RelaxationSettings,
    began: float,
) -> Relaxation:
    crystal = Crystal.from_ase(atoms)
    energy, max_force, max_stress = float("nan"), float("nan"), float("nan")
    if not problems:
        energy = float(atoms.get_potential_energy()) / len(atoms)
        max_force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        max_stress = float(np.abs(atoms.get_stress()).max() / units.GPa)
    volume_ratio = crystal.volume / start.volume
    distance_ratio = _shortest_distance_ratio(atoms)
    if not problems:
        problems = _problems(energy, n_steps, converged, volume_ratio, distance_ratio, settings)
        problems += _symmetry_problems(start, crystal)
    return Relaxation(
        crystal=crystal,
        energy_per_atom=energy,
        max_force=max_force,
        max_stress=max_stress,
        n_steps=n_steps,
        converged=converged,
        volume_ratio=volume_ratio,
        shortest_distance_ratio=distance_ratio,
        problems=tuple(problems),
        wall_time=time.monotonic() - began,
    )


def _problems(
    energy: float,
    n_steps: int,
    converged: bool,
    volume_ratio: float,
    distance_ratio: float,
    settings: RelaxationSettings,
) -> list[str]:
    problems = []
    if not converged:
        problems.append(f"forces above {settings.max_force} eV/Å after {n_steps} steps")
    if not settings.min_volume_ratio <= volume_ratio <= settings.max_volume_ratio:
        problems.append(
            f"volume changed by a factor of {volume_ratio:.2f}; "
            f"expected {settings.min_volume_ratio} to {settings.max_volume_ratio}"
        )
    if distance_ratio < settings.min_distance_ratio:
        problems.append(
            f"shortest distance is {distance_ratio:.2f} of the covalent radii; expected {settings.min_distance_ratio}"
        )
    if distance_ratio >= LONGEST_RATIO:
        problems.append(f"no two atoms are nearer than {LONGEST_RATIO} of their covalent radii: it came apart")
    if not -30.0 < energy < settings.max_energy_per_atom:
        problems.append(f"energy of {energy:.1f} eV/atom; expected -30 to {settings.max_energy_per_atom}")
    return problems


def _symmetry_problems(start: Crystal, crystal: Crystal) -> list[str]:
    before = encode(start).fingerprint
    try:
        after = encode(crystal).fingerprint
    except StructureError as error:
        return [f"the relaxed crystal has no gene: {error}"]
    return [] if after == before else [f"the gene changed from {before} to {after}"]


def _shortest_distance_ratio(atoms: Atoms) -> float:
    """Shortest distance over the sum of covalent radii; distances beyond LONGEST_RATIO count as that."""
    if abs(atoms.get_volume()) < len(atoms) * SMALLEST_VOLUME:
        return 0.0  # a neighbour list of a cell this small would not end
    radii = covalent_radii[atoms.numbers]
    positions = np.ascontiguousarray(atoms.get_positions(wrap=True))
    periodic = np.ones(3, dtype=np.int64)
    reach = 2.0 * LONGEST_RATIO * float(radii.max())
    # ASE's own list takes ten times as long, a seventh of a step of a relaxation
    first, second, images, distances = find_points_in_spheres(positions, positions, reach, periodic, atoms.cell.array)
    is_itself = (first == second) & ~images.any(axis=1)
    ratios = distances / (radii[first] + radii[second])
    return float(ratios[~is_itself].min(initial=LONGEST_RATIO))
