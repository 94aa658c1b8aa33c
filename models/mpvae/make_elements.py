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
    "melting_point": lambda element: element.melting_point,
    "log_molar_volume": lambda element: log(element.molar_volume),
    "van_der_waals_radius": lambda element: element.van_der_waals_radius,
    "log_bulk_modulus": lambda element: log(element.bulk_modulus),
    "log_thermal_conductivity": lambda element: log(element.thermal_conductivity),
    "highest_level": lambda element: level(element, "spdf"),
    "s_level": lambda element: level(element, "s"),
    "p_level": lambda element: level(element, "p"),
    "d_level": lambda element: level(element, "d"),
    "n_valence": lambda element: n_valence(element),
    "n_unfilled": lambda element: n_unfilled(element),
    "highest_common_charge": lambda element: max(element.common_oxidation_states, default=0),
    "lowest_common_charge": lambda element: min(element.common_oxidation_states, default=0),
    "n_common_charges": lambda element: len(element.common_oxidation_states),
}


def log(value: float | None) -> float | None:
    """Natural logarithm; None stays."""
    return math.log(float(value)) if value else None


def outer_shells(element: Element) -> list[tuple[int, str, int]]:
    """Main quantum number, orbital kind and electrons of each shell beyond the noble-gas core."""
    core = [2, 10, 18, 36, 54, 86]
    n_left, shells = element.Z - max([z for z in core if z < element.Z], default=0), []
    for n, kind, count in reversed(element.full_electronic_structure):
        if n_left <= 0:
            break
        shells.append((n, kind, count))
        n_left -= count
    return shells


def outer_electrons(element: Element, orbital: str) -> int:
    """Electrons in the outer shells of one orbital kind."""
    return sum(count for _, kind, count in outer_shells(element) if kind == orbital)


def level(element: Element, orbitals: str) -> float | None:
    """Energy of the highest outer shell of some orbital kinds in the free atom (LDA, NIST), Hartree."""
    energies = element.data.get("Atomic orbitals")
    if not isinstance(energies, dict):
        return None
    found = [energies.get(f"{n}{kind}") for n, kind, _ in outer_shells(element) if kind in orbitals]
    return max((energy for energy in found if energy is not None), default=None)


def n_valence(element: Element) -> int:
    """Valence electrons: outer s, p and d; three for lanthanoids and actinoids."""
    if element.is_lanthanoid or element.is_actinoid:
        return 3
    return sum(outer_electrons(element, orbital) for orbital in "spd")


def n_unfilled(element: Element) -> int:
    """Electrons that a main-group element lacks for a full shell."""
    if element.Z == 1:
        return 1
    return max(0, 8 - outer_electrons(element, "s") - outer_electrons(element, "p")) if element.group >= 13 else 0


def electrons(element: Element) -> list[int]:
    """Lowest and highest cation charge, anion charge (0: none), odd atomic number or not, valence electrons."""
    common, every = element.common_oxidation_states, element.oxidation_states
    cations = [q for q in common if q > 0] or [q for q in every if q > 0]
    anions = [q for q in common if q < 0] or [q for q in every if q < 0]
    return [
        min(cations, default=0),
        max(cations, default=0),
        min(anions, default=0),
        element.Z % 2,
        n_valence(element),
    ]


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
        "electrons": {elements[i].symbol: electrons(elements[i]) for i in order},
    }
    (HERE / "elements.json").write_text(json.dumps(table, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
