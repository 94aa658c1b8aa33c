"""calculations and structures -> materials: gene by gene, only where something is new."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from maggma.core import Builder
from pymongo import DeleteOne, UpdateOne

from wyloop.stores.builders.assemble import GeneInputs, Owner, best_of_kind, documents_of, is_usable, reference_ids
from wyloop.stores.builders.lock import building, with_sign_of_life
from wyloop.stores.builders.run import BuildCounts, OnProgress, batches, maggma_store, run
from wyloop.stores.bulk import insert_or_replace
from wyloop.stores.calculations import CalculationRecord, of_ids, of_subjects
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.materials import FROM_HULL

CHUNK_SIZE = 1000
PARALLEL_FROM = 20_000  # genes; assembling takes 0.3 ms each, starting processes two to three seconds
OPEN_STATUSES = ("dispatched", "quarantined", "off_target", "unstable", "validated")
"""Candidates that a material can belong to: those that were taken on and have not failed."""

_KNOWN_FIELDS = {
    "structure_id": 1,
    "source": 1,
    "fingerprint": 1,
    "content_hash": 1,
    "lattice": 1,
    "species": 1,
    "frac_coords": 1,
    "formation_energy_per_atom": 1,
    "energy_method": 1,
    "band_gap": 1,
    "band_gap_method": 1,
    "material_id": 1,
    "last_updated": 1,
}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@translated
def build_materials(
    store: Store,
    fingerprints: Iterable[str] | None = None,
    *,
    full: bool = False,
    on_progress: OnProgress | None = None,
    n_processes: int | None = None,
) -> BuildCounts:
    """Bring the materials up to date with structures and calculations.

    Args:
        store: The database.
        fingerprints: Genes; none: those with something new.
        full: Make all again, and remove what nothing stands behind any more.
        on_progress: Told how many genes are done.
        n_processes: Processes that assemble; none: all cores where there is very much to do, else this one.

    Returns:
        Materials written or removed; none is refused; the others were left alone.
    """
    with building(store, "materials") as is_alive:
        builder = MaterialBuilder(store, fingerprints, full=full)
        run(
            builder,
            on_progress=with_sign_of_life(is_alive, on_progress),
            process=documents_of,
            n_processes=n_processes,
            parallel_from=PARALLEL_FROM,
        )
    n_materials = store.database["materials"].estimated_document_count()
    return BuildCounts(builder.n_done, 0, max(0, n_materials - builder.n_written))


class MaterialBuilder(Builder):
    """maggma builder from `structures` and `calculations` to `materials`; reads and writes in bulk."""

    def __init__(
        self,
        store: Store,
        fingerprints: Iterable[str] | None = None,
        *,
        full: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        self.store = store
        self.fingerprints = None if fingerprints is None else sorted(set(fingerprints))
        self.full = full
        self.structures = maggma_store(store, "structures", "structure_id")
        self.materials = maggma_store(store, "materials", "material_id")
        self.n_done = self.n_written = 0
        self._taken: list[GeneInputs] = []
        """Inputs of the genes that are under way, in their order."""
        sources = [self.structures, maggma_store(store, "calculations", "calculation_id")]
        super().__init__(list(sources), [self.materials], chunk_size)

    def get_items(self) -> Iterator[GeneInputs]:
        """Yield the inputs of each gene with something new."""
        wanted = self.fingerprints
        if wanted is None:
            wanted = sorted(_all_genes(self.store) if self.full else new_genes(self.store))
        self.total = len(wanted)
        for batch in batches(wanted, self.chunk_size):
            for inputs in read_inputs(self.store, batch):
                self._taken.append(inputs)
                yield inputs

    def process_item(self, item: GeneInputs) -> list[dict[str, Any]]:
        """Make the documents of one gene's materials; a pure function, so that other processes can do it."""
        return documents_of(item)

    def update_targets(self, items: list[list[dict[str, Any]]]) -> None:
        """Write the materials of a batch of genes, then note on the structures which material they are.

        Killed in between, the structures still lack it, and their genes are done again.
        """
        taken, self._taken = self._taken[: len(items)], self._taken[len(items) :]
        genes = [inputs.fingerprint for inputs in taken]
        left_out = {} if self.full else {"crystal": 0}
        found = self.materials._collection.find({"fingerprint": {"$in": genes}}, left_out)
        present = {row["material_id"]: row for row in found}
        made = {document["material_id"]: document for documents in items for document in documents}
        gone = [row for identity, row in present.items() if identity not in made]
        changed = [document for identity, document in made.items() if self._differs(present.get(identity), document)]
        self._remove(gone)
        if changed:
            insert_or_replace(self.materials._collection, changed, "material_id")
        self._tell(taken, made.values())
        self.n_written += len(changed)
        self.n_done += len(changed) + len(gone)

    def _differs(self, present: dict[str, Any] | None, made: dict[str, Any]) -> bool:
        if present is None or present["input_hash"] != made["input_hash"] or present["_id"] != made["_id"]:
            return True
        return self.full and _base(present) != _base(made)

    def _remove(self, gone: Sequence[dict[str, Any]]) -> None:
        """Remove materials that nothing stands behind any more, their hulls marked first."""
        if gone:
            systems = sorted({row["chemsys"] for row in gone})
            self.store.database["hulls"].update_many({"chemsys": {"$in": systems}}, {"$inc": {"stale": 1}})
            self.materials._collection.bulk_write([DeleteOne({"_id": row["_id"]}) for row in gone])

    def _tell(self, taken: Sequence[GeneInputs], made: Iterable[dict[str, Any]]) -> None:
        material_of = {identity: document["material_id"] for document in made for identity in document["structure_ids"]}
        operations = [
            UpdateOne(
                {"structure_id": row["structure_id"], "content_hash": row["content_hash"]},
                {"$set": {"material_id": material_of[row["structure_id"]]}},
            )
            for inputs in taken
            for row in inputs.structures
            if row.get("material_id") != material_of[row["structure_id"]]
        ]
        if operations:
            self.structures._collection.bulk_write(operations, ordered=False)

    def finalize(self) -> None:
        """Leave the shared client open."""


