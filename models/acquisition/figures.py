"""The discovery curves of simulated campaigns: found against requests, by strategy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wyloop.models.acquisition.simulation import Discovery
from wyloop.models.errors import CampaignError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito's palette, told apart with any colour vision
GREY = "#777777"
SUFFIXES = (".png", ".svg", ".pdf")


def draw_discovery(discoveries: Mapping[str, Sequence[Discovery]], path: Path, *, title: str) -> None:
    """Draw the mean over the seeds, the range over them shaded, with random requests and an oracle beside.

    Args:
        discoveries: By strategy, one a seed, all of one plan.
        path: File to write; its ending says the format.
        title: What is looked for.

    Raises:
        CampaignError: Another ending, or nothing to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # lazy: half a second

    if path.suffix not in SUFFIXES:
        raise CampaignError(f"figure {path.name}; expected a name that ends in {', '.join(SUFFIXES)}")
    every = [one for found in discoveries.values() for one in found if one.found]
    if not every:
        raise CampaignError("no request was made in any simulation; expected at least one to draw")
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    n_requests = max(len(one.found) for one in every)
    requests = np.arange(n_requests + 1)
    for (name, found), colour in zip(discoveries.items(), COLOURS * len(discoveries), strict=False):
        curves = np.array([_extended(one, n_requests) for one in found if one.found])
        factor = np.mean([one.acceleration_factor for one in found])
        axes.fill_between(requests, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.18, linewidth=0)
        axes.plot(requests, curves.mean(axis=0), color=colour, label=f"{name}: {factor:.1f} times random")
    n_on_target = float(np.mean([one.n_on_target for one in every]))
    base_rate = float(np.mean([one.base_rate for one in every]))
    axes.plot(requests, np.minimum(requests, n_on_target), color=GREY, linestyle=":", label="oracle")
    axes.plot(requests, requests * base_rate, color=GREY, linestyle="--", label="random, expected")
    axes.set(xlabel="requests", ylabel="crystals on target found", xlim=(0, n_requests), ylim=(0, n_on_target * 1.05))
    axes.set_title(title, fontsize=8)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.07))
    axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.hashsalt": "wyloop"}):  # the same figure every time
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _extended(one: Discovery, n_requests: int) -> list[int]:
    """Return the curve from zero, at its last value where the hidden crystals ran out."""
    return [0, *one.found, *[one.n_found] * (n_requests - len(one.found))]
