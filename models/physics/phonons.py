"""Phonons at Gamma by finite displacements with phonopy; with a force field they are a pre-screen only."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import DEFAULT_CALCULATOR, calculator, check_elements, one_thread
from wyloop.models.physics.dft import DFTSettings, check_dft_elements, initial_moments, plain_settings
from wyloop.models.physics.failures import Solver
from wyloop.models.physics.gpaw_process import GPAWInstallation, run_gpaw
from wyloop.models.physics.statics import mesh_of
from wyloop.models.wyckoff.encode import standardize

N_ACOUSTIC = 3
LENGTH_STEP = 0.5  # Å
NAC_FACTOR = 14.399652  # e^2 / (4 pi epsilon_0), eV Å


@dataclass(frozen=True)
class PhononSettings:
    """Settings of a calculation of Gamma phonons."""

    calculator: str = DEFAULT_CALCULATOR
    displacement: float = 0.02
    """Å."""
    min_supercell_length: float = 8.0
    """Shortest perpendicular width of the supercell, Å; 0 displaces the primitive cell itself."""
    max_atoms: int = 54
    """Repeats are lowered until the supercell has at most so many atoms. CHGNet needs 3 GB for 108 of a dense oxide,
    and frequencies at Gamma alone need no long cell."""
    tolerance: float = 0.3
    """THz. A frequency below minus this is imaginary: finite displacements and float32 forces of a relaxed cell leave
    up to 0.1 THz, a residual force of 0.05 eV/Å a little more."""


@dataclass(frozen=True)
class GammaPhonons:
    """Phonons of the primitive cell at Gamma; imaginary frequencies are negative."""

    frequencies: NDArray[np.float64]
    """All branches in ascending order, shape (3 * nsites,), THz."""
    lowest_optical_frequency: float
    """THz; nan for a cell of one atom, which has no optical branch."""
    lowest_frequency: float
    """Lowest of all branches, THz."""
    tolerance: float
    """THz."""
    is_stable: bool
    """Whether no frequency is below minus the tolerance."""
    is_prescreen: bool
    """Whether the forces came from a force field, whose verdict counts only as a pre-screen."""
    supercell: tuple[int, int, int]
    """Repeats of the standard primitive cell."""
    n_displacements: int
    force_constants: NDArray[np.float64] | None = None
    """Shape (nsites, n of supercell, 3, 3), eV/Å^2."""
    longitudinal_frequencies: NDArray[np.float64] | None = None
    """All branches for q towards zero along the first axis, THz, where Born charges were given."""


@dataclass(frozen=True)
class DFTPhononSettings:
    """Settings of Gamma phonons with DFT forces: displacements of the primitive cell itself."""

    relaxed_by: str = "gpaw-pbe/1"
    """Protocol whose crystal it takes, at the minimum of the same energy."""
    displacement: float = 0.02
    """Å."""
    cutoff: float = 500.0
    """eV, as the relaxation's."""
    kpoint_density: float = 3.0
    """k-points per Å^-1 of reciprocal lattice (including 2 pi), of metals and small gaps."""
    insulator_kpoint_density: float = 2.0
    """The same where the gap is larger."""
    small_gap: float = 1.0
    """eV."""
    smearing: float = 0.05
    """eV."""
    energy_tolerance: float = 1e-6
    """eV per valence electron."""
    density_tolerance: float = 1e-5
    """Electrons per valence electron."""
    tolerance: float = 0.3
    """THz; a frequency below minus this is imaginary."""
    time_limit: float = 3600.0
    """Wall time of all displacements, s."""


@dataclass(frozen=True)
class BornCharges:
    """What splits longitudinal from transverse modes."""

    charges: NDArray[np.float64]
    """Of every atom of the standard primitive cell, shape (nsites, 3, 3), elementary charges."""
    dielectric: NDArray[np.float64]
    """High-frequency dielectric tensor, shape (3, 3)."""


