"""Idempotent bulk writing of structures: added, updated where the content differs, else left alone."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pymongo import ReplaceOne

from wyloop.models.crystal import Crystal
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.records import composition_fields, crystal_fields, digest


@dataclass(frozen=True)
class SourceStructure:
    """A crystal as its source gives it. Energy in eV/atom, gap in eV; None is not known."""

    source: str
    source_id: str
    crystal: Crystal
    formation_energy_per_atom: float | None = None
    energy_method: str | None = None
    band_gap: float | None = None
    band_gap_method: str | None = None
    space_group_number: int | None = None
    citation: str | None = None

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


def write_structures(store: Store, batch: Sequence[SourceStructure]) -> Written:
    """Write a batch whose identities are distinct; running it again changes nothing."""
    if not batch:
        return Written()
    collection = store.database["structures"]
    contents = {structure.structure_id: structure_content(structure) for structure in batch}
    hashes = {identity: digest(fields) for identity, fields in contents.items()}
    found = collection.find({"structure_id": {"$in": list(contents)}}, {"structure_id": 1, "content_hash": 1, "_id": 0})
    present = {row["structure_id"]: row["content_hash"] for row in found}
    operations = []
    for structure in batch:
        identity = structure.structure_id
        if present.get(identity) != hashes[identity]:
            fields = contents[identity] | crystal_fields(structure.crystal) | {"content_hash": hashes[identity]}
            document = checked(StructureDocument, fields)
            operations.append(ReplaceOne({"structure_id": identity}, document, upsert=True))
    if operations:
        collection.bulk_write(operations, ordered=False)
    n_updated = sum(identity in present and present[identity] != hashes[identity] for identity in contents)
    return Written(len(operations) - n_updated, n_updated, len(batch) - len(operations))


def structure_content(structure: SourceStructure) -> dict[str, Any]:
    """Return what the content hash of a structure's document covers; the crystal is there as its own hash."""
    crystal = structure.crystal
    volume = crystal.volume
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
