"""Time from a CSV of 7 140 crystals to encoded documents on a real mongod: `python tests/benchmarks/bench_ingest.py`.

Target: at most 60 s on two cores; aim 20 s. Prints JSON: seconds of ingest and of encoding, and the median of runs.
"""

import json
import os
import statistics
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


def main() -> None:
    """Ingest and encode into a fresh database a few times."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "mp20_biternary_train.csv.gz"
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        handle = start_mongod(Path(folder))
        try:
            for number in range(N_RUNS):
                store = connect(Settings(uri=SecretStr(handle.uri), database=f"bench_{number}"))
                began = time.perf_counter()
                report = ingest_csv(store, path)
                ingested = time.perf_counter()
                counts = build_encodings(store)
                ended = time.perf_counter()
                runs.append({"ingest_s": ingested - began, "encode_s": ended - ingested, "total_s": ended - began})
                store.client.drop_database(store.name)
                store.close()
        finally:
            stop_mongod(Path(folder))
    totals = [run["total_s"] for run in runs]
    print(
        json.dumps(
            {
                "rows": report.n_rows,
                "refused": report.n_refused,
                "encoded": counts.n_done,
                "median_total_s": round(statistics.median(totals), 1),
                "min_total_s": round(min(totals), 1),
                "max_total_s": round(max(totals), 1),
                "runs": [{key: round(value, 1) for key, value in run.items()} for run in runs],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
