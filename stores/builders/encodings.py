"""structures -> encodings: the gene of every structure, incremental; a structure without one says why."""

from collections.abc import Iterator
from typing import Any

from maggma.core import Builder
from pymongo import UpdateOne

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, StructureError
from wyloop.models.wyckoff.encode import SYMPREC, encode
from wyloop.stores.builders.run import BuildCounts, OnProgress, batches, maggma_store, run
from wyloop.stores.bulk import insert_or_replace
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import crystal_of, object_id

CHUNK_SIZE = 500
_FIELDS = {
    "_id": 0,
    "structure_id": 1,
    "crystal_hash": 1,
    "lattice": 1,
    "species": 1,
    "frac_coords": 1,
    "last_updated": 1,
}
_TO_STRUCTURE = ("fingerprint", "protostructure", "space_group_number")


@translated
def build_encodings(
    store: Store,
    *,
    full: bool = False,
    on_progress: OnProgress | None = None,
    n_processes: int | None = None,
) -> BuildCounts:
    """Encode the structures that are new or changed, and note their genes on them.

    Args:
        store: The database.
        full: Encode all again, and remove encodings of structures that are gone.
        on_progress: Told how many are done.
        n_processes: Processes that encode; none: all cores where there is enough to do, else this one.
    """
    builder = EncodingBuilder(store, full=full)
    run(builder, on_progress=on_progress, process=encoding_of, n_processes=n_processes)
    if full:
        _remove_orphans(store)
    return BuildCounts(builder.n_done, builder.n_refused, builder.n_skipped)


def encoding_fields(crystal: Crystal, symprec: float = SYMPREC) -> dict[str, Any]:
    """Return the fields of an encoding that follow from the crystal: its gene, or the reason why there is none."""
    try:
        gene = encode(crystal, symprec)
    except (StructureError, GeneError) as error:
        return {"symprec": symprec, "refused": str(error)}
    return {
        "symprec": symprec,
        "fingerprint": str(gene),
        "space_group_number": gene.space_group_number,
        "wyckoff_sequence": gene.wyckoff_sequence,
        "protostructure": gene.protostructure,
    }


def encoding_of(structure: dict[str, Any]) -> dict[str, Any]:
    """Return the whole encoding document of a structure's document; an encoding that it brings along is kept."""
    if "encoding" in structure:
        kept: dict[str, Any] = structure["encoding"] | {"last_updated": structure["last_updated"]}
        return kept
    identity = {
        "structure_id": structure["structure_id"],
        "input_hash": _input_hash(structure),
        "last_updated": structure["last_updated"],
    }
    fields = identity | encoding_fields(crystal_of(structure))
    return {"_id": object_id(structure["structure_id"]), **checked(EncodingDocument, fields)}


