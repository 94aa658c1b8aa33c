"""Time and memory of check, backup and restore over generated structures and encodings: `python bench_check.py 50000`.

CPU seconds of this process and of mongod are reported beside the wall time, which a busy machine stretches.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from bson import ObjectId
from pydantic import SecretStr

from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores.backup import backup
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.migrate import migrate
from wyloop.stores.repair import repair
from wyloop.stores.restore import restore
from wyloop.stores.settings import Settings

DUMP = Path(__file__).parents[1] / "stores" / "dumps" / "schema_1.zip"
BATCH = 5000


def fill(store: Store, n: int) -> None:
    """Copy one structure and its encoding n times under other identities."""
    restore(store, DUMP)
    migrate(store)
    repair(store)
    structure = store.database["structures"].find_one({"structure_id": "mp:1"})
    encoding = store.database["encodings"].find_one({"structure_id": "mp:1"})
    assert structure is not None
    assert encoding is not None
    structure.pop("material_id", None)
    for start in range(0, n, BATCH):
        rows = range(start, min(n, start + BATCH))
        for name, document in (("structures", structure), ("encodings", encoding)):
            store.database[name].insert_many([document | identity(name, i) for i in rows], ordered=False)


def identity(collection: str, i: int) -> dict[str, Any]:
    source = {"source": "copy", "source_id": f"{i:08d}"} if collection == "structures" else {}
    return {"_id": ObjectId(), "structure_id": f"copy:{i:08d}"} | source


def timed(what: str, server: psutil.Process, call: Callable[[], object]) -> object:
    """Call a function and print wall time and CPU time of both processes, s."""
    wall, cpu, other = time.perf_counter(), time.process_time(), sum(server.cpu_times()[:2])
    result = call()
    spent = time.perf_counter() - wall, time.process_time() - cpu, sum(server.cpu_times()[:2]) - other
    print(f"{what}: wall {spent[0]:.1f} s, CPU {spent[1]:.1f} s here and {spent[2]:.1f} s in mongod")
    return result


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with TemporaryDirectory() as folder:
        handle = start_mongod(Path(folder))
        server = psutil.Process(handle.pid)
        settings = Settings(uri=SecretStr(handle.uri), database="bench", timeout_ms=60_000)
        try:
            store = connect(settings, is_checked=False)
            fill(store, n)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            report = timed(f"check of {2 * n} documents", server, lambda: check(store))
            path = Path(folder) / "bench.zip"
            timed("backup", server, lambda: backup(store, path))
            other = connect(settings.model_copy(update={"database": "other"}), is_checked=False)
            timed("restore", server, lambda: restore(other, path))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"backup {path.stat().st_size / 1e6:.1f} MB; memory {before:.0f} MB before, {peak:.0f} MB at most")
            print(f"found: {report.counts}")  # type: ignore[attr-defined]  # of a CheckReport
        finally:
            stop_mongod(Path(folder))


if __name__ == "__main__":
    main()
