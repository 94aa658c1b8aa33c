"""Load, ask and update databases of 10 000 to 1 000 000 made-up crystals: `python tests/benchmarks/bench_scale.py`.

One mongod of its own with a 2 GB cache, in a temporary folder that is removed; every figure also as a ratio to the bare
pymongo call that does the same work, in turn with it. `--size N` (repeat it) chooses sizes, `--write` puts the results
into docs/benchmarks/scale.json and .md, where other sizes stay as they are. 1 000 000 takes 10 GB of disk.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import scale_stages as stages
from pydantic import SecretStr
from scale_data import Population
from scale_report import markdown

from wyloop.platform.mongod import find_mongod, server_version, start_mongod, stop_mongod
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import connect
from wyloop.stores.settings import Settings

CACHE_GB = 2.0
OUT = Path(__file__).parents[2] / "docs" / "benchmarks"
HULL_SIZES = (10_000, 100_000)


def main() -> None:
    """Run the sizes asked for and print, or write, the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="structures; default 10000 and 100000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    parser.add_argument(
        "--stage", action="append", help="only these, after loading: target novelty optimade tools hulls"
    )
    options = parser.parse_args()
    path = OUT / "scale.json"
    results: dict[str, Any] = json.loads(path.read_text()) if options.write and path.is_file() else {}
    for size in options.size or [10_000, 100_000]:
        results[str(size)] = run(size, options.seed, options.stage)
        print(json.dumps({str(size): results[str(size)]}, indent=2), flush=True)
        if options.write:
            OUT.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(sorted(results.items(), key=lambda item: int(item[0]))), indent=2) + "\n")
            (OUT / "scale.md").write_text(markdown(json.loads(path.read_text())))


def run(size: int, seed: int, only: list[str] | None) -> dict[str, Any]:
    """Measure everything at one size, in a database of its own."""
    folder = Path(tempfile.mkdtemp(prefix="wyloop-scale-"))
    handle = start_mongod(folder, cache_gb=CACHE_GB)
    settings = Settings(uri=SecretStr(handle.uri), database="scale", timeout_ms=60_000)
    store = connect(settings)
    population = Population(seed)
    found: dict[str, Any] = {"machine": machine(), "seed": seed}
    parts: dict[str, Callable[[], Any]] = {
        "load": lambda: stages.load(store, population, size),
        "candidates": lambda: stages.load_candidates(store, population, size),
        "target": lambda: stages.target_queries(store),
        "novelty": lambda: stages.novelty_check(store, population, size),
        "view": lambda: view(store),
        "optimade": lambda: stages.optimade_pages(store, settings),
        "tools": lambda: stages.optimade_tools(store),
        "hulls": lambda: stages.hull_update(size) if size in HULL_SIZES else {"not_run": "measured up to 100 000"},
    }
    needed = {"target": ("candidates",), "novelty": (), "optimade": ("view",), "tools": ("view",), "hulls": ()}
    chosen = set(parts) if only is None else {"load", *only, *(one for name in only for one in needed[name])}
    try:
        for name, part in parts.items():
            if name in chosen:
                began = time.perf_counter()
                found[name] = part()
                print(f"{size}: {name} in {time.perf_counter() - began:.0f} s", flush=True)
                settle(store)
        found["after"] = after(store, handle.pid, folder)
    finally:
        store.close()
        stop_mongod(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def view(store: Any) -> dict[str, Any]:  # noqa: ANN401
    """Build the OPTIMADE view of everything."""
    began = time.perf_counter()
    counts = build_optimade(store)
    seconds = time.perf_counter() - began
    return {
        "documents": counts.n_done,
        "seconds": round(seconds, 1),
        "documents_per_s": round(counts.n_done / seconds),
    }


def settle(store: Any) -> None:  # noqa: ANN401
    """Let the server write to disk what it holds, so that it does not do so in the next measurement."""
    store.client.admin.command("fsync")


def machine() -> dict[str, Any]:
    """Describe where this runs, and how busy it is with other work."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 1),
        "mongod": server_version(find_mongod()),
        "cache_gb": CACHE_GB,
        "python": platform.python_version(),
    }


def after(store: Any, pid: int, folder: Path) -> dict[str, Any]:  # noqa: ANN401
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
