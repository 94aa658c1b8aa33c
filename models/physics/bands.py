"""Electronic bands along the path of a crystal's zone, density of states, and a picture of both."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.failures import Solver
from wyloop.models.physics.gpaw_process import GPAWInstallation
from wyloop.models.physics.gpaw_runner import band_gap, direct_band_gap
from wyloop.models.physics.statics import StaticSettings, dft_static
from wyloop.models.wyckoff.encode import standardize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BandSettings:
    """Settings of bands and densities of states."""

    relaxed_by: str = "gpaw-pbe/1"
    """Protocol whose crystal it takes."""
    path_distance: float = 0.1
    """Distance of k-points on the path, Å^-1 (including 2 pi)."""
    dense_kpoint_density: float = 6.0
    """k-points per Å^-1 of the mesh for density of states and transport."""
    dos_width: float = 0.1
    """Standard deviation of the Gaussians of the density of states, eV."""
    time_limit: float = 3600.0
    """Wall time, s."""


@dataclass(frozen=True)
class Bands:
    """Bands of a crystal, eigenvalues in eV, shape (n_spins, n_kpoints, n_bands)."""

    crystal: Crystal
    """Standard primitive cell, whose reciprocal basis the k-points are in."""
    path_kpoints: Array
    path_lengths: Array
    """Distance along the path, Å^-1."""
    labels: tuple[tuple[int, str], ...]
    """Place on the path and name of the points of high symmetry."""
    path_eigenvalues: Array
    dense_kpoints: Array
    """Irreducible ones."""
    dense_weights: Array
    dense_eigenvalues: Array
    fermi_level: float
    """eV."""
    n_electrons: float
    band_gap: float
    """eV, over path and mesh together; 0.0 for a metal."""
    direct_band_gap: float
    is_direct: bool
    dos_energies: Array
    """eV, from the Fermi level."""
    dos: Array
    """States per eV and cell."""

    def arrays(self) -> dict[str, Array]:
        """Return the arrays worth keeping, by name."""
        return {
            "path_kpoints": self.path_kpoints,
            "path_lengths": self.path_lengths,
            "path_eigenvalues": self.path_eigenvalues,
            "dense_kpoints": self.dense_kpoints,
            "dense_weights": self.dense_weights,
            "dense_eigenvalues": self.dense_eigenvalues,
            "dos_energies": self.dos_energies,
            "dos": self.dos,
            "label_places": np.array([place for place, _ in self.labels], dtype=float),
            "levels": np.array([self.fermi_level, self.n_electrons]),
        }


def band_path(crystal: Crystal, distance: float) -> tuple[Array, Array, tuple[tuple[int, str], ...]]:
    """Return k-points along the path that the cell's symmetry asks for, their lengths, and labels.

    Source: Hinuma, Pizzi, Kumagai, Oba and Tanaka, Comp. Mat. Sci. 128, 140 (2017),
        doi:10.1016/j.commatsci.2016.10.015.

    Args:
        crystal: Any cell; the k-points are in its own reciprocal basis.
        distance: Between neighbours, Å^-1.
    """
    import seekpath  # type: ignore[import-untyped]  # ships no types

    numbers = crystal.to_ase().numbers
    cell = (crystal.lattice.tolist(), crystal.frac_coords.tolist(), numbers.tolist())
    found = seekpath.get_explicit_k_path_orig_cell(cell, reference_distance=distance, symprec=1e-3)
    kpoints = np.array(found["explicit_kpoints_rel"], dtype=float)
    names = [(place, label) for place, label in enumerate(found["explicit_kpoints_labels"]) if label]
    if len(kpoints) < 2:
        raise CalculatorError(f"no path through the zone of {crystal.species}; expected at least two k-points")
    return kpoints, np.array(found["explicit_kpoints_linearcoord"], dtype=float), tuple(names)


def electronic_bands(
    crystal: Crystal,
    settings: BandSettings | None = None,
    static: StaticSettings | None = None,
    *,
    gap: float | None = None,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> Bands:
    """Compute bands on the path and on a dense mesh from one converged density.

    Args:
        crystal: A relaxed crystal.
        settings: Defaults to `BandSettings()`.
        static: Rules of the static calculation below.
        gap: By a lighter calculation, eV.
        solver: How to go about it.
        log: GPAW's text output.
        gpaw: Defaults to what `find_gpaw` finds.

    Raises:
        CalculationFailedError: As for `dft_static`.
    """
    settings, static = settings or BandSettings(), static or StaticSettings()
    static = StaticSettings(**{**vars(static), "time_limit": settings.time_limit})
    primitive = standardize(crystal)
    kpoints, lengths, labels = band_path(primitive, settings.path_distance)
    density = settings.dense_kpoint_density
    found = dft_static(
        primitive, static, gap=gap, path=kpoints, dense_density=density, solver=solver, log=log, gpaw=gpaw
    )
    on_path = np.array(found.raw["path_eigenvalues"])
    on_mesh = np.array(found.raw["dense_eigenvalues"])
    weights = np.array(found.raw["dense_weights"])
    both = np.concatenate([on_path, on_mesh], axis=1)
    width, is_direct = band_gap(both, found.fermi_level)
    energies, dos = density_of_states(on_mesh, weights, found.fermi_level, settings.dos_width)
    return Bands(
        crystal=primitive,
        path_kpoints=kpoints,
        path_lengths=lengths,
        labels=labels,
        path_eigenvalues=on_path,
        dense_kpoints=np.array(found.raw["dense_kpoints"]),
        dense_weights=weights,
        dense_eigenvalues=on_mesh,
        fermi_level=found.fermi_level,
        n_electrons=found.n_electrons,
        band_gap=width,
        direct_band_gap=direct_band_gap(both, found.fermi_level) if width > 0 else 0.0,
        is_direct=is_direct,
        dos_energies=energies,
        dos=dos,
    )


def density_of_states(
    eigenvalues: Array, weights: Array, fermi_level: float, width: float, *, low: float = -12.0, high: float = 8.0
) -> tuple[Array, Array]:
    """Return energies from the Fermi level, eV, and states per eV and cell, both spins together.

    Args:
        eigenvalues: Shape (n_spins, n_kpoints, n_bands), eV.
        weights: Of the k-points, summing to 1.
        fermi_level: eV.
        width: Standard deviation of the Gaussian of each state, eV.
        low: First energy, eV.
        high: Last energy, eV.
    """
    energies = np.arange(low, high, width / 4)
    degeneracy = 2.0 / len(eigenvalues)
    dos = np.zeros_like(energies)
    for spin in eigenvalues:
        for at_kpoint, weight in zip(spin, weights, strict=True):
            distances = (energies[:, None] - (at_kpoint[None, :] - fermi_level)) / width
            dos += degeneracy * weight * np.exp(-0.5 * distances**2).sum(axis=1)
    return energies, dos / (width * np.sqrt(2 * np.pi))


def band_picture(bands: Bands, title: str, kind: Literal["svg", "png"] = "svg") -> bytes:
    """Draw bands beside the density of states, energies from the valence band's edge or the Fermi level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second; no window, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, bands, title)
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def _draw(figure: "Figure", bands: Bands, title: str) -> None:
    both = np.concatenate([bands.path_eigenvalues, bands.dense_eigenvalues], axis=1)
    zero = bands.fermi_level
    if bands.band_gap > 0:
        zero = float(both[both < bands.fermi_level].max())
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    for spin, style in zip(bands.path_eigenvalues, ("-", "--"), strict=False):
        left.plot(bands.path_lengths, spin - zero, style, color="black", linewidth=0.8)
    places = [bands.path_lengths[place] for place, _ in bands.labels]
    left.set_xticks(places, [_symbol(label) for _, label in bands.labels])
    for place in places:
        left.axvline(place, color="0.8", linewidth=0.6)
    left.axhline(0.0, color="tab:blue", linewidth=0.6)
    left.set_xlim(bands.path_lengths[0], bands.path_lengths[-1])
    left.set_ylim(-8.0, 8.0 if bands.band_gap < 5 else 12.0)
    left.set_ylabel("energy (eV)")
    kind = "metal" if bands.band_gap == 0 else f"{'direct' if bands.is_direct else 'indirect'} {bands.band_gap:.2f} eV"
    left.set_title(f"{title}, PBE: {kind}")
    right.plot(bands.dos, bands.dos_energies + bands.fermi_level - zero, color="black", linewidth=0.8)
    right.set_xlim(left=0.0)
    right.set_xlabel("states / (eV cell)")


def _symbol(label: str) -> str:
    return "Γ" if label == "GAMMA" else label.replace("_", "")
