"""The web application: what may be changed and by whom, its health, and the service around it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr, ValidationError

from tests.platform.api.conftest import TOKEN, Served
from wyloop.models.errors import DatabaseError, ServiceError
from wyloop.platform import processes, services
from wyloop.platform.api.app import create_app
from wyloop.platform.api.server import serve, serving
from wyloop.platform.settings import AllSettings, all_settings
from wyloop.platform.settings import Settings as PlatformSettings
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.settings import Settings

BUILD = "/api/builders/optimade"


def test_health_says_no_secret(served: Served) -> None:
    answer = requests.get(f"{served.url}/api/health", timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert set(answer.json()) == {"status", "version"}


def test_only_the_bearer_of_the_token_may_build(database: Store, stores_settings: Settings) -> None:
    ingest_starter(database)
    with serving(create_app(stores_settings, token=TOKEN)) as url:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN.get_secret_value()}"}):
            answer = requests.post(url + BUILD, headers=headers, timeout=30)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert requests.get(url + BUILD, timeout=30).status_code == 405
        assert database.database["optimade_structures"].estimated_document_count() == 0
        right = {"Authorization": f"Bearer {TOKEN.get_secret_value()}"}
        assert requests.post(url + BUILD, headers=right, timeout=60).json()["n_done"] == 646
        assert requests.post(url + BUILD, headers=right, timeout=60).json() == {
            "n_done": 0,
            "n_removed": 0,
            "n_skipped": 646,
        }


def test_without_a_token_and_read_only_nothing_can_be_changed(database: Store, stores_settings: Settings) -> None:
    right = {"Authorization": f"Bearer {TOKEN.get_secret_value()}"}
    with serving(create_app(stores_settings)) as url:
        assert requests.post(url + BUILD, headers=right, timeout=30).status_code == 403
    reader = stores_settings.model_copy(update={"is_read_only": True})
    with serving(create_app(reader, token=TOKEN)) as url:
        assert requests.post(url + BUILD, headers=right, timeout=30).status_code == 403
        assert requests.get(f"{url}/optimade/v1/structures", timeout=30).json()["data"] == []


def test_what_is_written_is_served_soon(database: Store, stores_settings: Settings) -> None:
    with serving(create_app(stores_settings, refresh_seconds=0.1)) as url:
        structures = f"{url}/optimade/v1/structures?page_limit=1&filter=nsites>0"
        assert requests.get(structures, timeout=30).json()["meta"]["data_returned"] == 0
        ingest_starter(database)
        deadline = time.monotonic() + 60
        while requests.get(structures, timeout=30).json()["meta"]["data_returned"] != 646:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert build_optimade(database, n_processes=1).n_done == 0


def test_a_token_is_long_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        PlatformSettings(api_token=SecretStr("short"))
    monkeypatch.setenv("WYLOOP_PLATFORM_API_TOKEN", TOKEN.get_secret_value())
    shown = [row for row in all_settings().rows() if row.name == "api_token"]
    assert [row.value for row in shown] == ["**********"]
    assert TOKEN.get_secret_value() not in repr(all_settings())


def test_no_database_is_said_at_once() -> None:
    uri = SecretStr(f"mongodb://anna:hunter2@127.0.0.1:{processes.free_port()}/?replicaSet=x")
    with pytest.raises(DatabaseError, match="no MongoDB answers") as caught:
        create_app(Settings(uri=uri, timeout_ms=300))
    assert "hunter2" not in str(caught.value)


def test_a_taken_port_is_said(stores_settings: Settings) -> None:
    app = create_app(stores_settings)
    with serving(app) as url, pytest.raises(ServiceError, match="can't listen on 127.0.0.1 port"):
        serve(create_app(stores_settings), "127.0.0.1", int(url.rpartition(":")[2]))


def test_api_serve_serves_until_it_is_told_to_end(cli_store: Store, tmp_path: Path) -> None:
    ingest_starter(cli_store)
    build_optimade(cli_store, n_processes=1)
    port = processes.free_port()
    command = [sys.executable, "-m", "wyloop.platform.cli.main", "api", "serve", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"OPTIMADE at http://127.0.0.1:{port}/optimade/v1\n"
            answer = requests.get(f"http://127.0.0.1:{port}/optimade/v1/structures?page_limit=1", timeout=60)
            assert answer.json()["meta"]["data_available"] == 646
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_up_starts_it_and_down_stops_it(cli_store: Store, settings: AllSettings) -> None:
    first = services.up(settings, with_prefect=False, n_workers=0, with_api=True)
    assert first.started == ["api"]
    assert first.api_url is not None
    assert requests.get(f"{first.api_url}/api/health", timeout=30).json()["status"] == "ok"
    again = services.up(settings, with_prefect=False, n_workers=0, with_api=True)
    assert (again.started, again.api_url) == ([], first.api_url)
    row = next(row for row in services.status(settings) if row.name == "api")
    assert (row.state, row.address) == ("running", first.api_url)
    assert services.down(settings) == ["api"]
    assert "api" not in {row.name for row in services.status(settings)}
