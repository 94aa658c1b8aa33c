"""What the scale benchmark asks a loaded database: each stage beside the bare call of pymongo."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scale_data import ELEMENT_SHARES, GROUP_SHARES, Population
from scale_load import Clock, Result

from wyloop.models.screening.novelty import novelty
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.candidates import known_among
from wyloop.stores.connection import Store
from wyloop.stores.queries import query

N_GENES = 10_000
OPTIMADE_FILTER = 'elements HAS ALL "Ga","As" AND nelements=3'
PAGE = 20


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
    """Ask target questions for 50 rows of candidates, in turn with a bare indexed find of 50 documents.

    The bare find has the question's order and space group (the commonest of its crystal system), so that both read
    documents that lie equally far apart and have been read equally often before.
    """
    ours, bare, n_rows = [], [], []
    clocks = Clock(store), Clock(store)
    collection = store.database["candidates"]
    for number, (target, sort) in enumerate(targets(seed, n) * (n_times + 1)):

        def ask(target: Target = target, sort: str = sort) -> list[Any]:
            return query(store, target, collection="candidates", sort=sort, limit=50)

        group = max(target.space_group_numbers(), key=lambda one: GROUP_SHARES.get(one, 0))
        order = [(f"prediction.{sort.removeprefix('-')}", -1 if sort[0] == "-" else 1)]
        order.append(("candidate_id", order[0][1]))

        def find(group: int = group, order: list[tuple[str, int]] = order) -> list[Any]:
            return list(collection.find({"space_group_number": group}).sort(order).limit(50))

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
