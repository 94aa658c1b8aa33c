import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from wyloop.models.errors import ServiceError
from wyloop.platform import prefect_server, processes
from wyloop.platform.prefect_server import PrefectHandle, start_prefect, stop_prefect

pytestmark = pytest.mark.xdist_group("prefect")  # one process starts the server
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect services")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[PrefectHandle]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        handle = start_prefect(folder)
        yield handle
        assert stop_prefect(folder)
        assert not psutil.pid_exists(handle.pid)
        assert not prefect_server.is_healthy(handle.api_url)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def test_it_answers_and_its_pages_know_where_the_api_is(server: PrefectHandle, folder: Path) -> None:
    assert server.is_new
    assert prefect_server.is_healthy(server.api_url)
    assert b"<html" in get(server.ui_url)
    assert json.loads(get(f"{server.ui_url}/ui-settings"))["api_url"] == server.api_url
    settings = json.loads(get(f"{server.api_url}/admin/settings"))
    assert settings["server"]["analytics_enabled"] is False
    assert settings["home"] == str(folder / "prefect")
    assert (folder / "prefect" / "prefect.db").exists()


def test_a_second_start_reuses_it(server: PrefectHandle, folder: Path) -> None:
    again = start_prefect(folder)
    assert (again.pid, again.api_url, again.is_new) == (server.pid, server.api_url, False)
    running = prefect_server.running_prefect(folder)
    assert running == again
    record = processes.running(folder, "prefect")
    assert record is not None
    assert 50 < processes.memory_mb(record) < 600


def test_a_configured_server_is_used_and_nothing_started(
    server: PrefectHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server.api_url + "/")
    handle = start_prefect(tmp_path)
    assert handle == PrefectHandle(server.api_url, server.ui_url, 0, is_new=False)
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{processes.free_port()}/api")
    with pytest.raises(ServiceError, match=r"PREFECT_API_URL \(http.*does not answer; start it, or unset"):
        start_prefect(tmp_path)


def test_a_port_in_use_ends_in_one_line(server: PrefectHandle, tmp_path: Path) -> None:
    record = prefect_server._launch(tmp_path, int(server.ui_url.rpartition(":")[2]))
    with pytest.raises(ServiceError, match="the Prefect server ended while starting: .*see .*prefect.log"):
        prefect_server._wait_until_healthy(tmp_path, record)
    assert prefect_server.is_healthy(server.api_url)


def test_the_deployments_are_accepted_twice_and_scheduled_once(server: PrefectHandle, folder: Path) -> None:
    environment = os.environ | prefect_server.prefect_environment(folder) | {"PREFECT_API_URL": server.api_url}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    deploy = [*prefect, "deploy", "--all", "--prefect-file", "deploy/prefect.yaml"]
    for command in ([*prefect, "work-pool", "create", "wyloop", "--type", "process"], deploy, deploy):
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    request = urllib.request.Request(
        f"{server.api_url}/deployments/filter", b"{}", {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found = {item["name"]: item for item in json.loads(answer.read())}
    assert set(found) == {"every-minute", "on-demand"}
    every_minute = found["every-minute"]
    assert [item["schedule"]["interval"] for item in every_minute["schedules"]] == [60.0]
    assert every_minute["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert every_minute["global_concurrency_limit"]["limit"] == 1
    assert found["on-demand"]["schedules"] == []


def test_stopping_what_does_not_run(tmp_path: Path) -> None:
    assert not stop_prefect(tmp_path)
    assert prefect_server.running_prefect(tmp_path) is None
