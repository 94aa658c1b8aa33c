"""How the scale benchmark loads: as ingest does, and spread over the run the same crystals by bare pymongo, in turn.

Stages go on where a run was stopped: what they have measured so far is kept by the `save` that they are given.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import bson
import numpy as np
import psutil
from scale_data import Made, Population

from wyloop.models.wyckoff.encode import SYMPREC
from wyloop.stores.builders.encodings import EncodingBuilder
from wyloop.stores.candidates import propose
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.candidates import CandidateDocument
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.ingest.intake import BATCH_SIZE
from wyloop.stores.ingest.structures import SourceStructure, crystal_hash, ready, rows_of, write_structures
from wyloop.stores.ingest.writer import StructureWriter
from wyloop.stores.records import composition_fields, object_id

GROUP = 4 * BATCH_SIZE  # crystals in one measurement
N_COMPARED = 10  # groups that are also written in other ways
N_MAGGMA = 1_000  # documents written as maggma's documentation shows
Result = dict[str, Any]
Save = Callable[[Result], None]


class Clock:
    """Adds up the seconds of calls, and the processor time that this process and mongod spend in them.

    Processor time tells what a call costs when the machine is busy with other work.
    """

    def __init__(self, store: Store, before: Sequence[float] = (0.0, 0.0)) -> None:
        self._mongod = psutil.Process(store.client.admin.command("serverStatus")["pid"])
        self.seconds, self.processor = before
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


def _clocks(store: Store, names: Sequence[str], state: Result) -> dict[str, Clock]:
    return {name: Clock(store, state.get("clocks", {}).get(name, (0.0, 0.0))) for name in names}


def _keep(state: Result, clocks: dict[str, Clock], save: Save) -> None:
    save(state | {"clocks": {name: (clock.seconds, clock.processor) for name, clock in clocks.items()}})


def _is_compared(number: int, size: int) -> bool:
    """Whether a group is one of those, evenly spread, that are written in other ways too."""
    n_groups = -(-size // GROUP)
    return number * N_COMPARED // n_groups != (number - 1) * N_COMPARED // n_groups


def load(store: Store, population: Population, size: int, state: Result, save: Save) -> Result:
    """Load structures with their encodings as ingest writes them, some also in two other ways, in turn."""
    composition_fields({"Na": 1})  # imports what the first document needs
    state = {"n_done": 0, "n_compared": 0, "rates": [], "ratios": []} | state
    clocks = _clocks(store, ("ours", "compared", "finished", "two passes"), state)
    _remove_others(store)  # of a group that was broken off
    for made in batches(population.draw(size - state["n_done"], start=state["n_done"]), GROUP):
        first = state["n_done"]
        sources = [one.structure for one in made]
        genes = {source.structure_id: gene_fields(one) for source, one in zip(sources, made, strict=True)}
        if not _is_compared(first // GROUP, size):
            clocks["ours"].time(lambda sources=sources, genes=genes: _write(store, sources, genes))
        else:
            state["ratios"].append(_compare(store, sources, genes, clocks, is_first=len(state["ratios"]) % 2 == 0))
            state["n_compared"] += len(made)
        state["rates"].append(2 * len(made) / clocks["ours"].last[0])
        state["n_done"] = first + len(made)
        _keep(state, clocks, save)
    assert store.database["encodings"].count_documents({}) == size
    return _loaded(clocks, state, size) | {"maggma_update_documents_per_s": _maggma(store, min(size, N_MAGGMA))}


def _loaded(clocks: dict[str, Clock], state: Result, size: int) -> Result:
    n, rates = 2 * state["n_compared"], state["rates"]
    ours, compared, finished, passes = clocks.values()
    return {
        "documents": 2 * size,
        "seconds": round(ours.seconds, 1),
        "documents_per_s": round(2 * size / ours.seconds),
        "group_documents_per_s_p50": round(statistics.median(rates)),
        "group_documents_per_s_p5": round(float(np.percentile(rates, 5))),
        "last_tenth_documents_per_s": round(statistics.median(rates[-max(1, len(rates) // 10) :])),
        "processor_us_a_document": ours.processor_us(2 * size),
        "ratio_to_insert_many": round(compared.seconds / finished.seconds, 2),
        "ratio_to_insert_many_p50": round(statistics.median(state["ratios"]), 2),
        "processor_ratio_to_insert_many": round(compared.processor / finished.processor, 2),
        "insert_many_documents_per_s": round(n / finished.seconds),
        "insert_many_processor_us_a_document": finished.processor_us(n),
        "two_passes_documents_per_s": round(n / passes.seconds),
        "two_passes_processor_us_a_document": passes.processor_us(n),
        "two_passes_ratio_to_insert_many": round(passes.seconds / finished.seconds, 2),
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


def _write(store: Store, sources: list[SourceStructure], genes: dict[str, Result]) -> None:
    """Write as `take_in` does."""
    with StructureWriter(store) as writer:
        for batch in batches(sources, BATCH_SIZE):
            writer.write(batch, genes)


def _compare(
    store: Store, sources: list[SourceStructure], genes: dict[str, Result], clocks: dict[str, Clock], *, is_first: bool
) -> float:
    """Write crystals as ingest does, and under other names in other ways, into the same collections.

    Args:
        store: The database.
        sources: The crystals.
        genes: Of each.
        clocks: One for each way.
        is_first: Whether ours comes first; the next time it should be the other.

    Returns:
        Seconds of ours, in those of `insert_many`.
    """
    finished = _finished(sources, genes)
    calls = {
        "ours": lambda: _write(store, sources, genes),
        "finished": lambda: _insert_finished(store, finished),
    }
    for name in calls if is_first else reversed(calls):
        clocks[name].time(calls[name])
    clocks["compared"].add(clocks["ours"])
    clocks["two passes"].time(lambda: _in_two_passes(store, [replace(one, source="again") for one in sources], genes))
    _remove_others(store)
    return clocks["ours"].last[0] / clocks["finished"].last[0]


def _remove_others(store: Store) -> None:
    for name in ("finished", "again"):
        store.database["structures"].delete_many({"source": name})
        store.database["encodings"].delete_many({"structure_id": {"$gte": f"{name}:", "$lt": f"{name};"}})


def _finished(sources: list[SourceStructure], genes: dict[str, Result]) -> list[tuple[list[Result], list[Result]]]:
    """Return the documents of the same crystals under another source, structures and encodings, in batches."""
    renamed = [replace(one, source="finished") for one in sources]
    given = {other.structure_id: genes[one.structure_id] for one, other in zip(sources, renamed, strict=True)}
    made = [ready(row, now()) for row in rows_of(renamed, given)]
    return [
        (
            [bson.decode(one.document.raw) for one in batch],
            [bson.decode(one.encoding.raw) for one in batch if one.encoding is not None],
        )
        for batch in batches(made, BATCH_SIZE)
    ]


def _insert_finished(store: Store, finished: list[tuple[list[Result], list[Result]]]) -> None:
    """Insert documents that are there with their `_id`s, in batches as large as ours."""
    for structures, encodings in finished:
        store.database["structures"].insert_many(structures, ordered=False)
        store.database["encodings"].insert_many(encodings, ordered=False)


def _in_two_passes(store: Store, sources: list[SourceStructure], genes: dict[str, Result]) -> None:
    """Write structures, then their encodings as the builder does that finds the genes later."""
    builder = EncodingBuilder(store)
    for batch, given in zip(batches(sources, BATCH_SIZE), batches(genes.values(), BATCH_SIZE), strict=True):
        write_structures(store, batch)
        time = now()
        encodings = []
        for source, gene in zip(batch, given, strict=True):
            hashed = f"{crystal_hash(source.crystal)}@{SYMPREC:g}"
            fields = {"structure_id": source.structure_id, "input_hash": hashed, "last_updated": time, **gene}
            encodings.append({"_id": object_id(source.structure_id), **checked(EncodingDocument, fields)})
        builder.update_targets(encodings)


def _maggma(store: Store, n: int) -> int:
    """Write finished structures with a maggma store as its documentation shows; return documents a second."""
    from maggma.stores import MongoURIStore

    documents = list(store.database["structures"].find({}, {"_id": 0}).limit(n))
    other = MongoURIStore(store.uri, "maggma_structures", database=store.name, key="structure_id")
    other.connect()
    other.ensure_index("structure_id", unique=True)
    clock = Clock(store)
    clock.time(lambda: other.update(documents))
    other.close()
    store.database.drop_collection("maggma_structures")
    return round(n / clock.seconds)


def load_candidates(store: Store, population: Population, size: int, state: Result, save: Save) -> Result:
    """Propose candidates, and insert the first ones finished, in turn."""
    state = {"n_done": 0, "n_new": 0} | state
    clocks = _clocks(store, ("ours", "compared", "finished"), state)
    other = store.database["finished_candidates"]
    for spec in CandidateDocument._meta["index_specs"]:
        other.create_index(spec["fields"], unique=spec.get("unique", False))
    for made in batches(population.draw(size - state["n_done"], start=state["n_done"]), GROUP):
        first, records = state["n_done"], [one.candidate for one in made]
        counts: list[int] = []
        clocks["ours"].time(lambda records=records, counts=counts: counts.append(propose(store, records)))
        state["n_new"] += counts[0]
        if first < N_COMPARED * GROUP:
            clocks["compared"].add(clocks["ours"])
            ids = [record.candidate_id for record in records]
            finished = list(store.database["candidates"].find({"candidate_id": {"$in": ids}}))
            known = {one["_id"] for one in other.find({"candidate_id": {"$in": ids}}, {"_id": 1})}
            fresh = [one for one in finished if one["_id"] not in known]
            clocks["finished"].time(lambda fresh=fresh: other.insert_many(fresh, ordered=False))
        state["n_done"] = first + len(records)
        _keep(state, clocks, save)
    other.drop()
    ours, compared, finished_clock = clocks.values()
    return {
        "documents": state["n_new"],
        "seconds": round(ours.seconds, 1),
        "documents_per_s": round(state["n_new"] / ours.seconds),
        "processor_us_a_document": ours.processor_us(state["n_new"]),
        "ratio_to_insert_many": round(compared.seconds / finished_clock.seconds, 2),
        "processor_ratio_to_insert_many": round(compared.processor / finished_clock.processor, 2),
    }


def batches(items: Any, size: int) -> Iterator[list[Any]]:  # noqa: ANN401
    """Yield the items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
