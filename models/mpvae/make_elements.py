"""Write elements.json, elemental descriptors from pymatgen's periodic table: `python models/mpvae/make_elements.py`."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

from pymatgen.core.periodic_table import Element

HERE = Path(__file__).parent
LAST_ATOMIC_NUMBER = 103
DESCRIPTORS: dict[str, Callable[[Element], float | None]] = {
    "electronegativity": lambda element: element.X,
    "row": lambda element: element.row,
    "group": lambda element: 3 if element.is_lanthanoid or element.is_actinoid else element.group,
    "mendeleev_number": lambda element: element.data["Mendeleev no"],
    "atomic_radius": lambda element: element.atomic_radius,
    "ionic_radius": lambda element: element.average_ionic_radius or math.nan,
    "ionization_energy": lambda element: element.ionization_energy,
    "electron_affinity": lambda element: element.electron_affinity,
    "log_mass": lambda element: math.log(float(element.atomic_mass)),
    "max_oxidation_state": lambda element: element.max_oxidation_state,
    "min_oxidation_state": lambda element: element.min_oxidation_state,
    "n_s": lambda element: outer_electrons(element, "s"),
    "n_p": lambda element: outer_electrons(element, "p"),
    "n_d": lambda element: outer_electrons(element, "d"),
    "n_f": lambda element: outer_electrons(element, "f"),
    "is_metal": lambda element: float(element.is_metal),
}


def outer_electrons(element: Element, orbital: str) -> int:
    """Electrons in the highest occupied shell of one orbital kind beyond the noble-gas core."""
    core = [2, 10, 18, 36, 54, 86]
    below = max([z for z in core if z < element.Z], default=0)
    n_left, shells = element.Z - below, []
    for n, kind, count in reversed(element.full_electronic_structure):
        if n_left <= 0:
            break
        shells.append((n, kind, count))
        n_left -= count
    return sum(count for _, kind, count in shells if kind == orbital)


def main() -> None:
    """Collect the descriptors, fill what is unknown with the mean, scale to mean 0 and variance 1."""
    warnings.simplefilter("ignore")  # pymatgen warns once for every unknown value
    elements = [Element.from_Z(z) for z in range(1, LAST_ATOMIC_NUMBER + 1)]
    columns: dict[str, list[float]] = {}
    for name, describe in DESCRIPTORS.items():
        found = [describe(element) for element in elements]
        values = [math.nan if value is None else float(value) for value in found]
        known = [value for value in values if not math.isnan(value)]
        mean = sum(known) / len(known)
        std = math.sqrt(sum((value - mean) ** 2 for value in known) / len(known))
        columns[name] = [0.0 if math.isnan(value) else round((value - mean) / std, 4) for value in values]
        print(f"{name:22} mean {mean:10.4f} std {std:9.4f} unknown {len(values) - len(known)}")

    def electropositive_first(index: int) -> tuple[float, int]:
        value = elements[index].X
        return (5.0 if math.isnan(value) else value, index)  # noble gases last

    order = sorted(range(len(elements)), key=electropositive_first)
    table = {
        "descriptors": list(columns),
        "elements": {elements[i].symbol: [column[i] for column in columns.values()] for i in order},
    }
    (HERE / "elements.json").write_text(json.dumps(table, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
