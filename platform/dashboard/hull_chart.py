"""The convex hull of a chemical system as a figure: a line for two elements, a triangle for three."""

from itertools import combinations
from typing import Any

from wyloop.platform.dashboard.charts import BLUE, GREY, ORANGE, Figure, figure
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

MAX_ENTRIES = 1000
ON_HULL = 1e-6  # eV/atom


@translated
def hull_entries(store: Store, hull_id: str) -> list[dict[str, Any]]:
    """Return the materials of a hull's chemical system and its subsystems by the same method.

    Each has `identity`, `formula_pretty`, `fractions` by element, `formation_energy_per_atom` and
    `energy_above_hull` (eV/atom) of its own system's hull.
    """
    chemsys, _, method = hull_id.partition("|")
    elements = chemsys.split("-")
    systems = ["-".join(some) for n in range(1, len(elements) + 1) for some in combinations(elements, n)]
    wanted = {"hull_id": {"$in": [f"{system}|{method}" for system in systems[:256]]}}
    fields = {"_id": 0, "chemsys": 1, "entries": {"$slice": MAX_ENTRIES}}
    found = []
    for hull in store.database["hulls"].find(wanted, fields).sort("hull_id", 1).max_time_ms(2000):
        symbols = hull["chemsys"].split("-")
        for entry in hull.get("entries") or ():
            total = sum(entry["amounts"]) or 1.0
            shares = dict(zip(symbols, (amount / total for amount in entry["amounts"]), strict=True))
            kept = ("identity", "formula_pretty", "formation_energy_per_atom", "energy_above_hull")
            found.append({name: entry[name] for name in kept} | {"fractions": shares})
    return found[:MAX_ENTRIES]


def hull_figure(entries: list[dict[str, Any]], chemsys: str, shown: str) -> Figure | None:
    """Return the figure, or None where there is none: one element, or more than three.

    Args:
        entries: What `hull_entries` returned.
        chemsys: The chemical system.
        shown: Identity of the material that stands out.
    """
    elements = chemsys.split("-")
    if len(elements) == 2:
        return _line(entries, elements, shown)
    return _triangle(entries, elements, shown) if len(elements) == 3 else None


def _line(entries: list[dict[str, Any]], elements: list[str], shown: str) -> Figure:
    second = elements[1]
    stable = [one for one in entries if one["energy_above_hull"] <= ON_HULL and one["formation_energy_per_atom"] < 0]
    corners = {0.0: 0.0, 1.0: 0.0}
    for one in stable:
        place = one["fractions"].get(second, 0.0)
        corners[place] = min(corners.get(place, 0.0), one["formation_energy_per_atom"])
    line = sorted(corners.items())
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "x": [x for x, _ in line], "y": [y for _, y in line], "name": "hull",
            "line": {"color": GREY}, "hoverinfo": "skip",
        }
    ]  # fmt: skip
    for name, chosen, colour, size in _groups(entries, shown):
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name,
                "x": [one["fractions"].get(second, 0.0) for one in chosen],
                "y": [one["formation_energy_per_atom"] for one in chosen],
                "text": [_told(one) for one in chosen],
                "customdata": [f"/materials/{one['identity']}" for one in chosen],
                "hovertemplate": "%{text}", "marker": {"color": colour, "size": size},
            }
        )  # fmt: skip
    axis = {"range": [-0.03, 1.03]}
    return figure(data, f"share of {second} in {elements[0]}-{second}", "formation energy, eV/atom", xaxis=axis)


def _triangle(entries: list[dict[str, Any]], elements: list[str], shown: str) -> Figure:
    data = [
        {
            "type": "scatterternary", "mode": "markers", "name": name,
            "a": [one["fractions"].get(elements[0], 0.0) for one in chosen],
            "b": [one["fractions"].get(elements[1], 0.0) for one in chosen],
            "c": [one["fractions"].get(elements[2], 0.0) for one in chosen],
            "text": [_told(one) for one in chosen],
            "customdata": [f"/materials/{one['identity']}" for one in chosen],
            "hovertemplate": "%{text}", "marker": {"color": colour, "size": size},
        }
        for name, chosen, colour, size in _groups(entries, shown)
    ]  # fmt: skip
    axes = {f"{side}axis": {"title": {"text": symbol}} for side, symbol in zip("abc", elements, strict=True)}
    return {"data": data, "layout": {"ternary": {"sum": 1} | axes, "margin": {"l": 40, "r": 40, "t": 40, "b": 40}}}


def _groups(entries: list[dict[str, Any]], shown: str) -> list[tuple[str, list[dict[str, Any]], str, int]]:
    others = [one for one in entries if one["identity"] != shown]
    return [
        ("above the hull", [one for one in others if one["energy_above_hull"] > ON_HULL], GREY, 7),
        ("on the hull", [one for one in others if one["energy_above_hull"] <= ON_HULL], BLUE, 9),
        ("this material", [one for one in entries if one["identity"] == shown], ORANGE, 14),
    ]


def _told(entry: dict[str, Any]) -> str:
    return (
        f"{entry['formula_pretty']}<br>{entry['formation_energy_per_atom']:.3f} eV/atom<br>"
        f"{entry['energy_above_hull']:.3f} eV/atom above its own system's hull"
    )
