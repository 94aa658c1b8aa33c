import csv
import gzip
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.starter.compare import PRETRAIN, TEST, TRAIN, comparison
from wyloop.stores.starter.read import starter_header, starter_set


def as_rows(*structure_ids: str) -> list[dict[str, Any]]:
    rows = []
    for entry in starter_set():
        if not structure_ids or entry.structure_id in structure_ids:
            crystal = entry.crystal
            row = {name: value for name, value in asdict(entry).items() if name != "crystal"}
            row |= {"lattice": crystal.lattice, "species": crystal.species, "frac_coords": crystal.frac_coords}
            rows.append(row)
    return rows


def write_file(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, ["material_id", "cif", "formation_energy_per_atom"])
        writer.writeheader()
        writer.writerows(rows)


def as_pbe(row: dict[str, Any], material_id: str, *, shift: float = 0.0, swell: float = 1.0) -> dict[str, Any]:
    crystal = Crystal(row["lattice"] * swell ** (1 / 3), row["species"], row["frac_coords"])
    energy = row["formation_energy_per_atom"] + shift
    return {"material_id": material_id, "cif": write_cif(crystal), "formation_energy_per_atom": energy}


def test_differences_are_found_and_test_rows_left_out(tmp_path: Path) -> None:
    rows = as_rows("starter-NaCl-225", "starter-ZnS-216", "starter-ZnS-186", "starter-GaAs-216")
    by_id = {row["structure_id"]: row for row in rows}
    write_file(tmp_path / TRAIN, [as_pbe(by_id["starter-NaCl-225"], "a", shift=0.4, swell=1.1)])
    write_file(tmp_path / PRETRAIN, [as_pbe(by_id["starter-ZnS-216"], "b"), as_pbe(by_id["starter-GaAs-216"], "c")])
    write_file(tmp_path / TEST, [as_pbe(by_id["starter-GaAs-216"], "c")])
    lines: list[str] = []
    figures = comparison(rows, tmp_path, lines.append)
    assert (figures["n_entries"], figures["n_same_formula"]) == (4, 3)  # GaAs is a test row
    assert (figures["n_same_formula_and_space_group"], figures["n_same_gene"]) == (2, 2)
    assert figures["formation_energy_mae"] == pytest.approx(0.2, abs=1e-3)
    assert figures["formation_energy_bias"] == pytest.approx(-0.2, abs=1e-3)
    assert figures["formation_energy_largest_difference"] == pytest.approx(0.4, abs=1e-3)
    assert figures["volume_mean_relative_difference"] == pytest.approx((1 - 1 / 1.1) / 2, abs=1e-3)
    assert any("starter-ZnS-186 stands there with space group 216" in line for line in lines)
    assert any("starter-NaCl-225 differs from a" in line for line in lines)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"no file .*--data"):
        comparison(as_rows("starter-NaCl-225"), tmp_path, lambda line: None)


def test_the_stored_comparison_is_what_the_data_say(shared_data: Path) -> None:
    figures = comparison(as_rows(), shared_data, lambda line: None)
    assert figures == pytest.approx(starter_header()["comparison"], abs=2e-4)  # stored to 1e-4
