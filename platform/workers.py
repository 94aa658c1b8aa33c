"""Background processes of our own code: FireWorks workers and the server of the scheduled flows."""

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from wyloop.flows.worker import ONE_THREAD
from wyloop.models.errors import ServiceError
from wyloop.platform import processes
from wyloop.platform.processes import Launch, Record

FLOW_SERVER = "flows"
LOCK = "workers"
STOP_PATIENCE = 10.0  # s; a job that is stopped is found and repeated by the next reconciliation
SETTLING_TIME = 1.0  # s, a broken command ends sooner


def start_workers(
    data_folder: Path,
    n_workers: int,
    *,
    environment: Mapping[str, str],
    categories: Sequence[Sequence[str]] = (),
) -> list[tuple[Record, bool]]:
    """Bring the number of running FireWorks workers up to `n_workers`.

    Args:
        data_folder: Folder of the services.
        n_workers: Wanted number; workers beyond it are left alone.
        environment: Variables of the workers: WYLOOP_STORES_URI and the other settings.
        categories: Category list of each worker in turn, repeated; empty lets every worker run every job.

    Returns:
        Record of each worker and whether this call started it.

    Raises:
        ServiceError: A worker ended at once.
    """
    with processes.locked(data_folder, LOCK, 30):
        found: list[tuple[Record, bool]] = []
        for number in range(n_workers):
            own = list(categories[number % len(categories)]) if categories else []
            command = [*_wyloop(), "worker"]
            if own:
                command += ["--categories", ",".join(own)]
            found.append(_ensure(data_folder, f"worker-{number}", command, environment))
        _check_settled(data_folder, [record for record, is_new in found if is_new])
        return found


def start_flow_server(data_folder: Path, *, environment: Mapping[str, str]) -> tuple[Record, bool]:
    """Start the process that serves the scheduled flows, or reuse the one that runs.

    Args:
        data_folder: Folder of the services.
        environment: Variables of the process: PREFECT_API_URL, WYLOOP_STORES_URI and the other settings.

    Returns:
        Record and whether this call started it.

    Raises:
        ServiceError: It ended at once.
    """
    with processes.locked(data_folder, LOCK, 30):
        record, is_new = _ensure(data_folder, FLOW_SERVER, [*_wyloop(), "serve-flows"], environment)
        _check_settled(data_folder, [record] if is_new else [])
        return record, is_new


def running_workers(data_folder: Path) -> list[Record]:
    """Return the records of the workers that live, by number."""
    paths = (data_folder / "services").glob("worker-*.json")
    names = sorted((path.stem for path in paths), key=lambda name: int(name.rpartition("-")[2]))
    records = (processes.running(data_folder, name) for name in names)
    return [record for record in records if record is not None]


def stop_workers(data_folder: Path, names: Sequence[str] | None = None) -> list[str]:
    """Stop workers and the flow server; return the names of those that ran.

    Args:
        data_folder: Folder of the services.
        names: Only these; None for all.
    """
    with processes.locked(data_folder, LOCK, 30):
        candidates = [FLOW_SERVER, *(record.name for record in running_workers(data_folder))]
        wanted = [name for name in candidates if names is None or name in names]
        return [name for name in wanted if processes.stop(data_folder, name, patience=STOP_PATIENCE)]


def _wyloop() -> list[str]:
    return [sys.executable, "-m", "wyloop.platform.cli.main"]


def _ensure(
    data_folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Record, bool]:
    text = json.dumps([list(command), sorted(environment.items())])
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    record = processes.running(data_folder, name)
    if record is not None and record.identity == identity:
        return record, False
    if record is not None:  # it works on another database or other settings
        processes.stop(data_folder, name, patience=STOP_PATIENCE)
    launch = Launch(name, command, {**ONE_THREAD, **environment}, identity=identity)
    return processes.spawn(data_folder, launch)[1], True


def _check_settled(data_folder: Path, records: Sequence[Record]) -> None:
    """Watch new processes for a moment: what can't start should fail here, not in a log that nobody reads."""
    deadline = time.monotonic() + (SETTLING_TIME if records else 0)
    while time.monotonic() < deadline:
        ended = next((record for record in records if not processes.is_running(record)), None)
        if ended is not None:
            lines = [line for line in processes.last_output(data_folder, ended).splitlines() if line.strip()]
            reason = f": {lines[-1].strip()[:200]}" if lines else ""
            path = processes.log_file(data_folder, ended.name)
            raise ServiceError(f"{ended.name} ended while starting{reason}; see {path}")
        time.sleep(0.05)
