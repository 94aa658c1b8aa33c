"""Iterated against one-shot: rounds with retraining against one round, at the same number of CHGNet relaxations.

`python tests/benchmarks/bench_iterated.py [--rounds 4] [--per-round 24] [--seeds 3] [--write]`. Each campaign is one
`wyloop discover` on the train file with a database of its own under build/iterated; its answer is kept, and a campaign
that was stopped goes on where it was. Whatever it shows is reported.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WYLOOP_DATA", ROOT.parent / "shared" / "data")) / "mp20_biternary_train.csv.gz"
PAGE = ROOT / "docs" / "benchmarks" / "iterated.md"
TARGET = ("0.5 <= band_gap <= 2.0", "formation_energy_per_atom < -1.0", "space_group_number >= 143")


def main() -> None:
    """Run every campaign that has no answer yet, then tell and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--per-round", type=int, default=24, help="relaxations in each of the rounds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "iterated")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    arms = {
        f"{given.rounds} rounds of {given.per_round}": (given.rounds, given.per_round),
        f"1 round of {given.rounds * given.per_round}": (1, given.rounds * given.per_round),
    }
    found = {
        name: [_campaign(given.work, given.data, rounds, n_relax, seed) for seed in range(given.seeds)]
        for name, (rounds, n_relax) in arms.items()
    }
    text = _page(found)
    print(text)
    if given.write:
        PAGE.write_text(text)


def _campaign(work: Path, data: Path, rounds: int, n_relax: int, seed: int) -> list[dict[str, Any]]:
    """Return the funnel of each round of a campaign."""
    folder = work / f"{rounds}x{n_relax}-{seed}"
    answer = folder / "answer.json"
    if not answer.exists():
        folder.mkdir(parents=True, exist_ok=True)
        targets = [word for condition in TARGET for word in ("--target", condition)]
        sizes = ["--rounds", str(rounds), "--n-relax", str(n_relax), "--seed", str(seed)]
        places = ["--data", str(data), "--no-starter", "--out", str(folder / "results"), "--json"]
        command = [sys.executable, "-m", "wyloop.platform.cli.main", "discover", *targets, *sizes, *places]
        environment = os.environ | {"WYLOOP_PLATFORM_DATA_FOLDER": str(folder / "data")}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
        partial = answer.with_suffix(".partial")
        partial.write_text(done.stdout)
        partial.replace(answer)
    return [one["funnel"] for one in json.loads(answer.read_text())["rounds"]]


def _page(found: dict[str, list[list[dict[str, Any]]]]) -> str:
    """Tell how many candidates came to each stage, over all rounds of a campaign, by seed."""
    stages = [stage["stage"] for stage in next(iter(found.values()))[0][0]]
    n_seeds = len(next(iter(found.values())))
    lines = [
        "# Iterated against one-shot",
        "",
        "`python tests/benchmarks/bench_iterated.py --write`: campaigns for",
        f"{' and '.join(TARGET)}",
        "at the same number of CHGNet relaxations. Candidates at each stage, all rounds added up, by seed.",
        "",
        f"| stage | {' | '.join(f'{name}, seed {seed}' for name in found for seed in range(n_seeds))} |",
        "| --- " * (len(found) * n_seeds + 1) + "|",
    ]
    for place, stage in enumerate(stages):
        counts = [sum(funnel[place]["n"] for funnel in rounds) for campaigns in found.values() for rounds in campaigns]
        lines.append(f"| {stage} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
