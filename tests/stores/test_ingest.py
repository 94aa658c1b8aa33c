import csv
import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from tests.stores.crystals import GAAS, NACL
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store, connect
from wyloop.stores.ingest.cif import ingest_cif
from wyloop.stores.ingest.csv import ingest_csv
from wyloop.stores.settings import Settings

HEADER = ["material_id", "formation_energy_per_atom", "band_gap", "cif", "spacegroup.number"]


WRITER = """
import json, os, sys
from pathlib import Path
from pydantic import SecretStr
from wyloop.stores.connection import connect
from wyloop.stores.ingest.csv import ingest_csv
from wyloop.stores.settings import Settings
store = connect(Settings(uri=SecretStr(os.environ["URI"]), database=sys.argv[1]))
report = ingest_csv(store, Path(sys.argv[2]))
print(json.dumps([report.n_added, report.n_updated, report.n_unchanged]))
store.close()
"""


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_ingesting_twice_changes_nothing_and_a_change_is_an_update(ingested: Store, tmp_path: Path) -> None:
    rows = [["a", "-2.1", "5.0", write_cif(NACL), "225"], ["b", "-0.4", "0.2", write_cif(GAAS), "216"]]
    path = write(tmp_path / "set.csv.gz", rows)
    seen: list[tuple[int, int]] = []
    report = ingest_csv(ingested, path, on_progress=lambda done, total: seen.append((done, total)))
    assert (report.n_rows, report.n_added, report.n_unchanged, report.n_updated) == (2, 2, 0, 0)
    assert seen[-1] == (2, 2)
    first = list(ingested.database["structures"].find().sort("structure_id"))
    again = ingest_csv(ingested, path)
    assert (again.n_added, again.n_unchanged, again.n_updated) == (0, 2, 0)
    assert list(ingested.database["structures"].find().sort("structure_id")) == first
    assert first[0]["structure_id"] == "set:a"
    assert first[0] | {"formula_pretty": "NaCl", "chemsys": "Cl-Na", "formula_anonymous": "AB"} == first[0]
    assert (first[0]["energy_method"], first[0]["band_gap_method"], first[0]["space_group_number"]) == (
        "mp-pbe", "pbe", 225,
    )  # fmt: skip
    assert first[0]["volume"] == pytest.approx(NACL.volume)
    rows[1][1] = "-0.5"
    changed = ingest_csv(ingested, write(path, rows))
    assert (changed.n_added, changed.n_unchanged, changed.n_updated) == (0, 1, 1)
    other = ingest_csv(ingested, path, source="other", energy_method="vasp-pbe")
    assert other.n_added == 2


def test_faulty_rows_are_named_and_good_ones_kept(ingested: Store, tmp_path: Path) -> None:
    good = write_cif(NACL)
    disordered = good.replace(" 1\n", " 0.5\n")
    rows = [
        ["good", "-2.1", "5.0", good, "225"],
        ["no label", "", "NaN", good, ""],
        ["broken", "-2.1", "5.0", good[:150], "225"],
        ["disordered", "-2.1", "5.0", disordered, "225"],
        ["good", "-2.1", "5.0", good, "225"],
        ["text", "strong", "5.0", good, "225"],
        ["infinite", "inf", "5.0", good, "225"],
        ["negative", "-1", "-5.0", good, "225"],
        ["group", "-1", "5.0", good, "231"],
        ["short", "-1"],
        ["", "-1", "5.0", good, "225"],
    ]
    report = ingest_csv(ingested, write(tmp_path / "faulty.csv", rows))
    assert report.n_added == 2
    told = {refusal.row: refusal for refusal in report.refused}
    assert sorted(told) == list(range(3, 12))
    assert [told[row].field for row in sorted(told)] == [
        "cif", "cif", "id", "formation_energy_per_atom", "formation_energy_per_atom", "band_gap", "space_group_number",
        "row", "id",
    ]  # fmt: skip
    assert "occupancy" in told[4].value
    assert told[5].value == "the same as in row 1"
    assert str(told[6]) == (
        "row 6 (text): formation_energy_per_atom is strong; expected a finite number; "
        "correct it, or leave it empty if it is not known"
    )
    assert report.notes == (
        "band_gap is missing in 1 of 11 rows",
        "formation_energy_per_atom is missing in 1 of 11 rows",
        "space_group_number is missing in 1 of 11 rows",
    )
    unlabelled = ingested.database["structures"].find_one({"source_id": "no label"})
    assert unlabelled is not None
    assert "band_gap" not in unlabelled


