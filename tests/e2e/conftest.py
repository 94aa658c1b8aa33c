"""The program as users run it: another process, its two streams, its exit status."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MongoServer
from wyloop.stores.connection import Store

PROGRAM = Path(sys.executable).with_name("wyloop")
SETTINGS = ("WYLOOP_", "PREFECT_")


@dataclass(frozen=True)
class Answer:
    """What a command printed, how it ended, and how long it took, s."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error, without its prefix."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


@dataclass(frozen=True)
class Program:
    """Runs `wyloop` in a folder with settings of its own."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str | Path, **environment: str) -> Answer:
        began = time.monotonic()
        done = subprocess.run(
            [str(word) for word in (PROGRAM, *arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        # whatever happens, people read sentences
        for text in (done.stdout, done.stderr):
            assert "Traceback" not in text, text
            assert "unexpected" not in text, text
        return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def together(self, commands: Sequence[Sequence[str | Path]], **environment: str) -> list[Answer]:
        """Run commands side by side: most of their time is the start of Python."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda command: self(*command, **environment), commands))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with no database configured."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    own = {"WYLOOP_PLATFORM_DATA_FOLDER": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    (tmp_path / "here").mkdir()
    return Program(tmp_path / "here", clean | own)


@pytest.fixture
def on_database(program: Program, database: Store, mongod: MongoServer) -> Program:
    """The program on the database of the test."""
    own = {
        "WYLOOP_STORES_URI": mongod.uri,
        "WYLOOP_STORES_DATABASE": database.name,
        "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": f"{database.name}_fw",
    }
    return Program(program.folder, {**program.environment, **own})


Hide = Callable[..., dict[str, str]]


@pytest.fixture
def hidden(tmp_path: Path) -> Hide:
    """Environment in which the named Python packages, and all programs but Python's, can't be found."""

    def hide(*packages: str) -> dict[str, str]:
        folder = tmp_path / "hide"
        folder.mkdir(exist_ok=True)
        lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in packages)]
        (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")
        return {"PYTHONPATH": str(folder), "PATH": str(folder)}

    return hide
