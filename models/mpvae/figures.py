"""Figures 2 a-i of the paper from our model: the latent map, and property densities of generated genes.

a-c: latent means of the crystals on their first two principal axes, coloured by band gap, formation energy and crystal
system. d-f for condition 1 and g-i for condition 2: band gap, formation energy and space group of conditional against
unconditional genes, as the model predicts them. Source: Yamazaki et al. 2025 (WyCryst+), figure 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow, gene_arrays, genes_of
from wyloop.models.mpvae.evaluate import sample_prior
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.predict import as_numpy, latent_vectors, predict
from wyloop.models.mpvae.sample import MAX_ATOMS, generate
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONDITIONS = (
    ("1.0 <= band_gap <= 2.0", "formation_energy_per_atom < -1.5", "space_group_number >= 195"),
    ("3.5 <= band_gap <= 4.5", "formation_energy_per_atom < -2.5", "space_group_number >= 143"),
)
N_MAPPED = 4000  # crystals on the map; more would hide each other
MIN_ROWS = 10
BIN_WIDTH = 0.125  # eV and eV/atom; the ends of the conditions fall between bins
GREY, ORANGE, BLUE = "#9a9a9a", "#d55e00", "#0072b2"
SYSTEM_COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00")
"""Okabe and Ito's palette, told apart with any colour vision; triclinic to cubic."""


@dataclass(frozen=True)
class Drawn:
    """Genes and what the model predicts of them."""

    band_gap: NDArray[np.float64]
    """eV."""
    formation_energy: NDArray[np.float64]
    """eV/atom."""
    space_group: NDArray[np.int64]


def draw_figures(
    checkpoint: Checkpoint,
    rows: Sequence[TrainingRow],
    folder: Path,
    *,
    n: int = 1000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the figures as PNG and SVG.

    Args:
        checkpoint: The model.
        rows: Crystals of the map; those with energy and gap carry the colours.
        folder: Made if it is missing.
        n: Genes of each condition, and unconditional ones.
        seed: The same seed gives the same figures.
        on_progress: Told the parts done and their number.

    Returns:
        The files, `figure_2_latent` (a-c) and `figure_2_densities` (d-i).

    Raises:
        ModelError: Too few rows have formation energy and band gap.
    """
    report = on_progress or (lambda _done, _total: None)
    labelled = [row for row in rows if {"formation_energy_per_atom", "band_gap"} <= set(row.labels)]
    if len(labelled) < MIN_ROWS:
        raise ModelError(f"{len(labelled)} rows with formation energy and band gap; expected at least {MIN_ROWS}")
    chosen = np.random.default_rng(seed).permutation(len(labelled))[:N_MAPPED]
    parts: list[Drawn] = []
    drawers: list[tuple[str, Callable[[], Figure]]] = [
        ("figure_2_latent", lambda: _latent_figure(checkpoint, [labelled[place] for place in chosen])),
        ("figure_2_densities", lambda: _density_figure(parts)),
    ]
    n_steps = len(CONDITIONS) + 1 + len(drawers)
    parts.append(_predicted(checkpoint, unconditional(checkpoint, n, seed)))
    report(1, n_steps)
    for number, texts in enumerate(CONDITIONS):
        genes = generate(checkpoint, Target.parse(texts), n, seed=seed)
        parts.append(_predicted(checkpoint, genes))
        report(number + 2, n_steps)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (name, draw) in enumerate(drawers):
        written += _saved(draw(), folder / name)
        report(len(CONDITIONS) + 2 + number, n_steps)
    return written


def unconditional(checkpoint: Checkpoint, n: int, seed: int) -> list[Gene]:
    """Decode draws from the prior, any element and space group."""
    generator = torch.Generator().manual_seed(seed)
    network = checkpoint.network
    latent = sample_prior(network, n, generator)
    limits = Limits(max_atoms=MAX_ATOMS)
    return genes_of(network.decoder.decode(latent, limits, temperature=1.0, generator=generator))


def _predicted(checkpoint: Checkpoint, genes: Sequence[Gene]) -> Drawn:
    predictions = predict(checkpoint, genes)
    return Drawn(
        np.array([prediction.band_gap for prediction in predictions]),
        np.array([prediction.formation_energy_per_atom for prediction in predictions]),
        np.array([gene.space_group_number for gene in genes], dtype=np.int64),
    )


def principal_axes(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project vectors (n, d) on their first two principal axes; return (n, 2) and the share of variance of each.

    The sign of an axis is chosen so that the component of greatest size is positive.
    """
    centred = vectors - vectors.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return centred @ axes.T, sizes[:2] ** 2 / (sizes**2).sum()


def _figure(n_rows: int, size: tuple[float, float]) -> "tuple[Figure, NDArray[Any]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # matplotlib: a second; no window, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_2d(figure.subplots(n_rows, 3))


def _latent_figure(checkpoint: Checkpoint, rows: Sequence[TrainingRow]) -> "Figure":
    genes = [row.gene for row in rows]
    points, shares = principal_axes(as_numpy(latent_vectors(checkpoint.network, gene_arrays(genes))[0]))
    gap = np.array([row.labels["band_gap"] for row in rows])
    energy = np.array([row.labels["formation_energy_per_atom"] for row in rows])
    systems = np.array([CRYSTAL_SYSTEMS.index(gene.space_group.crystal_system) for gene in genes])
    figure, ((first, second, third),) = _figure(1, (13.0, 4.4))
    for axes, letter, title, values, colours, label, ends in (
        (first, "a", "Band gap", gap, "viridis", "band gap (eV)", (0.0, float(np.quantile(gap, 0.99)))),
        (second, "b", "Formation energy", energy, "cividis", "formation energy (eV/atom)", _ends(energy)),
    ):
        order = np.argsort(values) if letter == "a" else np.arange(len(values))
        dots = axes.scatter(
            *points[order].T,
            c=values[order],
            s=5,
            cmap=colours,
            vmin=ends[0],
            vmax=ends[1],
            linewidths=0,
            rasterized=True,
        )
        figure.colorbar(dots, ax=axes, label=label, extend="both" if letter == "b" else "max", aspect=30, pad=0.02)
        _title(axes, letter, title)
    for index, system in enumerate(CRYSTAL_SYSTEMS):
        chosen = points[systems == index]
        third.scatter(*chosen.T, s=5, color=SYSTEM_COLOURS[index], label=system, linewidths=0, rasterized=True)
    legend = third.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=3, frameon=False, fontsize=9)
    legend.set_in_layout(True)
    _title(third, "c", "Crystal system")
    for axes in (first, second, third):
        axes.set_xlabel(f"latent principal axis 1 ({100 * shares[0]:.0f} % of variance)")
        axes.set_xticks([])
        axes.set_yticks([])
    first.set_ylabel(f"latent principal axis 2 ({100 * shares[1]:.0f} %)")
    return figure


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.quantile(values, 0.01)), float(np.quantile(values, 0.99))


