import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mongoengine
import pytest
from pydantic import SecretStr, ValidationError
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, BulkWriteError, ConfigurationError, DuplicateKeyError, OperationFailure

from tests.conftest import MongoServer
from wyloop.models.errors import DatabaseError
from wyloop.platform.mongod import find_mongod
from wyloop.stores.campaigns import create_campaign, set_campaign_state
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import SCHEMA_VERSION
from wyloop.stores.documents.campaigns import CampaignDocument
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import describe
from wyloop.stores.settings import Settings


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_no_server_is_one_line_without_the_password_in_time() -> None:
    port = free_port()
    uri = f"mongodb://ada:s3cret@127.0.0.1:{port}/?replicaSet=rs0"
    started = time.monotonic()
    with pytest.raises(DatabaseError) as caught:
        connect(Settings(uri=SecretStr(uri), timeout_ms=1000))
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert f"no MongoDB answers at 127.0.0.1:{port} within 1 s; expected a running replica set" in message
    assert "s3cret" not in message
    assert "\n" not in message


def test_a_broken_address_does_not_show_the_password() -> None:
    for uri in ("mongodb://ada:s3cret@:badport:x/", "http://ada:s3cret@host/", "mongodb://ada:s3:cret@host:99999/"):
        with pytest.raises(DatabaseError, match="expected mongodb://host:port/") as caught:
            connect(Settings(uri=SecretStr(uri), timeout_ms=200))
        assert "s3" not in str(caught.value)


def test_no_address_says_what_to_set() -> None:
    with pytest.raises(DatabaseError, match="WYLOOP_STORES_URI"):
        connect(Settings(uri=None))


def test_settings_come_from_the_environment_and_hide_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", "mongodb://ada:s3cret@host/")
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", "other")
    settings = Settings()
    assert settings.database == "other"
    assert "s3cret" not in repr(settings)
    with pytest.raises(ValidationError):
        Settings(database="a.b")


def test_a_standalone_server_is_refused(tmp_path: Path) -> None:
    port = free_port()
    options = ["--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(tmp_path)]
    process = subprocess.Popen([str(find_mongod()), *options], stdout=subprocess.DEVNULL)
    try:
        with pytest.raises(DatabaseError, match="standalone server; expected a replica set"):
            connect(Settings(uri=SecretStr(f"mongodb://127.0.0.1:{port}/"), timeout_ms=30_000))
    finally:
        process.terminate()
        process.wait(30)


def test_a_newer_schema_is_refused(database: Store, stores_settings: Settings) -> None:
    database.database["schema"].update_one({"_id": "wyloop"}, {"$set": {"version": SCHEMA_VERSION + 1}})
    with pytest.raises(DatabaseError, match=f"schema version {SCHEMA_VERSION + 1}; expected at most {SCHEMA_VERSION}"):
        connect(stores_settings)


@pytest.mark.expects_findings
def test_identities_have_unique_indexes_and_a_foreign_index_is_found(
    database: Store, stores_settings: Settings
) -> None:
    for document in DOCUMENTS:
        name = document._meta["collection"]
        unique = [index["key"] for index in database.database[name].index_information().values() if index.get("unique")]
        assert unique, name
    structures = database.database["structures"]
    structures.drop_index("structure_id_1")
    structures.create_index("structure_id")
    with pytest.raises(DatabaseError, match="can't make the indexes of structures"):
        connect(stores_settings)
    structures.drop_index("structure_id_1")
    structures.insert_many([{"structure_id": "a", "source": "s", "source_id": str(i)} for i in range(2)])
    with pytest.raises(DatabaseError, match="can't make the indexes of structures"):
        connect(stores_settings)


def test_mongoengine_speaks_to_the_store_connected_last(database: Store, stores_settings: Settings) -> None:
    campaign = create_campaign(database, ("band_gap > 1",), {"n": 1})
    assert CampaignDocument.objects.get(campaign_id=campaign.campaign_id).target == ["band_gap > 1"]
    other = connect(stores_settings.model_copy(update={"database": stores_settings.database + "b"}))
    assert CampaignDocument.objects.count() == 0
    other.client.drop_database(other.name)
    other.close()
    assert create_campaign(database, ("band_gap > 1",), {}).campaign_id == campaign.campaign_id  # still open
    again = connect(stores_settings)
    assert CampaignDocument.objects.count() == 1
    again.close()
    assert database.alias in mongoengine.connection._connections


def test_the_store_hides_its_address(database: Store) -> None:
    assert "mongodb://" not in repr(database)
    assert database.host in repr(database)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A replica set with authentication: users owner (all), reader (reads any database), password s3cret."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    key = folder / "key"
    key.write_text("wyloopwyloop")
    key.chmod(0o600)
    options = ["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(folder)]
    options += ["--keyFile", str(key), "--wiredTigerCacheSizeGB", "0.25"]
    process = subprocess.Popen([str(find_mongod()), *options], stdout=subprocess.DEVNULL)
    try:
        with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=60_000) as client:
            members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            while not client.admin.command("hello").get("isWritablePrimary"):
                time.sleep(0.05)
            client.admin.command("createUser", "owner", pwd="s3cret", roles=["root"])
        with MongoClient("127.0.0.1", port, username="owner", password="s3cret") as client:
            client.admin.command("createUser", "reader", pwd="s3cret", roles=["readAnyDatabase"])
        yield port
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("ada:s3cret@", "refused the user (Authentication failed.); expected a user who may read and write"),
        ("reader:s3cret@", "refused the user (not authorized on guarded"),
        ("", "refused the user"),
    ],
)
def test_a_user_who_may_not_write_is_told(guarded: int, user: str, message: str) -> None:
    uri = SecretStr(f"mongodb://{user}127.0.0.1:{guarded}/?replicaSet=rs0")
    with pytest.raises(DatabaseError) as caught:
        connect(Settings(uri=uri, database="guarded"))
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_user_with_a_password_may_write(guarded: int) -> None:
    store = connect(Settings(uri=SecretStr(f"mongodb://owner:s3cret@127.0.0.1:{guarded}/?replicaSet=rs0")))
    assert create_campaign(store, ("band_gap > 1",), {}).state == "active"
    store.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationFailure("out of disk", 14031), "disk is full"),
        (BulkWriteError({"writeErrors": [{"code": 14031, "errmsg": "x"}]}), "disk is full"),
        (OperationFailure("not primary", 10107), "read-only"),
        (DuplicateKeyError("E11000 duplicate key", 11000), "exists already"),
        (ConfigurationError("bad option"), "can't use this MongoDB address"),
        (AutoReconnect("closed"), "lost MongoDB"),
        (OperationFailure("odd", 9), "refused an operation"),
    ],
)
def test_errors_of_the_server_become_one_line(error: OperationFailure, expected: str) -> None:
    assert expected in describe(error)
    assert "; expected" in describe(error)


