"""Idempotent bulk writing of structures: added, updated where the content differs, else left alone."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from bson import ObjectId, encode
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError

from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.stores.bulk import duplicates, insert_new
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.records import composition_fields, digest, object_id

OF_GENE = ("fingerprint", "protostructure", "space_group_number")
"""Fields of a structure that follow from its gene."""
MAX_ATTEMPTS = 5  # each is lost only to a writer of the same rows in the same instant
Gene = Mapping[str, Any]
"""Fields of an encoding that follow from the crystal (`encoding_fields`)."""


@dataclass(frozen=True)
class SourceStructure:
    """A crystal as its source gives it. Energies in eV/atom, gap in eV; None is not known."""

    source: str
    source_id: str
    crystal: Crystal
    formation_energy_per_atom: float | None = None
    energy_method: str | None = None
    band_gap: float | None = None
    band_gap_method: str | None = None
    space_group_number: int | None = None
    citation: str | None = None
    energy_per_atom: float | None = None
    functional: str | None = None
    """Functional and settings of `energy_per_atom`; energies compare only where it is the same."""
    provenance: str | None = None

    @property
    def structure_id(self) -> str:
        """Identity of the structure in the database."""
        return f"{self.source}:{self.source_id}"


@dataclass(frozen=True)
class Written:
    """How many of a batch were new, changed or there already."""

    n_added: int = 0
    n_updated: int = 0
    n_unchanged: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(
            self.n_added + other.n_added, self.n_updated + other.n_updated, self.n_unchanged + other.n_unchanged
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A structure ready to be written."""

    structure_id: str
    content_hash: str
    content: Mapping[str, Any]
    crystal: Crystal
    gene: Gene | None = None

    def document(self, time: datetime, *, with_gene: bool = True) -> dict[str, Any]:
        """Return the checked document, without `_id`."""
        crystal, content = self.crystal, self.content
        fields = {
            **content,
            "content_hash": self.content_hash,
            "lattice": np.asarray(crystal.lattice, dtype=np.float64),
            "species": crystal.species,
            "frac_coords": np.asarray(crystal.frac_coords, dtype=np.float64),
            "reported_space_group_number": content["space_group_number"],
            "last_updated": time,
        }
        if with_gene and self.gene is not None:
            fields |= {name: self.gene[name] for name in OF_GENE if name in self.gene}
        return checked(StructureDocument, fields)

    def encoding(self, time: datetime) -> dict[str, Any]:
        """Return what the encoding builder would make of the structure; it leaves it alone then."""
        assert self.gene is not None
        fields = {
            "structure_id": self.structure_id,
            "input_hash": f"{self.content['crystal_hash']}@{self.gene['symprec']:g}",
            "last_updated": time,
            **self.gene,
        }
        return {"_id": object_id(self.structure_id), **checked(EncodingDocument, fields)}


@dataclass(frozen=True, slots=True)
class Ready:
    """A row with its new documents, packed at once: a batch of nested lists would keep the garbage collector busy."""

    row: Row
    document: RawBSONDocument
    encoding: RawBSONDocument | None


def write_structures(
    store: Store, batch: Sequence[SourceStructure], *, genes: Mapping[str, Gene] | None = None
) -> Written:
    """Write a batch whose identities are distinct; running it again, or twice at once, changes nothing more.

    Args:
        store: The database.
        batch: What the source gives.
        genes: Fields of the encodings (`encoding_fields`) of those whose gene is found already, by structure id: where
            a structure is new, both are written at once, which spares the builder a second write of it.
    """
    time = now()
    return write_ready(store, [ready(row, time) for row in rows_of(batch, genes)])


def write_ready(store: Store, batch: Sequence[Ready]) -> Written:
    """Write what of a batch is new or changed, again where another writer came in between."""
    pending, written = list(batch), Written()
    for _ in range(MAX_ATTEMPTS):
        present = hashes_of(store, [one.row.structure_id for one in pending])
        changed = [one for one in pending if present.get(one.row.structure_id) != one.row.content_hash]
        old = [one for one in changed if one.row.structure_id in present]
        added, overtaken = _insert(store, [one for one in changed if one.row.structure_id not in present])
        replaced, lost = _replace(store, old)
        written += Written(added, n_unchanged=len(pending) - len(changed)) + replaced
        pending = overtaken + lost
        if not pending:
            return written
    raise DatabaseError(
        f"{len(pending)} structures such as {pending[0].row.structure_id} were written by others {MAX_ATTEMPTS} times "
        "meanwhile; expected no more than a few writers of the same rows; run it again"
    )


