"""What S.U.N. is judged against: energies and crystals of the data, elements fitted to them, and known prototypes."""

import csv
import gzip
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import WyloopError
from wyloop.models.physics.references import reference_energies
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.templates import Templates

DATA = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
TRAIN = "mp20_biternary_train.csv.gz"
FILES = (TRAIN, "mp20_biternary_test.csv.gz", "mpts52_formation_energy.csv.gz")
SEED = 0
RIDGE = 0.5  # atoms; holds an element that few of the crystals have at CHGNet's own reference
LARGEST = 20  # atoms of a crystal that the references are fitted to
MAX_KNOWN = 24  # atoms of a crystal of mpts52 whose gene is looked up
BATCH = 16
Row = dict[str, Any]


def energies_of_data(work: Path) -> list[Row]:
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
                rows.append({"name": f"{name}:{place}", "amounts": amounts, "formation_energy_per_atom": energy})
        write(kept, rows)
    return list(json.loads(kept.read_text()))


def crystals(names: Sequence[str]) -> dict[str, Crystal]:
    """Read crystals of the data by `file:row`; what can't be read is told and left out."""
    wanted: dict[str, set[int]] = {}
    for name in names:
        file, _, place = name.rpartition(":")
        wanted.setdefault(file, set()).add(int(place))
    found: dict[str, Crystal] = {}
    for file, places in wanted.items():
        for place, record in enumerate(_records(file)):
            if place in places:
                try:
                    found[f"{file}:{place}"] = parse_cif(record["cif"])
                except WyloopError as error:
                    print(f"{file} row {place}: {error}", file=sys.stderr)
    return found


def _records(name: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with gzip.open(DATA / name, "rt") as file:
        yield from csv.DictReader(file)


def fitted_references(work: Path, data: Sequence[Row], n_fitted: int) -> dict[str, Any]:
    """Fit the energies of the elements, eV/atom, so that CHGNet's energies of the data give its formation energies.

    Energies are of the data's own structures, as its formation energies are.

    Returns:
        `energies` by element, `n` crystals, and the mean absolute error left, `mae`, eV/atom.
    """
    kept = work / f"references-{n_fitted}.json"
    if not kept.exists():
        prior = reference_energies()
        usable = [row for row in data if set(row["amounts"]) <= set(prior) and sum(row["amounts"].values()) <= LARGEST]
        order = np.random.default_rng(SEED).permutation(len(usable))[:n_fitted].tolist()
        energies = _energies([usable[place]["name"] for place in order])
        rows = [
            (usable[place], energies[usable[place]["name"]]) for place in order if usable[place]["name"] in energies
        ]
        write(kept, _fit(rows, prior))
    return dict(json.loads(kept.read_text()))


def _fit(rows: Sequence[tuple[Row, float]], prior: Mapping[str, float]) -> dict[str, Any]:
    """Solve for the elements by least squares, held weakly at the prior."""
    elements = sorted(prior)
    shares = np.array([[row["amounts"].get(element, 0) for element in elements] for row, _ in rows], dtype=float)
    shares /= shares.sum(axis=1, keepdims=True)
    start = np.array([prior[element] for element in elements])
    wanted = np.array([energy - row["formation_energy_per_atom"] for row, energy in rows]) - shares @ start
    change = np.linalg.solve(shares.T @ shares + RIDGE * np.eye(len(elements)), shares.T @ wanted)
    energies = dict(zip(elements, (start + change).tolist(), strict=True))
    return {"energies": energies, "n": len(rows), "mae": float(np.abs(wanted - shares @ change).mean())}


def _energies(names: Sequence[str]) -> dict[str, float]:
    """Return CHGNet's energy of crystals of the data as they are, eV/atom; without those that have no graph."""
    from wyloop.models.physics.calculators import chgnet_results

    found = sorted(crystals(names).items(), key=lambda pair: pair[1].nsites)
    energies = {}
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        for (name, crystal), result in zip(batch, chgnet_results([one.to_ase() for _, one in batch]), strict=True):
            if isinstance(result, Exception):
                print(f"{name}: {result}", file=sys.stderr)
            else:
                energies[name] = result["energy"] / crystal.nsites
    return energies


@cache
def templates(work: Path) -> Templates:
    """Return the crystals of the train file by prototype; those of the test file are not used to build."""
    return Templates((Gene.parse(gene), of_lists(rest)) for gene, *rest in _train_crystals(work))


def known_genes(work: Path) -> list[Gene]:
    """Return the distinct genes that the shipped model was trained on, of at most `MAX_KNOWN` atoms."""
    kept = work / "known.json"
    if not kept.exists():
        known = {gene: None for gene, *_ in _train_crystals(work)}
        small = [
            row["name"]
            for row in energies_of_data(work)
            if row["name"].startswith(FILES[2])
            and sum(row["amounts"].values()) <= MAX_KNOWN
            and len(row["amounts"]) < 4
        ]
        for name, crystal in crystals(small).items():
            try:
                known[str(encode(crystal))] = None
            except WyloopError as error:
                print(f"{name}: {error}", file=sys.stderr)
        write(kept, list(known))
    return [Gene.parse(text) for text in json.loads(kept.read_text())]


def _train_crystals(work: Path) -> list[list[Any]]:
    kept = work / "templates.json"
    if not kept.exists():
        lines = []
        for record in _records(TRAIN):
            try:
                crystal = standardize(parse_cif(record["cif"]))
                lines.append([str(encode(crystal)), *as_lists(crystal)])
            except WyloopError as error:
                print(f"{TRAIN} {record['material_id']}: {error}", file=sys.stderr)
        write(kept, lines)
    return list(json.loads(kept.read_text()))


def as_lists(crystal: Crystal) -> list[Any]:
    """Return a crystal as JSON keeps it."""
    return [crystal.lattice.tolist(), list(crystal.species), crystal.frac_coords.tolist()]


def of_lists(lists: Sequence[Any]) -> Crystal:
    """Read what `as_lists` wrote."""
    return Crystal(np.array(lists[0]), tuple(lists[1]), np.array(lists[2]))


def write(path: Path, value: object) -> None:
    """Write a file wholly or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)