def _density_figure(parts: Sequence[Drawn]) -> "Figure":
    free, *conditional = parts
    figure, grid = _figure(len(conditional), (13.0, 3.6 * len(conditional)))
    letters = iter("defghi")
    for number, (drawn, row) in enumerate(zip(conditional, grid, strict=True), start=1):
        target = Target.parse(CONDITIONS[number - 1])
        colour = (ORANGE, BLUE)[(number - 1) % 2]
        gaps = (0.0, float(np.ceil(free.band_gap.max(initial=6.5))))
        energies = (float(np.floor(free.formation_energy.min(initial=-4.5))), 1.0)
        for axes, name, field, unit, ends in (
            (row[0], "Band gap", "band_gap", "eV", gaps),
            (row[1], "Formation energy", "formation_energy_per_atom", "eV/atom", energies),
            (row[2], "Space group", "space_group_number", "ITA number", (0.5, 230.5)),
        ):
            attribute = {"formation_energy_per_atom": "formation_energy", "space_group_number": "space_group"}
            columns = [getattr(part, attribute.get(field, field)) for part in (free, drawn)]
            bins = np.arange(ends[0], ends[1] + 0.1, 5.0 if field == "space_group_number" else BIN_WIDTH)
            _density(axes, columns, bins, colour, f"condition {number}")
            _mark(axes, target.range(field), ends)
            axes.set_xlabel(f"{name.lower()} ({unit})")
            axes.set_ylabel("density")
            axes.set_xlim(*ends)
            _title(axes, next(letters), f"{name}, condition {number}")
        row[0].legend(frameon=False, fontsize=9)
    return figure


def _density(axes: "Axes", columns: Sequence[NDArray[Any]], bins: NDArray[np.float64], colour: str, name: str) -> None:
    styles = ((GREY, "unconditional", 0.55), (colour, name, 0.65))
    for values, (fill, label, alpha) in zip(columns, styles, strict=True):
        clipped = np.clip(values.astype(float), bins[0], bins[-1])
        axes.hist(
            clipped, bins=bins.tolist(), density=True, color=fill, alpha=alpha, label=f"{label} (n = {len(values)})"
        )
    top = float(np.histogram(columns[1], bins=bins, density=True)[0].max(initial=0.0)) if len(columns[1]) else 0.0
    highest = axes.get_ylim()[1]
    if top and highest > 1.6 * top:  # metals at zero would flatten everything else
        axes.set_ylim(0, 1.5 * top)
        axes.annotate(f"off scale: {highest / 1.05:.1f}", (bins[1], 1.46 * top), fontsize=8, color="#555555", va="top")


def _mark(axes: "Axes", wanted: tuple[float, float] | None, ends: tuple[float, float]) -> None:
    """Shade what the target asks for."""
    if wanted is not None:
        axes.axvspan(max(wanted[0], ends[0]), min(wanted[1], ends[1]), color="#009e73", alpha=0.12, lw=0, zorder=0)


def _title(axes: "Axes", letter: str, text: str) -> None:
    axes.set_title(f"$\\bf{{{letter}}}$  {text}", loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _saved(figure: "Figure", stem: Path) -> list[Path]:
    paths = []
    kinds: dict[str, dict[str, Any]] = {"png": {}, "svg": {"metadata": {"Date": None}}}  # the same bytes again
    for kind, options in kinds.items():
        path = stem.with_suffix(f".{kind}")
        figure.savefig(path, dpi=160, **options)
        paths.append(path)
    return paths
