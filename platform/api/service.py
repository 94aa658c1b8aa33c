"""The web application as a background service of this machine."""

import hashlib
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from wyloop.models.errors import ServiceError
from wyloop.platform import processes
from wyloop.platform.processes import Launch, Record

NAME = "api"
START_LIMIT = 60.0  # s
STOP_PATIENCE = 10.0  # s


def start_api(data_folder: Path, port: int = 0, *, environment: Mapping[str, str]) -> tuple[Record, bool]:
    """Start the web application, or reuse the one that runs with the same settings; it answers when this returns.

    Args:
        data_folder: Folder of the services.
        port: Port on loopback; 0 takes the port of last time, or a free one.
        environment: Variables of the process: WYLOOP_STORES_URI and the other settings.

    Returns:
        Record and whether this call started it.

    Raises:
        ServiceError: It ended while starting, or did not answer in time.
    """
    text = json.dumps([port, sorted(environment.items())])
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        record = processes.running(data_folder, NAME)
        is_new = record is None or record.identity != identity
        if record is None or is_new:
            if record is not None:  # it serves another database or has other settings
                processes.stop(data_folder, NAME, patience=STOP_PATIENCE)
            last = processes.read_record(data_folder, NAME)
            chosen = processes.free_port(port or (last.port if last else 0))
            command = [sys.executable, "-m", "wyloop.platform.cli.main", "api", "serve", "--port", str(chosen)]
            record = processes.spawn(data_folder, Launch(NAME, command, environment, chosen, identity))[1]
        _wait_until_healthy(data_folder, record)
        return record, is_new


def stop_api(data_folder: Path) -> bool:
    """Stop the web application; return whether it was running."""
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        return processes.stop(data_folder, NAME, patience=STOP_PATIENCE)


def address(record: Record) -> str:
    """Return where it answers."""
    return f"http://127.0.0.1:{record.port}"


def is_healthy(url: str, timeout: float = 3.0) -> bool:
    """Whether a web application with a database behind it answers at `url` within `timeout` seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach our loopback
    try:
        with opener.open(f"{url}/api/health", timeout=timeout) as answer:
            return bool(json.loads(answer.read()).get("status") == "ok")
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _wait_until_healthy(data_folder: Path, record: Record) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if processes.is_listening(record) and is_healthy(address(record), timeout=1.0):
            return
        if not processes.is_running(record):
            lines = [line.strip() for line in processes.last_output(data_folder, record).splitlines() if line.strip()]
            reason = f": {lines[-1][:200]}" if lines else ""
            raise ServiceError(
                f"the web server ended while starting{reason}; see {processes.log_file(data_folder, NAME)}"
            )
        time.sleep(0.1)
    raise ServiceError(
        f"the web server did not answer after {START_LIMIT:.0f} s; see {processes.log_file(data_folder, NAME)}"
    )
