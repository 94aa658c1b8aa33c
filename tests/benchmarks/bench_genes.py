"""Prove and time the genes: `python tests/benchmarks/bench_genes.py --proof --realize --speed --synthesizability`.

Each option measures one section; `--write` puts what was measured into docs/benchmarks/genes.md and leaves the other
sections there as they are. `--rows N` takes a random N rows instead of all. Two processes, one thread each.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from wyloop.models.errors import WyloopError
from wyloop.models.wyckoff.batch import encode_texts, realize_many, run_each

DATA = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
WORK = Path(os.environ.get("WYLOOP_BENCH_WORK", Path(tempfile.gettempdir()) / "wyloop-bench-genes"))
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "genes.md"
TRAIN, TEST = "mp20_biternary_train.csv.gz", "mp20_biternary_test.csv.gz"
N_PROCESSES = 2
N_RUNS = 3
N_REALIZED = 2000
N_BASELINE = 300
WALL_LIMIT = 120.0  # s, of one gene: high, so that a busy machine shows as time, not as genes without a crystal
EDGE = (0.8, 1.2)  # times symprec: a row whose gene changes between them lies on the tolerance's edge
ROWS_A_TASK = 20
HEAD = "# Genes\n\nWritten by `python tests/benchmarks/bench_genes.py --write`; every number is its own.\n"

Lines = list[str]


def main() -> None:
    """Measure the sections asked for, print them, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name, (title, measure) in SECTIONS.items():
        if getattr(options, name):
            began = time.perf_counter()
            lines = measure(options.rows)
            lines += ["", f"`--{name}`: {time.perf_counter() - began:.0f} s of wall time. {machine()}"]
            print("\n".join([f"## {title}", "", *lines, ""]), flush=True)
            if options.write:
                write_section(title, lines)


def write_section(title: str, lines: Lines) -> None:
    """Replace one section of the page, or add it."""
    head = (
        "# Genes\n\nWritten by `python tests/benchmarks/bench_genes.py --write`; every number is that command's own.\n"
    )
    old = PAGE.read_text() if PAGE.exists() else head
    top, *rest = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    sections = {section.splitlines()[0][3:]: section.strip("\n") + "\n" for section in rest}
    sections[title] = "\n".join([f"## {title}", "", *lines, ""])
    order = [name for name, _ in SECTIONS.values()]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join([top.strip("\n") + "\n", *(sections[name] for name in order if name in sections)]))


