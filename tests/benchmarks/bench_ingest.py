"""Time and memory from CSV to encoded documents on a real mongod: `python tests/benchmarks/bench_ingest.py [CSV]`.

Target: 7 140 rows ingested and encoded in at most 20 s on two cores, and peak memory of the ingest that does not grow
with the file: measured at the file, and at ten times its rows (the same crystals under new ids), each in a process of
its own. `--quick` leaves the large file out.
"""

import csv
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.connection import connect
from wyloop.stores.ingest.csv import ingest_csv
from wyloop.stores.settings import Settings

DATA = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
N_RUNS = 3
FACTOR = 10


def main() -> None:
    """Ingest and encode into a fresh database a few times; then measure memory at two sizes."""
    arguments = [word for word in sys.argv[1:] if word != "--quick"]
    path = Path(arguments[0]) if arguments else DATA / "mp20_biternary_train.csv.gz"
    with tempfile.TemporaryDirectory() as folder:
        handle = start_mongod(Path(folder) / "mongod")
        try:
            measured = timed(handle.uri, path)
            if "--quick" not in sys.argv:
                large = repeated(path, Path(folder) / "large.csv", FACTOR)
                measured["memory"] = [in_own_process(handle.uri, one) for one in (path, large)]
                small, big = (one["peak_rss_mb"] for one in measured["memory"])
                measured["memory_growth"] = round(big / small, 2)
        finally:
            stop_mongod(Path(folder) / "mongod")
    print(json.dumps(measured, indent=2))


def timed(uri: str, path: Path) -> dict[str, object]:
    """Ingest and encode a file into fresh databases; return seconds."""
    runs = []
    for number in range(N_RUNS):
        store = connect(Settings(uri=SecretStr(uri), database=f"bench_{number}"))
        began, busy = time.perf_counter(), time.process_time()
        report = ingest_csv(store, path)
        ingested, busy = time.perf_counter(), time.process_time() - busy
        counts = build_encodings(store)
        ended = time.perf_counter()
        again = ingest_csv(store, path)
        assert again.n_unchanged == report.n_added
        runs.append(
            {
                "ingest_s": ingested - began,
                "ingest_cpu_s": busy,
                "encode_s": ended - ingested,
                "total_s": ended - began,
                "again_s": time.perf_counter() - ended,
            }
        )
        store.client.drop_database(store.name)
        store.close()
    totals = [run["total_s"] for run in runs]
    return {
        "rows": report.n_rows,
        "refused": report.n_refused,
        "encoded": counts.n_done,
        "median_total_s": round(statistics.median(totals), 1),
        "min_total_s": round(min(totals), 1),
        "max_total_s": round(max(totals), 1),
        "runs": [{key: round(value, 1) for key, value in run.items()} for run in runs],
    }


def repeated(path: Path, out: Path, factor: int) -> Path:
    """Write the rows of a file several times under new ids."""
    csv.field_size_limit(16_000_000)
    with out.open("w", newline="") as target:
        table = csv.writer(target)
        for copy in range(factor):
            with gzip.open(path, "rt", newline="") as source:
                rows = csv.reader(source)
                header = next(rows)
                if copy == 0:
                    table.writerow(header)
                table.writerows([f"{copy}-{row[0]}", *row[1:]] for row in rows)
    return out


def in_own_process(uri: str, path: Path) -> dict[str, float]:
    """Ingest a file in another process; return rows, seconds and peak memory there."""
    command = [sys.executable, __file__, "--measure", uri, str(path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


def measure(uri: str, path: Path) -> None:
    """Ingest a file and print what it took."""
    store = connect(Settings(uri=SecretStr(uri), database="bench_memory"))
    began = time.perf_counter()
    report = ingest_csv(store, path)
    seconds = time.perf_counter() - began
    store.client.drop_database(store.name)
    store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": report.n_rows, "ingest_s": round(seconds, 1), "peak_rss_mb": round(peak, 1)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
