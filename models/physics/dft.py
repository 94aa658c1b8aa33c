"""Density functional theory with GPAW: PBE, plane waves; relaxation, energy and band gap of small cells.

The settings here are light and the same for every crystal, so that energies make one hull; statics.py converges gaps.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from wyloop.models.crystal import Crystal
from wyloop.models.physics.calculators import CHGNET_ELEMENTS, UnsupportedElementsError
from wyloop.models.physics.failures import Solver
from wyloop.models.physics.gpaw_process import GPAWInstallation as GPAWInstallation
from wyloop.models.physics.gpaw_process import find_gpaw as find_gpaw
from wyloop.models.physics.gpaw_process import run_gpaw
from wyloop.models.physics.references import elemental_crystal
from wyloop.models.wyckoff.encode import standardize

UNSUPPORTED = frozenset({"Tc", "Po", "At", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu"})
"""Elements without a PAW dataset in gpaw-data 1.2.1. Debian's has no lanthanides either; its GPAW then says so."""
SUPPORTED_ELEMENTS = CHGNET_ELEMENTS - UNSUPPORTED

# Initial moments, Bohr magnetons, of elements that make a calculation spin-polarised; ferromagnetic starts only.
# High-spin atoms' moments, rounded down to what their solids keep.
INITIAL_MOMENTS = {
    "V": 1.0, "Cr": 3.0, "Mn": 4.0, "Fe": 3.0, "Co": 2.0, "Ni": 1.0,
    "Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 7.0, "Gd": 7.0,
    "Tb": 6.0, "Dy": 5.0, "Ho": 4.0, "Er": 3.0, "Tm": 2.0,
}  # fmt: skip
# Published PBE bond lengths, Å, of the elements whose reference is the molecule in a box.
# Source: Paier, Hirschl, Marsman and Kresse, J. Chem. Phys. 122, 234102 (2005), doi:10.1063/1.1926272, table V.
MOLECULES = {"H": 0.751, "N": 1.103, "O": 1.218, "F": 1.418, "Cl": 1.999}
MOLECULE_BOX = (6.0, 6.5, 8.0)  # Å, bond along the last
REFERENCE_PATIENCE = 4  # times the protocol's limit of time: once per element, of which some have a dozen atoms


@dataclass(frozen=True)
class DFTSettings:
    """Settings of a GPAW calculation; energies of one hull need the same ones."""

    cutoff: float = 500.0
    """Plane-wave cutoff, eV. At 400 eV LiF is 0.5 eV/atom too high and 1 % too large; 600 eV would change it by another
    0.04 eV/atom and 0.2 %."""
    kpoint_density: float = 2.5
    """k-points per Å^-1 of reciprocal lattice (including 2 pi); the mesh always includes Gamma."""
    max_remeshes: int = 1
    """How often the mesh is chosen again, and the volume with it, where the relaxed volume asks for another one."""
    smearing: float = 0.05
    """Width of the Fermi-Dirac distribution, eV."""
    energy_tolerance: float = 2e-4
    """eV per valence electron."""
    density_tolerance: float = 5e-4
    """Electrons per valence electron."""
    max_force: float = 0.05
    """eV/Å, where shape and positions relax."""
    max_steps: int = 8
    """Steps for shape and positions after the volume's."""
    time_limit: float = 240.0
    """Wall time of one calculation, s."""
    setups: Mapping[str, str] = field(
        default_factory=lambda: {"Mg": "2", "Ni": "10", "Rh": "9", "Pd": "10", "Ag": "11", "Ir": "9", "Pt": "10"}
    )
    """PAW datasets other than the default: without the semicore states that need a higher cutoff."""


@dataclass(frozen=True)
class DFTResult:
    """A GPAW calculation of a relaxed crystal."""

    crystal: Crystal
    energy_per_atom: float
    """eV/atom, relative to GPAW's atoms; only differences at equal settings mean something."""
    band_gap: float
    """eV; 0.0 for a metal. PBE, between the eigenvalues on the k-point mesh."""
    is_direct: bool
    is_metal: bool
    max_force: float
    """Largest force on an atom, eV/Å."""
    max_stress: float
    """Largest stress component, GPa, the error of the finite cutoff at the energy's minimum taken off."""
    kpoint_mesh: tuple[int, int, int]
    """Mesh that includes Gamma."""
    n_kpoints: int
    """Irreducible k-points."""
    cutoff: float
    """eV."""
    spin_polarized: bool
    magnetic_moment: float
    """Bohr magnetons per cell."""
    converged: bool
    """Whether the relaxation reached the force wanted within its steps."""
    wall_time: float
    """Seconds."""


