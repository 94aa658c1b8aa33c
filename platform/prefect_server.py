"""The embedded Prefect server: a real one on loopback, its home and database under the user's data folder."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from wyloop.models.errors import ServiceError
from wyloop.platform import processes
from wyloop.platform.processes import Launch, Record

NAME = "prefect"
START_LIMIT = 90.0  # s; 4 to 16 s on a free machine, 40 s on a busy one with a new database


@dataclass(frozen=True)
class PrefectHandle:
    """A Prefect server to use.

    Attributes:
        api_url: Address of the API, for PREFECT_API_URL.
        ui_url: Address of the web pages.
        pid: Process id, 0 when the server is not ours.
        is_new: Whether this call started it.
    """

    api_url: str
    ui_url: str
    pid: int
    is_new: bool


def configured_server() -> PrefectHandle | None:
    """Return the server that PREFECT_API_URL names; None when the variable is not set."""
    api_url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    return PrefectHandle(api_url, api_url.removesuffix("/api"), 0, is_new=False) if api_url else None


def prefect_environment(data_folder: Path) -> dict[str, str]:
    """Return the variables that keep Prefect inside the data folder and quiet."""
    return {
        "PREFECT_HOME": str(data_folder / NAME),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "180",  # s; without it a killed run stays Running for ever
    }


def start_prefect(data_folder: Path, port: int = 0) -> PrefectHandle:
    """Start the embedded Prefect server, or reuse the one that runs; healthy when this returns.

    Args:
        data_folder: Folder of the services; Prefect's home is its `prefect` folder.
        port: Port on loopback; 0 takes the port of last time, or a free one.

    Returns:
        The server; the one of PREFECT_API_URL when that is set, and then nothing is started.

    Raises:
        ServiceError: It did not get healthy in time, or the one configured does not answer.
    """
    configured = configured_server()
    if configured is not None:
        if not is_healthy(configured.api_url):
            raise ServiceError(
                f"the Prefect server of PREFECT_API_URL ({configured.api_url}) does not answer; "
                "start it, or unset the variable to use the embedded one"
            )
        return configured
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        record = processes.running(data_folder, NAME)
        if record is None:
            processes.check_free_space(processes.private_folder(data_folder / NAME))
            last = processes.read_record(data_folder, NAME)
            record = _launch(data_folder, processes.free_port(port or (last.port if last else 0)))
            _wait_until_healthy(data_folder, record)
            return _handle(record, is_new=True)
        _wait_until_healthy(data_folder, record)
        return _handle(record, is_new=False)


def running_prefect(data_folder: Path) -> PrefectHandle | None:
    """Return the embedded server if its process lives, without starting or waiting for anything."""
    record = processes.running(data_folder, NAME)
    return _handle(record, is_new=False) if record else None


def stop_prefect(data_folder: Path) -> bool:
    """Stop the embedded server; return whether it was running."""
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        return processes.stop(data_folder, NAME, patience=15)


def is_healthy(api_url: str, timeout: float = 3.0) -> bool:
    """Whether a Prefect server answers at `api_url` within `timeout` seconds."""
    opener = urllib.request.build_opener()
    if api_url.startswith("http://127.0.0.1"):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach our loopback
    try:
        with opener.open(f"{api_url}/health", timeout=timeout) as answer:
            return bool(json.loads(answer.read()) is True)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _handle(record: Record, *, is_new: bool) -> PrefectHandle:
    ui_url = f"http://127.0.0.1:{record.port}"
    return PrefectHandle(f"{ui_url}/api", ui_url, record.pid, is_new)


def _launch(data_folder: Path, port: int) -> Record:
    command = [sys.executable, "-m", "prefect", "server", "start", "--analytics-off"]
    environment = {
        **prefect_environment(data_folder),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",  # as options they would not reach the web pages
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "true",  # marks lost process workers offline
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # a schedule leaves 1 440 runs a day
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",  # no flow of ours pauses
        "MALLOC_ARENA_MAX": "2",  # less memory held by idle threads
    }
    _, record = processes.spawn(data_folder, Launch(NAME, command, environment, port))
    return record


def _wait_until_healthy(data_folder: Path, record: Record) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if processes.is_listening(record) and is_healthy(f"http://127.0.0.1:{record.port}/api", timeout=1.0):
            return
        if not processes.is_running(record):
            raise ServiceError(_explain(data_folder, record))
        time.sleep(0.1)
    raise ServiceError(
        f"the Prefect server was not healthy after {START_LIMIT:.0f} s; see {processes.log_file(data_folder, NAME)}"
    )


def _explain(data_folder: Path, record: Record) -> str:
    text = processes.last_output(data_folder, record)
    if "No space left on device" in text or "database or disk is full" in text:
        return "the Prefect server stopped: the disk is full; free some space and try again"
    if "No module named prefect" in text:
        return f"Prefect is not installed in {sys.prefix}; run: pip install wyloop"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = f": {lines[-1][:200]}" if lines else ""
    return f"the Prefect server ended while starting{reason}; see {processes.log_file(data_folder, NAME)}"
