"""Formation energies of ingested calculations, wherever the elements were calculated with the same method too."""

from collections.abc import Iterable, Mapping
from typing import Any

from pymongo import UpdateOne

from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked_update
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.failures import translated

BATCH_SIZE = 1000


@translated
def relate_energies(store: Store, functionals: Iterable[str]) -> int:
    """Fill in formation energies that the references in the database allow, and take back those that they don't.

    The reference of an element is its lowest energy per atom with the same functional and settings.

    Args:
        store: The database.
        functionals: Names of functional and settings, as `StructureDocument.functional` has them.

    Returns:
        Number of structures that were changed.
    """
    structures = store.database["structures"]
    operations: list[UpdateOne] = []
    n_changed = 0
    for functional in sorted(set(functionals)):
        wanted = {"functional": {"$eq": functional}, "energy_per_atom": {"$type": "number"}}
        references = {
            row["_id"]: row["energy"]
            for row in structures.aggregate(
                [
                    {"$match": wanted | {"nelements": 1}},
                    {"$group": {"_id": "$chemsys", "energy": {"$min": "$energy_per_atom"}}},
                ]
            )
        }
        fields = {"structure_id": 1, "species": 1, "energy_per_atom": 1, "formation_energy_per_atom": 1}
        fields |= {"energy_method": 1}
        for row in structures.find(wanted, fields):
            if row.get("energy_method") not in (None, functional):
                continue  # its source named a formation energy of another method: that stays
            energy = formation_energy(row["energy_per_atom"], row["species"], references)
            if energy != row.get("formation_energy_per_atom"):
                operations.append(_update(row, energy, functional))
            if len(operations) == BATCH_SIZE:
                n_changed += structures.bulk_write(operations, ordered=False).modified_count
                operations = []
    if operations:
        n_changed += structures.bulk_write(operations, ordered=False).modified_count
    return n_changed


def formation_energy(energy_per_atom: float, species: Iterable[str], references: Mapping[str, float]) -> float | None:
    """Return the formation energy from the elements, eV/atom; None where one has no reference.

    Args:
        energy_per_atom: Of the crystal, eV/atom.
        species: Element of each site.
        references: Energy of each element's reference, eV/atom.
    """
    elements = list(species)
    if any(element not in references for element in elements):
        return None
    return energy_per_atom - sum(references[element] for element in elements) / len(elements)


def _update(row: Mapping[str, Any], energy: float | None, functional: str) -> UpdateOne:
    """Return the change of one structure; without its material_id the material is built again."""
    same = {"structure_id": row["structure_id"], "energy_per_atom": row["energy_per_atom"]}
    gone = {"material_id": ""}
    if energy is None:
        gone |= {"formation_energy_per_atom": "", "energy_method": ""}
        return UpdateOne(same, {"$set": checked_update(StructureDocument, {}), "$unset": gone})
    fields = {"formation_energy_per_atom": energy, "energy_method": functional}
    return UpdateOne(same, {"$set": checked_update(StructureDocument, fields), "$unset": gone})
