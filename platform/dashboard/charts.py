"""Figures as Plotly takes them: plain data and layout, without colours of text and background, which the page sets."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from wyloop.platform.dashboard.learning import Compared, Learnt

Figure = dict[str, Any]
BLUE, ORANGE, GREEN, GREY, SKY = "#0072b2", "#d55e00", "#009e73", "#8a8f98", "#56b4e9"
"""Of Okabe and Ito's palette, told apart with any colour vision."""
SCALE = "Viridis"
MAX_LABEL = 60
ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}


def figure(data: Sequence[Mapping[str, Any]], x: str, y: str, **layout: Any) -> Figure:  # noqa: ANN401 - Plotly's own
    """Return a figure with titled axes."""
    axes = {"xaxis": {"title": {"text": x}, "zeroline": False}, "yaxis": {"title": {"text": y}, "zeroline": False}}
    for name in ("xaxis", "yaxis"):
        axes[name] |= layout.pop(name, {})
    return {"data": list(data), "layout": axes | {"margin": {"l": 60, "r": 16, "t": 16, "b": 48}} | layout}


def parity(points: Sequence[Compared], what: str) -> Figure:
    """Return predicted against calculated: `what` is energy or gap."""
    is_energy = what == "energy"
    shown = [point for point in points if (point.energy if is_energy else point.band_gap) is not None]
    truth = [point.energy if is_energy else point.band_gap for point in shown]
    guess = [point.predicted_energy if is_energy else point.predicted_gap for point in shown]
    spread = [point.predicted_energy_std if is_energy else point.predicted_gap_std for point in shown]
    unit = "eV/atom" if is_energy else "eV"
    name = "formation energy" if is_energy else "band gap"
    ends = [*truth, *guess] or [0.0, 1.0]
    low, high = min(ends, default=0.0), max(ends, default=1.0)  # type: ignore[type-var]  # None is left out above
    equal: dict[str, Any] = {
        "type": "scatter", "mode": "lines", "x": [low, high], "y": [low, high], "hoverinfo": "skip",
        "line": {"color": GREY, "dash": "dot"}, "name": "equal",
    }  # fmt: skip
    data = [equal] if shown else []
    for number in sorted({point.round_number for point in shown}):
        own = [place for place, point in enumerate(shown) if point.round_number == number]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"round {number}",
                "x": [truth[place] for place in own],
                "y": [guess[place] for place in own],
                "error_y": {"type": "data", "array": [spread[place] for place in own], "thickness": 1, "width": 0},
                "text": [shown[place].formula_pretty for place in own],
                "customdata": [f"/candidates/{shown[place].candidate_id}" for place in own],
                "hovertemplate": f"%{{text}}<br>calculated %{{x:.2f}} {unit}<br>predicted %{{y:.2f}} {unit}",
                "marker": {"size": 8, "opacity": 0.8},
            }
        )
    return figure(data, f"calculated {name}, {unit}", f"predicted {name}, {unit}", legend=ABOVE)


def learning(curve: Sequence[Learnt]) -> Figure:
    """Return the errors of the predictions over the rounds."""
    rounds = [one.round_number for one in curve]
    lines: list[tuple[str, list[float | None], str, str]] = [
        ("formation energy, eV/atom", [one.energy_mae for one in curve], BLUE, "solid"),
        ("formation energy, held out, eV/atom", [one.validation_mae for one in curve], SKY, "dash"),
        ("band gap, eV", [one.gap_mae for one in curve], ORANGE, "solid"),
    ]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers", "x": rounds, "y": values, "name": name,
            "line": {"color": colour, "dash": dash},
        }
        for name, values, colour, dash in lines
        if any(value is not None for value in values)
    ]  # fmt: skip
    return figure(
        data, "round", "mean absolute error", xaxis=_rounds(rounds), yaxis={"rangemode": "tozero"}, legend=ABOVE
    )


