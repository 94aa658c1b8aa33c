"""A MongoDB of one test's own, with failpoints, that may be killed and started again, or lie on a small disk."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from wyloop.platform.mongod import find_mongod
from wyloop.platform.processes import free_port

START_LIMIT = 90.0  # s
DISK_MB = 700
WRITES = ["insert", "update", "findAndModify", "delete", "commitTransaction"]


class OwnMongod:
    """A replica set of one on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses = ["127.0.0.1"]
        self.port = free_port(0)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=crash"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, also after a crash, and wait until it takes writes."""
        (self.folder / "db").mkdir(exist_ok=True)
        command = [
            str(find_mongod()), "--dbpath", str(self.folder / "db"), "--port", str(self.port),
            "--bind_ip", ",".join(self.addresses),
            "--replSet", "crash", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--nounixsocket",
            "--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_LIMIT
        with MongoClient(
            f"mongodb://127.0.0.1:{self.port}/?directConnection=true", serverSelectionTimeoutMS=500
        ) as client:
            while time.monotonic() < deadline:
                assert self.is_running, "mongod ended while starting"
                try:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return
                    self._initiate(client)
                except PyMongoError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"mongod not ready within {START_LIMIT} s")

    def _initiate(self, client: "MongoClient[dict[str, Any]]") -> None:
        try:
            client.admin.command("replSetGetStatus")
        except OperationFailure:
            members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
            client.admin.command("replSetInitiate", {"_id": "crash", "members": members})

    def reach(self, addresses: set[str]) -> None:
        """Start it again where other hosts reach it, and let it end transactions of silent ones soon."""
        self.addresses = sorted({"127.0.0.1", *addresses})
        self.kill()
        self.start()
        self.addresses = ["127.0.0.1"]  # of the next start
        with MongoClient(self.uri) as client:
            client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=3)

    def kill(self) -> None:
        """End it without warning."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def fail_at_random(self, probability: float) -> None:
        """Let some writes lose their connection before they are done, and some their reply after; 0 ends it."""
        mode: Any = {"activationProbability": probability} if probability else "off"
        before = {"failCommands": WRITES, "closeConnection": True}
        with MongoClient(self.uri) as client:
            client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": before})
            client.admin.command({"configureFailPoint": "onPrimaryTransactionalWrite", "mode": mode})

    def stop(self) -> None:
        if self.is_running:
            self.kill()


@contextmanager
def small_disk(folder: Path, megabytes: int = DISK_MB) -> Iterator[bool]:
    """Mount a small disk at a folder for as long as the block runs; yields whether that was possible."""
    is_mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
        == 0
    )
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def fill_disk(folder: Path) -> Path:
    """Write a file until nothing more fits."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
    return path
