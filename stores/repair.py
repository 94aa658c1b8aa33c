"""Mend what can be mended without losing anything: indexes, orphaned derived documents, what builders make again."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo.errors import OperationFailure

from wyloop.stores.check import DERIVED, all_looks, broken, check, name_of
from wyloop.stores.check_derived import side_by_side
from wyloop.stores.check_links import file_fields
from wyloop.stores.connection import Store
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import translated
from wyloop.stores.findings import CheckReport
from wyloop.stores.indexes import index_faults
from wyloop.stores.migrate import MIGRATIONS

_BATCH = 1000
Found = dict[str, list[str]]
"""Identities of what was found, by kind."""


@dataclass(frozen=True)
class RepairReport:
    """What was done, as text to number, and what a second look still finds."""

    done: dict[str, int]
    left: CheckReport


@translated
def repair(store: Store, *, on_progress: Callable[[int, int], None] | None = None) -> RepairReport:
    """Mend what is safe, build what is behind, and look again.

    Documents that people, sources or jobs wrote are never removed nor changed; only what builders make from them is.

    Args:
        store: The database, opened without its checks.
        on_progress: Told how many of the steps are done.
    """
    steps = (_migrate, _make_indexes, _drop_broken, _drop_orphans, _mark_stale, _drop_files, _build)
    found = _identities(store)
    done: dict[str, int] = {}
    for n_done, step in enumerate(steps, 1):
        for what, n in step(store, found).items():
            if n:
                done[what] = done.get(what, 0) + n
        if on_progress is not None:
            on_progress(n_done, len(steps))
    return RepairReport(done, check(store))


def _identities(store: Store) -> Found:
    found: Found = defaultdict(list)
    with store.client.start_session() as session:
        for look in all_looks():
            for one in look(store, session):
                found[one.kind].append(one.identity)
    return found


def _migrate(store: Store, found: Found) -> dict[str, int]:
    """Run the migrations again over what a worker of the older version wrote after them."""
    if not found.get("document_of_older_schema"):
        return {}
    for migration in MIGRATIONS:
        migration.upgrade(store.database)
    return {"documents of an older schema migrated": len(found["document_of_older_schema"])}


def _make_indexes(store: Store, found: Found) -> dict[str, int]:
    """Make indexes; one with other options goes only where nothing stands in the way of the right one."""
    del found
    n_made = 0
    for fault in index_faults(store.database):
        collection = store.database[fault.spec.collection]
        try:
            if fault.present is not None:
                collection.drop_index(fault.present)
            collection.create_indexes([fault.spec.model()])
            n_made += 1
        except OperationFailure:  # duplicates: the next look still says so
            if fault.present is not None:
                collection.create_index(list(fault.spec.keys), name=fault.present)
    return {"indexes made": n_made}


def _drop_broken(store: Store, found: Found) -> dict[str, int]:
    """Drop derived documents that break their schema; what they were made of is marked as to be built again."""
    if not found.get("derived_document_breaks_schema"):
        return {}
    n_dropped = 0
    for document in DOCUMENTS:
        name = name_of(document)
        if name not in DERIVED:
            continue
        fields = {"structure_id": 1, "material_id": 1, "fingerprint": 1, "chemsys": 1, "entries.identity": 1}
        for batch in _batches(list(store.database[name].find(broken(document), fields))):
            _mark_inputs(store, name, batch)
            n_dropped += store.database[name].delete_many({"_id": {"$in": [row["_id"] for row in batch]}}).deleted_count
    return {"broken derived documents dropped": n_dropped}


def _mark_inputs(store: Store, name: str, rows: list[dict[str, Any]]) -> None:
    structures = store.database["structures"]
    if name == "encodings":
        identities = [row.get("structure_id") for row in rows]
        structures.update_many({"structure_id": {"$in": identities}}, {"$unset": {"fingerprint": ""}})
    elif name == "materials":
        identities = [row.get("material_id") for row in rows]
        structures.update_many({"material_id": {"$in": identities}}, {"$unset": {"material_id": ""}})
        systems = [row.get("chemsys") for row in rows]
        store.database["hulls"].update_many({"chemsys": {"$in": systems}}, {"$inc": {"stale": 1}})
    elif name == "hulls":
        identities = [entry.get("identity") for row in rows for entry in row.get("entries") or () if entry]
        _forget_hulls(store, identities)


def _drop_orphans(store: Store, found: Found) -> dict[str, int]:
    if not found.get("encoding_without_structure"):
        return {}
    orphans = (right["structure_id"] for left, right in side_by_side(store, None) if left is None and right is not None)
    n_dropped = 0
    for batch in _batches(orphans):
        n_dropped += store.database["encodings"].delete_many({"structure_id": {"$in": batch}}).deleted_count
    return {"encodings without structure dropped": n_dropped}


def _mark_stale(store: Store, found: Found) -> dict[str, int]:
    """Take away the marks by which the builders know that their work is done."""
    structures, hulls = store.database["structures"], store.database["hulls"]
    counts = {"structures to be encoded again": 0, "structures to be assigned again": 0, "hulls to be built again": 0}
    for batch in _batches(found.get("encoding_stale", []) + found.get("structure_of_other_gene", [])):
        changed = structures.update_many({"structure_id": {"$in": batch}}, {"$unset": {"fingerprint": ""}})
        counts["structures to be encoded again"] += changed.modified_count
    for batch in _batches(found.get("structure_of_other_material", [])):
        changed = structures.update_many({"structure_id": {"$in": batch}}, {"$unset": {"material_id": ""}})
        counts["structures to be assigned again"] += changed.modified_count
    for batch in _batches(found.get("hull_stale", [])):
        # a hull whose entries are wrong may still name the right inputs: the builder would leave it alone
        systems = hulls.distinct("chemsys", {"hull_id": {"$in": batch}})
        _forget_hulls(store, store.database["materials"].distinct("material_id", {"chemsys": {"$in": systems}}))
        counts["hulls to be built again"] += hulls.delete_many({"hull_id": {"$in": batch}}).deleted_count
    for batch in _batches(found.get("material_without_hull", [])):
        _forget_hulls(store, batch)
    return counts


def _forget_hulls(store: Store, materials: list[Any]) -> None:
    """Let materials be without a hull, so that the builder sees them as new."""
    known = {"material_id": {"$in": materials}}
    store.database["materials"].update_many(known, {"$unset": {"hull_id": "", "energy_above_hull": ""}})


def _drop_files(store: Store, found: Found) -> dict[str, int]:
    files = [ObjectId(identity) for identity in found.get("file_without_owner", [])]
    chunks = [ObjectId(identity) for identity in found.get("chunk_without_file", [])]
    for file in set(files) - _named(store, files):  # a save that went on since may have taken one
        store.gridfs.delete(file)
    store.database["fs.chunks"].delete_many({"files_id": {"$in": chunks}})
    return {"files without owner dropped": len(files), "files' left-over chunks dropped": len(chunks)}


def _named(store: Store, files: list[ObjectId]) -> set[ObjectId]:
    return {
        row[field]
        for collection, field in file_fields()
        for row in store.database[collection].find({field: {"$in": files}}, {"_id": 0, field: 1})
    }


def _build(store: Store, found: Found) -> dict[str, int]:
    """Build what is behind: encodings, then materials, hulls, and the OPTIMADE view where it is served."""
    from wyloop.stores.builders.encodings import build_encodings  # maggma: a second
    from wyloop.stores.builders.hulls import build_hulls
    from wyloop.stores.builders.materials import build_materials
    from wyloop.stores.builders.optimade import build_optimade

    encoded = build_encodings(store)
    genes = store.database["materials"].distinct(
        "fingerprint", {"material_id": {"$in": found.get("material_stale", [])}}
    )
    counts = {"encodings built": encoded.n_done + encoded.n_refused, "materials built": 0}
    if genes:
        counts["materials built"] += build_materials(store, genes).n_done
    counts["materials built"] += build_materials(store).n_done
    counts["hulls built"] = build_hulls(store).n_done
    if store.database["optimade_structures"].find_one({}, {"_id": 1}) is not None:
        view = build_optimade(store, is_thorough=True)  # what stands in the view itself may be wrong
        counts["OPTIMADE entries built or removed"] = view.n_done + view.n_removed
    return counts


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