def found(curve: Sequence[Learnt]) -> Figure:
    """Return how many materials were computed in each round, and how many of all so far are on target."""
    rounds = [one.round_number for one in curve]
    hits = [one.n_on_target for one in curve]
    data = [
        {"type": "bar", "x": rounds, "y": [one.n_materials for one in curve], "name": "computed",
         "marker": {"color": GREY}},
        {"type": "bar", "x": rounds, "y": hits, "name": "on target", "marker": {"color": GREEN}},
        {"type": "scatter", "mode": "lines+markers", "x": rounds, "y": list(accumulate(hits)),
         "name": "on target, all rounds so far", "line": {"color": ORANGE}},
    ]  # fmt: skip
    return figure(data, "round", "materials", xaxis=_rounds(rounds), yaxis={"rangemode": "tozero"}, legend=ABOVE)


def _rounds(rounds: Sequence[int]) -> dict[str, Any]:
    return {"dtick": 1} if len(rounds) < 12 else {}


def gamma(frequencies: Sequence[float], tolerance: float | None) -> Figure:
    """Return the frequencies at Gamma as sticks, THz; imaginary ones are negative."""
    x: list[float | None] = []
    y: list[float | None] = []
    for value in frequencies:
        x += [value, value, None]
        y += [0.0, 1.0, None]
    data = [{"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": BLUE, "width": 2}, "name": "modes"}]
    shapes = []
    if tolerance is not None:
        shapes.append(
            {"type": "rect", "x0": -abs(tolerance), "x1": abs(tolerance), "y0": 0, "y1": 1, "opacity": 0.15,
             "fillcolor": GREY, "line": {"width": 0}}
        )  # fmt: skip
    margin = 0.05 * (max(frequencies, default=1.0) - min(0.0, *frequencies)) + (tolerance or 0.1)
    axis = {"range": [min(0.0, *frequencies) - margin, max(frequencies, default=1.0) + margin]}
    title = "frequency at Gamma, THz (imaginary: negative)"
    return figure(data, title, "", xaxis=axis, yaxis={"visible": False}, shapes=shapes)


def history(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Return each number of a training's history over its epochs."""
    names = sorted({name for one in epochs for name, value in one.items() if isinstance(value, float)})
    data = [
        {
            "type": "scatter", "mode": "lines", "name": name.replace("_", " "),
            "x": [one.get("epoch", place + 1) for place, one in enumerate(epochs)],
            "y": [one.get(name) for one in epochs],
        }
        for name in names
    ]  # fmt: skip
    values = [value for one in data for value in one["y"] if value is not None]
    scale = {"type": "log"} if values and min(values) > 0 else {}  # they differ by orders of magnitude
    return figure(data, "epoch", "mean loss", yaxis=scale, legend=ABOVE)


def scatter_map(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, colour: str, titles: Mapping[str, str], own: frozenset[str]
) -> Figure:
    """Return a map of materials by two properties, coloured by a third; those found by campaigns stand out.

    Args:
        rows: Materials: `material_id`, `formula_pretty` and the properties.
        x: Property of the horizontal axis.
        y: Property of the vertical axis.
        colour: Property that colours.
        titles: Property to its name with unit.
        own: Identities of the materials that campaigns found.
    """
    data = []
    for name, is_own in (("known", False), ("found by campaigns", True)):
        shown = [row for row in rows if (row["material_id"] in own) is is_own and None not in (row.get(x), row.get(y))]
        marker: dict[str, Any] = {"size": 10 if is_own else 5, "opacity": 1.0 if is_own else 0.55}
        if is_own:
            marker |= {"symbol": "diamond", "color": ORANGE, "line": {"width": 1, "color": "#ffffff"}}
        else:
            marker |= {"color": [row.get(colour) for row in shown], "colorscale": SCALE, "showscale": bool(shown),
                       "colorbar": {"title": {"text": titles[colour], "side": "right"}, "thickness": 12}}  # fmt: skip
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "marker": marker,
                "x": [row[x] for row in shown], "y": [row[y] for row in shown],
                "text": [row["formula_pretty"] for row in shown],
                "customdata": [f"/materials/{row['material_id']}" for row in shown],
                "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.3g}",
            }
        )  # fmt: skip
    return figure(data, titles[x], titles[y], legend=ABOVE)