def machine() -> str:
    """Say what it ran on and how busy that was."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ", ".join(f"{name} {version(name)}" for name in ("moyopy", "spglib", "pymatgen", "numpy"))
    day = datetime.now(UTC).date().isoformat()
    return f"{day}, {platform.machine()}, {cores} cores, load {load} over 1, 5, 15 min; {packages}."


def texts_of(file: str, rows: int | None) -> dict[int, str]:
    """Read the CIF texts of a file by row number, a random choice if rows is given."""
    texts = pd.read_csv(DATA / file, usecols=["cif"])["cif"]
    chosen = texts if rows is None or rows >= len(texts) else texts.sample(rows, random_state=0)
    return {int(place): str(text) for place, text in chosen.items()}


# --proof


def proof(rows: int | None) -> Lines:
    """Encode every row in every other description and by the other engine, and compare the genes.

    Rows that are done stand in a work file, so that a run that was ended goes on where it was.
    """
    texts = texts_of(TRAIN, rows)
    work = WORK / f"proof-{sources_hash()}.jsonl"
    WORK.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in work.read_text().splitlines()] if work.exists() else []
    finished = {one[0] for one in done}
    left = [pair for pair in texts.items() if pair[0] not in finished]
    tasks = [left[start : start + ROWS_A_TASK] for start in range(0, len(left), ROWS_A_TASK)]
    singles: list[list[tuple[int, str]]] = []
    with work.open("a") as file:
        for attempted in (tasks, singles):
            for task, (found, error) in zip(attempted, compare_all(attempted), strict=True):
                if found is None and len(task) > 1:  # a crash of one row must not hide the others
                    singles += [[pair] for pair in task]
                    continue
                rows_found = [(task[0][0], "crash", "", error, False)] if found is None else found
                file.write("".join(f"{json.dumps(one)}\n" for one in rows_found))
                file.flush()
                done += rows_found
    lines = proof_report(len(texts), [tuple(one) for one in done if one[0] in texts])
    if finished:
        lines += [
            "",
            f"{len(finished)} rows were read from the work file of an earlier run, whose time is not in this:",
        ]
    return lines


def compare_all(tasks: list[list[tuple[int, str]]]) -> Iterator[tuple[Any, str]]:
    """Compare the rows of all tasks over processes."""
    return run_each(compare_rows, tasks, n_processes=N_PROCESSES)


def sources_hash() -> str:
    """Return a short hash of everything that the genes depend on."""
    folder = Path(__file__).parents[2] / "models" / "wyckoff"
    names = ("cell_choices", "cif", "descriptions", "encode", "engines", "gene", "tables")
    code = b"".join((folder / f"{name}.py").read_bytes() for name in names)
    return hashlib.sha256(code + (folder / "tables.json").read_bytes()).hexdigest()[:12]


def compare_rows(task: list[tuple[int, str]]) -> list[tuple[int, str, str, str, bool]]:
    """Return row, kind, gene and the gene of the other description, and whether the row lies on the edge."""
    import numpy as np

    from wyloop.models.wyckoff.cif import parse_cif
    from wyloop.models.wyckoff.descriptions import descriptions
    from wyloop.models.wyckoff.encode import SYMPREC, encode, standardize

    warnings.simplefilter("ignore")  # spglib's own
    found = []
    for number, text in task:
        crystal = parse_cif(text)
        gene = encode(crystal)
        others = {
            kind: attempt(lambda other=other: str(encode(other)))
            for kind, other in descriptions(crystal, standardize(crystal), np.random.default_rng(number))
        }
        theirs = attempt(lambda crystal=crystal: str(encode(crystal, engine="spglib")))
        is_same_group = theirs.split()[0] == str(gene.space_group_number)
        others["spglib" if is_same_group else "spglib, another space group"] = theirs
        is_edge = False
        if set(others.values()) != {str(gene)}:
            scaled = [attempt(lambda c=crystal, s=scale: str(encode(c, SYMPREC * s))) for scale in EDGE]
            is_edge = any(other != str(gene) for other in scaled)
        found += [(number, kind, str(gene), other, is_edge) for kind, other in others.items()]
    return found


def attempt(encode_it: Callable[[], str]) -> str:
    """Return the gene, or the error as text."""
    try:
        return encode_it()
    except WyloopError as error:
        return f"no gene: {error}"


def proof_report(n_rows: int, done: list[Any]) -> Lines:
    """Tabulate the rows with the same gene by kind, and list the others."""
    from wyloop.models.wyckoff.descriptions import KINDS, NOISE
    from wyloop.models.wyckoff.encode import SYMPREC

    same = Counter(row[1] for row in done if row[2] == row[3])
    differing = [row for row in done if row[2] != row[3]]
    other_group = [row for row in differing if row[1] == "spglib, another space group"]
    unlike = [row for row in differing if row[1] != "spglib, another space group"]
    lines = [
        f"Canonical genes of {n_rows} rows of `{TRAIN}` at symprec {SYMPREC} Å, in another description of each row. "
        f"Noise: {NOISE} Å, normally distributed, on every coordinate of atoms and lattice vectors.",
        "",
        "| description | rows compared | same gene | another gene |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind in (*KINDS, "spglib"):
        n_other = sum(row[1] == kind for row in unlike)
        name = "spglib instead of moyopy, same space group" if kind == "spglib" else kind
        lines.append(f"| {name} | {same[kind] + n_other} | {same[kind]} | {n_other} |")
    lines += ["", f"spglib finds another space group in {len(other_group)} rows; these are not compared."]
    if unlike:
        n_edge = len({row[0] for row in unlike if row[4]})
        n_unlike = len({row[0] for row in unlike})
        lines += [
            "",
            f"{n_unlike} rows differ somewhere; {n_edge} of them lie on the edge of the tolerance: their gene "
            f"changes when symprec is {EDGE[0]} or {EDGE[1]} times what it is.",
            "",
        ]
        lines += [f"- row {row}, {kind}: {gene[:60]} | {other[:60]}" for row, kind, gene, other, _ in unlike]
    return lines


# --realize


def realization(rows: int | None) -> Lines:
    """Build a crystal of each of 2 000 genes of the test file at the predicted volume, and encode it again."""
    from wyloop.models.mpvae.checkpoint import load_shipped  # torch: seconds
    from wyloop.models.mpvae.predict import predict
    from wyloop.models.wyckoff.encode import encode

    texts = texts_of(TEST, rows or N_REALIZED)
    genes = [gene for gene in encode_texts(texts.values()) if not isinstance(gene, WyloopError)]
    volumes = [prediction.volume_per_atom for prediction in predict(load_shipped(), genes)]
    began = time.perf_counter()
    done = list(realize_many(genes, volumes, seed=0, n_processes=N_PROCESSES, wall_limit=WALL_LIMIT))
    wall = time.perf_counter() - began
    n_same = sum(bool(one.crystals) and encode(one.crystals[0]) == one.gene for one in done)
    seconds = sorted(one.seconds for one in done)
    processor = sorted(one.processor_seconds for one in done if one.processor_seconds == one.processor_seconds)
    shares = {"median": 0.5, "90 % below": 0.9, "99 % below": 0.99, "longest": 1.0}
    lines = [
        f"{len(genes)} genes of `{TEST}` (random rows), one crystal each at the volume that the shipped model "
        "predicts; nothing is learnt from that file here.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| come back as the same canonical gene | {n_same} ({100 * n_same / len(genes):.2f} %) |",
        f"| no crystal found | {sum(not one.crystals for one in done)} |",
        f"| took more than 5 s of wall time | {sum(one > 5.0 for one in seconds)} |",
        f"| genes a second, {N_PROCESSES} processes | {len(genes) / wall:.0f} |",
        "",
    ]
    lines += ["| time of a gene, s | wall | processor |", "| --- | ---: | ---: |"]
    for name, share in shares.items():
        times = [values[int(share * (len(values) - 1))] for values in (seconds, processor)]
        lines.append(f"| {name} | {times[0]:.3f} | {times[1]:.3f} |")
    lines.append("")
    lines += [f"- not built: {one.gene}: {one.reason}" for one in done if not one.crystals]
    return lines


# --speed


def speed(rows: int | None) -> Lines:
    """Time CIF text to gene over the train file, and the plain pymatgen loop on random rows in between."""
    texts = list(texts_of(TRAIN, rows).values())
    sample = random.Random(0).sample(texts, min(N_BASELINE, len(texts)))
    parts = [sample[start::N_PROCESSES] for start in range(N_PROCESSES)]
    ours, theirs, one_core, loads = [], [], [], []
    for _ in range(N_RUNS):
        loads.append(os.getloadavg()[0])
        began = time.perf_counter()
        n_genes = sum(not isinstance(gene, WyloopError) for gene in encode_texts(texts, n_processes=N_PROCESSES))
        ours.append(len(texts) / (time.perf_counter() - began))
        timed = [found for found, _ in run_each(pymatgen_loop, [sample], n_processes=1)]
        theirs.append(len(sample) / timed[0][0])
        used = [found for found, _ in run_each(our_loop, parts, n_processes=N_PROCESSES)]
        one_core.append((len(sample) / sum(one[1] for one in used), len(sample) / sum(one[1] for one in timed)))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    processor = [mine / other for mine, other in one_core]
    return [
        f"{len(texts)} CIF texts of `{TRAIN}` to canonical genes ({n_genes} encoded), {N_PROCESSES} processes, start "
        f"of the processes included; pymatgen: `Structure.from_str` + `SpacegroupAnalyzer(symprec=0.1)"
        f".get_symmetrized_structure()` on {len(sample)} random rows, a plain loop in one process, start not included. "
        f"{N_RUNS} runs, each of both.",
        "",
        "| | median | runs |",
        "| --- | ---: | --- |",
        row_of("ours, structures/s of wall time", ours),
        row_of("pymatgen loop, structures/s of wall time", theirs),
        row_of("ratio of wall times", ratios, 1),
        row_of("ours, structures/s of processor time, one core", [one for one, _ in one_core]),
        row_of("pymatgen loop, the same", [one for _, one in one_core]),
        row_of("ratio of processor times, one core each", processor, 1),
        row_of("load of the machine before each run", loads, 1),
    ]


def row_of(name: str, values: list[float], digits: int = 0) -> str:
    """Return a row of the table: median and all runs."""
    runs = ", ".join(f"{value:.{digits}f}" for value in values)
    return f"| {name} | {statistics.median(values):.{digits}f} | {runs} |"


def pymatgen_loop(texts: list[str]) -> tuple[float, float]:
    """Return wall and processor time, s, of the loop that everybody writes."""
    from pymatgen.core.structure import Structure
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    warnings.simplefilter("ignore")

    def one(text: str) -> None:
        SpacegroupAnalyzer(Structure.from_str(text, fmt="cif"), symprec=0.1).get_symmetrized_structure()

    return timed_loop(one, texts)


def our_loop(texts: list[str]) -> tuple[float, float]:
    """Return wall and processor time, s, of ours in one process."""
    from wyloop.models.wyckoff.cif import parse_cif
    from wyloop.models.wyckoff.encode import encode

    return timed_loop(lambda text: encode(parse_cif(text)), texts)


def timed_loop(one: Callable[[str], object], texts: list[str]) -> tuple[float, float]:
    """Time a loop after one call that loads what loads lazily."""
    one(texts[0])
    wall, processor = time.perf_counter(), time.process_time()
    for text in texts:
        one(text)
    return time.perf_counter() - wall, time.process_time() - processor


# --synthesizability


def synthesizability(rows: int | None) -> Lines:
    """Judge the classifier on the time split of mpts52: trained on the early years, recall on the later ones."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "screening"))
    from make_synthesizability import judge_time_split

    metrics = judge_time_split(DATA)
    return [
        "Trained on the crystals of `mpts52_formation_energy.csv.gz` first reported up to 2004 (positives) and "
        "substitutions into them (unlabelled), judged on those reported later. That file calls every row experimental, "
        "so what is unlabelled is made: one element swapped, all elements of another crystal, or the orbits drawn "
        "anew. The test file's ids and formulas are left out.",
        "",
        "| | |",
        "| --- | ---: |",
        *(f"| {name.replace('_', ' ')} | {json.dumps(value)} |" for name, value in metrics.items()),
    ]


SECTIONS: dict[str, tuple[str, Callable[[int | None], Lines]]] = {
    "proof": ("The gene does not depend on the description", proof),
    "realize": ("Genes to crystals and back", realization),
    "speed": ("From CIF text to gene", speed),
    "synthesizability": ("Synthesizability on the time split", synthesizability),
}


if __name__ == "__main__":
    main()
