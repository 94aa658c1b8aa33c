"""Printing: what programs read, what people read, and progress on a terminal."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from wyloop.platform.cli.output import cell, print_facts, print_json, print_rows, progress, write_lines

NOON = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Thing:
    when: datetime
    letters: frozenset[str]


def test_json_of_what_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"thing": Thing(NOON, frozenset("ba")), "n": np.int64(3), "gap": np.float64(1.5), "at": Path("/x/y")})
    assert json.loads(capsys.readouterr().out) == {
        "thing": {"when": "2026-11-22T12:00:05+00:00", "letters": ["a", "b"]},
        "n": 3,
        "gap": 1.5,
        "at": "/x/y",
    }
    print_json({"volume": "Å³"})
    assert "Å³" in capsys.readouterr().out  # readable as it is


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (0.123456, "0.1235"),
        (-1e-9, "-1e-09"),
        (NOON, "2026-11-22 12:00:05"),
        (["As", 0.5, None], "As, 0.5, "),
        ({"passed": 3, "share": 0.25}, "passed 3, share 0.25"),
        ("text", "text"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_table_cuts_nothing_and_numbers_stand_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "x" * 90, "n": 5}, {"name": "short", "n": 12345}]
    print_rows(rows, {"name": "name", "n": "atoms"}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "x" * 90 in lines[1]
    assert [line.split()[-1] for line in lines] == ["atoms", "5", "12345"]
    assert len({len(line.rstrip()) for line in lines}) == 1
    print_rows([], {"name": "name"}, as_json=False, empty="none yet")
    assert capsys.readouterr().out == "none yet\n"


def test_facts_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"model": "m1", "written to": None, "rows": 5})
    assert capsys.readouterr().out == "model       m1\nrows        5\n"


def test_a_file_of_lines_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "genes.jsonl"
    assert write_lines(path, [{"a": 1}, {"b": "Å"}]) == 2
    before = path.read_text(encoding="utf-8")
    assert before == '{"a": 1}\n{"b": "Å"}\n'

    def broken() -> object:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_lines(path, (broken() for _ in range(1)))
    assert path.read_text(encoding="utf-8") == before
    assert [found.name for found in tmp_path.iterdir()] == ["genes.jsonl"]


def test_progress_shows_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading") as move:
        move(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with progress("reading") as move:
        move(0, 0)  # a total that is not known yet
        move(1, 2)
    told = capsys.readouterr().err
    assert "reading" in told
    assert "50%" in told
