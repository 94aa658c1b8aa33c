"""`wyloop campaign simulate` on a small made-up chemistry, without a database."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.models.acquisition.salts import salts
from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.platform.cli.simulate import simulate

TARGET = ("-t", "1 <= band_gap <= 2", "-t", "formation_energy_per_atom < -1")
FEW = ("--known", "60", "--requests", "20", "--batch", "10", "--seeds", "1")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `wyloop encode` writes, of 330 crystals."""
    path = tmp_path_factory.mktemp("data") / "salts.jsonl"
    crystals = salts()
    pairs = list(zip(crystals.genes, crystals.labels, strict=True))[::3]
    path.write_text("".join(json.dumps({"fingerprint": str(gene), **labels}) + "\n" for gene, labels in pairs))
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_is_played_against_the_plain_loop_and_drawn(encoded: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curve.png"
    answer = run("--data", encoded, *TARGET, *FEW, "--plot", plot, "--json")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [(row["strategy"], row["seed"], row["n_requests"]) for row in told["runs"]] == [
        ("surrogate", 0, 20),
        ("boosting", 0, 20),
    ]
    assert told["summary"][0]["acceleration_factor"] > 2
    assert told["summary"][0]["n_seeds_above_plain_loop"] in (0, 1)
    assert len(told["curves"]["surrogate"]["0"]) == 20
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_people_read_a_table(encoded: Path) -> None:
    answer = run("--data", encoded, *TARGET, *FEW, "--no-controls", "--policy", "greedy", "--first-seed", "3")
    assert answer.exit_code == 0, answer.output
    assert "times random" in answer.stdout
    assert "mean of 1 seeds" in answer.stdout
    assert "boosting" not in answer.stdout


def test_a_csv_file_is_encoded_and_rows_without_a_gene_are_told(tmp_path: Path) -> None:
    path = tmp_path / "crystals.csv"
    lattice = 5.7 * np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    rows = [["material_id", "formation_energy_per_atom", "band_gap", "cif"]]
    for metal in ("Li", "Na", "K", "Rb", "Cs", "Cu", "Ag"):
        for anion in ("F", "Cl", "Br"):
            cif = write_cif(Crystal(lattice, (metal, anion), np.array([[0.0] * 3, [0.5] * 3])))
            rows.append([metal + anion, "-2.0" if metal != "Ag" else "-0.5", "5.0" if anion == "F" else "1.5", cif])
    rows.append(["broken", "-1.0", "1.0", "no crystal"])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    answer = run(
        "--data",
        path,
        *TARGET,
        "--known",
        "10",
        "--requests",
        "4",
        "--batch",
        "2",
        "--seeds",
        "1",
        "--no-controls",
        "--json",
    )
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["n_crystals"] == 21
    assert told["runs"][0]["n_requests"] == 4
    assert "1 rows without a gene are left out" in answer.stderr


def test_lines_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "genes.jsonl"
    path.write_text('{"fingerprint": "225 Cl:b Na:a", "band_gap": 5.0}\n{"gene": "225 Cl:b Na:a"}\n')
    answer = run("--data", path, *TARGET)
    assert isinstance(answer.exception, IngestError)
    assert "line 2 of genes.jsonl: 'fingerprint'; expected JSON with a fingerprint" in str(answer.exception)
