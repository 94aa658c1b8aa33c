"""Gradient boosting on composition and space group, the same regressor as the judge: train file to test file.

`python tests/benchmarks/bench_baseline.py`: errors on the test file, to be compared with the network's. Prints JSON.
"""

import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from gene_rows import read_rows
from judge import Judge, KernelJudge

from wyloop.models.mpvae.data import GAP_FLOOR

DATA = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
WORK = Path(tempfile.gettempdir()) / "wyloop-bench"


def main() -> None:
    """Train both kinds of judge on the train file, measure them on the test file."""
    train = read_rows(DATA / "mp20_biternary_train.csv.gz", WORK)
    test = read_rows(DATA / "mp20_biternary_test.csv.gz", WORK)
    energy = np.array([row.labels["formation_energy_per_atom"] for row in test])
    gap = np.array([row.labels["band_gap"] for row in test])
    report: dict[str, object] = {"n_train": len(train), "n_test": len(test)}
    for name, kind in (("boosting", Judge), ("kernel", KernelJudge)):
        began = time.perf_counter()
        judged = kind(train)([row.gene for row in test])
        gap_error = np.abs(judged.band_gap - gap)
        report[name] = {
            "formation_energy_mae": round(float(np.abs(judged.formation_energy_per_atom - energy).mean()), 4),
            "band_gap_mae": round(float(gap_error.mean()), 4),
            "band_gap_mae_with_gap": round(float(gap_error[gap >= GAP_FLOOR].mean()), 4),
            "metal_accuracy": round(float(((judged.metal_probability > 0.5) == (gap < GAP_FLOOR)).mean()), 4),
            "seconds": round(time.perf_counter() - began, 1),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
