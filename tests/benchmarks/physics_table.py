"""The table of validate_physics.py: what was computed beside the literature, with a verdict where a must is set."""

import json
from pathlib import Path
from typing import Any

LITERATURE = json.loads(Path(__file__).with_name("physics_literature.json").read_text(encoding="utf-8"))
CRYSTALS: dict[str, dict[str, Any]] = LITERATURE["crystals"]
COLUMNS = ("crystal", "type", "quantity", "GPAW", "CHGNet", "literature", "source", "must")
UNITS = {"a": "Å", "c": "Å", "formation_energy": "eV/atom", "gap": "eV", "direct_gap": "eV", "optical": "THz"}
MUST = {"a": 0.01, "c": 0.01, "gap": 0.15, "direct_gap": 0.15, "formation_energy": 0.25, "optical": 0.05}
RELATIVE = ("a", "c", "optical")
OPTICAL_MUST = ("Si", "GaAs")
NOT_COMPUTED = "not computed"
ALWAYS = ("formation_energy", "optical")
"""Shown of every crystal, whether the literature has it or not."""


def rows_of(name: str, found: dict[str, Any], references: dict[str, float]) -> list[dict[str, str]]:
    """Return the rows of one crystal.

    Args:
        name: Of the crystal in physics_literature.json.
        found: What was computed of it, or `error`.
        references: Energies of the elements by the same DFT settings, eV/atom.
    """
    known = CRYSTALS[name]
    if "error" in found:
        verdict = "" if found["error"] == NOT_COMPUTED else "missed"
        told = {"crystal": name, "type": known["type"], "quantity": found["error"], "must": verdict}
        return [dict.fromkeys(COLUMNS, "") | told]
    ours, cheap = dict(found["gpaw"]), found["chgnet"]
    ours["formation_energy"] = _formation_energy(ours, references)
    rows = [
        _row(name, quantity, ours.get(quantity), cheap.get(quantity), known.get(quantity))
        for quantity in UNITS
        if quantity in known or quantity in ALWAYS
    ]
    words = {True: "stable", False: "unstable", None: "-"}
    wanted = known.get("is_stable")
    verdict = "" if wanted is None else ("met" if ours["is_stable"] == wanted else "missed")
    cells = (words[ours["is_stable"]], words[cheap["is_stable"]], words[wanted], "", verdict)
    rows.append(dict(zip(COLUMNS, (name, known["type"], "phonons at Gamma", *cells), strict=True)))
    return rows


def _formation_energy(ours: dict[str, Any], references: dict[str, float]) -> float | None:
    amounts: dict[str, int] = ours["amounts"]
    if not amounts.keys() <= references.keys():
        return None
    from_elements = sum(n * references[element] for element, n in amounts.items()) / sum(amounts.values())
    return float(ours["energy_per_atom"]) - from_elements


def _row(name: str, quantity: str, ours: float | None, cheap: float | None, entry: list[Any] | None) -> dict[str, str]:
    known = CRYSTALS[name]
    value, source = ("-", "") if entry is None else (f"{entry[0]:g}", entry[1] + "".join(entry[2:]))
    label = f"{quantity.replace('_', ' ')}, {UNITS[quantity]}"
    if quantity == "direct_gap":
        label += f", at a = {known['direct_gap_at']} Å"
    texts = ["-" if one is None else f"{one:.3f}" for one in (ours, cheap)]
    verdict = "" if entry is None else _verdict(name, quantity, ours, entry)
    return dict(zip(COLUMNS, (name, known["type"], label, *texts, value, source, verdict), strict=True))


def _verdict(name: str, quantity: str, ours: float | None, entry: list[Any]) -> str:
    is_oxide = "O" in {element.partition(":")[0] for element in CRYSTALS[name]["gene"].split()[1:]}
    if quantity == "optical" and (name not in OPTICAL_MUST or entry[1] == "measured"):
        return ""
    if quantity == "formation_energy" and not is_oxide:
        return ""
    if ours is None:
        return "missed"
    error = abs(ours - entry[0]) / (abs(entry[0]) if quantity in RELATIVE else 1.0)
    return "met" if error <= MUST[quantity] else "missed"


def print_rows(rows: list[dict[str, str]]) -> None:
    """Print aligned columns."""
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in COLUMNS}
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        print("  ".join(row[name].ljust(widths[name]) for name in COLUMNS).rstrip())


def page(rows: list[dict[str, str]], costs: list[list[str]], remarks: list[str]) -> str:
    """Return the page of the documentation.

    Args:
        rows: Of all crystals.
        costs: Name, core-seconds, wall seconds of every task, the heading first.
        remarks: Sentences on the run.
    """
    verdicts = [row["must"] for row in rows if row["must"]]
    lines = ["# Physics beside the literature", "", "Made by `make validate-physics`. " + LITERATURE["note"], ""]
    missing = [row["crystal"] for row in rows if row["quantity"] == NOT_COMPUTED]
    told = f"{verdicts.count('met')} of {len(verdicts)} musts are met."
    told += f" Not computed yet: {', '.join(missing)}." if missing else ""
    lines += [" ".join([told, *remarks]), ""]
    lines += _table([list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)])
    lines += ["", "## Sources", "", *(f"- {key}: {text}" for key, text in LITERATURE["sources"].items())]
    lines += ["", "## Cost", "", *_table(costs)]
    return "\n".join(lines) + "\n"


def _table(cells: list[list[str]]) -> list[str]:
    head, *body = cells
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