class EncodingBuilder(Builder):
    """maggma builder from `structures` to `encodings`; reads and writes in bulk on the store's client."""

    def __init__(self, store: Store, *, full: bool = False, chunk_size: int = CHUNK_SIZE) -> None:
        self.structures = maggma_store(store, "structures", "structure_id")
        self.encodings = maggma_store(store, "encodings", "structure_id")
        self.full = full
        self.n_done = self.n_refused = self.n_skipped = 0
        super().__init__(self.structures, self.encodings, chunk_size)

    def get_items(self) -> Iterator[dict[str, Any]]:
        """Yield the structures whose encoding is missing or was made of another crystal or tolerance.

        Ingest drops the gene from a structure that it changes, so an index finds these. All are compared where the
        numbers of documents show that encodings are missing. A structure whose labels alone changed keeps its gene.
        """
        both = (self.structures._collection, self.encodings._collection)
        n_structures, n_encodings = (collection.estimated_document_count() for collection in both)
        if n_structures != n_encodings:  # or MongoDB lost count, as it does in an unclean shutdown
            n_structures, n_encodings = (collection.count_documents({}, hint="_id_") for collection in both)
        is_complete = n_structures == n_encodings
        criteria = {"fingerprint": None} if is_complete and not self.full else {}
        found = self.structures._collection.find(criteria, {"structure_id": 1, "crystal_hash": 1, "_id": 0})
        hashes = {row["structure_id"]: _input_hash(row) for row in found.sort("structure_id", 1)}
        stale = [identity for batch in batches(hashes) for identity in self._stale(batch, hashes)]
        self.total = len(stale)
        self.n_skipped = n_structures - len(stale)
        for batch in batches(stale, self.chunk_size):
            kept = {} if self.full else self._built(batch, hashes)
            for row in self.structures._collection.find({"structure_id": {"$in": batch}}, _FIELDS):
                encoding = kept.get(row["structure_id"])
                yield row if encoding is None else row | {"encoding": encoding}

    def _stale(self, batch: list[str], hashes: dict[str, str]) -> list[str]:
        """Return those whose encoding is missing or old, or is not on the structure yet."""
        if self.full:
            return batch
        built = self._built(batch, hashes)
        fields = {"structure_id": 1, "fingerprint": 1, "last_updated": 1, "_id": 0}
        told = self.structures._collection.find({"structure_id": {"$in": list(built)}}, fields)
        done = {
            row["structure_id"]
            for row in told
            if row.get("fingerprint") == _gene(built[row["structure_id"]])
            and row["last_updated"] == built[row["structure_id"]]["last_updated"]
        }
        return [identity for identity in batch if identity not in done]

    def _built(self, batch: list[str], hashes: dict[str, str]) -> dict[str, dict[str, Any]]:
        found = self.encodings._collection.find({"structure_id": {"$in": batch}})
        return {row["structure_id"]: row for row in found if row["input_hash"] == hashes[row["structure_id"]]}

    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        """Encode one structure; a pure function, so that other processes can do it."""
        return encoding_of(item)

    def update_targets(self, items: list[dict[str, Any]]) -> None:
        """Write a batch of encodings, then their genes to the structures: killed in between, these are done again."""
        if items:
            insert_or_replace(self.encodings._collection, items, "structure_id")
            if self.full:
                self.structures._collection.bulk_write([_part_from_material(item) for item in items], ordered=False)
            self.structures._collection.bulk_write([_tell(item) for item in items], ordered=False)
        refused = sum("refused" in item for item in items)
        self.n_refused += refused
        self.n_done += len(items) - refused

    def finalize(self) -> None:
        """Leave the shared client open."""


def _tell(encoding: dict[str, Any]) -> UpdateOne:
    """Note the gene on the structure, if it is still the crystal that was encoded."""
    fields = {name: encoding[name] for name in _TO_STRUCTURE if name in encoding}
    update = {"$set": fields} if fields else {"$unset": {"fingerprint": "", "protostructure": ""}}
    return UpdateOne(_encoded(encoding), update)


def _part_from_material(encoding: dict[str, Any]) -> UpdateOne:
    """A structure whose gene became another is of another material."""
    return UpdateOne(
        _encoded(encoding) | {"fingerprint": {"$nin": [None, _gene(encoding)]}}, {"$unset": {"material_id": ""}}
    )


def _encoded(encoding: dict[str, Any]) -> dict[str, Any]:
    return {"structure_id": encoding["structure_id"], "crystal_hash": encoding["input_hash"].split("@")[0]}


def _gene(encoding: dict[str, Any]) -> str | None:
    gene = encoding.get("fingerprint")
    return None if gene is None else str(gene)


def _remove_orphans(store: Store) -> None:
    stages: list[dict[str, Any]] = [
        {"$lookup": {"from": "structures", "localField": "structure_id", "foreignField": "structure_id", "as": "of"}},
        {"$match": {"of": []}},
        {"$project": {"structure_id": 1, "_id": 0}},
    ]
    gone = [row["structure_id"] for row in store.database["encodings"].aggregate(stages)]
    for batch in batches(gone):
        store.database["encodings"].delete_many({"structure_id": {"$in": batch}})


def _input_hash(structure: dict[str, Any]) -> str:
    return f"{structure['crystal_hash']}@{SYMPREC:g}"
