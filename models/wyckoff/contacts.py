"""How near two elements come in known crystals; the numbers are in contacts.json, written by make_contacts.py."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from pymatgen.core.periodic_table import Element

HERE = Path(__file__).parent
UNKNOWN_RADIUS = 1.5  # Å, of an element that the table has never seen
SHORTEST_CONTACT = 0.7  # Å; keeps the fit of radii from contacts below any bond


@cache
def contact_distance(first: str, second: str) -> float:
    """Return the distance at which two elements usually touch, Å; a fit of radii where they never meet.

    Source: Schomaker and Stevenson, doi:10.1021/ja01869a010, for the form of the fit.
    """
    table = _table()
    known = table["pairs"].get("-".join(sorted((first, second))))
    if known is not None:
        return float(known)
    radii = [table["radii"].get(element, UNKNOWN_RADIUS) for element in (first, second)]
    fitted = sum(radii) - table["electronegativity_slope"] * polarity(first, second)
    return float(max(fitted, SHORTEST_CONTACT))


def polarity(first: str, second: str) -> float:
    """Return the difference of Pauling's electronegativities; zero if one of the elements has none."""
    # Element.X would warn and give NaN for those without one.
    values = [Element(element).data.get("X") for element in (first, second)]
    numbers = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return abs(numbers[0] - numbers[1]) if len(numbers) == 2 else 0.0


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((HERE / "contacts.json").read_text())
    return table
