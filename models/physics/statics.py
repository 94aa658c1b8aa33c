"""A static PBE calculation whose settings follow from the cell: gap, residual forces and stress, bands, densities.

Light settings serve the hull (dft.py); here the cutoff suits the hardest element, semicore states are not frozen, and
the k-points and the smearing suit a metal or a semiconductor. Why it matters: MgO's gap at 4.25 Å is 4.24 eV at 400 eV
with magnesium's 2p frozen, 4.50 eV here; 0.18 eV of it is the cutoff, 0.08 eV the frozen 2p.
"""

from dataclasses import dataclass
from math import ceil, pi
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.physics.dft import DFTSettings, check_dft_elements, initial_moments, plain_settings
from wyloop.models.physics.failures import Solver
from wyloop.models.physics.gpaw_process import GPAWInstallation, run_gpaw
from wyloop.models.wyckoff.encode import standardize

HARD_ELEMENTS = frozenset(
    {"Li", "Be", "B", "C", "N", "O", "F", "Na", "Mg", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn"}
)
"""Elements whose PAW datasets need the higher cutoff: 2p and 3d shells without nodes, and semicore s and p."""
HEXAGONAL_COSINE = -0.5
HEXAGONAL_STEP = 6  # of a mesh that holds both K and M


@dataclass(frozen=True)
class StaticSettings:
    """What the settings of a static calculation follow from."""

    relaxed_by: str = "gpaw-pbe/1"
    """Protocol whose crystal it takes."""
    cutoff: float = 500.0
    """eV, of soft elements."""
    hard_cutoff: float = 600.0
    """eV, where a hard element is there."""
    kpoint_density: float = 3.0
    """k-points per Å^-1 of reciprocal lattice (including 2 pi)."""
    fine_kpoint_density: float = 4.0
    """The same, of metals and small gaps: their edges lie anywhere."""
    small_gap: float = 1.0
    """eV."""
    smearing: float = 0.01
    """Width of the Fermi-Dirac distribution, eV."""
    metal_smearing: float = 0.1
    """The same for metals, eV."""
    energy_tolerance: float = 1e-5
    """eV per valence electron."""
    density_tolerance: float = 1e-4
    """Electrons per valence electron."""
    time_limit: float = 1800.0
    """Wall time, s."""


@dataclass(frozen=True)
class StaticResult:
    """A converged static calculation."""

    crystal: Crystal
    energy_per_atom: float
    """eV/atom, relative to GPAW's atoms."""
    band_gap: float
    """eV; 0.0 for a metal."""
    direct_band_gap: float
    """Smallest gap at one k-point, eV; 0.0 for a metal."""
    is_direct: bool
    is_metal: bool
    max_force: float
    """eV/Å."""
    max_stress: float
    """Largest component, GPa, with the error of the finite basis."""
    kpoint_mesh: tuple[int, int, int]
    n_kpoints: int
    cutoff: float
    """eV."""
    smearing: float
    """eV."""
    spin_polarized: bool
    magnetic_moment: float
    """Bohr magnetons per cell."""
    fermi_level: float
    """eV."""
    n_electrons: float
    """Valence electrons of the cell."""
    raw: dict[str, Any]
    """Eigenvalues beyond the mesh, as gpaw_runner.py returns them."""


def derived_settings(crystal: Crystal, gap: float | None, settings: StaticSettings) -> tuple[DFTSettings, list[int]]:
    """Return the DFT settings and the k-point mesh that suit a cell.

    Args:
        crystal: The cell that is computed.
        gap: Its gap by a lighter calculation, eV; None is not known.
        settings: The rules.
    """
    is_fine = gap is None or gap < settings.small_gap
    is_hard = not HARD_ELEMENTS.isdisjoint(crystal.species)
    chosen = DFTSettings(
        cutoff=settings.hard_cutoff if is_hard else settings.cutoff,
        kpoint_density=settings.fine_kpoint_density if is_fine else settings.kpoint_density,
        smearing=settings.metal_smearing if gap == 0.0 else settings.smearing,
        energy_tolerance=settings.energy_tolerance,
        density_tolerance=settings.density_tolerance,
        setups={},
    )
    return chosen, mesh_of(crystal, chosen.kpoint_density)


def mesh_of(crystal: Crystal, density: float) -> list[int]:
    """Return a mesh through Gamma and the faces of the zone: even, and with K and M of a hexagonal lattice."""
    reciprocal = 2 * pi * np.linalg.inv(crystal.lattice).T
    lengths = np.linalg.norm(reciprocal, axis=1)
    mesh = [max(1, ceil(round(density * length, 3))) for length in lengths]
    mesh = [n + n % 2 if n > 1 else n for n in mesh]
    a, b = crystal.lattice[:2]
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    if abs(abs(cosine) + HEXAGONAL_COSINE) < 1e-3 and abs(crystal.lattice[2] @ (a + b)) < 1e-3:
        in_plane = HEXAGONAL_STEP * max(1, round(density * float(lengths[0]) / HEXAGONAL_STEP))
        mesh = [in_plane, in_plane, mesh[2]]
    return mesh


def dft_static(
    crystal: Crystal,
    settings: StaticSettings | None = None,
    *,
    gap: float | None = None,
    path: NDArray[np.float64] | None = None,
    dense_density: float | None = None,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> StaticResult:
    """Compute a crystal as it is, with settings that follow from its standard primitive cell.

    Args:
        crystal: A relaxed crystal.
        settings: Defaults to `StaticSettings()`.
        gap: By a lighter calculation, eV.
        path: k-points at which the bands are wanted as well, fractional, shape (n, 3).
        dense_density: Density of a second mesh for bands that are interpolated, k-points per Å^-1.
        solver: How to go about it.
        log: GPAW's text output.
        gpaw: Defaults to what `find_gpaw` finds.

    Raises:
        CalculationFailedError: GPAW is missing, does not converge or takes too long.
        UnsupportedElementsError: GPAW has no PAW dataset of an element.
    """
    check_dft_elements(crystal.species)
    settings, primitive = settings or StaticSettings(), standardize(crystal)
    chosen, mesh = derived_settings(primitive, gap, settings)
    task: dict[str, Any] = {"task": "static", "mesh": mesh}
    if path is not None:
        task["path"] = path.tolist()
    if dense_density is not None:
        task["dense_mesh"] = mesh_of(primitive, dense_density)
    found = run_gpaw(
        primitive,
        plain_settings(chosen),
        task=task,
        time_limit=settings.time_limit,
        magnetic_moments=initial_moments(primitive),
        solver=solver,
        log=log,
        gpaw=gpaw,
    )
    return StaticResult(
        crystal=primitive,
        energy_per_atom=found["energy_per_atom"],
        band_gap=found["band_gap"],
        direct_band_gap=found["direct_band_gap"],
        is_direct=found["is_direct"],
        is_metal=found["band_gap"] == 0.0,
        max_force=found["max_force"],
        max_stress=found["max_stress"],
        kpoint_mesh=(mesh[0], mesh[1], mesh[2]),
        n_kpoints=found["n_kpoints"],
        cutoff=chosen.cutoff,
        smearing=chosen.smearing,
        spin_polarized=found["spin_polarized"],
        magnetic_moment=found["magnetic_moment"],
        fermi_level=found["fermi_level"],
        n_electrons=found["n_electrons"],
        raw={key: value for key, value in found.items() if key.startswith(("path_", "dense_"))},
    )
