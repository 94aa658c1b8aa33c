import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from wyloop.models.errors import DatabaseError
from wyloop.stores import migrate as migrations
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import SCHEMA_VERSION
from wyloop.stores.migrate import LEASE, MIGRATIONS, Migration, history, migrate, schema_version
from wyloop.stores.migrations.m0002_materials_by_structure import upgrade as materials_by_structure
from wyloop.stores.registry import load_snapshot, load_weights, models
from wyloop.stores.repair import repair
from wyloop.stores.restore import restore
from wyloop.stores.settings import Settings
from wyloop.stores.stories import story

DUMPS = Path(__file__).parent / "dumps"
ROOTS = ("structures", "model_versions", "campaigns", "rounds", "candidates", "calculations")


@pytest.fixture
def old(stores_settings: Settings) -> Iterator[Store]:
    """A database as the first version left it, from its stored dump."""
    store = connect(stores_settings, is_checked=False)
    restore(store, DUMPS / "schema_1.zip")
    yield store
    store.client.drop_database(store.name)
    store.close()


def contents(store: Store, names: tuple[str, ...] = ROOTS) -> dict[str, list[dict[str, Any]]]:
    return {name: list(store.database[name].find().sort("_id")) for name in names}


def test_every_schema_since_the_first_has_a_dump_and_a_migration() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))
    for version in range(1, SCHEMA_VERSION):
        assert (DUMPS / f"schema_{version}.zip").exists()


def test_an_old_database_is_brought_to_the_present_and_loses_nothing(old: Store, stores_settings: Settings) -> None:
    before = contents(old)
    with pytest.raises(
        DatabaseError, match=f"has schema version 1; expected {SCHEMA_VERSION}; stop the workers and run"
    ):
        connect(stores_settings)
    assert {finding.kind for finding in check(old).findings} >= {"document_of_older_schema"}
    (applied,) = migrate(old)
    assert (applied.version, applied.name) == (2, "materials_by_structure")
    assert applied.counts["structures"] == 4
    assert applied.started_at <= applied.finished_at
    assert history(old) == [applied]
    left = repair(old).left
    assert left.is_clean, left.faults
    assert "index_unknown" not in left.counts
    connect(stores_settings).close()
    after = contents(old)
    for name in ROOTS:
        for was, now in zip(before[name], after[name], strict=True):
            assert now["schema_version"] == SCHEMA_VERSION
            kept = {key: value for key, value in was.items() if key != "schema_version"}
            assert {key: now.get(key) for key in kept} == kept, name
    by_id = {row["structure_id"]: row for row in after["structures"]}
    assert by_id["mp:2"]["space_group_number"] == 216
    assert by_id["mp:2"]["fingerprint"].startswith("216 ")
    assert by_id["mp:broken"].get("fingerprint") is None
    (material,) = old.database["materials"].find({"calculation_ids": {"$gt": ""}})
    (candidate,) = after["candidates"]
    assert material["candidate_id"] == candidate["candidate_id"]
    assert material["fingerprint"] == candidate["fingerprint"]
    told = story(old, candidate["candidate_id"])
    assert isinstance(told["material"], dict)
    assert told["material"]["material_id"] == material["material_id"]
    for model in models(old):
        assert load_weights(old, model.model_id)
    assert load_snapshot(old, models(old)[1].model_id) is not None


def test_what_a_source_reported_moves_out_of_the_way_of_the_gene(old: Store) -> None:
    old.database["structures"].update_one({"structure_id": "mp:1"}, {"$set": {"space_group_number": 1}})
    for _ in range(2):  # the second time nothing is left to do
        materials_by_structure(old.database)
        found = old.database["structures"].find_one({"structure_id": "mp:1"})
        assert found is not None
        assert found["reported_space_group_number"] == 1
        old.database["structures"].update_one({"structure_id": "mp:1"}, {"$set": {"space_group_number": 225}})
    assert "fingerprint_1" not in old.database["materials"].index_information()


def test_a_migrated_database_is_left_alone(database: Store) -> None:
    assert migrate(database) == []
    assert history(database) == []
    database.database["schema"].update_one({"_id": "wyloop"}, {"$set": {"version": SCHEMA_VERSION + 1}})
    with pytest.raises(DatabaseError, match="install the newer Wyloop that wrote it"):
        migrate(database)
    assert schema_version(database) == SCHEMA_VERSION + 1
    database.database["schema"].delete_many({})
    assert schema_version(database) == SCHEMA_VERSION


def test_a_migration_that_stopped_goes_on_where_it_was(old: Store) -> None:
    calls = []
    old.database["materials"].drop_index("fingerprint_1")

    def upgrade(database: Any) -> dict[str, int]:  # noqa: ANN401 - pymongo's, of raw documents
        calls.append(schema_version(old))
        if len(calls) == 2:
            raise OperationFailure("out of disk", 14031)
        return {"structures": database["structures"].update_many({"seen": None}, {"$set": {"seen": 1}}).modified_count}

    steps = (Migration(2, "first", upgrade), Migration(3, "second", upgrade))
    with pytest.raises(DatabaseError, match=r"migration 3 \(second\) stopped: out of disk.*'wyloop db migrate' again"):
        migrate(old, migrations=steps)
    assert schema_version(old) == 2
    assert old.database["schema"].find_one({"_id": LEASE}) is None
    assert [applied.version for applied in migrate(old, migrations=steps)] == [3]
    assert [(applied.version, applied.counts) for applied in history(old)] == [
        (2, {"structures": 4}),
        (3, {"structures": 0}),
    ]
    assert calls == [1, 2, 2]


def test_of_two_processes_one_migrates_and_the_other_says_so(old: Store) -> None:
    entered, leave = threading.Event(), threading.Event()
    n_runs = 0
    old.database["materials"].drop_index("fingerprint_1")

    def upgrade(_: Any) -> dict[str, int]:  # noqa: ANN401 - pymongo's
        nonlocal n_runs
        n_runs += 1
        entered.set()
        leave.wait(30)
        return {}

    steps = (Migration(2, "slow", upgrade),)
    first = threading.Thread(target=migrate, args=(old,), kwargs={"migrations": steps, "lease_seconds": 1.0})
    first.start()
    try:
        assert entered.wait(30)
        time.sleep(1.5)  # longer than the lease: it is renewed
        with pytest.raises(DatabaseError, match=r"migrates database .* right now; expected one process at a time"):
            migrate(old, migrations=steps)
    finally:
        leave.set()
        first.join()
    assert migrate(old, migrations=steps) == []
    assert (n_runs, schema_version(old)) == (1, 2)


def test_the_lease_of_a_killed_process_ends(old: Store) -> None:
    dead = {"owner": "elsewhere:1:x", "expires_at": datetime(2020, 1, 1, tzinfo=UTC)}
    old.database["schema"].insert_one({"_id": LEASE, **dead})
    assert len(migrate(old)) == len(MIGRATIONS)
    assert migrations.history(old)[0].owner != dead["owner"]