def test_a_file_that_can_not_be_read_at_all_is_an_error(ingested: Store, tmp_path: Path) -> None:
    missing_columns = write(tmp_path / "columns.csv", [["1", "2"]], ["name", "energy"])
    with pytest.raises(
        IngestError, match=r"has the columns name, energy; expected also one of material_id.* and one of cif"
    ):
        ingest_csv(ingested, missing_columns)
    with pytest.raises(IngestError, match="No such file"):
        ingest_csv(ingested, tmp_path / "absent.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(IngestError, match="is empty"):
        ingest_csv(ingested, tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01\n")
    with pytest.raises(IngestError, match="expected UTF-8"):
        ingest_csv(ingested, tmp_path / "binary.csv")
    (tmp_path / "fake.csv.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(IngestError, match="fake"):
        ingest_csv(ingested, tmp_path / "fake.csv.gz")
    assert ingested.database["structures"].count_documents({}) == 0


def test_a_file_that_breaks_off_keeps_the_rows_before(ingested: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        [
            f"r{i}",
            str(rng.random()),
            "0",
            write_cif(replace(NACL, lattice=NACL.lattice * (1 + 0.01 * rng.random()))),
            "",
        ]
        for i in range(200)
    ]
    path = write(tmp_path / "cut.csv.gz", rows)
    path.write_bytes(path.read_bytes()[:-3000])
    report = ingest_csv(ingested, path)
    assert 0 < report.n_added < 200
    assert report.refused[-1].identity == "rest of the file"


def test_two_writers_at_once_make_one_of_each(ingested: Store, tmp_path: Path) -> None:
    cif = write_cif(GAAS)
    path = write(tmp_path / "same.csv", [[f"r{i}", "-1", "1", cif, ""] for i in range(300)])
    other = connect(Settings(uri=SecretStr(ingested.uri), database=ingested.name))
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda store: ingest_csv(store, path), (ingested, other)))
    other.close()
    assert ingested.database["structures"].count_documents({}) == 300
    assert all(report.refused == () for report in reports)
    assert sum(report.n_added for report in reports) == 300
    assert sum(report.n_unchanged + report.n_updated for report in reports) == 300


def test_two_processes_at_once_end_with_the_same_content(ingested: Store, tmp_path: Path) -> None:
    rows = [
        [f"r{i}", f"{-1 - i / 1000}", "1", write_cif(replace(GAAS, lattice=GAAS.lattice * (1 + i / 9000))), ""]
        for i in range(600)
    ]
    path = write(tmp_path / "same.csv", rows)
    command = [sys.executable, "-c", WRITER, ingested.name, str(path)]
    environment = os.environ | {"URI": ingested.uri, "OMP_NUM_THREADS": "1"}
    writers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [json.loads(writer.communicate(timeout=120)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [sum(count) for count in counts] == [600, 600]
    assert sum(count[0] for count in counts) == 600  # each row was added once, by whoever came first
    times = {"_id": 0, "last_updated": 0}
    both = list(ingested.database["structures"].find({}, times).sort("structure_id", 1))
    ingested.database["structures"].delete_many({})
    ingest_csv(ingested, path)
    assert list(ingested.database["structures"].find({}, times).sort("structure_id", 1)) == both


def test_the_forms_of_the_field_are_recognised(ingested: Store, shared_data: Path, tmp_path: Path) -> None:
    for name, method, n_gaps in (
        ("mp20_biternary_test", "mp-pbe", 20),
        ("mpts52_formation_energy", "mp-pbe", 0),
        ("perov5", "castelli-rpbe", 20),
    ):
        with gzip.open(shared_data / f"{name}.csv.gz", "rt", newline="") as file:
            reader = csv.reader(file)
            header = next(reader)
            path = write(tmp_path / f"{name}.csv", [row for _, row in zip(range(20), reader, strict=False)], header)
        report = ingest_csv(ingested, path)
        assert report.n_added == 20, report.refused
        found = ingested.database["structures"].find({"source": name})
        rows = list(found)
        assert {row["energy_method"] for row in rows} == {method}
        assert sum("band_gap" in row for row in rows) == n_gaps


def test_cif_files_and_folders(ingested: Store, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "NaCl.cif").write_text(write_cif(NACL))
    (tmp_path / "deep" / "GaAs.CIF").write_text(write_cif(GAAS))
    (tmp_path / "deep" / "NaCl.cif").write_text(write_cif(NACL))
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a 3\n")
    (tmp_path / "bytes.cif").write_bytes(b"\xff\xfe")
    seen: list[int] = []
    report = ingest_cif(ingested, [tmp_path], on_progress=lambda done, _: seen.append(done))
    assert (report.n_rows, report.n_added, report.n_refused) == (5, 2, 3)
    assert seen[-1] == 5
    assert any("the same name" in refusal.value for refusal in report.refused)
    assert ingest_cif(ingested, [tmp_path]).n_unchanged == 2
    assert ingested.database["structures"].find_one({"structure_id": "cif:GaAs"}) is not None
    with pytest.raises(IngestError, match="is no file or folder"):
        ingest_cif(ingested, [tmp_path / "absent"])
    (tmp_path / "none").mkdir()
    with pytest.raises(IngestError, match=r"no \.cif file"):
        ingest_cif(ingested, [tmp_path / "none"])
