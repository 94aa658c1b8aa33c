"""Relax the compounds of compounds.csv with CHGNet and write starter_set.json.gz.

Run `python stores/starter/make_starter_set.py relax WORK_FOLDER` with OMP_NUM_THREADS=1, as often as needed: what is in
the work folder is not done again. Then the same with `write` for `relax` and `--data ../shared/data`, which prints how
the set compares with the PBE crystals there. Of those it reads the training files only, less every row that the test
file holds.
"""

import argparse
import csv
import gzip
import json
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import WyloopError
from wyloop.models.physics.calculators import calculator, one_thread
from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import RelaxationSettings, relax
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.starter.compare import comparison
from wyloop.stores.starter.prototypes import Compound, compounds, decorate
from wyloop.stores.starter.read import PATH

SCALES = np.linspace(0.72, 1.16, 12)  # of the lengths that radii give, which are too long where cations nearly touch
SETTINGS = RelaxationSettings(max_steps=150, time_limit=150.0)  # a busy machine leaves no compound out
HERE = Path(__file__).parent
DEFAULT_DATA = Path(os.environ.get("WYLOOP_DATA", HERE.parents[2] / "shared" / "data"))


def main() -> None:
    """Relax, or write what has been relaxed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["relax", "write"])
    parser.add_argument("work_folder", type=Path)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of crystals to compare with")
    parser.add_argument("--part", default="0/1", help="which share of the compounds, such as 0/2 and 1/2")
    arguments = parser.parse_args()
    arguments.work_folder.mkdir(parents=True, exist_ok=True)
    if arguments.step == "relax":
        part, n_parts = (int(x) for x in arguments.part.split("/"))
        relax_all(arguments.work_folder, compounds()[part::n_parts])
    else:
        write(arguments.work_folder, arguments.data)


def relax_all(work_folder: Path, to_do: list[Compound]) -> None:
    """Relax every compound that the work folder lacks, one JSON file each."""
    for i, compound in enumerate(to_do):
        path = work_folder / f"{compound.identity}.json"
        if path.exists():
            continue
        record = relax_compound(compound)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(record))
        temporary.rename(path)
        wall_time = record.get("wall_time", 0.0)
        print(f"{i + 1}/{len(to_do)} {compound.identity} {wall_time:.1f} s {record['problems']}", flush=True)


def relax_compound(compound: Compound) -> dict[str, Any]:
    """Decorate, choose the best size on a grid, relax; problems are recorded, not raised."""
    try:
        start = best_size(decorate(compound.prototype, compound.elements))
        number = encode(start).space_group_number
        relaxation = relax(start, SETTINGS)
        if not relaxation.converged:  # CHGNet's energy has small steps on which the optimiser's memory can hang
            relaxation = relax(relaxation.crystal, SETTINGS)
    except WyloopError as error:
        return {"problems": [str(error)]}
    problems = list(relaxation.problems)
    if number != compound.prototype.space_group_number:
        problems.append(f"the decorated crystal has space group {number}, not its prototype's")
    return {
        "problems": problems,
        "lattice": relaxation.crystal.lattice.tolist(),
        "species": list(relaxation.crystal.species),
        "frac_coords": relaxation.crystal.frac_coords.tolist(),
        "energy_per_atom": relaxation.energy_per_atom,
        "wall_time": relaxation.wall_time,
    }


def best_size(crystal: Crystal) -> Crystal:
    """Scale a crystal to the size of lowest CHGNet energy on a grid."""
    sizes = [Crystal(crystal.lattice * scale, crystal.species, crystal.frac_coords) for scale in SCALES]
    with one_thread():
        energies = []
        for size in sizes:
            atoms: Any = size.to_ase()  # ASE has no types
            atoms.calc = calculator()
            energies.append(atoms.get_potential_energy())
    return sizes[int(np.argmin(energies))]


def write(work_folder: Path, data_folder: Path) -> None:
    """Write the starter set from what has been relaxed, and print how it compares."""
    entries, rejected = make_entries(work_folder)
    print(f"{len(entries)} crystals, {len(rejected)} compounds left out:")
    for identity, reason in rejected.items():
        print(f"  {identity}: {reason}")
    header = {
        "n_entries": len(entries),
        "n_band_gaps": sum(entry["band_gap"] is not None for entry in entries),
        "n_compounds_left_out": len(rejected),
        "script": "stores/starter/make_starter_set.py",
        "code_version": version("wyloop"),
        "calculator": f"CHGNet {version('chgnet')}",
        "relaxation": f"within the space group until forces are below {SETTINGS.max_force} eV/Å",
        "units": {
            "lattice": "Å",
            "frac_coords": "1",
            "energy_per_atom": "eV/atom",
            "formation_energy_per_atom": "eV/atom",
            "band_gap": "eV",
            "band_gap_temperature": "K",
        },
        "band_gap_note": (
            "Measured gaps from the literature, never PBE gaps. Measurements of one crystal differ by up to 0.3 eV, "
            "of wide gaps by more: use them to tell insulators from metals, not as labels of a PBE model."
        ),
        "comparison": comparison(entries, data_folder, report=print),
    }
    text = json.dumps({"header": header, "entries": entries}, separators=(",", ":"), ensure_ascii=False)
    PATH.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"wrote {PATH.name}: {PATH.stat().st_size / 1024:.0f} KiB, {header['n_band_gaps']} band gaps")


def make_entries(work_folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Turn the relaxed compounds into rows sorted by structure_id; say why others are left out."""
    band_gaps, references = read_band_gaps(), reference_energies()
    entries, rejected = [], {}
    for compound in compounds():
        path = work_folder / f"{compound.identity}.json"
        record = json.loads(path.read_text()) if path.exists() else {"problems": ["not relaxed"]}
        if record["problems"]:
            rejected[compound.identity] = "; ".join(record["problems"])
            continue
        entries.append(make_entry(compound, record, references, band_gaps))
    if band_gaps:
        raise SystemExit(f"band gaps without a crystal: {', '.join(map(str, band_gaps))}; correct band_gaps.csv")
    counts = Counter(entry["structure_id"] for entry in entries)
    for entry in entries:
        if counts[entry["structure_id"]] > 1:  # polytypes share formula and space group
            entry["structure_id"] += f"-{entry['prototype'].replace('_', '-')}"
    return sorted(entries, key=lambda entry: str(entry["structure_id"])), rejected


