"""Band structure beside the density of states, as Plotly takes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.platform.dashboard.charts import BLUE, GREY, ORANGE, Figure

WINDOW = 6.0  # eV below and above the Fermi level
MAX_BANDS = 80  # of a spin


def bands_figure(arrays: Mapping[str, NDArray[np.float64]], labels: Sequence[str]) -> Figure:
    """Return the figure.

    Args:
        arrays: What a bands calculation keeps: `path_lengths` (Å^-1), `path_eigenvalues` (eV; spin, k-point, band),
            `label_places`, `levels` (Fermi level first), `dos_energies` (eV from the Fermi level), `dos`.
        labels: Names of the points of high symmetry.
    """
    lengths = arrays["path_lengths"]
    energies = arrays["path_eigenvalues"] - float(arrays["levels"][0])
    jumps = np.nonzero(np.diff(lengths) == 0)[0] + 1
    parts = np.split(np.arange(len(lengths)), jumps)
    data: list[dict[str, Any]] = []
    for spin, colour in zip(range(energies.shape[0]), (BLUE, ORANGE), strict=False):
        shown = [band for band in range(energies.shape[2]) if np.abs(energies[spin, :, band]).min() < WINDOW]
        x: list[float | None] = []
        y: list[float | None] = []
        for band in shown[:MAX_BANDS]:
            for part in parts:  # a line ends where the path jumps
                x += [*np.round(lengths[part], 4).tolist(), None]
                y += [*np.round(energies[spin, part, band], 4).tolist(), None]
        name = "bands" if energies.shape[0] == 1 else f"bands, spin {'up' if spin == 0 else 'down'}"
        data.append(
            {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": {"color": colour, "width": 1.5}}
        )
    within = np.abs(arrays["dos_energies"]) <= WINDOW
    data.append(
        {
            "type": "scatter", "mode": "lines", "fill": "tozerox", "name": "density of states",
            "x": np.round(np.atleast_2d(arrays["dos"]).sum(axis=0)[within], 4).tolist(),
            "y": np.round(arrays["dos_energies"][within], 4).tolist(),
            "xaxis": "x2", "yaxis": "y", "line": {"color": GREY, "width": 1.5},
        }
    )  # fmt: skip
    named = _named(lengths, arrays["label_places"], labels)
    places = list(named)
    lines = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": GREY, "width": 0.7}}
        for at in places
    ]
    layout = {
        "xaxis": {"domain": [0, 0.72], "tickvals": places, "ticktext": list(named.values()), "zeroline": False},
        "xaxis2": {"domain": [0.76, 1], "title": {"text": "states per eV"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "energy from the Fermi level, eV"}, "range": [-WINDOW, WINDOW], "zeroline": True},
        "shapes": lines, "margin": {"l": 60, "r": 16, "t": 16, "b": 48}, "showlegend": energies.shape[0] > 1,
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _named(lengths: NDArray[np.float64], places: NDArray[np.float64], labels: Sequence[str]) -> dict[float, str]:
    """Return the points of high symmetry by their place; where the path jumps, both names stand at one place."""
    named: dict[float, str] = {}
    for place, label in zip(places, labels, strict=False):
        at, name = float(lengths[int(place)]), "Γ" if label.upper() in ("GAMMA", "G") else label
        named[at] = f"{named[at]}|{name}" if at in named and named[at] != name else name
    return named
