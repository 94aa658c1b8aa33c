"""Bring a backup back: verified before the first write and after the last one, never over what is there."""

from pathlib import Path
from typing import Any

from bson import json_util
from pymongo.collection import Collection
from pymongo.database import Database

from wyloop.models.errors import DatabaseError
from wyloop.stores.backup import (
    CollectionContent,
    Manifest,
    OnProgress,
    collection_names,
    content_of,
    documents_of,
    read_manifest,
)
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

SCHEMA = "schema"
RESTORING = "wyloop_restoring"
"""Collection that marks a FireWorks database of which only a part is written."""


@translated
def restore(store: Store, path: Path, *, jobs: str | None = None, on_progress: OnProgress | None = None) -> Manifest:
    """Write a backup into an empty database; one that was interrupted here before begins again.

    Args:
        store: The database, opened without its checks.
        path: The backup.
        jobs: Name for the FireWorks database, which must be empty too; none leaves the jobs of the backup out.
        on_progress: Told how many documents are read, written and verified, of three times their number.

    Raises:
        DatabaseError: A damaged backup, a newer one, or a database that is not empty; or what was written differs.
    """
    manifest = read_manifest(path)
    move = _Progress(manifest, with_jobs=jobs is not None, on_progress=on_progress)
    members = [(name, name, content, store.database) for name, content in manifest.collections.items()]
    if jobs is not None:
        work = store.client[jobs]
        members += [(f"jobs/{name}", name, content, work) for name, content in manifest.jobs.items()]
    for member, _, content, _ in members:  # all of it is sound before anything is written
        for batch in documents_of(path, member, content):
            move(len(batch))
    _make_room(store.database)
    if jobs is not None:
        _make_room_for_jobs(store.client[jobs])
    mark = {"version": manifest.schema_version, "is_restoring": True}
    store.database[SCHEMA].replace_one({"_id": "wyloop"}, mark, upsert=True)
    for member, name, content, database in members:
        if member != SCHEMA:
            _write(path, member, database[name], content, manifest, move)
    for member, name, content, database in members:
        if member != SCHEMA:
            _verify(database, name, content, move)
    if jobs is not None:
        store.client[jobs].drop_collection(RESTORING)
    _finish(store, path, manifest)
    return manifest


class _Progress:
    """Counts documents through the three passes."""

    def __init__(self, manifest: Manifest, *, with_jobs: bool, on_progress: OnProgress | None) -> None:
        places = [manifest.collections, manifest.jobs] if with_jobs else [manifest.collections]
        self.total = 3 * sum(content.n for place in places for content in place.values())
        self.n_done = 0
        self.on_progress = on_progress

    def __call__(self, n: int) -> None:
        """Count n more."""
        self.n_done += n
        if self.on_progress is not None:
            self.on_progress(min(self.n_done, self.total), self.total)


def _make_room(database: "Database[Any]") -> None:
    schema = database[SCHEMA].find_one({"_id": "wyloop"}) or {}
    names = [name for name in collection_names(database) if name != SCHEMA]
    if not schema.get("is_restoring"):
        for name in names:
            if database[name].find_one({}, {"_id": 1}) is not None:
                raise DatabaseError(
                    f"database {database.name!r} is not empty ({name} holds documents); expected an empty one; "
                    "restore into a new one: --into NAME"
                )
    for name in (*names, SCHEMA):  # empty ones, with indexes of today; or a part of a backup
        database.drop_collection(name)


def _make_room_for_jobs(database: "Database[Any]") -> None:
    is_marked = database[RESTORING].find_one() is not None
    for name in () if is_marked else ("fireworks", "workflows", "launches"):
        if database[name].find_one({}, {"_id": 1}) is not None:
            raise DatabaseError(
                f"the FireWorks database {database.name!r} is not empty; expected an empty one; "
                "restore into a new one (--into NAME), or without the jobs (--without-jobs)"
            )
    for name in collection_names(database):
        database.drop_collection(name)
    database[RESTORING].insert_one({})


def _write(
    path: Path,
    member: str,
    collection: "Collection[Any]",
    content: CollectionContent,
    manifest: Manifest,
    move: _Progress,  # noqa: ANN401 - of raw documents
) -> None:
    for batch in documents_of(path, member, content):
        collection.insert_many(batch, ordered=False)
        move(len(batch))
    indexes = json_util.loads(json_util.dumps(manifest.indexes.get(member, [])))
    if indexes:
        collection.database.command({"createIndexes": collection.name, "indexes": indexes})


def _verify(database: "Database[Any]", name: str, content: CollectionContent, move: _Progress) -> None:
    found = content_of(database, name, on_batch=move)
    if found != content:
        raise DatabaseError(
            f"{database.name}.{name} holds {found.n} documents of hash {found.sha256[:12]} after restoring; expected "
            f"{content.n} of {content.sha256[:12]}; see that nobody writes there and restore again"
        )


def _finish(store: Store, path: Path, manifest: Manifest) -> None:
    """Take the mark away: from here on the database may be opened."""
    own: dict[str, Any] = {"_id": "wyloop", "version": manifest.schema_version}
    for batch in documents_of(path, SCHEMA, manifest.collections[SCHEMA]) if SCHEMA in manifest.collections else ():
        for document in batch:
            if document["_id"] == "wyloop":
                own = dict(document)
            elif "expires_at" not in document:  # a lease is of its moment
                store.database[SCHEMA].replace_one({"_id": document["_id"]}, dict(document), upsert=True)
    store.database[SCHEMA].replace_one({"_id": "wyloop"}, own)
