"""Transfer to a small set of another chemistry: perov5's heats of formation, from the shipped weights and from nothing.

`python tests/benchmarks/bench_transfer.py --steps N --write`: draws training rows from perov5 by seed, trains both ways
for the same number of optimiser steps, measures on the rows that were not drawn, and with --write puts the table into
docs/benchmarks/transfer.md.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wyloop.models.mpvae.checkpoint import load_shipped
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.evaluate import evaluate
from wyloop.models.mpvae.train import train
from wyloop.platform.rows import Refused, read_rows, training_row

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WYLOOP_DATA", ROOT.parent / "shared" / "data")) / "perov5.csv.gz"
PAGE = ROOT / "docs" / "benchmarks" / "transfer.md"
N_TEST = 1000
BATCH_SIZE = 64


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of each run")
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 1000], help="numbers of training rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = energies_only([training_row(row) for row in read_rows(arguments.data, Refused())])
    lines = [
        "| training rows | start | heat of formation MAE, eV/atom | processor s |",
        "| --- | --- | --- | --- |",
    ]
    for n_rows in arguments.rows:
        for start in ("nothing", "shipped weights"):
            results = [
                run(rows, n_rows, arguments.steps, seed, is_transfer=start != "nothing")
                for seed in range(arguments.seeds)
            ]
            errors, seconds = ([result[i] for result in results] for i in (0, 1))
            spread = f" ± {statistics.stdev(errors):.3f}" if len(errors) > 1 else ""
            lines.append(
                f"| {n_rows} | {start} | {statistics.mean(errors):.3f}{spread} | {statistics.mean(seconds):.0f} |"
            )
            print(lines[-1], flush=True)
    text = page(lines, arguments.steps, arguments.seeds)
    print(text)
    if arguments.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)


def energies_only(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Keep heats of formation and volumes; perov5's gaps are no PBE gaps."""
    names = ("formation_energy_per_atom", "volume_per_atom")
    return [TrainingRow(row.gene, {name: row.labels[name] for name in names if name in row.labels}) for row in rows]


def run(rows: list[TrainingRow], n_rows: int, n_steps: int, seed: int, *, is_transfer: bool) -> tuple[float, float]:
    """Train on some rows, return the mean absolute error (eV/atom) on others, and the processor time in s."""
    order = np.random.default_rng(seed).permutation(len(rows))
    training = [rows[i] for i in order[N_TEST : N_TEST + n_rows]]
    config = TrainingConfig(batch_size=BATCH_SIZE, variation_share=0.0, validation_fraction=0.0, seed=seed)
    n_epochs = max(1, round(n_steps * BATCH_SIZE / n_rows))
    changes: dict[str, object] = {"n_epochs": n_epochs, "patience": n_epochs}
    if is_transfer:
        changes |= {"learning_rate": 3e-4, "average_decay": 0.95, "fit_prior": False}
    started = time.process_time()
    checkpoint = train(training, config.model_copy(update=changes), initial=load_shipped() if is_transfer else None)
    seconds = time.process_time() - started
    return evaluate(checkpoint, [rows[i] for i in order[:N_TEST]])["formation_energy_mae"], seconds


def page(lines: list[str], n_steps: int, n_seeds: int) -> str:
    """Return the page of the documentation."""
    return "\n".join(
        [
            "# Transfer to perov5",
            "",
            "Made by `python tests/benchmarks/bench_transfer.py --write`.",
            "",
            f"Heats of formation of perov5 (GPAW, references of its own) on {N_TEST} rows that were not trained on;",
            f"mean and standard deviation over {n_seeds} draws of rows; about {n_steps} optimiser steps of",
            f"{BATCH_SIZE} rows each way, one thread, {platform.machine()}, {os.cpu_count()} cores.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
