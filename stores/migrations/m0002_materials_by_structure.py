"""Schema 1 -> 2: a material is told apart by its structure, not by its gene alone, and a hull has one method.

Materials, hulls and encodings follow from structures, candidates and calculations: they are dropped here, and the
builders make them anew. The space group that a source reported moves out of the way of the gene's.
"""

from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

ROOTS = ("structures", "model_versions", "campaigns", "rounds", "candidates", "calculations")
DERIVED = ("encodings", "materials", "hulls")
_OLD_INDEXES = {
    "structures": ("chemsys_1", "band_gap_1_formation_energy_per_atom_1", "nelements_1_band_gap_1"),
    "candidates": ("chemsys_1", "round_id_1_status_1_rank_1"),
    "materials": ("fingerprint_1", "chemsys_1", "band_gap_1_formation_energy_per_atom_1"),
    "hulls": ("chemsys_1",),
}
_MISSING = {26, 27}  # no such collection, no such index


def upgrade(database: "Database[dict[str, Any]]") -> dict[str, int]:
    """Bring the documents of schema 1 to schema 2; what is of schema 2 already stays as it is.

    Returns:
        Documents changed or dropped, by collection.
    """
    old = {"schema_version": {"$lt": 2}}
    counts = {name: database[name].delete_many(old).deleted_count for name in DERIVED}
    for name, labels in _OLD_INDEXES.items():
        for label in labels:
            _drop_old_index(database, name, label)
    moved = {
        "reported_space_group_number": {"$ifNull": ["$reported_space_group_number", "$space_group_number"]},
        "schema_version": 2,
    }
    is_reported = {**old, "space_group_number": {"$type": "number"}}
    counts["structures"] = database["structures"].update_many(is_reported, [{"$set": moved}]).modified_count
    for name in ROOTS:
        changed = database[name].update_many(old, {"$set": {"schema_version": 2}}).modified_count
        counts[name] = counts.get(name, 0) + changed
    return counts


def _drop_old_index(database: "Database[dict[str, Any]]", collection: str, label: str) -> None:
    """Drop an index of schema 1; the one of schema 2 with the same name is not unique, or not there."""
    try:
        index = database[collection].index_information().get(label)
        if index is not None and (label != "fingerprint_1" or index.get("unique")):
            database[collection].drop_index(label)
    except OperationFailure as error:
        if error.code not in _MISSING:
            raise
