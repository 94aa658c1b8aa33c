"""structures -> encodings: the gene of every structure, incremental; a structure without one says why."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from maggma.core import Builder
from pymongo import ReplaceOne

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, StructureError
from wyloop.models.wyckoff.encode import SYMPREC, encode
from wyloop.stores.builders.run import BuildCounts, OnProgress, maggma_store, run
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import crystal_of

CHUNK_SIZE = 500
_FIELDS = {"_id": 0, "structure_id": 1, "crystal_hash": 1, "lattice": 1, "species": 1, "frac_coords": 1}


@translated
def build_encodings(
    store: Store, *, on_progress: OnProgress | None = None, n_processes: int | None = None
) -> BuildCounts:
    """Encode the structures that are new or changed.

    Args:
        store: The database.
        on_progress: Told how many are done.
        n_processes: Processes that encode; none: all cores where there is enough to do, else this one.
    """
    builder = EncodingBuilder(store)
    run(builder, on_progress=on_progress, process=encoding_of, n_processes=n_processes)
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
    """Return the whole encoding document of a structure's document."""
    identity = {"structure_id": structure["structure_id"], "input_hash": _input_hash(structure)}
    return checked(EncodingDocument, identity | encoding_fields(crystal_of(structure)))


class EncodingBuilder(Builder):
    """maggma builder from `structures` to `encodings`; reads and writes in bulk on the store's client."""

    def __init__(self, store: Store, *, chunk_size: int = CHUNK_SIZE) -> None:
        self.structures = maggma_store(store, "structures", "structure_id")
        self.encodings = maggma_store(store, "encodings", "structure_id")
        self.n_done = self.n_refused = self.n_skipped = 0
        super().__init__(self.structures, self.encodings, chunk_size)

    def get_items(self) -> Iterator[dict[str, Any]]:
        """Yield the structures whose encoding is missing or was made of another crystal or tolerance."""
        built = {
            row["structure_id"]: row["input_hash"]
            for row in self.encodings._collection.find({}, {"structure_id": 1, "input_hash": 1, "_id": 0})
        }
        known = self.structures._collection.find({}, {"structure_id": 1, "crystal_hash": 1, "_id": 0})
        stale = [row["structure_id"] for row in known if built.get(row["structure_id"]) != _input_hash(row)]
        self.total = len(stale)
        self.n_skipped = self.structures._collection.estimated_document_count() - len(stale)
        for start in range(0, len(stale), self.chunk_size):
            wanted = stale[start : start + self.chunk_size]
            yield from self.structures._collection.find({"structure_id": {"$in": wanted}}, _FIELDS)

    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        """Encode one structure; a pure function, so that other processes can do it."""
        return encoding_of(item)

    def update_targets(self, items: list[dict[str, Any]]) -> None:
        """Write a batch of encodings."""
        replace = partial(ReplaceOne, upsert=True)
        operations = [replace({"structure_id": item["structure_id"]}, item) for item in items]
        if operations:
            self.encodings._collection.bulk_write(operations, ordered=False)
        refused = sum("refused" in item for item in items)
        self.n_refused += refused
        self.n_done += len(items) - refused

    def finalize(self) -> None:
        """Leave the shared client open."""


def _input_hash(structure: dict[str, Any]) -> str:
    return f"{structure['crystal_hash']}@{SYMPREC:g}"
