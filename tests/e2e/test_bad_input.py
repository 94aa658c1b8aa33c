"""Bad input and broken surroundings: one line or a report by row, never a traceback, and nothing stored is lost."""

import csv
import gzip
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymongo import MongoClient

from tests.e2e.conftest import Hide, Program
from wyloop.flows.launchpad import Job, launchpad, submit
from wyloop.models.crystal import Crystal
from wyloop.models.physics.protocols import protocol
from wyloop.models.wyckoff.cif import write_cif
from wyloop.platform.mongod import find_mongod
from wyloop.platform.processes import free_port
from wyloop.stores import calculations
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.connection import Store

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
HEADER = ["material_id", "formation_energy_per_atom", "band_gap", "cif"]
NACL = write_cif(Crystal(5.69 * FCC, ("Na", "Cl"), np.array([[0.0] * 3, [0.5] * 3])))
MGO = write_cif(Crystal(4.24 * FCC, ("Mg", "O"), np.array([[0.0] * 3, [0.5] * 3])))
GAAS = write_cif(Crystal(5.75 * FCC, ("Ga", "As"), np.array([[0.0] * 3, [0.25] * 3])))
BAD = [
    ["cut short", "-1", "1", NACL[: len(NACL) // 2]],
    ["no cif", "-1", "1", ""],
    ["disordered", "-1", "1", NACL.replace(" 1\n", " 0.5\n")],
    ["two in one place", "-1", "1", GAAS.replace("0.25", "0.0001")],
    ["good", "-2.1", "5", NACL],
    ["words", "very low", "1", MGO],
    ["infinite", "-inf", "1", MGO],
    ["negative gap", "-1", "-2", MGO],
    ["short"],
]
GOOD = [["good", "-2.1", "5", NACL], ["no labels", "NaN", "", MGO], ["half", "nan", "0.3", GAAS]]
TRUE_TARGET = ("--target", "nelements = 2")


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def structures(store: Store) -> list[dict[str, object]]:
    return list(store.database["structures"].find().sort("structure_id"))


@pytest.fixture
def stored(on_database: Program, database: Store, tmp_path: Path) -> list[dict[str, object]]:
    """What is in the database before anything goes wrong."""
    answer = on_database("db", "ingest", "csv", write(tmp_path / "before.csv", [["a", "-0.4", "0.2", GAAS]]))
    assert (answer.status, answer.err) == (0, "")
    return structures(database)


def test_targets_that_can_not_be_understood(program: Program) -> None:
    answers = program.together(
        [
            ("discover", "--target", "0.5 << band_gap"),
            ("discover", "--target", "colour = blue"),
            ("discover", *TRUE_TARGET, "--target", "space_group_number > 230"),
            ("generate", "--target", "band_gap = wide", "--out", "x.jsonl"),
            ("db", "query", "elements has Xx"),
            ("db", "query", '{"$where": "1"}'),
        ]
    )
    expected = ("0.5 << band_gap", "colour", "space_group_number", "wide", "Xx", "$where")
    for answer, text in zip(answers, expected, strict=True):
        assert answer.status == 1
        assert text in answer.error
        assert "expected" in answer.error or "relax or drop one of the conditions" in answer.error
        assert answer.out == ""
    assert list(program.folder.iterdir()) == []
    assert not (program.folder.parent / "data" / "services").exists()  # nothing was started for it


def test_a_database_that_does_not_answer(program: Program) -> None:
    uri = f"mongodb://anna:hunter2@127.0.0.1:{free_port()}/?replicaSet=rs0"
    commands = [("discover", *TRUE_TARGET), ("up",), ("db", "query"), ("job", "list"), ("worker", "--once")]
    for answer in program.together(commands, WYLOOP_STORES_URI=uri):
        assert answer.status == 1
        assert "no MongoDB answers at 127.0.0.1" in answer.error
        assert "correct WYLOOP_STORES_URI" in answer.error
        assert "hunter2" not in answer.out + answer.err
        assert answer.seconds < 45  # 3 s of waiting, and the start of Python on a busy machine
    (answer,) = program.together([("db", "query")], WYLOOP_STORES_URI="postgres://anna:hunter2@h/")
    assert "expected mongodb://host:port/" in answer.error


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator["MongoClient[dict[str, object]]"]:
    """The owner's client of a replica set with passwords: owner may do all, reader may read."""
    port, key = free_port(), tmp_path / "key"
    key.write_text("wyloopwyloop")
    key.chmod(0o600)
    (tmp_path / "guarded").mkdir()
    command = [str(find_mongod()), "--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", str(port)]
    command += ["--dbpath", str(tmp_path / "guarded"), "--keyFile", str(key), "--wiredTigerCacheSizeGB", "0.25"]
    process = subprocess.Popen([*command, "--oplogSize", "990"], stdout=subprocess.DEVNULL)
    try:
        with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=60_000) as first:
            members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
            first.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            while not first.admin.command("hello").get("isWritablePrimary"):
                time.sleep(0.05)
            first.admin.command("createUser", "owner", pwd="s3cret", roles=["root"])
        with MongoClient("127.0.0.1", port, username="owner", password="s3cret", directConnection=True) as owner:
            owner.admin.command("createUser", "reader", pwd="s3cret", roles=["readAnyDatabase"])
            yield owner
    finally:
        process.kill()  # stepped down, it would wait 15 s for a successor
        process.wait(30)


def test_a_database_that_can_not_be_written(
    program: Program, guarded: "MongoClient[dict[str, object]]", tmp_path: Path
) -> None:
    data = write(tmp_path / "set.csv", GOOD)
    more = write(tmp_path / "more.csv", [["more", "-1", "1", MGO]])
    address = guarded.address
    assert address is not None
    uri = f"mongodb://%s:s3cret@127.0.0.1:{address[1]}/?replicaSet=rs0"
    assert program("db", "ingest", "csv", data, WYLOOP_STORES_URI=uri % "owner").status == 0
    for answer in program.together(
        [("db", "ingest", "csv", more), ("discover", *TRUE_TARGET)], WYLOOP_STORES_URI=uri % "reader"
    ):
        assert answer.status == 1
        assert "MongoDB refused the user (not authorized" in answer.error
        assert "expected a user who may read and write" in answer.error
        assert "s3cret" not in answer.err
    guarded.admin.command({"replSetStepDown": 120, "force": True})
    for answer in program.together(
        [("db", "ingest", "csv", more), ("discover", *TRUE_TARGET)], WYLOOP_STORES_URI=uri % "owner"
    ):
        assert answer.status == 1
        assert "is read-only" in answer.error
        assert "expected a writable primary" in answer.error
    assert guarded["wyloop"]["structures"].count_documents({}) == len(GOOD)


def test_rows_that_can_not_be_used_are_reported_and_the_good_ones_kept(
    on_database: Program, database: Store, stored: list[dict[str, object]], tmp_path: Path
) -> None:
    path = write(tmp_path / "mixed.csv", GOOD + BAD)
    answer = on_database("db", "ingest", "csv", path, "--json")
    assert (answer.status, answer.err) == (0, "")
    report = answer.json
    assert (report["n_rows"], report["n_added"], report["n_encoded"]) == (12, 3, 3)
    assert report["notes"] == [
        "band_gap is missing in 1 of 12 rows",
        "formation_energy_per_atom is missing in 2 of 12 rows",
    ]
    assert [(row["row"], row["identity"], row["field"]) for row in report["refused"]] == [
        (4, "cut short", "cif"),
        (5, "no cif", "cif"),
        (6, "disordered", "cif"),
        (7, "two in one place", "cif"),
        (8, "good", "id"),
        (9, "words", "formation_energy_per_atom"),
        (10, "infinite", "formation_energy_per_atom"),
        (11, "negative gap", "band_gap"),
        (12, "short", "row"),
    ]
    assert all(row["value"] and row["expected"] and row["remedy"] for row in report["refused"])

    told = on_database("db", "ingest", "csv", path)  # the same for people; and a second time changes nothing
    assert told.status == 0
    assert "12 rows: 0 added, 0 updated, 3 unchanged, 9 refused; 0 encoded" in told.out
    for row in report["refused"]:
        (line,) = [
            line for line in told.out.splitlines() if line.lstrip().startswith(f"{row['row']}  {row['identity']}")
        ]
        assert row["remedy"] in line

    useless = write(tmp_path / "useless.csv", [row for row in BAD if row[0] != "good"])
    nothing = on_database("db", "ingest", "csv", useless)
    assert nothing.status == 1
    assert "8 rows: 0 added, 0 updated, 0 unchanged, 8 refused" in nothing.out
    kept = structures(database)
    assert [row["structure_id"] for row in kept] == ["before:a", "mixed:good", "mixed:half", "mixed:no labels"]
    assert kept[0] == stored[0]


def test_files_that_are_no_data(
    on_database: Program, database: Store, stored: list[dict[str, object]], tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.csv").touch()
    (bad / "binary.csv").write_bytes(bytes(range(256)) * 40)
    (bad / "zeros.csv").write_bytes(b"material_id,cif\n" + bytes(5000))
    (bad / "cut.csv.gz").write_bytes(gzip.compress(b"material_id,cif\n" + b"a,b\n" * 9999)[:30])
    (bad / "cell.cif").write_bytes(b"\xff\xfe\x00")
    write(bad / "columns.csv", [["NaCl", "-2"]], ["formula", "energy"])
    ingest, discover = ("db", "ingest", "csv"), ("discover", *TRUE_TARGET, "--data")
    expected = {
        (*ingest, bad / "empty.csv"): "is empty; expected a CSV file with a header row",
        (*ingest, bad / "binary.csv"): "expected UTF-8 text",
        (*ingest, bad / "columns.csv"): "has the columns formula, energy; expected also one of material_id",
        (*ingest, bad / "cut.csv.gz"): "expected",
        (*ingest, bad): "Is a directory",
        (*ingest, bad / "none.csv"): "No such file",
        (*discover, bad): "expected a CSV file",
        (*discover, bad / "none.csv"): "expected a CSV file",
        ("encode", bad, "--out", "x"): "Is a directory",
        ("encode", bad / "binary.csv", "--out", "x"): "expected UTF-8 text",
        ("generate", *TRUE_TARGET, "--weights", bad / "binary.csv", "--out", "x"): "safetensors",
    }
    for answer, text in zip(on_database.together(list(expected)), expected.values(), strict=True):
        assert answer.status != 0
        assert text in answer.error
    reported = {
        (*ingest, bad / "zeros.csv"): "zeros",
        ("db", "ingest", "cif", bad): "can't read",
    }
    for answer, text in zip(on_database.together(list(reported)), reported.values(), strict=True):
        assert (answer.status, answer.err) == (1, "")
        assert "1 refused" in answer.out
        assert text in answer.out or text == "zeros"
    assert structures(database) == stored
    assert list(on_database.folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "wyloop-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no free byte."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for n_bytes in (1_000_000, 4096):
            try:
                while file.write(bytes(n_bytes)) == n_bytes:
                    pass
            except OSError:
                continue
    return path


def test_a_full_disk_takes_nothing_that_was_stored(program: Program, small_disk: Path, tmp_path: Path) -> None:
    answer = program("db", "query", WYLOOP_PLATFORM_DATA_FOLDER=str(small_disk / "data"))
    assert answer.status == 1
    assert "GB free on the disk of" in answer.error
    assert "set WYLOOP_PLATFORM_DATA_FOLDER to another disk" in answer.error

    server = Server(small_disk / "db")
    data = write(tmp_path / "set.csv", GOOD)
    rows = [[f"r{number}", "-1", "1", NACL.replace("5.69", f"5.{number}") + "#" * 3000] for number in range(3000)]
    big = write(tmp_path / "big.csv", rows)
    with server:
        assert program("db", "ingest", "csv", data, WYLOOP_STORES_URI=server.uri).status == 0
        export = small_disk / "out.csv"
        assert program("db", "export", "--out", export, WYLOOP_STORES_URI=server.uri).status == 0
        before, first = export.read_bytes(), server.structures("set")
        ballast = fill(small_disk)
        answer = program("encode", big, "--out", small_disk / "genes.jsonl")
        assert "No space left on device; free some space" in answer.error
        answer = program("db", "export", "--out", export, WYLOOP_STORES_URI=server.uri)
        assert (answer.status, "No space left on device" in answer.error) == (1, True)
        assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "data", "db", "out.csv"]
        assert export.read_bytes() == before
        answer = program("db", "ingest", "csv", big, WYLOOP_STORES_URI=server.uri)
        assert answer.status == 1
        assert answer.error.startswith("lost MongoDB (")
        assert "a full disk does that" in answer.error
    ballast.unlink()
    with server:
        assert server.structures("set") == first
        again = program("db", "ingest", "csv", data, WYLOOP_STORES_URI=server.uri)
        assert "3 unchanged, 0 refused" in again.out


class Server:
    """A mongod on a folder, started and ended by `with`; it may end by itself in between."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs0"

    def __enter__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        options = ["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", str(self.port), "--dbpath", str(self.folder)]
        options += ["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "990", "--nounixsocket"]
        self.process = subprocess.Popen([str(find_mongod()), *options], stdout=subprocess.DEVNULL)
        with MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=60_000) as client:
            members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
            if not client.admin.command("hello").get("setName") and not (self.folder / "ready").exists():
                client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
                (self.folder / "ready").touch()
            while not client.admin.command("hello").get("isWritablePrimary"):
                time.sleep(0.05)

    def structures(self, source: str) -> list[dict[str, object]]:
        """Everything stored from a source."""
        with MongoClient(self.uri) as client:
            return list(client["wyloop"]["structures"].find({"source": source}).sort("structure_id"))

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)


def test_what_is_not_installed_is_named(
    on_database: Program, program: Program, database: Store, hidden: Hide, tmp_path: Path
) -> None:
    bare = hidden("gpaw", "fiftyone")
    answer = program("db", "query", **bare)
    assert answer.status == 1
    assert "no mongod on PATH" in answer.error
    checks = {check["name"]: check for check in on_database("doctor", "--json", **bare).json}
    assert checks["GPAW"]["status"] == "warn"
    assert "neither in this Python environment nor on the PATH" in checks["GPAW"]["detail"]
    assert checks["GPAW"]["remedy"]

    method = protocol("gpaw-pbe/1")
    asked = CalculationRecord(
        calculation_id=calculation_id("Si", method.identifier, method.hash),
        candidate_id=None,
        round_id=None,
        kind="reference",
        subject="Si",
        protocol=method.identifier,
        protocol_hash=method.hash,
    )
    calculations.request_calculation(database, asked)
    lpad = launchpad(database.uri, f"{database.name}_fw")
    submit(lpad, [Job(asked.calculation_id, "reference of Si", "dft")], name="Si")
    answer = on_database("worker", "--once", **bare)
    assert (answer.status, answer.out) == (0, "ran 1 jobs\n")
    found = calculations.calculation(database, asked.calculation_id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith("GPAW is neither in this Python environment nor on the PATH; ")
    assert "\n" not in found.error
    lpad.connection.drop_database(f"{database.name}_fw")
    lpad.connection.close()