def make_entry(
    compound: Compound,
    record: dict[str, Any],
    references: dict[str, float],
    band_gaps: dict[tuple[str, int, str], dict[str, str]],
) -> dict[str, Any]:
    """Make one row; takes its band gap out of `band_gaps`."""
    crystal = Crystal(
        np.round(record["lattice"], 6), tuple(record["species"]), np.round(np.array(record["frac_coords"]) % 1.0, 6)
    )
    gene = encode(crystal)
    if gene.space_group_number != compound.prototype.space_group_number:
        raise SystemExit(f"{compound.identity} encodes to space group {gene.space_group_number}")
    energy = record["energy_per_atom"]
    gap = band_gaps.pop((gene.formula_pretty, gene.space_group_number, compound.prototype.name), None)
    return {
        "structure_id": f"starter-{gene.formula_pretty}-{gene.space_group_number}",
        "formula_pretty": gene.formula_pretty,
        "space_group_number": gene.space_group_number,
        "lattice": crystal.lattice.tolist(),
        "species": list(crystal.species),
        "frac_coords": crystal.frac_coords.tolist(),
        "energy_per_atom": round(energy, 6),
        "formation_energy_per_atom": round(formation_energy_per_atom(energy, crystal.amounts, references), 6),
        "band_gap": float(gap["band_gap"]) if gap else None,
        "band_gap_method": gap["method"] if gap else None,
        "band_gap_temperature": float(gap["temperature"]) if gap and gap["temperature"] else None,
        "citation": gap["citation"] if gap else None,
        "prototype": compound.prototype.name,
        "provenance": f"{compound.prototype.source}; decorated, then relaxed with CHGNet",
    }


def read_band_gaps() -> dict[tuple[str, int, str], dict[str, str]]:
    """Read band_gaps.csv by formula, space group and prototype."""
    with (HERE / "band_gaps.csv").open(newline="") as file:
        return {
            (row["formula_pretty"], int(row["space_group_number"]), row["prototype"]): row
            for row in csv.DictReader(file)
        }


if __name__ == "__main__":
    main()
