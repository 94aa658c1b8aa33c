"""Genes to relaxed crystals: known prototypes and random starts, a short race between them, and the best to their end.

Genes go in groups, since CHGNet is faster in batches; each gene's result is one file, so that a stopped run goes on.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from sun_data import SEED, as_lists, templates, write

from wyloop.models.crystal import Crystal
from wyloop.models.errors import WyloopError
from wyloop.models.physics.relax import Relaxation, RelaxationSettings
from wyloop.models.physics.relax_batched import relax_many
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.realize import realize

SETTINGS = RelaxationSettings(max_force=0.1, max_steps=200, time_limit=3600.0)  # the force is chgnet's own default
RACE_STEPS = 15
N_TEMPLATES = 2
RANDOM_STARTS = ((0, 1), (2, 2), (5, 4))  # free parameters up to here: random starts
MOST_RANDOM_STARTS = 6
N_KEPT = 2  # starts that the race leaves of a gene with more than FEW free parameters; of the others one
FEW = 2
BUILD_SECONDS = 3.0  # processor time for the random starts of a gene
GROUP = 16  # genes at a time
CHANGED = "the gene changed"  # how a relaxation tells it


@dataclass
class _Run:
    """One gene on its way."""

    gene: Gene
    starts: list[Crystal]
    n_templates: int
    n_starts: int = 0
    problems: list[str] = field(default_factory=list)
    done: list[tuple[float, Relaxation]] = field(default_factory=list)
    """Volume ratio of the race, and the relaxation to its end."""
    race: list[float] = field(default_factory=list)
    """Energies after the race, eV/atom."""
    n_steps: int = 0

    @property
    def n_kept(self) -> int:
        return 1 if self.gene.n_free_parameters <= FEW else N_KEPT


def relaxed(work: Path, name: str, lines: Sequence[dict[str, Any]], n_jobs: int, *, is_kept: bool) -> list[Any]:
    """Relax every gene that has no result yet, in order; of a run that is only told, return what is there."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder / f"{place:04d}.json", line) for place, line in enumerate(lines)]
    if is_kept:
        return [json.loads(path.read_text()) for path, line in tasks if _is_done(path, line)]
    waiting = [task for task in tasks if not _is_done(*task)]
    groups = [waiting[place : place + GROUP] for place in range(0, len(waiting), GROUP)]
    templates(work)  # made once, before the processes
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        for n_done, _ in enumerate(pool.map(_relax_group, groups, [work] * len(groups)), start=1):
            print(f"{name}: relaxed {n_done * GROUP}/{len(waiting)} genes", file=sys.stderr, flush=True)
    return [json.loads(path.read_text()) for path, _ in tasks]


def _is_done(path: Path, line: dict[str, Any]) -> bool:
    return path.exists() and json.loads(path.read_text())["gene"] == line["gene"]


def _relax_group(tasks: Sequence[tuple[Path, dict[str, Any]]], work: Path) -> None:
    began = time.process_time()
    runs = [_built(line, work) for _, line in tasks]
    built = time.process_time()
    _race(runs)
    _finish(runs)
    seconds = (time.process_time() - began) / len(runs)
    print(f"built in {built - began:.0f} s, group in {seconds * len(runs):.0f} s", file=sys.stderr, flush=True)
    for (path, line), run in zip(tasks, runs, strict=True):
        write(path, {"gene": line["gene"], **_result(run), "seconds": seconds})


def _built(line: dict[str, Any], work: Path) -> _Run:
    gene, volume = Gene.parse(line["gene"]), line["volume"]
    known = templates(work).starts(gene, volume, N_TEMPLATES if gene.n_free_parameters else 1)
    run = _Run(gene, list(known), len(known))
    n = next((n for most, n in RANDOM_STARTS if gene.n_free_parameters <= most), MOST_RANDOM_STARTS)
    n = n // 2 if known else n
    if n:
        try:
            run.starts += realize(gene, volume, seed=SEED, n_starts=n, time_limit=BUILD_SECONDS)
        except WyloopError as error:
            run.problems = [] if known else [str(error)]
    run.n_starts = len(run.starts)
    return run


def _race(runs: Sequence[_Run]) -> None:
    """Relax all starts of genes that have several by some steps, and keep the best."""
    racing = [(run, start) for run in runs if len(run.starts) > run.n_kept for start in run.starts]
    found = relax_many([start for _, start in racing], replace(SETTINGS, max_steps=RACE_STEPS))
    for run in {id(run): run for run, _ in racing}.values():
        run.starts = []
    for (run, _), one in zip(racing, found, strict=True):
        if isinstance(one, WyloopError):
            run.problems = [str(one)]
        elif np.isfinite(one.energy_per_atom):
            run.done.append((1.0, one))
            run.n_steps += one.n_steps
            run.race.append(one.energy_per_atom)


def _finish(runs: Sequence[_Run]) -> None:
    """Relax what is left to the end."""
    going: list[tuple[_Run, float, Crystal]] = []
    for run in runs:
        raced = sorted(run.done, key=lambda pair: pair[1].energy_per_atom)[: run.n_kept]
        run.done = [pair for pair in raced if pair[1].converged]
        going += [(run, 1.0, start) for start in run.starts]
        going += [(run, one.volume_ratio, one.crystal) for _, one in raced if not one.converged]
    found = relax_many([start for *_, start in going], SETTINGS)
    for (run, ratio, _), one in zip(going, found, strict=True):
        if isinstance(one, WyloopError):
            run.problems = [str(one)]
        else:
            run.n_steps += one.n_steps
            run.done.append((ratio, one))


def _result(run: _Run) -> dict[str, Any]:
    """Return the relaxation of lowest energy that the guards let pass, or why there is none."""
    told: dict[str, Any] = {"n_templates": run.n_templates, "n_starts": run.n_starts, "race": run.race}
    told["n_steps"] = run.n_steps
    told |= {"problems": run.problems or ["no start could be built"], "crystal": None, "energy_per_atom": None}
    if not run.done:
        return told
    judged = [(_problems(ratio, one), one) for ratio, one in run.done]
    problems, best = min(judged, key=lambda pair: (bool(pair[0]), pair[1].energy_per_atom))
    is_finite = bool(np.isfinite(best.energy_per_atom))
    return told | {
        "problems": problems,
        "energy_per_atom": best.energy_per_atom if is_finite else None,
        "crystal": as_lists(best.crystal),
        "has_kept_gene": _has_gene(best.crystal, run.gene),
        "energies": [one.energy_per_atom for _, one in run.done if np.isfinite(one.energy_per_atom)],
    }


def _problems(ratio: float, one: Relaxation) -> list[str]:
    """Return what speaks against a relaxation, the volume against the first start's; another gene is no fault here."""
    problems = [problem for problem in one.problems if not problem.startswith(CHANGED)]
    if not SETTINGS.min_volume_ratio <= ratio * one.volume_ratio <= SETTINGS.max_volume_ratio:
        problems.append(f"volume changed by a factor of {ratio * one.volume_ratio:.2f}")
    return problems


def _has_gene(crystal: Crystal, gene: Gene) -> bool:
    try:
        return encode(crystal) == canonical(gene)
    except WyloopError:
        return False
