"""Bring a database of an older schema to the present one: numbered migrations, each once, by one process at a time."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pymongo.database import Database
from pymongo.errors import PyMongoError

from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import SCHEMA_VERSION, code_version, now
from wyloop.stores.failures import translated
from wyloop.stores.indexes import index_faults, make_indexes
from wyloop.stores.migrations.m0002_materials_by_structure import upgrade as materials_by_structure

LEASE = "migration-lease"
LEASE_SECONDS = 120.0
"""How long the lease of a process that was killed keeps others from going on."""


@dataclass(frozen=True)
class Migration:
    """One step: a plain function that can be stopped and run again."""

    version: int
    """Schema that it leads to."""
    name: str
    upgrade: Callable[["Database[dict[str, Any]]"], dict[str, int]]


@dataclass(frozen=True)
class Applied:
    """A migration as the database records it."""

    version: int
    name: str
    started_at: datetime
    finished_at: datetime
    owner: str
    code_version: str
    counts: dict[str, int]


MIGRATIONS: tuple[Migration, ...] = (Migration(2, "materials_by_structure", materials_by_structure),)


@translated
def schema_version(store: Store) -> int:
    """Return the schema version of a database; of an empty one the present."""
    found = store.database["schema"].find_one({"_id": "wyloop"})
    return SCHEMA_VERSION if found is None else int(found["version"])


@translated
def history(store: Store) -> list[Applied]:
    """Return the migrations that were run here, in order."""
    found = store.database["schema"].find({"name": {"$exists": True}}).sort("version", 1)
    return [Applied(**{key: value for key, value in row.items() if key != "_id"}) for row in found]


@translated
def migrate(
    store: Store, *, migrations: tuple[Migration, ...] = MIGRATIONS, lease_seconds: float = LEASE_SECONDS
) -> list[Applied]:
    """Run the migrations that a database lacks, each recorded when it is done; then make its indexes.

    Args:
        store: The database, opened without its checks; no worker of an older version may run on it.
        migrations: All that are known, in order.
        lease_seconds: After how long without a sign of life another process may go on.

    Returns:
        Those that were run now.

    Raises:
        DatabaseError: A newer schema, another process that migrates right now, or a migration that failed.
    """
    newest = max([migration.version for migration in migrations], default=SCHEMA_VERSION)
    version = schema_version(store)
    if version > newest:
        raise DatabaseError(
            f"database {store.name!r} has schema version {version}; expected at most {newest}; "
            "install the newer Wyloop that wrote it"
        )
    applied: list[Applied] = []
    with _lease(store, lease_seconds) as owner:
        for migration in migrations:
            if migration.version > schema_version(store):  # read again: another process may have done it
                applied.append(_apply(store, migration, owner))
        make_indexes(store.database, index_faults(store.database))
    return applied


def _apply(store: Store, migration: Migration, owner: str) -> Applied:
    started_at = now()
    try:
        counts = migration.upgrade(store.database)
    except PyMongoError as error:
        raise DatabaseError(
            f"migration {migration.version} ({migration.name}) stopped: {str(error).splitlines()[0][:300]}; expected "
            "it to end; see to that and run 'wyloop db migrate' again, it goes on"
        ) from error
    done = Applied(migration.version, migration.name, started_at, now(), owner, code_version(), counts)
    record = {"_id": f"migration-{migration.version}", **asdict(done)}
    store.database["schema"].replace_one({"_id": record["_id"]}, record, upsert=True)
    mark = {"$set": {"version": migration.version}}
    store.database["schema"].update_one({"_id": "wyloop", "version": {"$lt": migration.version}}, mark)
    return done


@contextmanager
def _lease(store: Store, seconds: float) -> Iterator[str]:
    """Be the one who migrates; a thread renews the lease until the block ends."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    _take(store, owner, seconds)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(seconds / 3):
            store.database["schema"].update_one({"_id": LEASE, "owner": owner}, _until(owner, seconds))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        ended.set()
        thread.join()
        store.database["schema"].delete_one({"_id": LEASE, "owner": owner})


def _take(store: Store, owner: str, seconds: float) -> None:
    schema = store.database["schema"]
    # an upsert can't compare with the server's clock: make the lease first, long expired, then take it
    free = {"owner": "", "expires_at": datetime(1970, 1, 1, tzinfo=UTC)}
    schema.update_one({"_id": LEASE}, {"$setOnInsert": free}, upsert=True)
    is_free = {"_id": LEASE, "$expr": {"$lte": ["$expires_at", "$$NOW"]}}
    if schema.update_one(is_free, _until(owner, seconds)).matched_count == 0:
        held = schema.find_one({"_id": LEASE}) or {}
        raise DatabaseError(
            f"{held.get('owner', 'another process')} migrates database {store.name!r} right now; expected one process "
            f"at a time; wait until it is done (a killed one is given up after {seconds:g} s) and run this again"
        )


def _until(owner: str, seconds: float) -> list[dict[str, Any]]:
    """Return the update that holds the lease by the server's clock."""
    return [{"$set": {"owner": {"$literal": owner}, "expires_at": {"$add": ["$$NOW", int(seconds * 1000)]}}}]
