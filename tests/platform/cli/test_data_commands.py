"""Commands on a real database: ingest, query, export, models, and those that need no database at all."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.platform.conftest import Command
from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
HEADER = ["material_id", "formation_energy_per_atom", "band_gap", "cif"]


def rock_salt(cation: str, anion: str, a: float) -> str:
    return write_cif(Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3])))


def zinc_blende(cation: str, anion: str, a: float) -> str:
    return write_cif(Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.25] * 3])))


ROWS = [
    ["nacl", "-2.1", "5.0", rock_salt("Na", "Cl", 5.69)],
    ["mgo", "-3.0", "4.5", rock_salt("Mg", "O", 4.24)],
    ["gaas", "-0.4", "0.2", zinc_blende("Ga", "As", 5.75)],
    ["zns", "-0.9", "2.0", zinc_blende("Zn", "S", 5.44)],
    ["tin", "-1.8", "0", rock_salt("Ti", "N", 4.25)],
    ["no gap", "-1.0", "nan", rock_salt("Ca", "O", 4.84)],
]
BAD_ROWS = [
    ["nacl", "-2.1", "5.0", rock_salt("Na", "Cl", 5.69)],  # twice
    ["disordered", "", "", rock_salt("K", "Br", 6.6).replace(" 1\n", " 0.5\n")],
    ["no number", "low", "1", rock_salt("K", "Cl", 6.3)],
    ["no cif", "", "", "data_nothing"],
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "set.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ingest_query_export_and_back(wyloop: Command, cli_store: Store, data: Path, tmp_path: Path) -> None:
    report = wyloop("db", "ingest", "csv", data, "--json")
    assert (report.status, report.err) == (0, "")
    counts = {name: report.json[name] for name in ("n_rows", "n_added", "n_unchanged", "n_encoded", "refused")}
    assert counts == {"n_rows": 6, "n_added": 6, "n_unchanged": 0, "n_encoded": 6, "refused": []}
    again = wyloop("db", "ingest", "csv", data)
    assert "6 rows: 0 added, 0 updated, 6 unchanged, 0 refused; 0 encoded" in again.out

    found = wyloop("db", "query", "band_gap > 1 and nelements = 2", "--sort", "-band_gap", "--json").json
    assert [row["formula_pretty"] for row in found] == ["NaCl", "MgO", "ZnS"]
    assert [row["space_group_number"] for row in found] == [225, 225, 216]
    assert len(wyloop("db", "query", "--limit", "2", "--json").json) == 2
    table = wyloop("db", "query", "space_group_number = 216", "-c", "structures").out
    assert "ZnS" in table
    assert "NaCl" not in table
    assert "band gap, eV" in table
    assert wyloop("db", "query", "elements has Pb").out == "nothing found\n"
    assert wyloop("db", "query", "elements has Pb", "--json").json == []

    exported = wyloop("db", "export", "band_gap >= 0", "--out", tmp_path / "out.csv", "--json")
    assert exported.json == {"n_written": 5, "out": str(tmp_path / "out.csv")}
    assert wyloop("db", "export", "--format", "cif", "--out", tmp_path / "cifs").status == 0
    assert len(list((tmp_path / "cifs").glob("*.cif"))) == 6
    assert "wrote 3 rows" in wyloop("db", "export", "-f", "jsonl", "--limit", "3", "-o", tmp_path / "out.jsonl").out
    assert len(lines(tmp_path / "out.jsonl")) == 3
    fresh = wyloop("db", "ingest", "csv", tmp_path / "out.csv", "--source", "again", "--json").json
    assert (fresh["n_added"], fresh["refused"]) == (5, [])
    cif = wyloop("db", "ingest", "cif", tmp_path / "cifs", "--json").json
    assert (cif["n_rows"], cif["n_added"]) == (6, 6)


def test_bad_rows_are_reported_and_good_ones_kept(wyloop: Command, cli_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *ROWS, *BAD_ROWS])
    answer = wyloop("db", "ingest", "csv", path)
    assert (answer.status, answer.err) == (0, "")
    assert "10 rows: 6 added, 0 updated, 0 unchanged, 4 refused; 6 encoded" in answer.out
    for name in ("nacl", "disordered", "no number", "no cif"):
        assert name in answer.out
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *BAD_ROWS[1:]])
    nothing = wyloop("db", "ingest", "csv", path, "--json")
    assert (nothing.status, nothing.err) == (1, "")
    assert [refusal["identity"] for refusal in nothing.json["refused"]] == ["disordered", "no number", "no cif"]
    assert len(wyloop("db", "query", "--json").json) == 6
    path.write_text("material_id,energy\na,1\n")
    assert "expected also one of cif" in wyloop("db", "ingest", "csv", path).error


def test_encode_needs_no_database(wyloop: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "genes.jsonl"
    answer = wyloop("encode", data, "--out", out)
    assert (answer.status, answer.out, answer.err) == (0, f"encoded 6 crystals to {out}, refused 0\n", "")
    first = lines(out)[0]
    assert (
        first
        | {
            "row": 1,
            "material_id": "nacl",
            "formula_pretty": "NaCl",
            "space_group_number": 225,
            "formation_energy_per_atom": -2.1,
            "is_metal": 0.0,
        }
        == first
    )
    assert first["volume_per_atom"] == pytest.approx(5.69**3 / 8)
    assert not (tmp_path / "data").exists()


def test_encode_reports_rows_without_a_gene(wyloop: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "bad.csv", tmp_path / "genes.jsonl"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, ["short"], *BAD_ROWS[1:]])
    answer = wyloop("encode", path, "--out", out, "--json")
    assert answer.status == 1
    assert [item["row"] for item in answer.json["refused"]] == [1, 2, 3, 4]
    reasons = [item["reason"] for item in answer.json["refused"]]
    assert reasons[0].startswith("row is 1 columns; expected 4")
    assert "formation_energy_per_atom is low; expected a finite number" in reasons[2]
    told = wyloop("encode", path, "--out", out)
    assert told.out.startswith("encoded 0 crystals")
    assert len(told.err.splitlines()) == 4
    path.write_bytes(b"material_id,cif\n\xff\xfe,x\n")
    assert "in another encoding; expected UTF-8" in wyloop("encode", path, "--out", out).error
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(b"material_id,cif\n" + b"a,b\n" * 999)[:-20])
    assert "can't read" in wyloop("encode", path.with_suffix(".csv.gz"), "--out", out).error


def test_a_model_is_trained_judged_and_asked_without_a_database(wyloop: Command, data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    trained = wyloop(
        "model", "train", "--data", data, "--from-scratch", "--epochs", "1", "--out", weights, "--seed", "3", "--json"
    )
    assert (trained.status, trained.json["model_id"], trained.json["out"]) == (0, None, str(weights))
    judged = wyloop("model", "evaluate", "--data", data, "--weights", weights, "--json").json
    assert judged["n_rows"] == 6
    assert judged["metrics"]["formation_energy_mae"] > 0
    assert (
        wyloop("model", "evaluate", "--data", data, "--weights", weights, "--limit", "2", "--json").json["n_rows"] == 2
    )
    assert "formation energy mae" in wyloop("model", "evaluate", "--data", data, "--weights", weights).out

    out = tmp_path / "genes.jsonl"
    arguments = ["--target", "nelements = 2", "-t", "space_group_number >= 195", "-n", "20", "--weights", weights]
    made = wyloop("generate", *arguments, "--out", out, "--json")
    assert (made.status, made.json["n_genes"]) == (0, 20)
    genes = lines(out)
    assert len({gene["fingerprint"] for gene in genes}) == 20
    for gene in genes:
        assert gene["space_group_number"] >= 195
        assert gene["wyckoff_sequence"]
        assert gene["protostructure"]
        assert set(gene["predictions"]) > {"band_gap", "band_gap_std", "formation_energy_per_atom_std"}
        assert {verdict["screen"] for verdict in gene["verdicts"]} > {
            "novelty",
            "charge_neutrality",
            "predicted_stability",
        }
    first = out.read_bytes()
    assert wyloop("generate", *arguments, "--out", out).out.startswith(f"wrote 20 genes to {out}")
    assert out.read_bytes() == first
    assert not (tmp_path / "data").exists()


def test_models_of_the_database(wyloop: Command, cli_store: Store, data: Path, tmp_path: Path) -> None:
    assert wyloop("model", "list").out.startswith("no models")
    assert "no model 'none'" in wyloop("model", "show", "none").error
    assert wyloop("model", "train", "--from-scratch").status == 1  # no rows yet
    wyloop("db", "ingest", "csv", data)
    answer = wyloop("model", "train", "--from-scratch", "--epochs", "1", "--json")
    model_id = answer.json["model_id"]
    listed = wyloop("model", "list", "--json").json
    assert [(row["model_id"], row["n_rows"]) for row in listed] == [(model_id, 6)]
    assert model_id in wyloop("model", "list").out
    shown = wyloop("model", "show", model_id, "--json").json
    assert shown["snapshot_hash"] == answer.json["snapshot_hash"]
    assert "seed" in wyloop("model", "show", model_id).out
    judged = wyloop("model", "evaluate", "--model", model_id, "--json").json
    assert (judged["model"], judged["n_rows"]) == (model_id, 6)