def dft_relax_and_static(
    crystal: Crystal,
    settings: DFTSettings | None = None,
    *,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> DFTResult:
    """Relax a crystal within its space group and return energy and band gap at the end.

    The volume follows the minimum of the energy, shape and positions the forces and the stress.

    Args:
        crystal: Any cell, best relaxed with a force field before.
        settings: Defaults to `DFTSettings()`.
        solver: How to go about it, for a second attempt.
        log: GPAW's text output; nowhere by default.
        gpaw: Defaults to what `find_gpaw` finds.

    Raises:
        CalculationFailedError: GPAW is missing, does not converge or takes too long.
        UnsupportedElementsError: GPAW has no PAW dataset of an element.
    """
    check_dft_elements(crystal.species)
    settings, began = settings or DFTSettings(), time.monotonic()
    result = _calculate(standardize(crystal), settings, "full", solver, log, gpaw)
    return _result(result, settings, time.monotonic() - began)


def dft_reference_energy(
    element: str,
    settings: DFTSettings | None = None,
    *,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> float:
    """Return the energy of an element's reference state at these settings, eV/atom.

    H2, N2, O2, F2 and Cl2 are molecules at the published PBE bond length, O2 spin-polarised; Mn is the ferromagnetic
    face-centred solid instead of alpha-Mn with its 29 atoms; every other element is its crystal from
    `elemental_crystal`, relaxed as every crystal is: the formation energy of an element's own crystal is zero.

    Raises:
        CalculationFailedError: As for `dft_relax_and_static`.
    """
    check_dft_elements([element])
    settings = settings or DFTSettings()
    settings = replace(settings, time_limit=REFERENCE_PATIENCE * settings.time_limit)
    if element in MOLECULES:
        return float(_calculate(_molecule(element), settings, "none", solver, log, gpaw)["energy_per_atom"])
    crystal = _GAMMA_MANGANESE if element == "Mn" else elemental_crystal(element)
    return float(_calculate(crystal, settings, "full", solver, log, gpaw)["energy_per_atom"])


def relative_cost(amounts: Mapping[str, int]) -> float:
    """Estimate what a calculation costs relative to one with 20 electrons: for choosing, not for billing.

    Time grows with the square of the electrons in small cells. Moments double every step and need many more of them.
    Sulfur's and boron's reference crystals have the largest cells.

    Args:
        amounts: Atoms of each element in the primitive cell.
    """
    n_electrons = sum(n * _n_electrons(element) for element, n in amounts.items())
    has_moments = not INITIAL_MOMENTS.keys().isdisjoint(amounts)
    has_large_reference = not {"B", "S"}.isdisjoint(amounts)
    return (n_electrons / 20.0) ** 2 * (20.0 if has_moments else 1.0) * (5.0 if has_large_reference else 1.0)


def _n_electrons(element: str) -> int:
    """Estimate the electrons outside the frozen core: after the last noble gas; s and p below if few."""
    number: int = atomic_numbers[element]
    core = max(noble for noble in (0, 2, 10, 18, 36, 54, 86) if noble < number)
    outside = number - core
    if core == 54 and outside > 16:
        return outside - 14  # 4f stays in the core
    if core in (18, 36) and outside > 13:
        return outside - 10  # d stays in the core
    has_semicore = outside <= (2 if core == 10 else 5) and core >= 10
    return outside + 8 if has_semicore else outside


def check_dft_elements(elements: Iterable[str]) -> None:
    """Check that there is a PAW dataset for every element.

    Raises:
        UnsupportedElementsError: There is none.
    """
    missing = sorted(set(elements) - SUPPORTED_ELEMENTS)
    if missing:
        raise UnsupportedElementsError(f"GPAW has no PAW dataset of {', '.join(missing)}; leave the element out")


_GAMMA_MANGANESE = Crystal(3.60 / 2 * (np.ones((3, 3)) - np.eye(3)), ("Mn",), np.zeros((1, 3)))


def _molecule(element: str) -> Crystal:
    x, y, z = MOLECULE_BOX
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, MOLECULES[element] / z]])
    return Crystal(np.diag([x, y, z]), (element, element), positions)


def _calculate(
    crystal: Crystal,
    settings: DFTSettings,
    relax: str,
    solver: Solver | None,
    log: Path | None,
    gpaw: GPAWInstallation | None,
) -> dict[str, Any]:
    is_molecule = relax == "none"
    return run_gpaw(
        crystal,
        plain_settings(settings),
        task={"relax": relax, "is_molecule": is_molecule},
        time_limit=settings.time_limit,
        magnetic_moments=[1.0, 1.0] if crystal.species == ("O", "O") and is_molecule else initial_moments(crystal),
        solver=solver,
        log=log,
        gpaw=gpaw,
    )


def plain_settings(settings: DFTSettings) -> dict[str, Any]:
    """Return settings as gpaw_runner.py takes them."""
    return {**asdict(settings), "setups": dict(settings.setups)}


def initial_moments(crystal: Crystal) -> list[float] | None:
    """Return the moments that a calculation starts from, Bohr magnetons; None where no element asks for spin."""
    moments = [INITIAL_MOMENTS.get(element, 0.0) for element in crystal.species]
    return moments if any(moments) else None


def _result(result: dict[str, Any], settings: DFTSettings, wall_time: float) -> DFTResult:
    mesh = result["kpoint_mesh"]
    return DFTResult(
        crystal=Crystal(np.array(result["lattice"]), tuple(result["species"]), np.array(result["frac_coords"])),
        energy_per_atom=result["energy_per_atom"],
        band_gap=result["band_gap"],
        is_direct=result["is_direct"],
        is_metal=result["band_gap"] == 0.0,
        max_force=result["max_force"],
        max_stress=result["max_stress"],
        kpoint_mesh=(mesh[0], mesh[1], mesh[2]),
        n_kpoints=result["n_kpoints"],
        cutoff=settings.cutoff,
        spin_polarized=result["spin_polarized"],
        magnetic_moment=result["magnetic_moment"],
        converged=result["is_converged"],
        wall_time=wall_time,
    )
