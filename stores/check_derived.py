"""Derived documents beside what they are derived from: orphans, stale ones, and what is still to build."""

from collections.abc import Iterator
from typing import Any

from pymongo.client_session import ClientSession

from wyloop.stores.connection import Store
from wyloop.stores.findings import Finding, finding

Row = dict[str, Any]
_BATCH = 5000


def _encodings(store: Store, session: ClientSession) -> Iterator[Finding]:
    """Walk structures and encodings side by side in the order of their identity."""
    from wyloop.stores.builders.encodings import _input_hash as input_hash  # maggma: a second

    n_new = 0
    for structure, encoding in side_by_side(store, session):
        if structure is None and encoding is not None:
            what = "its structure does not exist"
            yield finding("encoding_without_structure", "encodings", encoding.get("structure_id"), what)
        elif structure is not None and encoding is None:
            n_new += 1
        elif structure is not None and encoding is not None:
            expected = input_hash(structure)
            if encoding.get("input_hash") != expected:
                what = f"made of {encoding.get('input_hash')}; expected {expected}"
                yield finding("encoding_stale", "encodings", encoding["structure_id"], what)
            elif structure.get("fingerprint") not in (None, encoding.get("fingerprint")):
                what = f"fingerprint {structure.get('fingerprint')}; its encoding says {encoding.get('fingerprint')}"
                yield finding("structure_of_other_gene", "structures", encoding["structure_id"], what)
    if n_new:
        yield finding("structures_not_encoded", "structures", f"{n_new} structures", "no encoding yet")


def side_by_side(store: Store, session: ClientSession | None) -> Iterator[tuple[Row | None, Row | None]]:
    """Yield each structure with its encoding, both in the order of `structure_id`, None where one is missing."""
    structures = _ordered(store, session, "structures", "crystal_hash")
    encodings = _ordered(store, session, "encodings", "input_hash")
    left, right = next(structures, None), next(encodings, None)
    while left is not None or right is not None:
        left_id = None if left is None else left["structure_id"]
        right_id = None if right is None else right["structure_id"]
        if left_id is not None and (right_id is None or left_id < right_id):
            yield left, None
            left = next(structures, None)
        elif right_id is not None and (left_id is None or right_id < left_id):
            yield None, right
            right = next(encodings, None)
        else:
            yield left, right
            left, right = next(structures, None), next(encodings, None)


def _ordered(store: Store, session: ClientSession | None, collection: str, field: str) -> Iterator[Row]:
    query = {"structure_id": {"$type": "string"}}
    fields = {"_id": 0, "structure_id": 1, "fingerprint": 1, field: 1}
    found = store.database[collection].find(query, fields, session=session, batch_size=_BATCH)
    yield from found.sort("structure_id", 1).allow_disk_use(True)


def _materials(store: Store, session: ClientSession) -> Iterator[Finding]:
    """What each material is made of, and that each structure is of a material that knows it."""
    structures, materials = store.database["structures"], store.database["materials"]
    for row in materials.aggregate(_absent_members("structure_ids", "structures", "structure_id"), session=session):
        what = f"structure {row['structure_ids']} does not exist"
        yield finding("material_stale", "materials", row.get("material_id"), what)
    stages: list[Row] = [
        {"$match": {"material_id": {"$type": "string"}}},
        {"$project": {"structure_id": 1, "material_id": 1}},
        _lookup("materials", "material_id", "material_id", "of", {"structure_ids": 1}),
        {"$match": {"$expr": {"$not": {"$in": ["$structure_id", {"$ifNull": [{"$first": "$of.structure_ids"}, []]}]}}}},
    ]
    for row in structures.aggregate(stages, session=session):
        what = f"material {row['material_id']} {'does not list it' if row['of'] else 'does not exist'}"
        yield finding("structure_of_other_material", "structures", row.get("structure_id"), what)
    n_new = structures.count_documents({"material_id": None, "fingerprint": {"$type": "string"}}, session=session)
    if n_new:
        yield finding("structures_not_in_materials", "structures", f"{n_new} structures", "no material yet")


def _hulls(store: Store, session: ClientSession) -> Iterator[Finding]:
    hulls, materials = store.database["hulls"], store.database["materials"]
    for row in hulls.find({"stale": {"$exists": True}}, {"hull_id": 1}, session=session):
        yield finding("hull_stale", "hulls", row.get("hull_id"), "a material under it changed since it was built")
    stages: list[Row] = [
        {"$match": {"stale": {"$exists": False}}},
        {"$unwind": "$entries"},
        {"$project": {"hull_id": 1, "method": 1, "entry": "$entries"}},
        _lookup("materials", "entry.identity", "material_id", "of", {"energies": 1}),
        {"$set": {"own": {"$filter": {"input": {"$ifNull": [{"$first": "$of.energies"}, []]}, "cond": _SAME}}}},
        {"$match": {"$expr": {"$ne": [{"$first": "$own.formation_energy_per_atom"}, _ENERGY]}}},
    ]
    for row in hulls.aggregate(stages, session=session):
        missing = "does not exist" if not row["of"] else "has another energy by its method"
        what = f"material {row['entry'].get('identity')} {missing}"
        yield finding("hull_stale", "hulls", row.get("hull_id"), what)
    stages = [
        {"$match": {"hull_id": {"$type": "string"}}},
        {"$project": {"material_id": 1, "hull_id": 1}},
        _lookup("hulls", "hull_id", "hull_id", "of", {"_id": 1}),
        {"$match": {"of": []}},
    ]
    for row in materials.aggregate(stages, session=session):
        what = f"hull {row['hull_id']} does not exist"
        yield finding("material_without_hull", "materials", row.get("material_id"), what)
    n_new = materials.count_documents({"hull_id": None, "energies.0": {"$exists": True}}, session=session)
    if n_new:
        yield finding("materials_not_in_hulls", "materials", f"{n_new} materials", "no hull yet")


_SAME = {"$eq": ["$$this.method", "$method"]}
_ENERGY = "$entry.formation_energy_per_atom"


def _optimade(store: Store, session: ClientSession) -> Iterator[Finding]:
    """Ask the view's builder what it would do; it reads what is there now, in constant memory."""
    from wyloop.stores.builders.optimade import OptimadeBuilder  # maggma: a second

    view = store.database["optimade_structures"]
    if view.find_one({}, {"_id": 1}, session=session) is None:
        return  # nobody serves it
    n_new = 0
    for item in OptimadeBuilder(store).get_items():
        if view.find_one({"entry_id": item.entry_id}, {"_id": 1}) is None:
            n_new += 1
        else:
            what = "its crystal is gone or has changed since"
            yield finding("optimade_view_stale", "optimade_structures", item.entry_id, what)
    if n_new:
        yield finding("crystals_not_in_optimade_view", "optimade_structures", f"{n_new} crystals", "no entry yet")


def _absent_members(field: str, collection: str, foreign: str) -> list[Row]:
    return [
        {"$match": {f"{field}.0": {"$exists": True}}},
        {"$project": {"material_id": 1, field: 1}},
        {"$unwind": f"${field}"},
        _lookup(collection, field, foreign, "of", {"_id": 1}),
        {"$match": {"of": []}},
    ]


def _lookup(collection: str, local: str, foreign: str, name: str, fields: dict[str, int]) -> Row:
    pipeline = [{"$limit": 1}, {"$project": fields}]
    return {
        "$lookup": {"from": collection, "localField": local, "foreignField": foreign, "pipeline": pipeline, "as": name}
    }


LOOKS = (_encodings, _materials, _hulls, _optimade)
