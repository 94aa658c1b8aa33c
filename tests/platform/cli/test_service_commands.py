"""Services from the command line, as a user starts and stops them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform.conftest import Command
from wyloop.platform import prefect_server
from wyloop.platform.settings import AllSettings
from wyloop.stores.connection import Store

WYLOOP = [sys.executable, "-m", "wyloop.platform.cli.main"]


def test_up_status_down(wyloop: Command, settings: AllSettings) -> None:
    assert wyloop("down").out == "nothing was running\n"
    started = wyloop("up", "--no-prefect", "--no-api", "--workers", "0", "--json").json
    assert started["started"] == ["mongod"]
    assert "nothing, all was running" in wyloop("up", "--no-prefect", "--no-api", "--workers", "0").out
    rows = {row["name"]: row for row in wyloop("status", "--json").json}
    assert rows["mongod"]["state"] == "running"
    assert rows["mongod"]["address"] == started["database"]
    assert rows["mongod"]["memory_mb"] > 50
    assert rows["prefect"]["state"] == "stopped"
    assert "mongod" in wyloop("status").out
    assert wyloop("db", "query", "--json").json == []  # uses it and leaves it running
    assert wyloop("down", "--json").json == {"stopped": ["mongod"]}


def test_a_command_alone_starts_and_stops_its_database(wyloop: Command, settings: AllSettings) -> None:
    assert wyloop("campaign", "list", "--json").json == []
    states = {row["name"]: row["state"] for row in wyloop("status", "--json").json}
    assert states["mongod"] == "stopped"
    assert (settings.data_folder / "mongod").is_dir()


def test_a_worker_with_nothing_to_do_ends(cli_store: Store, tmp_path: Path) -> None:
    done = subprocess.run(
        [*WYLOOP, "worker", "--once", "-n", "1", "--categories", "mlip,dft"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran 0 jobs\n", "")


def test_a_worker_s_jobs_find_the_embedded_database(wyloop: Command, settings: AllSettings, tmp_path: Path) -> None:
    """Nothing but this project's set-up: no address in the environment, a database that comes and goes."""
    added = wyloop("candidate", "add", "225 Cl:b Na:a", "--protocol", "mlip-screen/1", "--json").json
    folder = {**os.environ, "WYLOOP_PLATFORM_DATA_FOLDER": str(settings.data_folder)}
    assert "WYLOOP_STORES_URI" not in folder
    done = subprocess.run(
        [*WYLOOP, "worker", "--once"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=folder,
        timeout=240,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran 2 jobs\n", "")
    assert wyloop("candidate", "show", added["candidate"], "--json").json["status"] == "validated"


def test_doctor(wyloop: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = {check["name"]: check for check in wyloop("doctor", "--json").json}
    assert {checks[name]["status"] for name in ("Python", "mongod", "database", "Prefect", "disk")} == {"ok"}
    assert checks["packages"]["status"] in ("ok", "fail")
    monkeypatch.setenv("WYLOOP_STORES_URI", "mongodb://127.0.0.1:9/?replicaSet=x")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    broken = wyloop("doctor", "--json")
    assert broken.status == 1
    checks = {check["name"]: check for check in broken.json}
    assert (checks["database"]["status"], checks["Prefect"]["status"]) == ("fail", "fail")
    assert all(check["remedy"] for check in checks.values() if check["status"] == "fail")
    text = wyloop("doctor").out
    assert "fail database" in text
    assert "correct WYLOOP_STORES_URI" in text
    assert not prefect_server.is_healthy("http://127.0.0.1:9/api")
