"""How the starter set compares with crystals calculated by others with PBE, where the same compound stands there."""

import csv
import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core.composition import Composition

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode

TRAIN = "mp20_biternary_train.csv.gz"
PRETRAIN = "mpts52_formation_energy.csv.gz"
TEST = "mp20_biternary_test.csv.gz"  # only the ids of the rows to leave out are read
LARGE_DIFFERENCE = 0.3  # eV/atom; CHGNet is off by 0.03 on average, so more points to another crystal
ENANTIOMORPHS = {78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212}


@dataclass(frozen=True)
class PbeCrystal:
    """A crystal of the comparison."""

    material_id: str
    fingerprint: str
    space_group_number: int
    formation_energy_per_atom: float
    """eV/atom."""
    volume_per_atom: float
    """Å^3."""


def comparison(
    entries: Sequence[dict[str, Any]], data_folder: Path, report: Callable[[str], None]
) -> dict[str, float | int]:
    """Compare rows of the starter set with PBE crystals of the same formula, and of the same gene.

    Args:
        entries: Rows as they stand in the file.
        data_folder: Holds the training files, as README.md of the data describes them.
        report: Takes one line of text a call: crystals that differ, then the summary.

    Returns:
        Counts, and differences over the pairs of the same gene: energies in eV/atom, volumes relative.

    Raises:
        IngestError: The folder holds no such files.
    """
    found = _same_formula(entries, data_folder)
    n_formula = n_space_group = 0
    energy_differences, volume_differences = [], []
    for entry in entries:
        others = found.get(entry["formula_pretty"], [])
        n_formula += bool(others)
        number = entry["space_group_number"]
        n_space_group += any(_handless(other.space_group_number) == _handless(number) for other in others)
        crystal = Crystal(np.array(entry["lattice"]), tuple(entry["species"]), np.array(entry["frac_coords"]))
        fingerprint = encode(crystal).fingerprint
        same = [other for other in others if other.fingerprint == fingerprint]
        if others and not same:
            numbers = ", ".join(str(other.space_group_number) for other in others)
            report(f"  {entry['structure_id']} stands there with space group {numbers}")
        if not same:
            continue
        other = min(same, key=lambda other: other.formation_energy_per_atom)
        energy_differences.append(entry["formation_energy_per_atom"] - other.formation_energy_per_atom)
        volume_differences.append(crystal.volume / crystal.nsites / other.volume_per_atom - 1.0)
        if abs(energy_differences[-1]) > LARGE_DIFFERENCE:
            report(
                f"  {entry['structure_id']} differs from {other.material_id}: formation energy "
                f"{entry['formation_energy_per_atom']:.3f}, there {other.formation_energy_per_atom:.3f} eV/atom"
            )
    figures = _figures(len(entries), n_formula, n_space_group, energy_differences, volume_differences)
    for name, figure in figures.items():
        report(f"{name}: {figure}")
    return figures


def _figures(
    n_entries: int, n_formula: int, n_space_group: int, energies: Sequence[float], volumes: Sequence[float]
) -> dict[str, float | int]:
    absolute = np.abs(energies)
    return {
        "n_entries": n_entries,
        "n_same_formula": n_formula,
        "n_same_formula_and_space_group": n_space_group,
        "n_same_gene": len(energies),
        "formation_energy_mae": round(float(absolute.mean()), 4),
        "formation_energy_median_difference": round(float(np.median(absolute)), 4),
        "formation_energy_bias": round(float(np.mean(energies)), 4),
        "formation_energy_largest_difference": round(float(absolute.max()), 4),
        "volume_mean_relative_difference": round(float(np.abs(volumes).mean()), 4),
    }


def _handless(space_group_number: int) -> int:
    return ENANTIOMORPHS.get(space_group_number, space_group_number)


def _same_formula(entries: Sequence[dict[str, Any]], data_folder: Path) -> dict[str, list[PbeCrystal]]:
    wanted = {entry["formula_pretty"] for entry in entries}
    left_out = {row["material_id"] for row in _rows(data_folder / TEST)}
    found: defaultdict[str, dict[str, PbeCrystal]] = defaultdict(dict)
    for name in (TRAIN, PRETRAIN):
        for row in _rows(data_folder / name):
            formula = row.get("pretty_formula") or _formula(row["cif"])
            if formula not in wanted or row["material_id"] in left_out:
                continue
            crystal = parse_cif(row["cif"])
            gene = encode(crystal)
            found[formula][row["material_id"]] = PbeCrystal(
                material_id=row["material_id"],
                fingerprint=gene.fingerprint,
                space_group_number=gene.space_group_number,
                formation_energy_per_atom=float(row["formation_energy_per_atom"]),
                volume_per_atom=crystal.volume / crystal.nsites,
            )
    return {formula: list(crystals.values()) for formula, crystals in found.items()}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise IngestError(f"no file {path}; expected the data folder that README.md describes, give it with --data")
    csv.field_size_limit(sys.maxsize)
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def _formula(cif: str) -> str:
    match = re.search(r"^_chemical_formula_sum\s+'?([^'\n]+)", cif, re.MULTILINE)
    return str(Composition(match[1]).reduced_formula) if match else ""
