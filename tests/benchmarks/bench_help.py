"""Time `wyloop --help`, which should take at most half a second: `python tests/benchmarks/bench_help.py`."""

import os
import subprocess
import sys
import time

COMMAND = [sys.executable, "-m", "wyloop.platform.cli.main", "--help"]
N_RUNS = 10


def main() -> None:
    """Print wall time and processor time of ten runs, best and median."""
    walls, processors = [], []
    for _ in range(N_RUNS):
        before, began = os.times(), time.perf_counter()
        subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - began)
        after = os.times()
        processors.append(after.children_user + after.children_system - before.children_user - before.children_system)
    for name, values in (("wall", sorted(walls)), ("processor", sorted(processors))):
        print(f"{name} time: best {values[0]:.3f} s, median {values[N_RUNS // 2]:.3f} s of {N_RUNS} runs")


if __name__ == "__main__":
    main()
