"""The figures of a campaign's report: funnel, densities, predicted against calculated, stability, what was learned."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wyloop.flows.campaign_report import CampaignStory, Pair, mean_error, shown_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORANGE, BLUE, GREEN, GREY = "#d55e00", "#0072b2", "#009e73", "#9a9a9a"
BINS = 40
MAX_ROUNDS_SHOWN = 6
HULL_RANGE = (-0.1, 0.5)  # eV/atom, what lies outside is counted at the end


def draw(story: CampaignStory, folder: Path) -> dict[str, Path]:
    """Write the figures as SVG; those for which there is nothing yet are left out.

    Returns:
        Name to file.
    """
    made = {
        "funnel": _funnel(story),
        "densities": _densities(story),
        "parity": _parity(story),
        "stability": _stability(story),
        "learned": _learned(story),
    }
    return {name: _saved(figure, folder / f"{name}.svg") for name, figure in made.items() if figure is not None}


def _new(n_columns: int, size: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure  # no window, no global state

    figure = Figure(figsize=size, layout="constrained")
    axes = [figure.add_subplot(1, n_columns, place + 1) for place in range(n_columns)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _saved(figure: "Figure", path: Path) -> Path:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "wyloop"}):  # the same figure every time
        figure.savefig(path, metadata={"Date": None})
    return path


def _funnel(story: CampaignStory) -> "Figure | None":
    if not story.rounds:
        return None
    stages = list(dict.fromkeys(stage for one in story.rounds for stage, _ in one.funnel))
    totals = [sum(dict(one.funnel).get(stage, 0) for one in story.rounds) for stage in stages]
    figure, (axes,) = _new(1, (8.0, 0.36 * len(stages) + 1.0))
    places = np.arange(len(stages))
    axes.barh(places, np.maximum(totals, 0.5), color=BLUE, height=0.7)
    for place, total in enumerate(totals):
        axes.text(max(total, 0.5) * 1.05, place, str(total), va="center", fontsize=8)
    axes.set_yticks(places, stages, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(totals) * 3 + 1)
    axes.set_xlabel(f"candidates, {len(story.rounds)} rounds")
    return figure


def _densities(story: CampaignStory) -> "Figure | None":
    shown = story.rounds if len(story.rounds) <= MAX_ROUNDS_SHOWN else (story.rounds[0], *story.rounds[-5:])
    if not any(one.predicted_gaps for one in shown):
        return None
    figure, axes = _new(3, (12.0, 3.6))
    parts: list[tuple[str, str, list[Sequence[float]]]] = [
        ("band_gap", "predicted band gap (eV)", [one.predicted_gaps for one in shown]),
        (
            "formation_energy_per_atom",
            "predicted formation energy (eV/atom)",
            [one.predicted_energies for one in shown],
        ),
        ("space_group_number", "space group", [one.space_groups for one in shown]),
    ]
    for one, (field_name, label, columns) in zip(axes, parts, strict=True):
        everything = np.concatenate([np.asarray(column, dtype=float) for column in columns])
        edges = np.histogram_bin_edges(everything, bins=BINS).tolist()
        for number, column in zip((each.number for each in shown), columns, strict=True):
            shade = 0.25 + 0.75 * number / max(each.number for each in shown)
            one.hist(
                column, bins=edges, density=True, histtype="step", color=BLUE, alpha=shade, label=f"round {number}"
            )
        low, high = shown_range(story.target, field_name)
        if low is not None or high is not None:
            left, right = one.get_xlim()
            one.axvspan(left if low is None else low, right if high is None else high, color=ORANGE, alpha=0.12, lw=0)
            one.set_xlim(left, right)
        one.set(xlabel=label, ylabel="density", yticks=[])
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _parity(story: CampaignStory) -> "Figure | None":
    panels: list[tuple[str, str, Sequence[Pair]]] = [
        ("formation energy, force field", "eV/atom", story.energies),
        ("formation energy, DFT", "eV/atom", story.dft_energies),
        ("band gap, DFT", "eV", story.gaps),
    ]
    if not any(pairs for _, _, pairs in panels):
        return None
    figure, axes = _new(3, (12.0, 4.0))
    for one, (label, unit, pairs) in zip(axes, panels, strict=True):
        one.set(xlabel=f"calculated ({unit})", ylabel=f"predicted ({unit})", title=label)
        if not pairs:
            one.text(0.5, 0.5, "none calculated", ha="center", transform=one.transAxes, color=GREY)
            continue
        calculated = [pair.calculated for pair in pairs]
        predicted = [pair.predicted for pair in pairs]
        one.errorbar(
            calculated,
            predicted,
            yerr=[pair.std for pair in pairs],
            fmt="o",
            ms=3,
            color=BLUE,
            ecolor=GREY,
            elinewidth=0.5,
        )
        ends = min(calculated + predicted) - 0.1, max(calculated + predicted) + 0.1
        one.plot(ends, ends, color=GREY, linestyle="--", linewidth=0.8)
        one.set(xlim=ends, ylim=ends, aspect="equal")
        error = mean_error(pairs)
        one.text(
            0.04,
            0.96,
            f"n = {len(pairs)}\nmean error {error:.3f} {unit}",
            va="top",
            transform=one.transAxes,
            fontsize=8,
        )
    return figure


def _stability(story: CampaignStory) -> "Figure | None":
    distances = [one.energy_above_hull for one in story.materials if one.energy_above_hull is not None]
    if not distances:
        return None
    figure, (left, right) = _new(2, (9.0, 3.6))
    clipped = np.clip(distances, *HULL_RANGE)
    left.hist(clipped, bins=np.linspace(*HULL_RANGE, 25).tolist(), color=BLUE)
    left.axvline(story.hull_cutoff, color=ORANGE, linestyle="--", label=f"cutoff {story.hull_cutoff:g} eV/atom")
    left.set(xlabel="energy above hull (eV/atom)", ylabel="materials")
    left.legend(frameon=False, fontsize=8)
    frequencies = [one.lowest_optical_frequency for one in story.materials if one.lowest_optical_frequency is not None]
    right.set(xlabel="lowest optical frequency at Γ (THz)", ylabel="materials")
    if frequencies:
        right.hist(frequencies, bins=25, color=GREEN)
        right.axvline(0.0, color=ORANGE, linestyle="--")
    else:
        right.text(0.5, 0.5, "none calculated", ha="center", transform=right.transAxes, color=GREY)
    return figure


def _learned(story: CampaignStory) -> "Figure | None":
    if not story.rounds:
        return None
    figure, (left, right) = _new(2, (9.0, 3.6))
    numbers = [one.number for one in story.rounds]
    errors = [(number, error) for number in numbers if (error := mean_error(story.energies, number)) is not None]
    if errors:
        left.plot(*zip(*errors, strict=True), marker="o", color=BLUE)
    left.set(xlabel="round", ylabel="mean error of predicted\nformation energy (eV/atom)", ylim=(0, None))
    right.plot(
        numbers, np.cumsum([one.n_validated for one in story.rounds]), marker="o", color=BLUE, label="near the hull"
    )
    right.plot(
        numbers, np.cumsum([one.n_on_target for one in story.rounds]), marker="s", color=ORANGE, label="on target"
    )
    right.set(xlabel="round", ylabel="materials found so far", ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    return figure