def new_genes(store: Store) -> set[str]:
    """Return the genes whose materials may be out of date, found by indexes."""
    return _genes_of_structures(store) | _genes_of_calculations(store)


def _genes_of_structures(store: Store) -> set[str]:
    """Return the genes of the structures that are of no material yet, and of the materials that they were of before."""
    found = store.database["structures"].find({"material_id": None}, {"structure_id": 1, "fingerprint": 1, "_id": 0})
    rows = {row["structure_id"]: row.get("fingerprint") for row in found}
    genes = {gene for gene in rows.values() if gene is not None}
    for batch in batches(rows):
        before = store.database["materials"].find({"structure_ids": {"$in": batch}}, {"fingerprint": 1, "_id": 0})
        genes.update(row["fingerprint"] for row in before)
    return genes


def _genes_of_calculations(store: Store) -> set[str]:
    """Return the genes with completed calculations that no material names, or a DFT energy without its references."""
    database = store.database
    subjects: dict[str, set[str]] = {}
    completed = {
        "status": "completed",
        "kind": {"$ne": "reference"},
        "review": {"$nin": ["quarantined", "rejected"]},  # what is withheld makes no material
    }
    fields = {"subject": 1, "calculation_id": 1, "_id": 0}
    for row in database["calculations"].find(completed, fields):
        subjects.setdefault(row["subject"], set()).add(row["calculation_id"])
    if not subjects:
        return set()
    for row in database["materials"].find(
        {"calculation_ids": {"$type": "string"}},
        {"fingerprint": 1, "calculation_ids": 1, "band_gap": 1, "dft_formation_energy_per_atom": 1, "_id": 0},
    ):
        waits = row.get("band_gap") is not None and row.get("dft_formation_energy_per_atom") is None
        if not waits and subjects.get(row["fingerprint"], set()) <= set(row["calculation_ids"]):
            subjects.pop(row["fingerprint"], None)
    return set(subjects)


