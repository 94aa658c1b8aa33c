"""Stable, unique and novel crystals by one stated protocol, per generator: a share of the genes that it wrote.

`python tests/benchmarks/bench_sun.py [--n 1000] [--jobs 2] [--write]`. Genes come from the shipped model: without a
target, and for the de-novo target. Each is built and relaxed with CHGNet, guards on, from a few starts; formation
energies count from elements fitted by least squares to the data; the hull holds every formation energy of the data;
unique and novel are decided by structure matching. Every gene's result is kept in build/sun: stopped, it goes on.
"""

import argparse
import csv
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import WyloopError
from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import RelaxationSettings, relax_best
from wyloop.models.screening.hull import Entry, distances_to_hull
from wyloop.models.screening.novelty import novelty_of_structure
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.matching import matching_groups
from wyloop.models.wyckoff.realize import realize

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WYLOOP_DATA", ROOT.parent / "shared" / "data"))
FILES = ("mp20_biternary_train.csv.gz", "mp20_biternary_test.csv.gz", "mpts52_formation_energy.csv.gz")
PAGE = ROOT / "docs" / "benchmarks" / "sun.md"
DE_NOVO = ("0.5 <= band_gap <= 2.0", "formation_energy_per_atom < -1.0", "space_group_number >= 143")
GENERATORS = ("unconditional", "de-novo")
THRESHOLDS = (0.0, 0.08, 0.1)  # eV/atom above the hull
SETTINGS = RelaxationSettings(time_limit=600.0)  # so that a busy machine does not change the result
N_STARTS = 4
SEED = 0
PUBLISHED, MUST, AIM = 41.4, 42.0, 55.0  # % at 0.08 eV/atom, unconditional
N_FITTED = 1200  # crystals of the data that the references are fitted to
RIDGE = 0.5  # atoms; holds an element that few of them have at CHGNet's own reference
BATCH = 256


def main() -> None:
    """Write genes, relax what is not there yet, then judge and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="genes a generator")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--generators", nargs="*", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--n-fitted", type=int, default=N_FITTED, help="crystals for the references")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sun")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    data = _data(given.work)
    references = _references(given.work, data, given.n_fitted)
    report = {}
    for name in given.generators:
        lines = _genes(given.work, name, given.n)
        results = _relaxed(given.work / name, lines, given.jobs)
        report[name] = _judged(results, data, references)
    text = _page(report)
    print(text)
    if given.write:
        PAGE.write_text(text)
        PAGE.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def _data(work: Path) -> list[dict[str, Any]]:
    """Return formation energy, amounts and place of every crystal of the data; CIFs are read when they are needed."""
    kept = work / "data.json"
    if not kept.exists():
        rows = []
        for name in FILES:
            for place, record in enumerate(_records(name)):
                formula = re.search(r"_chemical_formula_sum\s+'([^']+)'", record["cif"])
                if formula is None or not record["formation_energy_per_atom"]:
                    continue
                amounts = {element: int(n or 1) for element, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula[1])}
                energy = float(record["formation_energy_per_atom"])
                rows.append({"file": name, "row": place, "amounts": amounts, "formation_energy_per_atom": energy})
        _write(kept, rows)
    return list(json.loads(kept.read_text()))


def _records(name: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with gzip.open(DATA / name, "rt") as file:
        yield from csv.DictReader(file)


def _crystals(rows: Sequence[dict[str, Any]]) -> dict[str, Crystal]:
    """Read the crystals of some rows of the data, by `file:row`; what can't be read is left out."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        wanted.setdefault(row["file"], set()).add(row["row"])
    found: dict[str, Crystal] = {}
    for name, places in wanted.items():
        for place, record in enumerate(_records(name)):
            if place in places:
                try:
                    found[f"{name}:{place}"] = parse_cif(record["cif"])
                except WyloopError as error:
                    print(f"{name} row {place}: {error}", file=sys.stderr)
    return found


def _references(work: Path, data: Sequence[dict[str, Any]], n_fitted: int) -> dict[str, float]:
    """Fit the energies of the elements, eV/atom, so that CHGNet's energies of the data give its formation energies.

    Energies are of the data's own structures, as its formation energies are.
    """
    kept = work / f"references-{n_fitted}.json"
    if not kept.exists():
        prior = reference_energies()
        usable = [row for row in data if set(row["amounts"]) <= set(prior) and sum(row["amounts"].values()) <= 20]
        order = np.random.default_rng(SEED).permutation(len(usable))[:n_fitted].tolist()
        chosen = [usable[place] for place in order]
        energies = _static_energies(_crystals(chosen))
        rows = [
            (row, energies[f"{row['file']}:{row['row']}"])
            for row in chosen
            if f"{row['file']}:{row['row']}" in energies
        ]
        elements = sorted(prior)
        shares = np.array([[row["amounts"].get(element, 0) for element in elements] for row, _ in rows], dtype=float)
        shares /= shares.sum(axis=1, keepdims=True)
        start = np.array([prior[element] for element in elements])
        wanted = np.array([energy - row["formation_energy_per_atom"] for row, energy in rows]) - shares @ start
        change = np.linalg.solve(shares.T @ shares + RIDGE * np.eye(len(elements)), shares.T @ wanted)
        error = float(np.abs(wanted - shares @ change).mean())
        _write(
            kept,
            {"energies": dict(zip(elements, (start + change).tolist(), strict=True)), "n": len(rows), "mae": error},
        )
    return dict(json.loads(kept.read_text())["energies"])


