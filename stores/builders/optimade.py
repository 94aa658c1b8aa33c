"""structures and materials -> the OPTIMADE view: one entry a crystal, incremental.

What was written since the last build is read from MongoDB's record of changes, and nothing else is looked at. Where
that does not reach back, all inputs are compared with the view in the order of their identities, in constant memory.

An entry is a function of its inputs alone, times of change included: built again it has the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maggma.core import Builder
from pymongo import DeleteOne, ReplaceOne

from wyloop.stores.builders.changes import Changes, changes_since_last, remember
from wyloop.stores.builders.lock import building, with_sign_of_life
from wyloop.stores.builders.optimade_entries import (
    VIEW_VERSION,
    OptimadeInput,
    input_hash,
    optimade_entry,
    optimade_reference,
)
from wyloop.stores.builders.run import OnProgress, batches, maggma_store, run
from wyloop.stores.bulk import insert_or_replace
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

CHUNK_SIZE = 1000
_IDENTITY = {"structures": "structure_id", "materials": "material_id"}
_OWN_MATERIALS = {"calculation_ids": {"$gt": ""}}  # a crystal known from elsewhere is an entry as structure
_STATE = {
    "structures": dict.fromkeys(("structure_id", "content_hash", "fingerprint", "material_id", "last_updated"), 1),
    "materials": dict.fromkeys(("material_id", "content_hash", "fingerprint", "last_updated"), 1),
}
_OF_MATERIAL = {"material_id": 1, "energies": 1, "content_hash": 1, "last_updated": 1}


@dataclass(frozen=True)
class OptimadeCounts:
    """What a build did: entries written, entries removed since their crystal is gone, entries left alone."""

    n_done: int
    n_removed: int
    n_skipped: int


@translated
def build_optimade(
    store: Store,
    chemsys: Iterable[str] | None = None,
    *,
    full: bool = False,
    is_thorough: bool = False,
    on_progress: OnProgress | None = None,
    n_processes: int | None = None,
) -> OptimadeCounts:
    """Bring the OPTIMADE view up to date.

    Args:
        store: The database.
        chemsys: Only crystals of these chemical systems; none: all.
        full: Make all entries again.
        is_thorough: Compare every entry with its inputs, whatever the record of changes says.
        on_progress: Told how many entries are done.
        n_processes: Processes that make entries; none: all cores where there is enough to do, else this one.
    """
    with building(store, "optimade") as is_alive:
        view = store.database["optimade_structures"]
        changes, place = None, None
        if chemsys is None:
            n_entries = -1 if full or is_thorough else view.estimated_document_count()
            changes, place = changes_since_last(store, VIEW_VERSION, n_entries)
        builder = OptimadeBuilder(store, chemsys, full=full, changes=changes)
        run(
            builder,
            on_progress=with_sign_of_life(is_alive, on_progress),
            process=optimade_entry,
            n_processes=n_processes,
        )
        if changes is None or builder.is_cited:
            _build_references(store)
        n_entries = view.estimated_document_count()
        if chemsys is None:
            remember(store, VIEW_VERSION, n_entries, place)
    n_skipped = builder.n_skipped if changes is None else max(0, n_entries - builder.n_done)
    return OptimadeCounts(builder.n_done, builder.n_removed, n_skipped)


class OptimadeBuilder(Builder):
    """maggma builder from `structures` and `materials` to `optimade_structures`.

    Told of no changes, it walks inputs and view together in the order of their identities, so that memory does not grow
    with the database.
    """

    def __init__(
        self,
        store: Store,
        chemsys: Iterable[str] | None = None,
        *,
        full: bool = False,
        changes: Changes | None = None,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        self.database = store.database
        self.full = full
        self.changes = changes
        self.chemsys = None if chemsys is None else sorted(set(chemsys))
        self.view = maggma_store(store, "optimade_structures", "entry_id")
        self.n_done = self.n_removed = self.n_skipped = 0
        self.is_cited = False
        """Whether an entry that was looked at cites something, or did."""
        sources = [maggma_store(store, name, key) for name, key in _IDENTITY.items()]
        super().__init__(list(sources), [self.view], chunk_size)

    def get_items(self) -> Iterator[OptimadeInput]:
        """Yield the crystals whose entry is missing or made of other inputs, and the entries whose crystal is gone."""
        if self.changes is not None:
            yield from self._of_changes(self.changes)
            return
        if self.chemsys is None and self.view._collection.estimated_document_count() == 0:
            self.total = self.database["structures"].estimated_document_count()
        for origin, identity in _IDENTITY.items():
            own = _OWN_MATERIALS if origin == "materials" else {}
            if self.chemsys is not None:
                for start in range(0, len(self.chemsys), self.chunk_size):
                    within = {"chemsys": {"$in": self.chemsys[start : start + self.chunk_size]}}
                    rows = list(self.database[origin].find(own | within, _STATE[origin]))
                    yield from self._changed(origin, rows, within)
                continue
            last = ""
            while True:
                rows = list(
                    self.database[origin]
                    .find(own | {identity: {"$gt": last}}, _STATE[origin])
                    .sort(identity, 1)
                    .limit(self.chunk_size)
                )
                span = {"$gt": last, "$lte": rows[-1][identity]} if len(rows) == self.chunk_size else {"$gt": last}
                yield from self._changed(origin, rows, {"entry_id": span})
                if len(rows) < self.chunk_size:
                    break
                last = rows[-1][identity]

    def process_item(self, item: OptimadeInput) -> OptimadeInput | dict[str, Any]:
        """Make one entry; a pure function, so that other processes can do it."""
        return optimade_entry(item)

    def update_targets(self, items: list[OptimadeInput | dict[str, Any]]) -> None:
        """Write a batch of entries and remove others."""
        gone = [item for item in items if isinstance(item, OptimadeInput)]
        made = [item for item in items if not isinstance(item, OptimadeInput)]
        if gone:
            removals = [DeleteOne({"entry_id": item.entry_id, "origin": item.origin}) for item in gone]
            self.view._collection.bulk_write(removals, ordered=False)
        insert_or_replace(self.view._collection, made, "entry_id")
        self.is_cited |= any("reference_ids" in entry for entry in made)
        self.n_removed += len(gone)
        self.n_done += len(made)

    def finalize(self) -> None:
        """Leave the shared client open."""

    def _changed(self, origin: str, rows: list[dict[str, Any]], within: Mapping[str, Any]) -> Iterator[OptimadeInput]:
        """Yield what is to be done for these inputs and the entries of the same span of identities."""
        identity = _IDENTITY[origin]
        materials = self._materials(rows) if origin == "structures" else {}
        hashes = {row[identity]: input_hash(row, materials.get(row.get("material_id", ""))) for row in rows}
        fields = {"_id": 0, "entry_id": 1, "input_hash": 1, "reference_ids": 1}
        built = {row["entry_id"]: row for row in self.view._collection.find({**within, "origin": origin}, fields)}
        self.is_cited |= any("reference_ids" in row for row in built.values())
        stale = [
            name
            for name, wanted in hashes.items()
            if self.full or name not in built or built[name].get("input_hash") != wanted
        ]
        self.n_skipped += len(hashes) - len(stale)
        for document in self.database[origin].find({identity: {"$in": stale}}) if stale else ():
            # what was changed in between is taken as it is, its hash with it
            material = materials.get(document.get("material_id", "")) if origin == "structures" else None
            yield OptimadeInput(origin, document[identity], input_hash(document, material), document, material)
        for name in built.keys() - hashes.keys():
            yield OptimadeInput(origin, name)

    def _of_changes(self, changes: Changes) -> Iterator[OptimadeInput]:
        """Yield what is to be done where something was written or deleted."""
        touched = {name: self._identities(name, changes) for name in _IDENTITY}
        for batch in batches(sorted(touched["materials"]), self.chunk_size):
            found = self.database["structures"].find({"material_id": {"$in": batch}}, {"structure_id": 1, "_id": 0})
            touched["structures"].update(row["structure_id"] for row in found)
        if changes.deleted["structures"]:
            touched["structures"] |= self._without_structure()
        self.total = sum(map(len, touched.values()))
        for origin, identity in _IDENTITY.items():
            own = _OWN_MATERIALS if origin == "materials" else {}
            for batch in batches(sorted(touched[origin]), self.chunk_size):
                rows = list(self.database[origin].find(own | {identity: {"$in": batch}}, _STATE[origin]))
                yield from self._changed(origin, rows, {"entry_id": {"$in": batch}})

    def _identities(self, name: str, changes: Changes) -> set[str]:
        """Return the identities of the documents that changed; of deleted materials, those that the view has."""
        identity = _IDENTITY[name]
        found = set(changes.written[name])
        for batch in batches(changes.updated[name], self.chunk_size):
            rows = self.database[name].find({"_id": {"$in": batch}}, {identity: 1, "_id": 0})
            found.update(row[identity] for row in rows)
        for batch in batches(changes.deleted["materials"] if name == "materials" else (), self.chunk_size):
            # both documents' `_id` follow from the same identity
            rows = self.view._collection.find({"_id": {"$in": batch}, "origin": name}, {"entry_id": 1, "_id": 0})
            found.update(row["entry_id"] for row in rows)
        return found

    def _without_structure(self) -> set[str]:
        """Return the entries whose structure is gone, by two indexes side by side: a deletion tells no identity."""
        known = self._sorted_ids("structures", "structure_id")
        entries = self._sorted_ids("optimade_structures", "entry_id")
        gone, one = set(), next(known, None)
        for entry in entries:
            while one is not None and one < entry:
                one = next(known, None)
            if one != entry:
                gone.add(entry)
        return gone

    def _sorted_ids(self, collection: str, identity: str) -> Iterator[str]:
        found = self.database[collection].find({}, {identity: 1, "_id": 0}, batch_size=20_000)
        return (row[identity] for row in found.sort(identity, 1).hint([(identity, 1)]))

    def _materials(self, structures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        wanted = sorted({row["material_id"] for row in structures if row.get("material_id")})
        found = self.database["materials"].find({"material_id": {"$in": wanted}}, _OF_MATERIAL) if wanted else ()
        return {row["material_id"]: row for row in found}


def _build_references(store: Store) -> None:
    """Make one reference of each citation in the view, and remove those that nothing cites any more."""
    cited = store.database["optimade_structures"].aggregate(
        [
            {"$match": {"reference_ids": {"$gt": ""}}},
            {"$group": {"_id": "$citation", "last_modified": {"$min": "$last_modified"}}},
        ]
    )
    wanted = {row["_id"]: row["last_modified"] for row in cited}
    collection = store.database["optimade_references"]
    documents = [optimade_reference(citation, time) for citation, time in sorted(wanted.items())]
    present = {row["entry_id"]: row for row in collection.find()}
    changed = [document for document in documents if present.pop(document["entry_id"], None) != document]
    operations: list[ReplaceOne[dict[str, Any]] | DeleteOne] = [
        ReplaceOne({"entry_id": document["entry_id"]}, document, upsert=True) for document in changed
    ]
    kept = {document["entry_id"] for document in documents}
    operations += [DeleteOne({"entry_id": name}) for name in present.keys() - kept]
    if operations:
        collection.bulk_write(operations, ordered=False)
