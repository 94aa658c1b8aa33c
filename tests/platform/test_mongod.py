import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient

from wyloop.models.errors import ServiceError
from wyloop.platform import mongod, processes
from wyloop.platform.mongod import MongodHandle, find_mongod, start_mongod, stop_mongod


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    data_folder = tmp_path / "services of this test"
    yield data_folder
    stop_mongod(data_folder)


def write_and_read(handle: MongodHandle) -> list[int]:
    """One transaction, which needs a replica set, and what the collection holds after it."""
    with MongoClient[dict[str, Any]](handle.uri) as client:
        with client.start_session() as session, session.start_transaction():
            client["t"]["t"].insert_one({"n": client["t"]["t"].count_documents({}, session=session)}, session=session)
        return [document["n"] for document in client["t"]["t"].find().sort("n")]


def test_started_reused_stopped_and_started_again_with_its_data(folder: Path) -> None:
    first = start_mongod(folder)
    assert first.is_new
    assert write_and_read(first) == [0]
    again = start_mongod(folder)
    assert (again.is_new, again.pid, again.uri) == (False, first.pid, first.uri)
    assert stop_mongod(folder)
    assert not psutil.pid_exists(first.pid)
    assert not stop_mongod(folder)
    second = start_mongod(folder)
    assert (second.is_new, second.port) == (True, first.port)
    assert write_and_read(second) == [0, 1]


def test_it_listens_on_loopback_only_and_is_its_own_session(folder: Path) -> None:
    handle = start_mongod(folder)
    process = psutil.Process(handle.pid)
    addresses = {item.laddr for item in process.net_connections() if item.status == psutil.CONN_LISTEN}
    assert {tuple(address) for address in addresses} == {("127.0.0.1", handle.port)}
    assert os.getsid(handle.pid) != os.getsid(0)
    assert stat.S_IMODE((folder / "services").stat().st_mode) == 0o700


def test_another_port_takes_the_replica_set_along(folder: Path) -> None:
    first = start_mongod(folder)
    write_and_read(first)
    stop_mongod(folder)
    with socket.socket() as squatter:  # somebody else took the remembered port
        squatter.bind(("127.0.0.1", first.port))
        second = start_mongod(folder)
    assert second.port != first.port
    assert write_and_read(second) == [0, 1]


def test_a_stale_state_file_is_recognised(folder: Path) -> None:
    first = start_mongod(folder)
    process = psutil.Process(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([process], timeout=10)
    path = folder / "services" / "mongod.json"
    # the pid now belongs to somebody else: this test
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getpid()}))
    assert mongod.running_mongod(folder) is None
    assert not stop_mongod(folder)
    second = start_mongod(folder)
    assert second.is_new
    assert mongod.is_healthy(second.uri)


def test_a_lost_state_file_does_not_lose_the_server(folder: Path) -> None:
    first = start_mongod(folder)
    (folder / "services" / "mongod.json").unlink()
    again = start_mongod(folder)
    assert (again.is_new, again.pid, again.port) == (False, first.pid, first.port)
    (folder / "services" / "mongod.json").write_text("half a reco")
    assert start_mongod(folder).pid == first.pid


def test_concurrent_starters_make_one_server(folder: Path) -> None:
    handles: list[MongodHandle] = []
    threads = [threading.Thread(target=lambda: handles.append(start_mongod(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.pid for handle in handles}) == 1
    assert sum(handle.is_new for handle in handles) == 1


def test_it_outlives_an_interrupted_starter(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from wyloop.platform.mongod import start_mongod\n"
        "print(start_mongod(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.killpg(starter.pid, signal.SIGINT)  # what the terminal does at Ctrl-C
    starter.wait(20)
    starter.stdout.close()
    handle = start_mongod(folder)
    assert (handle.pid, handle.is_new) == (pid, False)


def test_without_a_binary_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [item for item in sys.path if "site-packages" not in item])
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    sys.path_importer_cache.clear()
    with pytest.raises(ServiceError, match="no mongod on PATH.*install MongoDB"):
        find_mongod()


def test_a_mongod_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = find_mongod()
    assert mongod.server_version(wheel).split(".")[0].isdigit()
    own = tmp_path / "bin" / "mongod"
    own.parent.mkdir()
    own.write_text(
        "#!/bin/sh\necho 'mongod: error while loading shared libraries: libcurl.so.4: cannot open'\nexit 127\n"
    )
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(own.parent), prepend=os.pathsep)
    assert find_mongod() == own
    for attempt in (lambda: mongod.server_version(own), lambda: start_mongod(tmp_path / "data")):
        with pytest.raises(ServiceError, match=r"needs the shared library libcurl\.so\.4.*apt-get install libcurl4"):
            attempt()


def test_what_mongod_prints_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "bin" / "mongod"
    own.parent.mkdir()
    monkeypatch.setenv("PATH", str(own.parent), prepend=os.pathsep)
    printed = {
        '{"s":"E","msg":"WiredTiger error","attr":{"error":"No space left on device"}}': "the disk is full; free some",
        '{"s":"F","msg":"Wrong version","attr":{"error":"too new"}}': "starting: Wrong version too new; see .*log",
    }
    for line, expected in printed.items():
        own.write_text(f"#!/bin/sh\necho '{line}'\nexit 14\n")
        own.chmod(0o755)
        with pytest.raises(ServiceError, match=expected):
            start_mongod(tmp_path / "data")


def test_a_nearly_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"GB free on the disk of .*, 1e\+06 GB needed; free some space"):
        start_mongod(tmp_path, min_free_gb=1e6)
    assert not any((tmp_path / "mongod").iterdir())


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="can't make the folder.*WYLOOP_PLATFORM_DATA_FOLDER"):
        start_mongod(tmp_path / "file" / "data")


def test_a_foreign_mongod_on_the_folder_is_named(folder: Path) -> None:
    handle = start_mongod(folder)
    (folder / "services" / "mongod.json").unlink()
    lock = folder / "mongod" / "mongod.lock"
    lock.write_text("")  # its owner can't be found out
    with pytest.raises(ServiceError, match="another mongod uses this data folder"):
        start_mongod(folder)
    lock.write_text(f"{handle.pid}\n")
    assert start_mongod(folder).pid == handle.pid


def test_a_lock_that_is_held_is_reported(tmp_path: Path) -> None:
    with (
        processes.locked(tmp_path, "mongod", 1),
        pytest.raises(ServiceError, match="has held the lock .*mongod.lock"),
        processes.locked(tmp_path, "mongod", 0.1),
    ):
        pass
    with processes.locked(tmp_path, "users", 0, is_shared=True), processes.locked(tmp_path, "users", 0, is_shared=True):
        pass


def test_health_of_nothing() -> None:
    assert not mongod.is_healthy(f"mongodb://127.0.0.1:{processes.free_port()}/?replicaSet=wyloop", timeout=0.2)