def dft_gamma_phonons(
    crystal: Crystal,
    settings: DFTPhononSettings | None = None,
    *,
    gap: float | None = None,
    born: BornCharges | None = None,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> GammaPhonons:
    """Calculate the phonons at Gamma of a relaxed crystal with GPAW's forces; the verdict counts.

    Args:
        crystal: Any cell of a crystal relaxed at the light settings of dft.py.
        settings: Defaults to `DFTPhononSettings()`.
        gap: By a lighter calculation, eV; None is not known.
        born: Charges for the non-analytical correction; without them there are transverse modes only.
        solver: How to go about it.
        log: GPAW's text output.
        gpaw: Defaults to what `find_gpaw` finds.

    Raises:
        CalculationFailedError: GPAW is missing, does not converge or takes too long.
        UnsupportedElementsError: GPAW has no PAW dataset of an element.
    """
    check_dft_elements(crystal.species)
    settings, primitive = settings or DFTPhononSettings(), standardize(crystal)
    light = DFTSettings(
        cutoff=settings.cutoff,
        smearing=settings.smearing,
        energy_tolerance=settings.energy_tolerance,
        density_tolerance=settings.density_tolerance,
    )

    is_fine = gap is None or gap < settings.small_gap
    density = settings.kpoint_density if is_fine else settings.insulator_kpoint_density

    def forces(cells: list[Any]) -> NDArray[np.float64]:
        task = {
            "task": "forces",
            "mesh": mesh_of(primitive, density),
            "displaced": [cell.scaled_positions.tolist() for cell in cells],
        }
        found = run_gpaw(
            primitive,
            plain_settings(light),
            task=task,
            time_limit=settings.time_limit,
            magnetic_moments=initial_moments(primitive),
            solver=solver,
            log=log,
            gpaw=gpaw,
        )
        return np.array(found["forces"])

    return _at_gamma(
        primitive,
        (1, 1, 1),
        settings.displacement,
        forces,
        tolerance=settings.tolerance,
        is_prescreen=False,
        born=born,
    )


def gamma_phonons(
    crystal: Crystal,
    settings: PhononSettings | None = None,
    ase_calculator: Calculator | None = None,
    *,
    born: BornCharges | None = None,
) -> GammaPhonons:
    """Calculate the phonons at Gamma of a relaxed crystal.

    Displacements are reduced by symmetry, the acoustic sum rule is imposed on the force constants.

    Args:
        crystal: Any cell of a relaxed crystal.
        settings: Defaults to `PhononSettings()`.
        ase_calculator: Forces to use instead of the settings' calculator's, for example DFT's; the result is then no
            pre-screen.
        born: Charges for the non-analytical correction; without them there are transverse modes only.

    Raises:
        CalculatorError: The calculator is missing, does not know an element, or fails.
    """
    settings = settings or PhononSettings()
    is_prescreen = ase_calculator is None
    if ase_calculator is None:
        check_elements(settings.calculator, crystal.species)
        ase_calculator = calculator(settings.calculator)
    primitive, chosen = standardize(crystal), ase_calculator
    return _at_gamma(
        primitive,
        _supercell(primitive, settings),
        settings.displacement,
        lambda cells: np.array([_forces(cell, chosen) for cell in cells]),
        tolerance=settings.tolerance,
        is_prescreen=is_prescreen,
        born=born,
    )


def _at_gamma(
    primitive: Crystal,
    supercell: tuple[int, int, int],
    displacement: float,
    forces: Callable[[list[Any]], NDArray[np.float64]],
    *,
    tolerance: float,
    is_prescreen: bool,
    born: BornCharges | None = None,
) -> GammaPhonons:
    from phonopy import Phonopy  # a second to import
    from phonopy.structure.atoms import PhonopyAtoms

    phonopy = Phonopy(
        PhonopyAtoms(symbols=primitive.species, cell=primitive.lattice, scaled_positions=primitive.frac_coords),
        supercell_matrix=np.diag(supercell),
        primitive_matrix=np.eye(3),
        log_level=0,
    )
    phonopy.generate_displacements(distance=displacement)
    cells = phonopy.supercells_with_displacements
    phonopy.forces = forces(list(cells))
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    phonopy.run_qpoints([[0.0, 0.0, 0.0]])
    frequencies = np.sort(phonopy.qpoints.frequencies[0])
    longitudinal = None
    if born is not None:
        phonopy.nac_params = {"born": born.charges, "dielectric": born.dielectric, "factor": NAC_FACTOR}
        phonopy.run_qpoints([[0.0, 0.0, 0.0]], nac_q_direction=[1, 0, 0])
        longitudinal = np.sort(phonopy.qpoints.frequencies[0])
    found = _result(frequencies, tolerance, is_prescreen, supercell, len(cells))
    constants = np.array(phonopy.force_constants, dtype=float)
    return replace(found, force_constants=constants, longitudinal_frequencies=longitudinal)


def _supercell(primitive: Crystal, settings: PhononSettings) -> tuple[int, int, int]:
    widths = 1 / np.linalg.norm(np.linalg.inv(primitive.lattice), axis=0)  # Å, between opposite faces
    length = settings.min_supercell_length
    while True:
        # Equal widths get equal repeats, so that the supercell keeps the point group.
        repeats = np.maximum(1, np.ceil(length / widths - 1e-6)).astype(int)
        if repeats.prod() * primitive.nsites <= settings.max_atoms or repeats.max() == 1:
            return int(repeats[0]), int(repeats[1]), int(repeats[2])
        length -= LENGTH_STEP


def _forces(cell: object, ase_calculator: Calculator) -> NDArray[np.float64]:
    symbols, lattice, positions = cell.symbols, cell.cell, cell.scaled_positions  # type: ignore[attr-defined]  # phonopy is untyped
    atoms = Atoms(symbols, scaled_positions=positions, cell=lattice, pbc=True)
    atoms.calc = ase_calculator
    try:
        with one_thread():
            forces: NDArray[np.float64] = atoms.get_forces()
    except (RuntimeError, ValueError) as error:
        raise CalculatorError(f"the forces of a displaced cell failed: {str(error).splitlines()[0]}") from error
    return forces


def _result(
    frequencies: NDArray[np.float64],
    tolerance: float,
    is_prescreen: bool,
    supercell: tuple[int, int, int],
    n_displacements: int,
) -> GammaPhonons:
    """Take the three frequencies nearest zero for the acoustic ones, which the sum rule has brought there."""
    optical = np.delete(frequencies, np.argsort(np.abs(frequencies))[:N_ACOUSTIC])
    return GammaPhonons(
        frequencies=frequencies,
        lowest_optical_frequency=float(optical.min()) if len(optical) else float("nan"),
        lowest_frequency=float(frequencies.min()),
        tolerance=tolerance,
        is_stable=bool(frequencies.min() >= -tolerance),
        is_prescreen=is_prescreen,
        supercell=supercell,
        n_displacements=n_displacements,
    )
