"""Time to bring hulls up to date after 100 new materials: `python tests/benchmarks/bench_hulls.py [10000 100000]`.

Must: 5 s in a database of 100 000 materials; aim 1 s; flat from 10 000 on. Prints JSON: seconds of the first build, and
of updates, each after 100 new materials, with the hulls that each touched, and the bare pymongo calls that write as
much. The materials are made up (scale_data.py): elements, numbers of elements and energies as in MP-20 and MPTS-52.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pymongo import ReplaceOne, UpdateOne

sys.path.insert(0, str(Path(__file__).parent))
from scale_data import Made, Population

from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.run import batches
from wyloop.stores.connection import Store, connect
from wyloop.stores.materials import FROM_HULL, MaterialRecord, material_document
from wyloop.stores.settings import Settings

N_NEW = 100
N_UPDATES = 10
CACHE_GB = 2.0
FIRST = 10_000_000  # numbers of the new materials, far from those that are there


def main() -> None:
    """Measure the sizes that the command line names."""
    sizes = [int(size) for size in sys.argv[1:]] or [10_000, 100_000]
    found = {str(size): measure(size) for size in sizes}
    if len(sizes) > 1:
        found["growth"] = {"update_p50": round(found[str(sizes[-1])]["p50_s"] / found[str(sizes[0])]["p50_s"], 2)}
    print(json.dumps(found, indent=2))


def measure(size: int, *, seed: int = 0) -> dict[str, Any]:
    """Build the hulls of so many materials, then let 100 more come, several times, in a database of its own."""
    population = Population(seed)
    with tempfile.TemporaryDirectory(prefix="wyloop-hulls-") as folder:
        handle = start_mongod(Path(folder), cache_gb=CACHE_GB)
        store = connect(Settings(uri=SecretStr(handle.uri), database="hulls", timeout_ms=60_000))
        try:
            for batch in batches(population.draw(size), 5000):
                insert(store, batch)
            store.client.admin.command("fsync")
            began = time.perf_counter()
            first = build_hulls(store)
            first_s = time.perf_counter() - began
            store.client.admin.command("fsync")
            updates = [update(store, population, number) for number in range(N_UPDATES)]
            found = summary(store, updates)
            found |= {"materials": size, "first_build_s": round(first_s, 1), "hulls_built_first": first.n_done}
            found["bare_write_s"] = round(bare_write(store, round(found["hulls_touched"])), 4)
            found["ratio_to_bare_write"] = round(found["p50_s"] / found["bare_write_s"], 1)
        finally:
            store.close()
            stop_mongod(Path(folder))
    return found


def insert(store: Store, crystals: Iterable[Made]) -> None:
    """Put materials into the database as the material builder leaves them: without hull."""
    documents = [
        material_document(
            MaterialRecord(
                material_id=f"m-{made.number:012d}",
                fingerprint=str(made.gene),
                gene=made.gene,
                crystal=made.crystal,
                formation_energy_per_atom=energy(made),
                energy_method="mp-pbe",
                structure_ids=(made.structure.structure_id,),
                sources=("made",),
                input_hash=f"{made.number:032d}",
            )
        )
        for made in crystals
    ]
    store.database["materials"].insert_many(documents, ordered=False)


def energy(made: Made) -> float:
    """Return a formation energy, eV/atom; the ground state of an element is at zero, its other forms above."""
    energy = made.formation_energy_per_atom
    return energy if len(made.gene.elements) > 1 else 0.1 * abs(energy)


def update(store: Store, population: Population, number: int) -> dict[str, float]:
    """Let 100 materials come and bring the hulls up to date."""
    insert(store, population.draw(N_NEW, start=FIRST + number * N_NEW))
    began, worked = time.perf_counter(), time.process_time()
    counts = build_hulls(store)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - worked,
        "hulls": counts.n_done,
        "skipped": counts.n_skipped,
    }


def summary(store: Store, updates: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of all updates."""
    seconds = sorted(one["seconds"] for one in updates)
    return {
        "p50_s": round(statistics.median(seconds), 3),
        "p95_s": round(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], 3),
        "cpu_p50_s": round(statistics.median(one["cpu_s"] for one in updates), 3),
        "hulls_touched": round(statistics.mean(one["hulls"] for one in updates), 1),
        "hulls_left_alone": round(statistics.mean(one["skipped"] for one in updates)),
        "load": [round(one, 1) for one in os.getloadavg()],
        "hulls_mb": round(store.database.command("collStats", "hulls")["storageSize"] / 1e6, 1),
    }


def bare_write(store: Store, n_hulls: int) -> float:
    """Return the seconds of reading and writing as many hulls and materials by pymongo alone, nothing computed."""
    began = time.perf_counter()
    hulls = list(store.database["hulls"].find({}, limit=n_hulls))
    store.database["hulls"].bulk_write([ReplaceOne({"_id": one["_id"]}, one) for one in hulls], ordered=False)
    chemsys = [one["chemsys"] for one in hulls]
    materials = list(store.database["materials"].find({"chemsys": {"$in": chemsys}}, dict.fromkeys(FROM_HULL, 1)))
    told = [UpdateOne({"_id": one["_id"]}, {"$set": {"content_hash": one["content_hash"]}}) for one in materials]
    store.database["materials"].bulk_write(told, ordered=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