def _static_energies(crystals: Mapping[str, Crystal]) -> dict[str, float]:
    """Return CHGNet's energy of each crystal as it is, eV/atom."""
    from wyloop.models.physics.calculators import calculator

    energies = {}
    for name, crystal in crystals.items():
        atoms = crystal.to_ase()
        atoms.calc = calculator()
        try:
            energies[name] = float(atoms.get_potential_energy()) / len(atoms)
        except (RuntimeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
    return energies


def _genes(work: Path, generator: str, n: int) -> list[dict[str, Any]]:
    """Write genes with the volume that the model expects, or read those of an earlier run."""
    kept = work / f"genes-{generator}-{n}.json"
    if not kept.exists():
        from wyloop.models.mpvae.checkpoint import load_shipped
        from wyloop.models.mpvae.predict import predict

        checkpoint = load_shipped()
        genes = _unconditional(n) if generator == "unconditional" else _de_novo(n)
        volumes = [prediction.volume_per_atom for prediction in predict(checkpoint, genes)]
        _write(kept, [{"gene": str(gene), "volume": volume} for gene, volume in zip(genes, volumes, strict=True)])
    return list(json.loads(kept.read_text()))


def _unconditional(n: int) -> list[Gene]:
    import torch

    from wyloop.models.mpvae.checkpoint import load_shipped
    from wyloop.models.mpvae.data import genes_of
    from wyloop.models.mpvae.evaluate import sample_prior
    from wyloop.models.mpvae.grammar import Limits
    from wyloop.models.mpvae.sample import MAX_ATOMS

    network, generator = load_shipped().network, torch.Generator().manual_seed(SEED)
    genes: list[Gene] = []
    while len(genes) < n:
        latent = sample_prior(network, BATCH, generator)
        genes += genes_of(network.decoder.decode(latent, Limits(max_atoms=MAX_ATOMS), generator=generator))
    return genes[:n]


def _de_novo(n: int) -> list[Gene]:
    from wyloop.models.mpvae.checkpoint import load_shipped
    from wyloop.models.mpvae.sample import generate
    from wyloop.models.screening.charge import charge_neutrality
    from wyloop.models.targets import Target

    target = Target.parse(list(DE_NOVO))
    return generate(load_shipped(), target, n, seed=SEED, accept=lambda gene: charge_neutrality(gene.amounts).passed)


def _relaxed(folder: Path, lines: Sequence[dict[str, Any]], n_jobs: int) -> list[dict[str, Any]]:
    """Relax every gene that has no result yet, over processes; each result is a small file."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder / f"{place:04d}.json", line) for place, line in enumerate(lines)]
    open_tasks = [task for task in tasks if not _is_done(*task)]
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        for n_done, _ in enumerate(pool.map(_relax, *zip(*open_tasks, strict=True)) if open_tasks else (), start=1):
            if n_done % 20 == 0:
                print(f"{folder.name}: relaxed {n_done}/{len(open_tasks)}", file=sys.stderr, flush=True)
    return [json.loads(path.read_text()) for path, _ in tasks]


def _is_done(path: Path, line: dict[str, Any]) -> bool:
    return path.exists() and json.loads(path.read_text())["gene"] == line["gene"]


def _relax(path: Path, line: dict[str, Any]) -> None:
    began = time.monotonic()
    result: dict[str, Any] = {"gene": line["gene"], "problems": [], "crystal": None, "energy_per_atom": None}
    try:
        starts = realize(Gene.parse(line["gene"]), line["volume"], seed=SEED, n_starts=N_STARTS)
        result["n_starts"] = len(starts)
        found = relax_best(starts, SETTINGS)
        crystal = found.crystal
        result |= {
            "problems": list(found.problems),
            "energy_per_atom": found.energy_per_atom if np.isfinite(found.energy_per_atom) else None,
            "crystal": [crystal.lattice.tolist(), list(crystal.species), crystal.frac_coords.tolist()],
            "n_steps": found.n_steps,
        }
    except WyloopError as error:
        result["problems"] = [str(error)]
    _write(path, result | {"seconds": time.monotonic() - began})


def _judged(
    results: Sequence[dict[str, Any]], data: Sequence[dict[str, Any]], references: Mapping[str, float]
) -> dict[str, Any]:
    """Count stable, unique and novel crystals among all genes that were written."""
    usable = [one for one in results if not one["problems"] and one["energy_per_atom"] is not None]
    crystals = [
        Crystal(np.array(one["crystal"][0]), tuple(one["crystal"][1]), np.array(one["crystal"][2])) for one in usable
    ]
    entries = [Entry(row["amounts"], row["formation_energy_per_atom"], f"{row['file']}:{row['row']}") for row in data]
    energies = [
        (crystal.amounts, formation_energy_per_atom(one["energy_per_atom"], crystal.amounts, references))
        for one, crystal in zip(usable, crystals, strict=True)
    ]
    distances = np.array(distances_to_hull(energies, entries)) if energies else np.zeros(0)
    by_formula: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for place, crystal in enumerate(crystals):
        by_formula.setdefault(_formula(crystal.amounts), []).append(place)
    is_unique, is_novel = np.zeros(len(crystals), bool), np.zeros(len(crystals), bool)
    known = _known(data, by_formula)
    for formula, places in by_formula.items():
        for group in matching_groups([crystals[place] for place in places]):
            is_unique[places[group[0]]] = True
        for place in places:
            is_novel[place] = novelty_of_structure(crystals[place], known.get(formula, {})).passed
    n = len(results)
    report: dict[str, Any] = {
        "n_genes": n,
        "relaxed": len(usable) / n,
        "unique": float(is_unique.sum() / n),
        "novel": float(is_novel.sum() / n),
        "unique_and_novel": float((is_unique & is_novel).sum() / n),
        "n_starts": sum(one.get("n_starts", 0) for one in results),
        "relaxation_hours": sum(one["seconds"] for one in results) / 3600,
    }
    for threshold in THRESHOLDS:
        is_stable = distances <= threshold
        report[f"stable at {threshold:g}"] = float(is_stable.sum() / n)
        report[f"S.U.N. at {threshold:g}"] = float((is_stable & is_unique & is_novel).sum() / n)
    return report


def _known(
    data: Sequence[dict[str, Any]], formulas: Mapping[tuple[tuple[str, int], ...], object]
) -> dict[tuple[tuple[str, int], ...], dict[str, Crystal]]:
    """Read the crystals of the data that have one of some reduced formulas."""
    rows = {f"{row['file']}:{row['row']}": _formula(row["amounts"]) for row in data}
    wanted = [row for row in data if rows[f"{row['file']}:{row['row']}"] in formulas]
    found: dict[tuple[tuple[str, int], ...], dict[str, Crystal]] = {}
    for name, crystal in _crystals(wanted).items():
        found.setdefault(rows[name], {})[name] = crystal
    return found


def _formula(amounts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    divisor = int(np.gcd.reduce(list(amounts.values())))
    return tuple(sorted((element, n // divisor) for element, n in amounts.items()))


def _page(report: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in next(iter(report.values())) if name not in ("n_genes", "n_starts", "relaxation_hours")]
    lines = [
        "# Stable, unique and novel",
        "",
        f"`python tests/benchmarks/bench_sun.py --write`. Genes of the shipped model, seed {SEED}; up to {N_STARTS}",
        f"starts a gene, each relaxed with CHGNet within its space group (force {SETTINGS.max_force:g} eV/Å, at most",
        f"{SETTINGS.max_steps} steps, guards on), the lowest counts. Hull: all formation energies of the three files",
        "of the Materials Project; references of the elements by least squares to them. Shares in % of all genes",
        "written, whatever failed included; thresholds in eV/atom above the hull.",
        "",
        f"| % | {' | '.join(report)} |",
        "| --- " * (len(report) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(f'{100 * one[name]:.1f}' for one in report.values())} |" for name in names]
    for name, label in (("n_genes", "genes"), ("n_starts", "relaxations"), ("relaxation_hours", "core hours")):
        lines.append(f"| {label} | {' | '.join(f'{one[name]:.4g}' for one in report.values())} |")
    if "unconditional" in report:
        share = 100 * report["unconditional"]["S.U.N. at 0.08"]
        verdict = "met" if share >= MUST else "missed"
        lines += [
            "",
            f"Must {MUST:g} % without a target at 0.08 eV/atom: {verdict}; aim {AIM:g} %; published {PUBLISHED:g} %.",
        ]
    return "\n".join(lines) + "\n"


def _write(path: Path, value: object) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


if __name__ == "__main__":
    main()
