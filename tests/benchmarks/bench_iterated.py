"""Iterated against one-shot: rounds with retraining against one round, at the same number of CHGNet relaxations.

`python tests/benchmarks/bench_iterated.py [--rounds 3] [--per-round 16] [--seeds 3] [--kept] [--write]`. Each campaign
has a database of its own under build/iterated, filled with the starter set, and runs in one process with its jobs; its
answer is kept, and a campaign that was stopped goes on where it was. What it relaxed is judged as sun.md does, against
all of the data, and the gap by trees that learn from the test file. Whatever it shows is reported.
"""

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from gene_rows import read_rows
from judge import Judge
from sun_data import DATA, as_lists, energies_of_data, fitted_references, of_lists, write
from sun_judge import distances_above, formation_energies, unique_and_novel

from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "iterated.md"
SUN = ROOT / "build" / "sun"
TARGET = ("0.5 <= band_gap <= 2.0", "formation_energy_per_atom < -1.0", "space_group_number >= 143")
N_CANDIDATES, N_STARTS, N_FITTED = 1000, 2, 2000
STABLE = 0.1  # eV/atom above the hull
STAGES = ("relaxed", "on target", "stable", "novel", "all of it")
DATABASE, JOBS = "iterated", "iterated_jobs"
INTRODUCTION = """`python tests/benchmarks/bench_iterated.py --write`: campaigns on the starter set for {target}, {n}
candidates a round, the model trained again at the beginning of each round, at the same number of CHGNet relaxations.
Counted over all rounds of a campaign. *Stable*: at most {stable:g} eV/atom above the hull of the train, test and mpts52
files; *novel*: matches no crystal of these and none before it in the campaign; *on target*: formation energy as
calculated, gap as boosted trees expect it that learned from the test file alone. The last row is what the campaign
itself calls validated."""
Found = dict[str, Any]


