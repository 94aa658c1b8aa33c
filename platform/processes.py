"""Processes that outlive the command that started them: records on disk, locks, start, stop.

A record names a process by pid and start time, so a recycled pid is never taken for ours.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from wyloop.models.errors import ServiceError

logger = logging.getLogger(__name__)

START_TIME_TOLERANCE = 2.0  # s, two readings of one process's start time may differ by clock ticks
MIN_FREE_GB = 0.5  # GB, below this a database on the same disk is close to failing mid-write
MAX_LOG_BYTES = 10_000_000  # a longer log is put aside at the next start


@dataclass(frozen=True)
class Record:
    """What is remembered of a started process.

    Attributes:
        name: Name of the service, also the name of its state file.
        pid: Process id.
        start_time: Start of the process, seconds since the epoch.
        port: Port on loopback, 0 when the process listens on none.
        identity: Digest of what it was started with; another one means that it must be restarted.
        log_start: Length of the log when it was started, bytes.
    """

    name: str
    pid: int
    start_time: float
    port: int = 0
    identity: str = ""
    log_start: int = 0


@dataclass(frozen=True)
class Launch:
    """What to start: command, environment on top of ours, where its output goes.

    Attributes:
        name: Name of the service.
        command: Program and arguments.
        environment: Variables added to those of this process.
        port: Port on loopback that the command was given, 0 for none.
        identity: Digest of what matters about the start, "" when nothing does.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int = 0
    identity: str = ""


def state_folder(data_folder: Path) -> Path:
    """Return the folder of state files, made if missing and readable by its owner only.

    Raises:
        ServiceError: The folder can't be made or written.
    """
    return private_folder(data_folder / "services")


def log_file(data_folder: Path, name: str) -> Path:
    """Return the file that collects the output of a service, in a folder that exists."""
    return private_folder(data_folder / "logs") / f"{name}.log"