def test_a_lost_server_is_a_database_error(database: Store) -> None:
    closed: MongoClient[dict[str, object]] = MongoClient(
        "127.0.0.1", free_port(), serverSelectionTimeoutMS=100, connectTimeoutMS=100
    )
    lost = Store(closed, closed["x"], database.gridfs, "nowhere", "x", "", "none")
    with pytest.raises(DatabaseError, match="lost MongoDB"):
        set_campaign_state(lost, "x", "active")
    closed.close()


def test_a_reader_writes_nothing(stores_settings: Settings, database: Store) -> None:
    create_campaign(database, ("band_gap > 1",), {})
    read_only = stores_settings.model_copy(update={"is_read_only": True})
    before = database.client.admin.command("serverStatus")["opcounters"]
    reader = connect(read_only)
    assert reader.is_read_only
    assert [row["name"] for row in reader.database["campaigns"].find()] == ["band_gap > 1"]
    reader.close()
    after = database.client.admin.command("serverStatus")["opcounters"]
    assert {name: after[name] - before[name] for name in ("insert", "update", "delete")} == dict.fromkeys(
        ("insert", "update", "delete"), 0
    )
    with pytest.raises(DatabaseError, match="holds no Wyloop data"):
        connect(read_only.model_copy(update={"database": "nothing_here"}))


def test_unchecked_a_database_is_opened_as_it_is(stores_settings: Settings) -> None:
    store = connect(stores_settings, is_checked=False)
    assert store.database.list_collection_names() == []
    store.database["schema"].insert_one({"_id": "wyloop", "version": 1})
    with pytest.raises(DatabaseError, match="run 'wyloop db migrate'"):
        connect(stores_settings)
    store.client.drop_database(store.name)
    store.close()


OPEN_AND_WRITE = """
import json, sys
import numpy as np
from pydantic import SecretStr
from wyloop.models.crystal import Crystal
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.campaigns import create_campaign, open_round, request_rounds
from wyloop.stores.connection import connect
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.settings import Settings

print("ready", flush=True)
sys.stdin.readline()
store = connect(Settings(uri=SecretStr(sys.argv[1]), database=sys.argv[2], timeout_ms=60_000))
half = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
sites = np.array([[0.0] * 3, [0.5] * 3])
rows = [SourceStructure("s", str(i), Crystal((5.6 + 0.001 * i) * half, ("Na", "Cl"), sites)) for i in range(60)]
written = write_structures(store, rows)
build_encodings(store)
campaign = create_campaign(store, ("band_gap > 1",), {"n": 1})
request_rounds(store, campaign.campaign_id, 1)
print(json.dumps([written.n_added, open_round(store, campaign.campaign_id).round_id]))
"""
"""What each of two processes does: open the new database, ingest the same rows, make the same campaign."""


def test_two_writers_open_the_same_new_database_at_once(mongod: MongoServer, stores_settings: Settings) -> None:
    command = [sys.executable, "-c", OPEN_AND_WRITE, mongod.uri, stores_settings.database]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(2)]  # type: ignore[call-overload]  # mixed values
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [json.loads(process.stdout.read()) for process in processes]
    store = connect(stores_settings)
    try:
        assert sum(n for n, _ in told) == 60  # each row is new to exactly one of them
        assert told[0][1] == told[1][1] != ""
        for name, n in (("structures", 60), ("encodings", 60), ("campaigns", 1), ("rounds", 1), ("schema", 1)):
            assert store.database[name].count_documents({}) == n, name
        report = check(store)
        assert report.is_clean, report.faults
    finally:
        store.client.drop_database(store.name)
        store.close()
