"""Every check of the doctor says what is wrong and what to do, on a machine that lacks what it looks for."""

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tests.platform.conftest import Command
from wyloop.models.mpvae import checkpoint
from wyloop.platform import doctor, mongod, processes
from wyloop.platform.doctor import Check
from wyloop.platform.settings import AllSettings
from wyloop.stores.connection import Store
from wyloop.stores.starter import read

Examine = Callable[[], dict[str, Check]]


@pytest.fixture
def examine(settings: AllSettings) -> Examine:
    return lambda: {check.name: check for check in doctor.examine(settings)}


def test_a_sound_machine(examine: Examine) -> None:
    checks = examine()
    assert {name: check.status for name, check in checks.items() if check.status == "fail"} == {}
    assert checks["Python"].detail == ".".join(map(str, sys.version_info[:3]))
    assert checks["packages"].detail.endswith("requirements met")
    assert checks["starter set"].detail == f"{len(read.starter_set())} crystals"
    assert checks["weights"].detail.startswith("mpvae.safetensors, ")
    assert "not running" in checks["database"].detail


def test_packages_that_are_missing_or_old(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "no-such-package-here", "pip; extra == 'dft'", "pytest>=8"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = examine()["packages"]
    assert found.status == "fail"
    assert found.detail == f"numpy {metadata.version('numpy')} is not >=99, no-such-package-here is missing"
    assert found.remedy == "run: pip install -c constraints.txt wyloop"

    def nothing(_: str) -> list[str]:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", nothing)
    assert examine()["packages"].detail == "wyloop is not installed"


def test_another_python(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert examine()["Python"] == Check("Python", "fail", "3.13.1", "install Python 3.11 or 3.12")


def test_programs_that_are_missing(examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("gpaw", "fiftyone"):
        monkeypatch.setitem(sys.modules, name, None)
    checks = examine()
    assert (checks["mongod"].status, checks["mongod"].remedy) == ("fail", mongod.INSTALL_REMEDY)
    assert "no mongod on PATH" in checks["mongod"].detail
    assert (checks["GPAW"].status, checks["GPAW"].detail.split(";")[0]) == (
        "warn",
        "GPAW is neither in this Python environment nor on the PATH",
    )
    assert checks["GPAW"].remedy
    monkeypatch.setenv("WYLOOP_STORES_URI", "mongodb://127.0.0.1:9/?replicaSet=x")
    assert examine()["mongod"].status == "ok"  # not needed then


def test_too_little_room(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WANTED_FREE_GB", 1e9)
    monkeypatch.setattr(doctor, "WANTED_MEMORY_GB", 1e9)
    checks = examine()
    assert (checks["disk"].status, checks["disk"].remedy) == ("warn", "1e+09 GB are better")
    assert (checks["memory"].status, checks["memory"].remedy) == ("warn", "a discovery round wants 1e+09 GB")
    monkeypatch.setattr(processes, "MIN_FREE_GB", 1e9)
    assert examine()["disk"].remedy == "free some space or set WYLOOP_PLATFORM_DATA_FOLDER"


def test_data_that_are_missing(
    examine: Examine, wyloop: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "none.safetensors")
    monkeypatch.setattr(read, "PATH", tmp_path / "none.json.gz")
    read.starter_set.cache_clear()
    checkpoint.load_shipped.cache_clear()
    checks = examine()
    for name, file in (("weights", "none.safetensors"), ("starter set", "none.json.gz")):
        assert (checks[name].status, checks[name].remedy) == ("fail", "install wyloop again")
        assert file in checks[name].detail
    told = wyloop("doctor")
    assert told.status == 1
    assert "fail weights" in told.out
    assert "; install wyloop again" in told.out


def test_a_database_that_runs(cli_store: Store, examine: Examine) -> None:
    assert examine()["database"] == Check("database", "ok", f"writable at {cli_store.uri}")
