"""Crystals that generators wrote to files: kept for a campaign until one of its rounds takes them in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import UpdateOne

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.stores.bulk import insert_new
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import CrystalFields, checked, checked_update, embedded
from wyloop.stores.documents.imports import ImportDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, crystal_fields, crystal_of, digest

MAX_NAME = 60


@dataclass(frozen=True)
class ImportedGene:
    """One gene that a generator proposed by file."""

    campaign_id: str
    generator: str
    fingerprint: str
    crystal: Crystal | None = None
    origin: Mapping[str, JSON] = field(default_factory=dict)
    round_id: str | None = None
    outcome: str = "waiting"

    @property
    def import_id(self) -> str:
        """Its identity: read twice, it is the same."""
        return "import-" + digest([self.campaign_id, self.generator, self.fingerprint], 12)


def checked_name(generator: str) -> str:
    """Return a generator's name if it can be one.

    Raises:
        IngestError: It is empty, too long, or holds more than letters, digits, dots, dashes, pluses and underscores.
    """
    is_plain = generator.isascii() and all(letter.isalnum() or letter in "._+-" for letter in generator)
    if not generator or len(generator) > MAX_NAME or not is_plain:
        raise IngestError(
            f"generator {generator!r}; expected 1 to {MAX_NAME} letters, digits, dots, dashes, pluses or underscores, "
            "such as mattergen"
        )
    return generator


@translated
def add_imports(store: Store, genes: Iterable[ImportedGene]) -> int:
    """Keep genes for the next round; what is there already stays as it is.

    Returns:
        How many are new.
    """
    documents = [checked(ImportDocument, _fields(gene)) for gene in genes]
    return len(documents) - len(insert_new(store.database["imports"], documents))


@translated
def imports_for(
    store: Store, campaign_id: str, round_id: str, generator: str, *, limit: int | None = None
) -> list[ImportedGene]:
    """Return the genes of a generator that a round may take: those it took before it was interrupted, and new ones.

    They come in the order in which they were imported.
    """
    criteria = {
        "campaign_id": {"$eq": campaign_id},
        "round_id": {"$in": [None, round_id]},
        "generator": {"$eq": generator},
    }
    found = store.database["imports"].find(criteria).sort("_id", 1).limit(limit or 0)
    return [_record(row) for row in found]


@translated
def importing_generators(store: Store, campaign_id: str, *, round_id: str | None = None) -> list[str]:
    """Return the generators with imports for a campaign, by name; with a round, those that have some for it."""
    criteria: dict[str, Any] = {"campaign_id": {"$eq": campaign_id}}
    if round_id is not None:
        criteria["round_id"] = {"$in": [None, round_id]}
    return sorted(store.database["imports"].distinct("generator", criteria))


@translated
def settle_imports(store: Store, round_id: str, outcomes: Mapping[str, Sequence[ImportedGene]]) -> None:
    """Note which round took genes, and what became of them there.

    Args:
        store: The database.
        round_id: The round.
        outcomes: Genes by outcome: candidate, known, or duplicate of another generator's.
    """
    operations = [
        UpdateOne(
            {"import_id": gene.import_id},
            {"$set": checked_update(ImportDocument, {"round_id": round_id, "outcome": outcome})},
        )
        for outcome, genes in outcomes.items()
        for gene in genes
        if (gene.round_id, gene.outcome) != (round_id, outcome)
    ]
    if operations:
        store.database["imports"].bulk_write(operations, ordered=False)


def _fields(gene: ImportedGene) -> dict[str, Any]:
    crystal = None if gene.crystal is None else embedded(CrystalFields, crystal_fields(gene.crystal))
    return {
        "import_id": gene.import_id,
        "campaign_id": gene.campaign_id,
        "generator": gene.generator,
        "fingerprint": gene.fingerprint,
        "crystal": crystal,
        "origin": dict(gene.origin) or None,
        "outcome": "waiting",
    }


def _record(row: Mapping[str, Any]) -> ImportedGene:
    return ImportedGene(
        campaign_id=row["campaign_id"],
        generator=row["generator"],
        fingerprint=row["fingerprint"],
        crystal=None if row.get("crystal") is None else crystal_of(row["crystal"]),
        origin=row.get("origin") or {},
        round_id=row.get("round_id"),
        outcome=row["outcome"],
    )
