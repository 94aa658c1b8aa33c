"""Bring crystals that another generator wrote into a campaign: idempotent, with a reason for every row refused."""

from dataclasses import dataclass, replace
from pathlib import Path

from wyloop.models.wyckoff.encode import SYMPREC
from wyloop.stores import campaigns
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.import_files import read_generated
from wyloop.stores.imports import ImportedGene, add_imports, checked_name
from wyloop.stores.ingest.report import MAX_KEPT, OnProgress, OnRefusal, Refusal
from wyloop.stores.records import JSON

BATCH_SIZE = 200


@dataclass(frozen=True)
class ImportReport:
    """What became of the rows of a generator's file."""

    n_rows: int
    n_added: int
    """New genes that the campaign's next round takes in."""
    n_repeated: int
    """Rows whose gene this generator proposed before, in this file or an earlier one."""
    n_without_crystal: int
    """Rows that gave a gene and no 3D structure of it; one is built for these."""
    refused: tuple[Refusal, ...] = ()
    """The first MAX_KEPT."""
    n_refused: int = 0


@translated
def import_crystals(
    store: Store,
    path: Path,
    generator: str,
    campaign_id: str,
    *,
    symprec: float = SYMPREC,
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
) -> ImportReport:
    """Read a generator's file and keep its genes, with their crystals, for the campaign's next round.

    Args:
        store: The database.
        path: CSV, extxyz, JSON, CIF, POSCAR, a zip of CIFs, or a folder of these.
        generator: Name under which the candidates are compared with those of others.
        campaign_id: The campaign.
        symprec: Distance within which atoms count as equivalent when the gene is found, Å.
        on_progress: Told the rows done; their number is not known before.
        on_refusal: Told each row that was not taken.

    Raises:
        IngestError: There is no such file, it has no form that is known, or the name can't be a generator's.
        CampaignError: No such campaign.
    """
    checked_name(generator)
    campaigns.campaign(store, campaign_id)
    n_rows = n_added = n_taken = n_without = n_refused = 0
    refused: list[Refusal] = []
    batch: list[ImportedGene] = []
    for number, row in enumerate(read_generated(path, symprec), start=1):
        n_rows = number
        if isinstance(row, Refusal):
            numbered = replace(row, row=number)
            n_refused += 1
            refused += [numbered] if len(refused) < MAX_KEPT else []
            if on_refusal is not None:
                on_refusal(numbered)
        else:
            n_taken += 1
            n_without += row.crystal is None
            origin: dict[str, JSON] = {"file": row.file, "row": number, "identity": row.identity}
            batch.append(ImportedGene(campaign_id, generator, row.gene.fingerprint, row.crystal, origin))
        if len(batch) == BATCH_SIZE:
            n_added, batch = n_added + _added(store, batch), []
        if on_progress is not None:
            on_progress(number, number)
    n_added += _added(store, batch)
    return ImportReport(n_rows, n_added, n_taken - n_added, n_without, tuple(refused), n_refused)


def _added(store: Store, batch: list[ImportedGene]) -> int:
    """Keep a batch, each gene once, with the first crystal that there is of it; return how many are new."""
    distinct: dict[str, ImportedGene] = {}
    for gene in batch:
        first = distinct.setdefault(gene.fingerprint, gene)
        if first.crystal is None and gene.crystal is not None:
            distinct[gene.fingerprint] = gene
    return add_imports(store, distinct.values())
