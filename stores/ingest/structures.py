"""Idempotent bulk writing of structures: added, updated where the content differs, else left alone."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from pymongo import InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError

from wyloop.models.crystal import Crystal
from wyloop.stores.bulk import insert_or_replace
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.records import composition_fields, digest, object_id

OF_GENE = ("fingerprint", "protostructure", "space_group_number")
"""Fields of a structure that follow from its gene."""
DUPLICATE_KEY = 11000  # MongoDB's code
_Operation = InsertOne[dict[str, Any]] | ReplaceOne[dict[str, Any]]
MAX_ATTEMPTS = 5  # each is lost only to a writer of the same rows in the same instant


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


def write_structures(
    store: Store, batch: Sequence[SourceStructure], *, genes: Mapping[str, Mapping[str, Any]] | None = None
) -> Written:
    """Write a batch whose identities are distinct; running it again, or twice at once, changes nothing more.

    Args:
        store: The database.
        batch: What the source gives.
        genes: Fields of the encodings (`encoding_fields`) of those whose gene is found already, by structure id: they
            are written at once, which spares the builder a second write of each structure.
    """
    contents = {structure.structure_id: structure_content(structure) for structure in batch}
    hashes = {identity: digest(fields) for identity, fields in contents.items()}
    crystals = {structure.structure_id: structure.crystal for structure in batch}
    pending, written = list(contents), Written()
    for attempt in range(MAX_ATTEMPTS):
        present = _present(store, pending)
        changed = [identity for identity in pending if present.get(identity) != hashes[identity]]
        written += Written(n_unchanged=len(pending) - len(changed))
        operations: list[_Operation] = []
        time = now()
        if genes:
            _write_encodings(store, [identity for identity in changed if identity in genes], contents, genes, time)
        for identity in changed:
            fields = contents[identity] | _cell(crystals[identity]) | {"content_hash": hashes[identity]}
            fields["reported_space_group_number"] = fields["space_group_number"]
            fields["last_updated"] = time
            if genes and identity in genes:
                fields |= {name: genes[identity][name] for name in OF_GENE if name in genes[identity]}
            document = checked(StructureDocument, fields)
            if identity in present:
                stale = {"structure_id": identity, "content_hash": {"$ne": hashes[identity]}}
                operations.append(ReplaceOne(stale, document, upsert=True))
            else:  # at half the time of an upsert
                operations.append(InsertOne(document))
        if not operations:
            break
        done, lost = _bulk_write(store, operations, is_last=attempt == MAX_ATTEMPTS - 1)
        written += done
        pending = [changed[place] for place in lost]
        if not pending:
            break
    return written


def _write_encodings(
    store: Store,
    identities: Sequence[str],
    contents: Mapping[str, Mapping[str, Any]],
    genes: Mapping[str, Mapping[str, Any]],
    time: datetime,
) -> None:
    """Write what the encoding builder would make of these structures; it leaves them alone then."""
    documents = [
        {
            "_id": object_id(identity),
            **checked(
                EncodingDocument,
                {
                    "structure_id": identity,
                    "input_hash": f"{contents[identity]['crystal_hash']}@{genes[identity]['symprec']:g}",
                    "last_updated": time,
                    **genes[identity],
                },
            ),
        }
        for identity in identities
    ]
    insert_or_replace(store.database["encodings"], documents, "structure_id")


def _present(store: Store, identities: Sequence[str]) -> dict[str, str]:
    """Return the content hashes of those that are in the database."""
    found = store.database["structures"].find(
        {"structure_id": {"$in": list(identities)}}, {"structure_id": 1, "content_hash": 1, "_id": 0}
    )
    return {row["structure_id"]: row["content_hash"] for row in found}


def _bulk_write(store: Store, operations: list[_Operation], *, is_last: bool) -> tuple[Written, list[int]]:
    """Write; return counts, and the places of operations that another writer of the same identity overtook."""
    try:
        if all(isinstance(operation, InsertOne) for operation in operations):  # as most: this way is shorter
            store.database["structures"].insert_many([operation._doc for operation in operations], ordered=False)
            return Written(len(operations)), []
        result = store.database["structures"].bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        failures = details.get("writeErrors", [])
        if is_last or details.get("writeConcernErrors") or any(one["code"] != DUPLICATE_KEY for one in failures):
            raise
        done = Written(details.get("nInserted", 0) + details.get("nUpserted", 0), details.get("nModified", 0))
        return done, [one["index"] for one in failures]
    return Written(result.inserted_count + result.upserted_count, result.modified_count), []


def _cell(crystal: Crystal) -> dict[str, Any]:
    """Return the fields of a crystal as arrays, which their check turns into lists."""
    arrays = {"lattice": crystal.lattice, "frac_coords": crystal.frac_coords}
    made: dict[str, Any] = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    return made | {"species": list(crystal.species)}


def structure_content(structure: SourceStructure) -> dict[str, Any]:
    """Return what the content hash of a structure's document covers; the crystal is there as its own hash."""
    crystal = structure.crystal
    volume = crystal.volume
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