def main() -> None:
    """Run every campaign that has no answer yet, then judge, tell and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-round", type=int, default=16, help="relaxations in each of the rounds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "iterated")
    parser.add_argument("--kept", action="store_true", help="judge the campaigns that are done, run no more")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    arms = {
        f"{given.rounds} rounds of {given.per_round}": (given.rounds, given.per_round),
        f"1 round of {given.rounds * given.per_round}": (1, given.rounds * given.per_round),
    }
    found: dict[tuple[str, int], list[list[Found]]] = {}
    for seed in range(given.seeds):  # both arms of a seed, then the next: what is there compares whenever it is stopped
        for name, (rounds, n_relax) in arms.items():
            answer = _answer(given.work / f"{rounds}x{n_relax}-{seed}", rounds, n_relax, seed, is_kept=given.kept)
            if answer is not None:
                found[name, seed] = answer
    text = _page(list(arms), given.seeds, _judged(found, given.work))
    print(text)
    if given.write:
        PAGE.write_text(text)


def _answer(folder: Path, rounds: int, n_relax: int, seed: int, *, is_kept: bool) -> list[list[Found]] | None:
    """Return what each round of a campaign relaxed, in a process of its own if that is still to be done."""
    kept = folder / "answer.json"
    if not kept.exists():
        if is_kept:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(_campaign, folder, rounds, n_relax, seed).result()
    return list(json.loads(kept.read_text()))


def _campaign(folder: Path, rounds: int, n_relax: int, seed: int) -> None:
    """Run a campaign to its end, with its jobs, and keep what it relaxed."""
    from wyloop.platform.mongod import start_mongod, stop_mongod

    began = time.process_time()
    handle = start_mongod(folder)
    os.environ |= {
        "WYLOOP_STORES_URI": handle.uri,
        "WYLOOP_STORES_DATABASE": DATABASE,
        "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": JOBS,
    }
    try:
        from wyloop.flows import session
        from wyloop.flows.campaign import WAITING, advance_locally
        from wyloop.flows.policy import Policy
        from wyloop.flows.worker import run_worker
        from wyloop.stores import campaigns
        from wyloop.stores.ingest.starter import ingest_starter

        store = session.store()
        ingest_starter(store)
        policy = Policy(n_candidates=N_CANDIDATES, n_relaxations=n_relax, n_starts=N_STARTS, seed=seed)
        made = campaigns.create_campaign(store, TARGET, policy.model_dump(mode="json"))
        campaigns.request_rounds(store, made.campaign_id, rounds)
        while advance_locally(made.campaign_id) == WAITING:
            run_worker(handle.uri, JOBS, once=True)
            print(f"{folder.name}: {time.process_time() - began:.0f} s of processor time", file=sys.stderr, flush=True)
        write(folder / "answer.json", [_relaxed(store, one) for one in campaigns.rounds(store, made.campaign_id)])
    finally:
        stop_mongod(folder)


def _relaxed(store: Any, record: Any) -> list[Found]:  # noqa: ANN401 - a Store and a RoundRecord
    """Return what became of each candidate that a round took on."""
    from wyloop.stores import calculations, candidates

    taken = [one for one in candidates.of_round(store, record.round_id) if one.rank is not None]
    asked = calculations.of_subjects(store, [str(one.gene) for one in taken])
    of_gene = {one.subject: one for one in asked if one.kind == "relaxation"}
    rows = []
    for candidate in taken:
        found = of_gene.get(str(candidate.gene))
        energy = found.result.get("energy_per_atom") if found is not None and not found.problems else None
        crystal = None if found is None or found.crystal is None else as_lists(found.crystal)
        rows.append({"gene": str(candidate.gene), "status": candidate.status, "energy": energy, "crystal": crystal})
    return rows


def _judged(found: Mapping[tuple[str, int], list[list[Found]]], work: Path) -> dict[tuple[str, int], dict[str, int]]:
    """Count for each campaign how many of its candidates reach each stage."""
    if not found:
        return {}
    SUN.mkdir(parents=True, exist_ok=True)
    data = energies_of_data(SUN)
    references = fitted_references(SUN, data, N_FITTED)["energies"]
    judge = Judge(read_rows(DATA / "mp20_biternary_test.csv.gz", work))
    target = Target.parse(list(TARGET))
    counts = {}
    for key, rounds in found.items():
        taken = [one for of_round in rounds for one in of_round]
        done = [one for one in taken if one["energy"] is not None and one["crystal"] is not None]
        relaxed = [of_lists(one["crystal"]) for one in done]
        genes = [Gene.parse(one["gene"]) for one in done]
        energies = formation_energies(relaxed, [one["energy"] for one in done], references)
        gaps = judge(genes).band_gap.tolist()
        is_on_target = np.array(
            [
                target.matches(
                    {
                        "formation_energy_per_atom": energy,
                        "band_gap": gap,
                        "space_group_number": gene.space_group_number,
                    }
                )
                for gene, energy, gap in zip(genes, energies, gaps, strict=True)
            ],
            dtype=bool,
        )
        is_stable = distances_above(relaxed, energies, data) <= STABLE
        is_unique, is_novel = unique_and_novel(relaxed, data)
        marks = (np.ones(len(done), bool), is_on_target, is_stable, is_novel & is_unique)
        everything = is_on_target & is_stable & is_novel & is_unique
        counts[key] = {"taken on": len(taken)} | {
            stage: int(mark.sum()) for stage, mark in zip(STAGES, (*marks, everything), strict=True)
        }
        counts[key]["near the campaign's own hull"] = sum(one["status"] == "validated" for one in taken)
    return counts


def _page(arms: Sequence[str], n_seeds: int, counts: Mapping[tuple[str, int], Mapping[str, int]]) -> str:
    """Tell how many candidates came to each stage, over all rounds of a campaign, by seed, and the mean shares."""
    lines = [
        "# Iterated against one-shot",
        "",
        *textwrap.wrap(INTRODUCTION.format(target=" and ".join(TARGET), n=N_CANDIDATES, stable=STABLE), 118),
        "",
        f"| | {' | '.join(f'{name}, seed {seed}' for name in arms for seed in range(n_seeds))} |",
        "| --- " * (len(arms) * n_seeds + 1) + "|",
    ]
    stages = list(next(iter(counts.values()))) if counts else []
    for stage in stages:
        cells = [counts.get((name, seed), {}).get(stage, "not run") for name in arms for seed in range(n_seeds)]
        lines.append(f"| {stage} | {' | '.join(map(str, cells))} |")
    lines.append("")
    for name in arms:
        done = [counts[name, seed] for seed in range(n_seeds) if (name, seed) in counts]
        shares = [one["all of it"] / max(1, one["taken on"]) for one in done]
        if shares:
            spread = f" ± {100 * float(np.std(shares, ddof=1)) / len(shares) ** 0.5:.1f}" if len(shares) > 1 else ""
            mean = 100 * float(np.mean(shares))
            lines.append(f"- {name}: {mean:.1f}{spread} % of what was taken on is all of it, {len(shares)} seeds.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
