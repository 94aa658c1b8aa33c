"""What the scale benchmark measures: each stage on a database of made-up crystals, beside the bare call of pymongo."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scale_data import ELEMENT_SHARES, GROUP_SHARES, Made, Population

from wyloop.models.screening.novelty import novelty
from wyloop.models.targets import Target
from wyloop.models.wyckoff.encode import SYMPREC
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.builders.encodings import EncodingBuilder
from wyloop.stores.candidates import known_among, propose
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.candidates import CandidateDocument
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.ingest.structures import SourceStructure, crystal_hash, write_structures
from wyloop.stores.queries import query
from wyloop.stores.records import composition_fields, object_id

BATCH = 1000
N_COMPARED = 10_000  # crystals written both ways
N_MAGGMA = 1_000  # documents written as maggma's documentation shows
N_GENES = 10_000
OPTIMADE_FILTER = 'elements HAS ALL "Ga","As" AND nelements=3'
PAGE = 20
Result = dict[str, Any]


def spread(seconds: Sequence[float]) -> Result:
    """Return median and 95th percentile in milliseconds."""
    p50, p95 = (float(np.percentile(seconds, share)) * 1e3 for share in (50, 95))
    return {"n": len(seconds), "p50_ms": round(p50, 2), "p95_ms": round(p95, 2)}


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def side_by_side(calls: dict[str, Callable[[], object]], n: int, store: Store | None = None) -> dict[str, Result]:
    """Time calls in turn, so that whatever else the machine does hits all of them; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    clocks = {} if store is None else {name: Clock(store) for name in calls}
    for number in range(n + 1):
        for name, call in calls.items():
            taken = clocks[name].time(call) if clocks and number else timed(call)
            if number:
                seconds[name].append(taken)
    found = {name: spread(values) for name, values in seconds.items()}
    for name, clock in clocks.items():
        found[name]["processor_ms"] = round(clock.processor / n * 1e3, 2)
    return found


class Clock:
    """Adds up the seconds of calls, and the processor time that this process and mongod spend in them.

    Processor time tells what a call costs when the machine is busy with other work.
    """

    def __init__(self, store: Store) -> None:
        self._mongod = psutil.Process(store.client.admin.command("serverStatus")["pid"])
        self.seconds = self.processor = 0.0
        self.last = (0.0, 0.0)

    def time(self, call: Callable[[], object]) -> float:
        """Make a call; return its seconds."""
        before, began = self._processor(), time.perf_counter()
        call()
        self.last = (time.perf_counter() - began, self._processor() - before)
        self.seconds += self.last[0]
        self.processor += self.last[1]
        return self.last[0]

    def add(self, other: "Clock") -> None:
        """Count the last call of another clock."""
        self.seconds += other.last[0]
        self.processor += other.last[1]

    def processor_us(self, n: int) -> int:
        """Return microseconds of processor time for each of n."""
        return round(self.processor / n * 1e6)

    def _processor(self) -> float:
        times = self._mongod.cpu_times()
        return time.process_time() + float(times.user + times.system)


# -- loading ---------------------------------------------------------------------------------------------------------


