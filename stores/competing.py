"""Competing phases for the screens: every crystal within some elements, as structures and materials have them."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from wyloop.models.screening.hull import Entry
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

_BATCH = 2000
_ENTRY_FIELDS = {
    "_id": 0,
    "structure_id": 1,
    "material_id": 1,
    "chemsys": 1,
    "formation_energy_per_atom": 1,
    "species": 1,
    "crystal.species": 1,
}


@translated
def hull_entries(store: Store, chemsys: Iterable[str]) -> dict[str, list[Entry]]:
    """Return each chemical system's competing phases for a screen: every crystal of its elements with an energy.

    The energies are of every method, as the labels are that a model predicts from; a hull document holds one method's.
    """
    wanted = sorted(set(chemsys))
    within = sorted({subset for name in wanted for subset in subsystems(name)})
    found: dict[str, list[Entry]] = defaultdict(list)
    # of the materials only those that no structure of the database stands for
    conditions: dict[str, dict[str, Any]] = {"structures": {}, "materials": {"structure_ids": []}}
    for collection, condition in conditions.items():
        for start in range(0, len(within), _BATCH):
            batch = within[start : start + _BATCH]
            criteria = {"chemsys": {"$in": batch}, "formation_energy_per_atom": {"$type": "number"}, **condition}
            for row in store.database[collection].find(criteria, _ENTRY_FIELDS):
                species = row["crystal"]["species"] if "crystal" in row else row["species"]
                identity = row["material_id"] if "crystal" in row else row["structure_id"]
                amounts = {element: species.count(element) for element in sorted(set(species))}
                found[row["chemsys"]].append(Entry(amounts, row["formation_energy_per_atom"], identity))
    return {
        name: sorted(
            (entry for subset in subsystems(name) for entry in found.get(subset, ())), key=lambda entry: entry.identity
        )
        for name in wanted
    }


def subsystems(chemsys: str) -> list[str]:
    """Return the chemical systems within a system's elements, itself last."""
    elements = chemsys.split("-")
    return ["-".join(chosen) for n in range(1, len(elements) + 1) for chosen in combinations(elements, n)]