def private_folder(path: Path) -> Path:
    """Return `path`, made if missing.

    Raises:
        ServiceError: The folder can't be made or written.
    """
    remedy = "set WYLOOP_PLATFORM_DATA_FOLDER to a folder you may write"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServiceError(f"can't make the folder {path}: {error.strerror or error}; {remedy}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ServiceError(f"can't write to the folder {path}; {remedy}")
    return path


def check_free_space(folder: Path, min_free_gb: float = MIN_FREE_GB) -> None:
    """Stop early when the disk is nearly full.

    Args:
        folder: An existing folder on the disk in question.
        min_free_gb: Space that must be free, GB.

    Raises:
        ServiceError: Less than that is free.
    """
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < min_free_gb:
        raise ServiceError(
            f"only {free_gb:.2f} GB free on the disk of {folder}, {min_free_gb:g} GB needed; "
            "free some space or set WYLOOP_PLATFORM_DATA_FOLDER to another disk"
        )


@contextlib.contextmanager
def locked(data_folder: Path, name: str, time_limit: float, *, is_shared: bool = False) -> Iterator[None]:
    """Hold a lock of the services, so that two starters make one process.

    Args:
        data_folder: Folder of the services.
        name: Name of the lock, mostly that of a service.
        time_limit: Seconds to wait for another holder; 0 tries once.
        is_shared: Whether others may hold it too, shared like this one.

    Raises:
        ServiceError: Another process held the lock all that time.
    """
    path = state_folder(data_folder) / f"{name}.lock"
    deadline = time.monotonic() + time_limit
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ServiceError(
                        f"another process has held the lock {path} for more than {time_limit:.0f} s; "
                        "wait for it or end it, then try again"
                    ) from None
                time.sleep(0.05)
        yield


def read_record(data_folder: Path, name: str) -> Record | None:
    """Return what is remembered of a service, running or not; None when nothing readable is."""
    path = data_folder / "services" / f"{name}.json"
    try:
        return Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        logger.warning("%s is not a state file of Wyloop; taken as absent", path)
        return None


def write_record(data_folder: Path, record: Record) -> None:
    """Write a state file in one step, so that no reader sees half of it."""
    path = state_folder(data_folder) / f"{record.name}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(record)) + "\n")
    temporary.replace(path)


def is_running(record: Record | None) -> bool:
    """Whether the process of a record lives: same pid, same start time, not a zombie."""
    return record is not None and _process(record) is not None


def running(data_folder: Path, name: str) -> Record | None:
    """Return the record of a service whose process lives, else None (stale state files included)."""
    record = read_record(data_folder, name)
    return record if is_running(record) else None


def is_listening(record: Record) -> bool:
    """Whether the process of a record itself listens on its port: an answer from there may come from another one."""
    process = _process(record)
    if process is None:
        return False
    try:
        members = (process, *process.children(recursive=True))
        return any(
            item.status == psutil.CONN_LISTEN and item.laddr.port == record.port
            for member in members
            for item in member.net_connections("tcp")
        )
    except psutil.NoSuchProcess:
        return False


def memory_mb(record: Record) -> float:
    """Resident memory of a process and its children, MB; 0 when it is gone."""
    process = _process(record)
    if process is None:
        return 0.0
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total / 1e6


def spawn(data_folder: Path, launch: Launch) -> tuple[subprocess.Popen[bytes], Record]:
    """Start a process in its own session (the terminal's Ctrl-C does not reach it) and record it.

    Args:
        data_folder: Folder of the services.
        launch: What to start.

    Returns:
        The process and its record, already on disk.

    Raises:
        ServiceError: The program can't be run.
    """
    path = log_file(data_folder, launch.name)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    log_start = path.stat().st_size if path.exists() else 0
    with path.open("ab") as log:
        try:
            process = subprocess.Popen(
                list(launch.command),
                env={**os.environ, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=data_folder,
            )
        except OSError as error:
            raise ServiceError(
                f"can't run {launch.command[0]}: {error.strerror}; check that it is executable"
            ) from error
    # The process may outlive us or end before: a thread takes note of its end, so that it never stays a zombie and
    # its Popen is not collected while it runs, which would warn.
    threading.Thread(target=process.wait, name=f"wait-{launch.name}", daemon=True).start()
    record = Record(launch.name, process.pid, _start_time(process.pid), launch.port, launch.identity, log_start)
    write_record(data_folder, record)
    logger.info("started %s, pid %d", launch.name, process.pid)
    return process, record


def stop(data_folder: Path, name: str, *, patience: float = 20.0) -> bool:
    """Stop a service: SIGTERM, wait, then SIGKILL to what is left of its session. The port is remembered.

    Args:
        data_folder: Folder of the services.
        name: Name of the service.
        patience: Seconds between the polite signal and the other.

    Returns:
        Whether a process was running.
    """
    record = running(data_folder, name)
    process = _process(record) if record is not None else None
    if process is None:
        return False
    family = [process, *process.children(recursive=True)]
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([process], timeout=patience)
    if alive:
        logger.warning("%s (pid %d) did not end in %.0f s; killed", name, process.pid, patience)
    _, leftover = psutil.wait_procs(family, timeout=0.5)
    for member in leftover:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(leftover, timeout=5)
    return True


def free_port(preferred: int = 0) -> int:
    """Return `preferred` if nothing listens there on loopback, else a free port chosen by the system."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("no free port on 127.0.0.1; close some connections and try again")


def last_output(data_folder: Path, record: Record, n_bytes: int = 8000) -> str:
    """Return the end of what a service has printed since its last start."""
    path = log_file(data_folder, record.name)
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(record.log_start, path.stat().st_size - n_bytes))
        return file.read().decode(errors="replace")


def _process(record: Record) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.start_time) > START_TIME_TOLERANCE:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def _start_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:  # ended at once; the caller finds out by its health check
        return 0.0
