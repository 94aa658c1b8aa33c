"""The command line as a program: exit status, one line a failure, nothing else on standard error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform.conftest import Command
from wyloop.models.errors import ModelError
from wyloop.platform.cli import config, main, service

WYLOOP = [sys.executable, "-m", "wyloop.platform.cli.main"]
HEAVY = ("torch", "prefect", "fireworks", "pymongo", "mongoengine", "pymatgen", "numpy", "rich", "pydantic_settings")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from wyloop.platform.cli.main import run; status = run(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    for name in ("discover", "up", "down", "status", "doctor", "generate", "encode", "worker", "db", "model", "config"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["db", "--help"], ["-h"], ["model", "train", "--help"]])
def test_what_needs_nothing(arguments: list[str], wyloop: Command) -> None:
    answer = wyloop(*arguments)
    assert (answer.status, answer.err) == (0, "")
    assert "wyloop" in answer.out


def test_without_a_command_the_help_is_shown(wyloop: Command) -> None:
    for arguments in ([], ["db"], ["db", "ingest"]):
        answer = wyloop(*arguments)
        assert answer.status == 2
        assert "Usage: wyloop" in answer.out


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["db", "quer", "x"], 2, "error: No such command 'quer'. Did you mean 'query'?; see 'wyloop db --help'"),
        (["db", "query", "--limit", "none"], 2, "Invalid value for '--limit': Input should be a valid integer"),
        (["db", "query", "--limit", "0"], 2, "--limit"),
        (["db", "query", "--bad"], 2, "--bad"),
        (["generate"], 2, "Missing option"),
        (["db", "query", "banana > 3"], 1, "unknown field 'banana'"),
        (["db", "query", "band_gap >"], 1, "band_gap"),
        (["generate", "--target", "0.5 << band_gap", "--out", "x"], 1, "0.5 << band_gap"),
        (["--config", "none.toml", "status"], 1, "can't read the settings file"),
        (
            ["encode", "none.csv", "--out", "x"],
            1,
            "can't read none.csv (No such file or directory); expected a CSV file",
        ),
        (["model", "train", "--data", "x.csv"], 2, "say where to write it"),
        (["model", "train", "--out", "none/x"], 2, "no folder none; expected one that exists"),
        (["generate", "-t", "nelements = 2", "--out", "none/x"], 2, "no folder none; expected one that exists"),
        (["encode", "none.csv", "--out", "none/x"], 2, "no folder none; expected one that exists"),
        (["generate", "-t", "nelements = 2", "--out", "."], 2, "is a folder; expected the name of a file"),
        (
            ["generate", "-t", "nelements = 2", "--out", "x", "--weights", "none"],
            1,
            "can't read model none: No such file",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], status: int, expected: str, wyloop: Command) -> None:
    answer = wyloop(*arguments)
    assert answer.error.startswith("error: ")
    assert expected in answer.error
    assert (answer.status, answer.out) == (status, "")


def test_an_unreachable_database_is_one_line(wyloop: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", "mongodb://anna:hunter2@127.0.0.1:9/?replicaSet=rs0")
    monkeypatch.setenv("WYLOOP_STORES_TIMEOUT_MS", "200")
    commands = (
        ["db", "query", ""],
        ["campaign", "list"],
        ["candidate", "show", "x"],
        ["job", "list"],
        ["model", "list"],
    )
    for arguments in commands:
        answer = wyloop(*arguments)
        assert answer.status == 1
        assert "no MongoDB answers at 127.0.0.1:9" in answer.error
        assert "hunter2" not in answer.err


def test_a_fault_of_ours_is_one_line_and_a_traceback_in_a_file(
    wyloop: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "print_rows", None)
    answer = wyloop("config", "show")
    assert answer.status == 1
    assert "unexpected TypeError: 'NoneType' object is not callable; the traceback is in" in answer.error
    log = Path(answer.error.rpartition(" ")[2])
    assert log.parent == tmp_path / "data" / "logs"
    assert "TypeError: 'NoneType' object is not callable" in log.read_text()


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (ModelError("two\nlines"), 1, "error: two lines"),
        (KeyboardInterrupt(), 130, "error: interrupted; what was finished is kept, the same command continues"),
        (OSError(28, "No space left on device", "x.csv"), 1, "x.csv: No space left on device; free some space"),
        (PermissionError(13, "Permission denied", "y"), 1, "error: y: Permission denied"),
    ],
)
def test_failures_inside_a_command(
    error: BaseException, status: int, expected: str, wyloop: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(service, "current_settings", fail)
    answer = wyloop("status")
    assert answer.status == status
    assert expected in answer.error


def test_the_program_itself(tmp_path: Path) -> None:
    environment = os.environ | {"WYLOOP_STORES_URL": "x"}
    done = subprocess.run(
        [*WYLOOP, "status"], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown variable WYLOOP_STORES_URL")
    assert len(done.stderr.splitlines()) == 1


def test_interrupting_the_program(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.csv"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*WYLOOP, "encode", str(fifo), "--out", "x.jsonl"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    with fifo.open("w"):  # opens when the command reads
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.decode().startswith("error: interrupted")
    assert len(told.decode().splitlines()) == 1
    assert not (tmp_path / "x.jsonl").exists()


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*WYLOOP, "config", "show", "--json"], stdout=write_end, stderr=subprocess.PIPE, check=False, cwd=tmp_path
    )
    os.close(write_end)
    assert done.stderr == b""


def test_a_settings_file_reaches_every_layer(wyloop: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[stores]\nuri = "mongodb://a:secret@h/?replicaSet=r"\n[platform]\nn_workers = 0\n')
    answer = wyloop("--config", path, "config", "show", "--json")
    rows = {row["variable"]: row for row in answer.json}
    assert rows["WYLOOP_PLATFORM_N_WORKERS"]["value"] == 0
    assert rows["WYLOOP_STORES_URI"]["value"] == "**********"
    assert rows["WYLOOP_STORES_URI"]["source"] == str(path)
    shown = wyloop("--config", path, "config", "show").out
    assert "n_workers" in shown
    assert "secret" not in answer.out + shown


def test_verbose_logging_is_asked_for(wyloop: Command) -> None:
    import logging

    wyloop("-v", "config", "show")
    assert logging.getLogger("wyloop").level == logging.INFO
    wyloop("config", "show")
    assert logging.getLogger("wyloop").level == logging.WARNING
    assert main.INTERRUPTED == 130