def load(store: Store, population: Population, size: int) -> Result:
    """Load structures with their encodings as ingest writes them, the first ones also in two other ways, in turn."""
    composition_fields({"Na": 1})  # imports what the first document needs
    clocks = {name: Clock(store) for name in ("ours", "compared", "finished", "two passes")}
    rates = []
    for first, made in enumerate(batches(population.draw(size))):
        sources = [one.structure for one in made]
        genes = {source.structure_id: gene_fields(one) for source, one in zip(sources, made, strict=True)}
        seconds = clocks["ours"].time(
            lambda sources=sources, genes=genes: write_structures(store, sources, genes=genes)
        )
        rates.append(2 * len(made) / seconds)
        if first * BATCH < N_COMPARED:
            clocks["compared"].add(clocks["ours"])
            _insert_finished(store, [source.structure_id for source in sources], clocks["finished"])
            _in_two_passes(store, [replace(source, source="again") for source in sources], genes, clocks["two passes"])
    store.database["structures"].delete_many({"source": "again"})
    store.database["encodings"].delete_many({"structure_id": {"$gte": "again:", "$lt": "again;"}})
    n = 2 * min(size, N_COMPARED)
    ours, compared, finished, passes = clocks.values()
    return {
        "documents": 2 * size,
        "seconds": round(ours.seconds, 1),
        "documents_per_s": round(2 * size / ours.seconds),
        "batch_documents_per_s_p50": round(statistics.median(rates)),
        "batch_documents_per_s_p5": round(float(np.percentile(rates, 5))),
        "last_tenth_documents_per_s": round(statistics.median(rates[-max(1, len(rates) // 10) :])),
        "processor_us_a_document": ours.processor_us(2 * size),
        "ratio_to_insert_many": round(compared.seconds / finished.seconds, 2),
        "processor_ratio_to_insert_many": round(compared.processor / finished.processor, 2),
        "insert_many_documents_per_s": round(n / finished.seconds),
        "insert_many_processor_us_a_document": finished.processor_us(n),
        "two_passes_documents_per_s": round(n / passes.seconds),
        "two_passes_processor_us_a_document": passes.processor_us(n),
        "maggma_update_documents_per_s": _maggma(store, min(size, N_MAGGMA)),
    }


def gene_fields(made: Made) -> Result:
    """Return the fields of an encoding that follow from the crystal, whose gene is known here."""
    return {
        "symprec": SYMPREC,
        "fingerprint": str(made.gene),
        "space_group_number": made.gene.space_group_number,
        "wyckoff_sequence": made.gene.wyckoff_sequence,
        "protostructure": made.gene.protostructure,
    }


def _insert_finished(store: Store, identities: list[str], clock: "Clock") -> None:
    """Insert the documents just written into collections with the same indexes."""
    for document in (StructureDocument, EncodingDocument):
        name = document._meta["collection"]
        other = store.database[f"finished_{name}"]
        if other.estimated_document_count() == 0:
            for spec in document._meta["index_specs"]:
                other.create_index(spec["fields"], unique=spec.get("unique", False))
        finished = list(store.database[name].find({"structure_id": {"$in": identities}}))
        clock.time(lambda other=other, finished=finished: other.insert_many(finished, ordered=False))


def _in_two_passes(store: Store, sources: list[SourceStructure], genes: dict[str, Result], clock: "Clock") -> None:
    """Write structures, then their encodings as the builder does that finds the genes later."""
    builder = EncodingBuilder(store)
    given = list(genes.values())

    def write() -> None:
        write_structures(store, sources)
        time = now()
        encodings = []
        for source, gene in zip(sources, given, strict=True):
            hashed = f"{crystal_hash(source.crystal)}@{SYMPREC:g}"
            fields = {"structure_id": source.structure_id, "input_hash": hashed, "last_updated": time, **gene}
            encodings.append({"_id": object_id(source.structure_id), **checked(EncodingDocument, fields)})
        builder.update_targets(encodings)

    clock.time(write)


def _maggma(store: Store, n: int) -> int:
    """Write finished structures with a maggma store as its documentation shows; return documents a second."""
    from maggma.stores import MongoURIStore

    documents = list(store.database["structures"].find({}, {"_id": 0}).limit(n))
    other = MongoURIStore(store.uri, "maggma_structures", database=store.name, key="structure_id")
    other.connect()
    other.ensure_index("structure_id", unique=True)
    taken = timed(lambda: other.update(documents))
    other.close()
    store.database.drop_collection("maggma_structures")
    return round(n / taken)


def load_candidates(store: Store, population: Population, size: int) -> Result:
    """Propose candidates, and insert the first ones finished, in turn."""
    ours, compared, bare = Clock(store), Clock(store), Clock(store)
    n_new = 0
    other = store.database["finished_candidates"]
    for spec in CandidateDocument._meta["index_specs"]:
        other.create_index(spec["fields"], unique=spec.get("unique", False))
    for first, made in enumerate(batches(population.draw(size))):
        records = [one.candidate for one in made]
        counts: list[int] = []
        ours.time(lambda records=records, counts=counts: counts.append(propose(store, records)))
        n_new += counts[0]
        if first * BATCH < N_COMPARED:
            compared.add(ours)
            ids = [record.candidate_id for record in records]
            finished = list(store.database["candidates"].find({"candidate_id": {"$in": ids}}))
            known = {one["_id"] for one in other.find({"candidate_id": {"$in": ids}}, {"_id": 1})}
            fresh = [one for one in finished if one["_id"] not in known]
            bare.time(lambda fresh=fresh: other.insert_many(fresh, ordered=False))
    other.drop()
    return {
        "documents": n_new,
        "seconds": round(ours.seconds, 1),
        "documents_per_s": round(n_new / ours.seconds),
        "processor_us_a_document": ours.processor_us(n_new),
        "ratio_to_insert_many": round(compared.seconds / bare.seconds, 2),
        "processor_ratio_to_insert_many": round(compared.processor / bare.processor, 2),
    }


def batches(made: Iterator[Made]) -> Iterator[list[Made]]:
    """Yield the crystals in lists of at most BATCH."""
    while batch := list(itertools.islice(made, BATCH)):
        yield batch


# -- reading ---------------------------------------------------------------------------------------------------------


def targets(seed: int, n: int) -> list[tuple[Target, str]]:
    """Return questions with two ranges, a space group or crystal system, and elements, each with an order."""
    rng = np.random.default_rng(seed)
    groups, shares = list(GROUP_SHARES), np.array(list(GROUP_SHARES.values()), dtype=float)
    symbols, weights = list(ELEMENT_SHARES), np.array(list(ELEMENT_SHARES.values()), dtype=float)
    found = []
    for number in range(n):
        low, energy = rng.uniform(0.1, 1.5), -rng.uniform(0.2, 1.5)
        group = int(rng.choice(groups, p=shares / shares.sum()))
        symmetry = f"space_group_number = {group}" if number % 2 else "crystal_system = cubic"
        chosen = rng.choice(symbols, 1 + number % 2, replace=False, p=weights / weights.sum())
        text = (
            f"{low:.2f} < band_gap < {low + 1.5:.2f} and formation_energy_per_atom < {energy:.2f} and {symmetry} "
            f"and elements has {', '.join(chosen)}"
        )
        found.append((Target.parse([text]), ("formation_energy_per_atom", "-band_gap")[number % 4 // 2]))
    return found


def target_queries(store: Store, *, seed: int = 1, n: int = 24, n_times: int = 8) -> Result:
    """Ask target questions for 50 rows of candidates, in turn with a bare indexed find of 50 documents."""
    ours, bare, n_rows = [], [], []
    clocks = Clock(store), Clock(store)
    collection = store.database["candidates"]
    group = max(GROUP_SHARES, key=GROUP_SHARES.__getitem__)
    for number, (target, sort) in enumerate(targets(seed, n) * (n_times + 1)):

        def ask(target: Target = target, sort: str = sort) -> list[Any]:
            return query(store, target, collection="candidates", sort=sort, limit=50)

        def find() -> list[Any]:
            return list(collection.find({"space_group_number": group}).limit(50))

        if number < n:  # the first round warms caches and plans
            n_rows.append(len(ask()))
            find()
        else:
            ours.append(clocks[0].time(ask))
            bare.append(clocks[1].time(find))
    result = spread(ours) | {"rows_mean": round(statistics.mean(n_rows), 1), "bare_find": spread(bare)}
    for name, clock in zip((result, result["bare_find"]), clocks, strict=True):
        name["processor_ms"] = round(clock.processor / len(ours) * 1e3, 2)
    return result | _ratios(result, result["bare_find"])


def _ratios(ours: Result, bare: Result) -> Result:
    names = {"p50_ms": "ratio_p50", "p95_ms": "ratio_p95", "processor_ms": "processor_ratio"}
    return {name: round(ours[key] / bare[key], 2) for key, name in names.items() if bare.get(key)}


def novelty_check(store: Store, population: Population, size: int, *, n_times: int = 5) -> Result:
    """Judge the novelty of genes, half of them known, in turn with the bare covered query."""
    half = min(N_GENES // 2, size)
    made = [*population.draw(half), *population.draw(N_GENES - half, start=size)]
    texts = [str(one.gene) for one in made]
    genes = [Gene.parse(text) for text in texts]
    n_known = []

    def ours() -> None:
        canonical.cache_clear()
        fingerprints = [gene.fingerprint for gene in genes]
        known = known_among(store, fingerprints)
        n_known.append(sum(not novelty(fingerprint, known).passed for fingerprint in fingerprints))

    def bare() -> None:
        for name in ("encodings", "materials"):
            list(store.database[name].find({"fingerprint": {"$in": texts}}, {"_id": 0, "fingerprint": 1}))

    found = side_by_side({"ours": ours, "bare": bare}, n_times, store)
    ratios = _ratios(found["ours"], found["bare"])
    return found["ours"] | {"n_known": n_known[0], "bare_query": found["bare"]} | ratios


def optimade_pages(store: Store, settings: Any, *, n_times: int = 40) -> Result:  # noqa: ANN401
    """Ask the OPTIMADE server for the first page, in turn with the bare query and its serialisation."""
    from starlette.testclient import TestClient

    from wyloop.platform.api.app import create_app

    collection = store.database["optimade_structures"]
    wanted = {"element_pairs": "As-Ga", "nelements": 3}
    address = "/optimade/v1/structures"
    with TestClient(create_app(settings)) as client:

        def ours() -> int:
            answer = client.get(address, params={"filter": OPTIMADE_FILTER, "page_limit": PAGE})
            assert answer.status_code == 200, answer.text
            return len(answer.json()["data"])

        def bare() -> None:
            collection.count_documents(wanted)
            json.dumps(list(collection.find(wanted).sort("entry_id", 1).limit(PAGE)), default=str)

        found = side_by_side({"ours": ours, "bare": bare}, n_times, store)
        ratios = _ratios(found["ours"], found["bare"])
        return found["ours"] | {"entries": ours(), "bare_query": found["bare"]} | ratios


def optimade_tools(store: Store) -> Result:
    """Ask the server of optimade-python-tools, on the same documents, for the same page, in a process of its own."""
    child = Path(__file__).with_name("scale_optimade_tools.py")
    arguments = [sys.executable, str(child), store.uri, store.name, OPTIMADE_FILTER, str(PAGE)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=600)
    if done.returncode:
        return {"not_run": (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]}
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def hull_update(size: int) -> Result:
    """Measure the hulls' update as bench_hulls.py does, in its own database."""
    try:
        from bench_hulls import measure
    except ImportError as error:
        return {"not_run": str(error)}
    found: Result = measure(size)
    return found
