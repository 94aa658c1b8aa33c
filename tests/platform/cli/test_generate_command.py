"""`wyloop generate` and `wyloop model figures` on the shipped weights, without a database."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.platform.conftest import Command
from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.cif import write_cif

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Rock salt NaCl as the only known crystal."""
    path = tmp_path / "known.csv"
    salt = write_cif(Crystal(5.69 * FCC, ("Na", "Cl"), np.array([[0.0] * 3, [0.5] * 3])))
    rows = [["material_id", "formation_energy_per_atom", "band_gap", "cif"], ["nacl", "-2.1", "5.0", salt]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_generated_lines_say_how_likely_they_meet_the_target(wyloop: Command, tmp_path: Path) -> None:
    out = tmp_path / "genes.jsonl"
    targets = ["-t", "2 < band_gap < 6", "-t", "formation_energy_per_atom < -1.5", "-t", "nsites <= 10"]
    assert wyloop("generate", *targets, "-n", "12", "--out", out, "--json").json["n_genes"] == 12
    genes = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({gene["fingerprint"] for gene in genes}) == 12
    for gene in genes:
        assert 0.1 < gene["probability_of_target"] <= 1
        assert gene["formula_pretty"]
        assert gene["nsites"] <= 10


def test_known_crystals_do_not_come_again(wyloop: Command, known: Path, tmp_path: Path) -> None:
    """Two elements in a cell of two atoms of group 225 make one gene."""
    out = tmp_path / "genes.jsonl"
    targets = ["-t", "elements in Na, Cl", "-t", "space_group_number = 225", "-t", "nsites <= 2", "-t", "nelements = 2"]
    assert wyloop("generate", *targets, "-n", "3", "--out", out, "--json").json["n_genes"] == 1
    assert wyloop("generate", *targets, "-n", "3", "--out", out, "--exclude", known, "--json").status == 1
    assert out.read_text() == ""


def test_figures_need_labelled_rows(wyloop: Command, known: Path, tmp_path: Path) -> None:
    told = wyloop("model", "figures", "--data", known, "--out", tmp_path / "figures")
    assert told.status == 1
    assert "1 rows with formation energy and band gap; expected at least 10" in told.error
    assert not (tmp_path / "figures").exists()
