"""Load, ask and update databases of 10 000 to 1 000 000 made-up crystals: `python tests/benchmarks/bench_scale.py`.

One mongod of its own with a 2 GB cache; every figure also as a ratio to the bare pymongo call that does the same work,
in turn with it. `--size N` (repeat it) chooses sizes. What is measured is kept in build/scale/N.json as it comes, and a
run that was stopped goes on there, in the same database, which is removed at the end. `--write` puts the results into
docs/benchmarks/scale.json and .md, where other sizes stay as they are, and with `--stage` other stages too. 1 000 000
takes an hour and 10 GB of disk.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import scale_stages as stages
from pydantic import SecretStr
from scale_data import Population
from scale_load import load, load_candidates
from scale_report import markdown

from wyloop.platform.mongod import find_mongod, server_version, start_mongod, stop_mongod
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

CACHE_GB = 2.0
ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "benchmarks"
WORK = ROOT / "build" / "scale"
HULL_SIZES = (10_000, 100_000)
NEEDED = {"load": (), "target": ("candidates",), "novelty": (), "optimade": ("view",), "tools": ("view",), "hulls": ()}


def main() -> None:
    """Run the sizes asked for and print, or write, the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="structures; default 10000 and 100000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    parser.add_argument(
        "--stage", action="append", choices=list(NEEDED), help="only this after loading, and what it needs"
    )
    options = parser.parse_args()
    for size in options.size or [10_000, 100_000]:
        found = run(size, options.seed, options.stage)
        print(json.dumps({str(size): found}, indent=2), flush=True)
        if options.write:
            write(size, found, options.stage)


def write(size: int, found: dict[str, Any], only: list[str] | None) -> None:
    """Put the results of one size into the page, or only those of some stages."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "scale.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    if only is not None and str(size) in results:
        found = results[str(size)] | {name: found[name] for name in only}
    results[str(size)] = found
    results = dict(sorted(results.items(), key=lambda item: int(item[0])))
    path.write_text(json.dumps(results, indent=2) + "\n")
    (OUT / "scale.md").write_text(markdown(results))


def run(size: int, seed: int, only: list[str] | None) -> dict[str, Any]:
    """Measure everything at one size, in a database of its own."""
    kept, folder = WORK / f"{size}.json", WORK / f"{size}-database"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() and folder.is_dir() else {}
    if found.get("seed", seed) != seed or not found:
        shutil.rmtree(folder, ignore_errors=True)
        found = {"machine": machine(), "seed": seed}
    folder.mkdir(parents=True, exist_ok=True)
    handle = start_mongod(folder, cache_gb=CACHE_GB)
    settings = Settings(uri=SecretStr(handle.uri), database="scale", timeout_ms=60_000)
    store = connect(settings)
    chosen = None if only is None else {"load", *only, *(one for name in only for one in NEEDED[name])}
    try:
        for name, stage in _stages(store, settings, Population(seed), size).items():
            if name not in found and (chosen is None or name in chosen):
                part = f"{name}, begun"
                began = time.perf_counter()

                def save(state: dict[str, Any], part: str = part) -> None:
                    _keep(kept, found | {part: state})

                result = stage(found.pop(part, {}), save)
                found[name] = result | {"load": round(os.getloadavg()[0], 1), "cores": len(os.sched_getaffinity(0))}
                print(f"{size}: {name} in {time.perf_counter() - began:.0f} s", flush=True)
                settle(store)
                peak = found.get("after", {}).get("python_peak_mb", 0)  # of a run that was stopped
                found["after"] = after(store, handle.pid, folder)
                found["after"]["python_peak_mb"] = max(peak, found["after"]["python_peak_mb"])
                _keep(kept, found)
    finally:
        store.close()
        stop_mongod(folder)
    shutil.rmtree(folder)
    return found


def _stages(
    store: Store, settings: Settings, population: Population, size: int
) -> dict[str, Callable[[Any, Any], dict[str, Any]]]:
    """Return what is measured, by name; each is given what a broken-off run has measured, and what keeps it."""
    return {
        "load": lambda state, save: load(store, population, size, state, save),
        "candidates": lambda state, save: load_candidates(store, population, size, state, save),
        "target": lambda *_: stages.target_queries(store),
        "novelty": lambda *_: stages.novelty_check(store, population, size),
        "view": lambda *_: view(store),
        "optimade": lambda *_: stages.optimade_pages(store, settings),
        "tools": lambda *_: stages.optimade_tools(store),
        "hulls": lambda *_: stages.hull_update(size) if size in HULL_SIZES else {"not_run": "measured up to 100 000"},
    }


def _keep(path: Path, found: dict[str, Any]) -> None:
    """Write what was found so far, whole at every moment."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n")
    part.replace(path)


def view(store: Store) -> dict[str, Any]:
    """Build the OPTIMADE view of everything."""
    began = time.perf_counter()
    counts = build_optimade(store)
    seconds = time.perf_counter() - began
    return {
        "documents": counts.n_done,
        "seconds": round(seconds, 1),
        "documents_per_s": round(counts.n_done / seconds),
    }


def settle(store: Store) -> None:
    """Let the server write to disk what it holds, so that it does not do so in the next measurement."""
    store.client.admin.command("fsync")


def machine() -> dict[str, Any]:
    """Describe where this runs, and how busy it is with other work."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 1),
        "mongod": server_version(find_mongod()),
        "cache_gb": CACHE_GB,
        "python": platform.python_version(),
    }


def after(store: Store, pid: int, folder: Path) -> dict[str, Any]:
    """Return memory and disk at the end."""
    sizes = {}
    for name in ("structures", "encodings", "candidates", "optimade_structures"):
        stats = store.database.command("collStats", name)
        sizes[name] = {
            "documents": stats["count"],
            "document_bytes": round(stats.get("avgObjSize", 0)),
            "data_mb": round(stats["storageSize"] / 1e6),
            "index_mb": round(stats["totalIndexSize"] / 1e6),
        }
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "mongod_rss_mb": round(psutil.Process(pid).memory_info().rss / 1e6),
        "python_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "disk_mb": round(disk / 1e6),
        "load_after": round(os.getloadavg()[0], 1),
        "collections": sizes,
    }


if __name__ == "__main__":
    main()
