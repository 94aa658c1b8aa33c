import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pymongo.errors import OperationFailure
from safetensors.numpy import save

from wyloop.models.errors import DatabaseError
from wyloop.stores import backup as backups
from wyloop.stores.backup import CollectionContent, at_one_moment, backup, content_of, documents_of, read_manifest
from wyloop.stores.campaigns import create_campaign
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import SCHEMA_VERSION
from wyloop.stores.registry import save_model
from wyloop.stores.restore import RESTORING, restore
from wyloop.stores.settings import Settings

DUMPS = Path(__file__).parent / "dumps"


@pytest.fixture
def filled(database: Store) -> Store:
    """Two campaigns and a model whose weights take more than one chunk."""
    for name in ("a", "b"):
        create_campaign(database, ("band_gap > 1",), {"n": 1}, name)
    weights = save({"weight": np.arange(100_000, dtype=np.float32)})
    save_model(database, weights, parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None)
    return database


@pytest.fixture
def other(stores_settings: Settings) -> Iterator[Store]:
    """An empty database beside the test's own."""
    settings = stores_settings.model_copy(update={"database": f"{stores_settings.database}_b"})
    store = connect(settings, is_checked=False)
    yield store
    for name in (store.name, f"{store.name}_fw"):
        store.client.drop_database(name)
    store.close()


def contents(store: Store) -> dict[str, CollectionContent]:
    return {name: content_of(store.database, name) for name in backups.collection_names(store.database)}