def hashes_of(store: Store, identities: Sequence[str]) -> dict[str, str]:
    """Return the content hashes of those that are in the database."""
    found = store.database["structures"].find(
        {"structure_id": {"$in": list(identities)}}, {"structure_id": 1, "content_hash": 1, "_id": 0}
    )
    return {row["structure_id"]: row["content_hash"] for row in found}


def _insert(store: Store, new: Sequence[Ready]) -> tuple[int, list[Ready]]:
    """Insert structures, then the encodings of those inserted; return their number, and those that others wrote.

    Killed in between, the numbers of documents tell the builder that encodings are missing.
    """
    lost = set(insert_new(store.database["structures"], [one.document for one in new]))
    encodings = [one.encoding for place, one in enumerate(new) if place not in lost and one.encoding is not None]
    left = insert_new(store.database["encodings"], encodings)
    if left:  # of an earlier structure of that name, or the builder was faster: it looks at these again
        identities = [encodings[place]["structure_id"] for place in left]
        store.database["structures"].update_many(
            {"structure_id": {"$in": identities}}, {"$unset": {"fingerprint": "", "protostructure": ""}}
        )
    return len(new) - len(lost), [new[place] for place in sorted(lost)]


def _replace(store: Store, old: Sequence[Ready]) -> tuple[Written, list[Ready]]:
    """Replace structures of other content; return counts, and those that others wrote meanwhile.

    Their genes are left to the builder: two documents that change can't be kept in step with another writer here.
    """
    if not old:
        return Written(), []
    time = now()
    operations = []
    for row in (one.row for one in old):
        stale = {"structure_id": row.structure_id, "content_hash": {"$ne": row.content_hash}}
        operations.append(ReplaceOne(stale, row.document(time, with_gene=False), upsert=True))
    try:
        result = store.database["structures"].bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        lost = duplicates(error)
        details = error.details
        return Written(details["nUpserted"], details["nModified"]), [old[place] for place in lost]
    return Written(result.upserted_count, result.modified_count), []


def rows_of(batch: Sequence[SourceStructure], genes: Mapping[str, Gene] | None = None) -> Iterator[Row]:
    """Yield each structure with its content and hash, and its gene where that is found already, by structure id."""
    if not batch:
        return
    lattices = np.array([structure.crystal.lattice for structure in batch], dtype=np.float64)
    volumes = np.abs(np.linalg.det(lattices)).tolist()  # `Crystal.volume` of all at once
    for structure, volume in zip(batch, volumes, strict=True):
        content = structure_content(structure, volume)
        identity = content["structure_id"]
        yield Row(identity, digest(content), content, structure.crystal, genes.get(identity) if genes else None)


def ready(row: Row, time: datetime) -> Ready:
    """Make a row's documents, as they are inserted where it is new."""
    document = RawBSONDocument(encode({"_id": ObjectId(), **row.document(time)}))
    return Ready(row, document, None if row.gene is None else RawBSONDocument(encode(row.encoding(time))))


def structure_content(structure: SourceStructure, volume: float) -> dict[str, Any]:
    """Return what the content hash of a structure's document covers; the crystal is there as its own hash.

    Args:
        structure: What the source gives.
        volume: Of its cell, Å^3.
    """
    crystal = structure.crystal
    has_energy = structure.energy_per_atom is not None
    later = {  # fields that came after the first release count only where there is one: hashes stay what they were
        "energy_per_atom": structure.energy_per_atom,
        "functional": structure.functional if has_energy else None,
        "provenance": structure.provenance,
    }
    return {
        "structure_id": structure.structure_id,
        "source": structure.source,
        "source_id": structure.source_id,
        "crystal_hash": crystal_hash(crystal),
        **_composition(tuple(sorted(Counter(crystal.species).items()))),
        "nsites": crystal.nsites,
        "volume": volume,
        "volume_per_atom": volume / crystal.nsites,
        "formation_energy_per_atom": structure.formation_energy_per_atom,
        "energy_method": structure.energy_method if structure.formation_energy_per_atom is not None else None,
        "band_gap": structure.band_gap,
        "band_gap_method": structure.band_gap_method if structure.band_gap is not None else None,
        "space_group_number": structure.space_group_number,
        "citation": structure.citation,
        **{name: value for name, value in later.items() if value is not None},
    }


def crystal_hash(crystal: Crystal) -> str:
    """Return the SHA-256 of lattice, species and coordinates as given; another cell of the same crystal differs."""
    made = hashlib.sha256(",".join(crystal.species).encode())
    for array in (crystal.lattice, crystal.frac_coords):
        made.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return made.hexdigest()


@lru_cache(maxsize=50_000)
def _composition(amounts: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    return composition_fields(dict(amounts))