def _all_genes(store: Store) -> set[str]:
    genes: set[str] = set()
    for name, field in (("structures", "fingerprint"), ("materials", "fingerprint")):
        found = store.database[name].find({field: {"$type": "string"}}, {field: 1, "_id": 0}, batch_size=10_000)
        genes.update(row[field] for row in found)
    completed = {"status": "completed", "kind": "relaxation"}
    found = store.database["calculations"].find(completed, {"subject": 1, "_id": 0}, batch_size=10_000)
    return genes | {row["subject"] for row in found}


def read_inputs(store: Store, genes: list[str]) -> list[GeneInputs]:
    """Return all that the materials of these genes are made of, gene by gene."""
    structures: dict[str, list[dict[str, Any]]] = {}
    # `_id` is in the order of the first writing, and stays when a row is ingested again
    for row in store.database["structures"].find({"fingerprint": {"$in": genes}}, _KNOWN_FIELDS).sort("_id", 1):
        structures.setdefault(row["fingerprint"], []).append(row)
    calculations: dict[str, list[CalculationRecord]] = {}
    for found in of_subjects(store, genes):
        calculations.setdefault(found.subject, []).append(found)
    usable = [gene for gene, records in calculations.items() if is_usable(best_of_kind(records).get("relaxation"))]
    owners = _owners(store, usable)
    references = _references(store, {gene: calculations[gene] for gene in usable})
    return [
        GeneInputs(
            fingerprint=gene,
            structures=tuple(structures.get(gene, ())),
            calculations=tuple(calculations.get(gene, ())),
            references=references.get(gene, {}),
            owner=owners.get(gene),
        )
        for gene in genes
    ]


def _owners(store: Store, genes: list[str]) -> dict[str, Owner]:
    """Return, of each gene that was proposed, the candidate of the newest round that took it on."""
    if not genes:
        return {}
    criteria = {"fingerprint": {"$in": genes}, "status": {"$in": list(OPEN_STATUSES)}}
    fields = {"fingerprint": 1, "candidate_id": 1, "campaign_id": 1, "round_id": 1, "round_number": 1, "model_id": 1}
    found = list(store.database["candidates"].find(criteria, fields))
    rounds = store.database["rounds"].find(
        {"round_id": {"$in": sorted({row["round_id"] for row in found})}}, {"round_id": 1, "created_at": 1}
    )
    opened = {row["round_id"]: row["created_at"] for row in rounds}
    found.sort(key=lambda row: (opened.get(row["round_id"], _LONG_AGO), row["candidate_id"]))
    return {
        row["fingerprint"]: Owner(row["candidate_id"], row["campaign_id"], row["round_number"], row.get("model_id"))
        for row in found
    }


def _references(store: Store, calculations: dict[str, list[CalculationRecord]]) -> dict[str, dict[str, float]]:
    """Return, of each gene computed by DFT, the energies of its elements that are known, eV/atom."""
    wanted: dict[str, dict[str, str]] = {}
    for gene, records in calculations.items():
        dft = best_of_kind(records).get("dft")
        if dft is not None:
            wanted[gene] = reference_ids(dft)
    identities = sorted({identity for ids in wanted.values() for identity in ids.values()})
    energies = {
        found.calculation_id: float(energy)
        for found in (of_ids(store, identities) if identities else [])
        if found.status == "completed" and isinstance(energy := found.result.get("energy_per_atom"), int | float)
    }
    return {
        gene: {element: energies[identity] for element, identity in ids.items() if identity in energies}
        for gene, ids in wanted.items()
    }


def _base(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in FROM_HULL}