def test_a_restored_database_holds_the_same_bytes_and_indexes(filled: Store, other: Store, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = backup(filled, tmp_path / "b.zip", on_progress=lambda done, total: seen.append((done, total)))
    assert manifest == read_manifest(tmp_path / "b.zip")
    assert manifest.collections["campaigns"].n == 2
    assert manifest.collections["fs.chunks"].n == 2
    assert seen[-1] == (manifest.n_documents, manifest.n_documents)
    assert list(tmp_path.iterdir()) == [tmp_path / "b.zip"]
    restored = restore(other, tmp_path / "b.zip", on_progress=lambda done, total: seen.append((done, total)))
    assert restored == manifest
    assert seen[-1][0] <= seen[-1][1] == 3 * manifest.n_documents
    assert contents(other) == contents(filled)
    for name in manifest.collections:
        assert other.database[name].index_information() == filled.database[name].index_information(), name
    again = connect(Settings(uri=Settings(uri=filled.uri).uri, database=other.name))  # checked this time
    again.close()


def test_a_backup_is_one_moment_while_others_write(filled: Store, other: Store, tmp_path: Path) -> None:
    """Each write is a pair in two collections, in one transaction: a backup never holds one half."""
    left, right = filled.database["left"], filled.database["right"]
    left.insert_one({"n": -1})
    right.insert_one({"n": -1})
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            with filled.client.start_session() as session, session.start_transaction():
                for collection in (left, right):
                    collection.insert_many(
                        [{"n": written, "i": i, "text": "x" * 500} for i in range(20)], session=session
                    )
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while written < 20:
            stop.wait(0.01)
        before = written
        manifest = backup(filled, tmp_path / "b.zip")
        after = written
    finally:
        stop.set()
        writer.join()
    assert manifest.collections["left"].n == manifest.collections["right"].n >= 1 + 20 * before
    assert after > before, "nothing was written meanwhile"
    restore(other, tmp_path / "b.zip")
    numbers = [sorted(row["n"] for row in other.database[name].find({}, {"n": 1})) for name in ("left", "right")]
    assert numbers[0] == numbers[1]


def test_jobs_are_of_the_same_moment_and_can_be_left_out(filled: Store, other: Store, tmp_path: Path) -> None:
    jobs = filled.client[f"{filled.name}_fw"]
    jobs["fireworks"].insert_one({"fw_id": 1, "spec": {"calculation_id": "calc-1"}})
    jobs["fireworks"].create_index("fw_id", unique=True)
    target = f"{other.name}_fw"
    try:
        manifest = backup(filled, tmp_path / "b.zip", jobs=jobs.name)
        assert manifest.jobs["fireworks"].n == 1
        other.client[target]["fw_id_assigner"].insert_one({"_id": "ids", "next_fw_id": 1})  # as opening it leaves it
        restore(other, tmp_path / "b.zip", jobs=target)
        assert other.client[target]["fireworks"].index_information()["fw_id_1"]["unique"]
        assert other.client[target].list_collection_names() == ["fireworks"]
        other.client.drop_database(other.name)
        with pytest.raises(DatabaseError, match="FireWorks database .* is not empty"):
            restore(other, tmp_path / "b.zip", jobs=target)
        other.client.drop_database(other.name)
        other.client.drop_database(target)
        restore(other, tmp_path / "b.zip")
        assert other.client[target].list_collection_names() == []
    finally:
        filled.client.drop_database(jobs.name)


def test_nothing_is_overwritten(filled: Store, other: Store, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    backup(filled, path)
    with pytest.raises(DatabaseError, match="exists already; expected a new file"):
        backup(filled, path)
    with pytest.raises(DatabaseError, match=r"is not empty \(campaigns holds documents\).*--into NAME"):
        restore(filled, path)
    before = contents(filled)
    restore(other, path)
    with pytest.raises(DatabaseError, match="is not empty"):
        restore(other, path)
    assert contents(filled) == before


def test_an_interrupted_restore_begins_again_and_is_not_opened_before(
    filled: Store, other: Store, tmp_path: Path, stores_settings: Settings
) -> None:
    path = tmp_path / "b.zip"
    backup(filled, path)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(other, path, jobs=f"{other.name}_fw", on_progress=stop)
    with pytest.raises(DatabaseError, match="its restoring was interrupted"):
        connect(stores_settings.model_copy(update={"database": other.name}))
    restore(other, path, jobs=f"{other.name}_fw")
    assert contents(other) == contents(filled)
    assert RESTORING not in other.client[f"{other.name}_fw"].list_collection_names()


def test_damage_is_found_before_anything_is_written(filled: Store, other: Store, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    backup(filled, path)
    data = path.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    flipped = bytearray(data)
    flipped[300] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(flipped)
    rewrite(path, tmp_path / "swapped.zip", lambda name, raw: raw[::-1] if name == "campaigns.bson" else raw)
    rewrite(path, tmp_path / "shorter.zip", lambda name, raw: raw[:5] if name == "campaigns.bson" else raw)
    rewrite(path, tmp_path / "lacking.zip", lambda name, raw: None if name == "campaigns.bson" else raw)
    rewrite(path, tmp_path / "emptied.zip", lambda name, raw: b"" if name == "campaigns.bson" else raw)
    rewrite(path, tmp_path / "foreign.zip", lambda name, raw: b"{}" if name == "manifest.json" else raw)
    for name in ("cut", "flipped", "swapped", "shorter", "lacking", "emptied", "foreign"):
        with pytest.raises(DatabaseError, match="is damaged"):
            restore(other, tmp_path / f"{name}.zip")
        assert backups.collection_names(other.database) == [], name
    with pytest.raises(DatabaseError, match="can't read the backup"):
        read_manifest(tmp_path / "none.zip")


def rewrite(path: Path, out: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as changed:
        for name in archive.namelist():
            raw = change(name, archive.read(name))
            if raw is not None:
                changed.writestr(name, raw)


def test_a_newer_backup_is_refused(filled: Store, other: Store, tmp_path: Path) -> None:
    backup(filled, tmp_path / "b.zip")
    text = f'"schema_version": {SCHEMA_VERSION}'.encode()
    newer = f'"schema_version": {SCHEMA_VERSION + 1}'.encode()
    rewrite(tmp_path / "b.zip", tmp_path / "newer.zip", lambda _, raw: raw.replace(text, newer))
    with pytest.raises(DatabaseError, match=f"schema version {SCHEMA_VERSION + 1}; expected at most"):
        restore(other, tmp_path / "newer.zip")


def test_what_somebody_writes_into_a_restoring_database_is_noticed(filled: Store, other: Store, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    n = backup(filled, path).n_documents

    def intrude(done: int, total: int) -> None:
        if done == 2 * n - 1:
            other.database["campaigns"].update_one({}, {"$set": {"state": "stopped"}})

    with pytest.raises(DatabaseError, match="after restoring; expected"):
        restore(other, path, on_progress=intrude)


def test_a_stored_dump_reads_back_as_documents() -> None:
    manifest = read_manifest(DUMPS / "schema_1.zip")
    assert manifest.schema_version == 1
    (batch,) = documents_of(DUMPS / "schema_1.zip", "structures", manifest.collections["structures"])
    assert {row["structure_id"] for row in batch} == {"mp:1", "mp:2", "oqmd:3", "mp:broken"}


def test_a_moment_that_the_server_forgot_is_said(filled: Store) -> None:
    calls = []

    def read(_: object) -> None:
        calls.append(1)
        raise OperationFailure("Unable to read from a snapshot", 246)

    with pytest.raises(DatabaseError, match="raise minSnapshotHistoryWindowInSeconds"):
        at_one_moment(filled, read, n_attempts=2)
    assert len(calls) == 2
    with pytest.raises(OperationFailure, match="other"):
        at_one_moment(filled, lambda _: (_ for _ in ()).throw(OperationFailure("other", 9)))


def test_no_part_of_a_file_stays_when_a_backup_fails(filled: Store, tmp_path: Path) -> None:
    def fail(_done: int, _total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        backup(filled, tmp_path / "b.zip", on_progress=fail)
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
