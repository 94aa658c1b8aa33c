import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from wyloop.models.errors import DatabaseError, ServiceError
from wyloop.platform import mongod, processes, services, session, workers
from wyloop.platform.settings import AllSettings, all_settings
from wyloop.stores.connection import Store


def states(settings: AllSettings) -> dict[str, str]:
    return {row.name: row.state for row in services.status(settings)}


def test_up_starts_what_is_missing_and_down_stops_what_it_started(settings: AllSettings) -> None:
    first = services.up(settings, with_prefect=False, n_workers=0)
    assert first.started == ["mongod"]
    assert first.environment["WYLOOP_STORES_URI"] == first.uri
    assert states(settings) == {"mongod": "running", "prefect": "stopped", "flows": "stopped", "worker": "stopped"}
    second = services.up(settings, with_prefect=False, n_workers=1)
    assert (second.uri, second.started) == (first.uri, ["worker-0"])
    assert states(settings)["worker-0"] == "running"
    assert services.down(settings, only_started=second.started) == ["worker-0"]
    assert states(settings)["mongod"] == "running"
    assert services.down(settings) == ["mongod"]
    assert services.down(settings) == []


def test_a_configured_database_is_used_and_nothing_started(cli_store: Store, tmp_path: Path) -> None:
    settings = all_settings()
    running = services.up(settings, with_prefect=False, n_workers=0)
    assert (running.uri, running.started) == (cli_store.uri, [])
    assert states(settings)["mongod"] == "external"
    assert not (tmp_path / "data" / "mongod").exists()
    with session.connected(settings) as store:
        assert store.name == cli_store.name
    assert mongod.is_healthy(cli_store.uri)


def test_a_failed_start_leaves_nothing_running(settings: AllSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServiceError, match="does not answer"):
        services.up(settings)
    assert states(settings)["mongod"] == "stopped"
    assert states(settings)["prefect"] == "unhealthy"


def test_an_unreachable_database_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", f"mongodb://anna:hunter2@127.0.0.1:{processes.free_port()}/?replicaSet=x")
    monkeypatch.setenv("WYLOOP_STORES_TIMEOUT_MS", "300")
    settings = all_settings()
    with pytest.raises(DatabaseError, match="no MongoDB answers") as caught, session.connected(settings):
        pass
    status = services.status(settings)[0]
    assert status.state == "unhealthy"
    assert "hunter2" not in f"{caught.value} {status}"


def test_a_command_stops_the_database_that_it_started(settings: AllSettings) -> None:
    with session.connected(settings) as store:
        store.database["t"].insert_one({"_id": 1})
        assert states(settings)["mongod"] == "running"
    assert states(settings)["mongod"] == "stopped"
    with session.connected(settings) as store:
        assert store.database["t"].find_one() == {"_id": 1}


def test_commands_at_the_same_time_share_it_and_the_last_one_stops_it(settings: AllSettings) -> None:
    is_inside, may_leave = threading.Event(), threading.Event()

    def slow_command() -> None:
        with session.database_uri(settings):
            is_inside.set()
            may_leave.wait(30)

    thread = threading.Thread(target=slow_command)
    with session.database_uri(settings) as uri:
        thread.start()
        is_inside.wait(30)
    assert mongod.is_healthy(uri)  # the first is done, the second still works
    may_leave.set()
    thread.join()
    assert states(settings)["mongod"] == "stopped"


def test_up_during_a_command_lets_it_live(settings: AllSettings) -> None:
    with session.database_uri(settings):
        services.up(settings, with_prefect=False, n_workers=0)
        session.keep_services(settings)
    assert states(settings)["mongod"] == "running"


def test_what_a_killed_command_left_is_stopped_by_the_next(settings: AllSettings) -> None:
    running = services.up(settings, with_prefect=False, n_workers=0)
    session._mark(settings.data_folder, running.started)  # as a command that got SIGKILL leaves it
    with session.database_uri(settings) as uri:
        assert uri == running.uri
    assert states(settings)["mongod"] == "stopped"


def test_workers_are_reused_and_renewed_when_their_database_changes(tmp_path: Path, cli_store: Store) -> None:
    environment = all_settings().environment()
    try:
        first = workers.start_workers(tmp_path, 2, environment=environment, categories=[["mlip"], ["dft", "mlip"]])
        assert [is_new for _, is_new in first] == [True, True]
        command = psutil.Process(first[1][0].pid).cmdline()
        assert command[-2:] == ["--categories", "dft,mlip"]
        assert psutil.Process(first[0][0].pid).environ()["OMP_NUM_THREADS"] == "1"
        again = workers.start_workers(tmp_path, 2, environment=environment, categories=[["mlip"], ["dft", "mlip"]])
        assert [(record.pid, is_new) for record, is_new in again] == [(record.pid, False) for record, _ in first]
        other = environment | {"WYLOOP_FLOWS_LAUNCHPAD_DATABASE": "other"}
        changed = workers.start_workers(tmp_path, 1, environment=other, categories=[["mlip"]])
        assert changed[0][1]
        assert not psutil.pid_exists(first[0][0].pid)
        assert [record.name for record in workers.running_workers(tmp_path)] == ["worker-0", "worker-1"]
    finally:
        assert workers.stop_workers(tmp_path) == ["worker-0", "worker-1"]


def test_a_worker_that_ends_at_once_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SETTLING_TIME", 30.0)
    with pytest.raises(
        ServiceError, match="worker-0 ended while starting: error: unknown variable WYLOOP_FLOWS_NONSENSE"
    ):
        workers.start_workers(tmp_path, 1, environment={"WYLOOP_FLOWS_NONSENSE": "1"})


def test_a_process_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while true; do sleep 0.1; done"
    launch = processes.Launch("stubborn", ["/bin/sh", "-c", script], {})
    _, record = processes.spawn(tmp_path, launch)
    while "ready" not in processes.last_output(tmp_path, record):
        time.sleep(0.02)
    assert processes.stop(tmp_path, "stubborn", patience=0.3)
    assert not processes.is_running(record)


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10)
    log = processes.log_file(tmp_path, "echo")
    log.write_text("an old and long story\n")
    process, record = processes.spawn(tmp_path, processes.Launch("echo", ["/bin/echo", "new"], {}))
    process.wait()
    assert processes.last_output(tmp_path, record) == "new\n"
    assert (log.parent / "echo.old.log").read_text() == "an old and long story\n"


def test_a_process_that_ended_is_no_zombie(tmp_path: Path) -> None:
    _, record = processes.spawn(tmp_path, processes.Launch("short", ["/bin/true"], {}))
    deadline = time.monotonic() + 20
    while psutil.pid_exists(record.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(record.pid)


def test_a_process_that_lives_on_makes_no_warning(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from wyloop.platform.processes import Launch, spawn; "
        "spawn(pathlib.Path(sys.argv[1]), Launch('long', ['/bin/sleep', '60'], {}))"
    )
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert processes.stop(tmp_path, "long")


def test_a_program_that_cannot_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"can't run /nowhere/program: No such file"):
        processes.spawn(tmp_path, processes.Launch("none", ["/nowhere/program"], {}))


def test_addresses_are_shown_without_password() -> None:
    assert services.without_password("mongodb://a:b@h1,h2:5/db?x=1") == "mongodb://h1,h2:5/db?x=1"
    assert services.without_password("http://127.0.0.1:4200") == "http://127.0.0.1:4200"
