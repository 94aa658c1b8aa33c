"""Backups: every collection as it was at one moment, in one compressed file with counts and hashes.

The file is a zip of BSON documents in the order of their `_id`, and a manifest; only pymongo is needed to read it.
"""

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bson import json_util
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure

from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import SCHEMA_VERSION, code_version, now
from wyloop.stores.failures import translated

FORMAT = "wyloop-backup"
FORMAT_VERSION = 1
SNAPSHOT_SECONDS = 6 * 3600
"""How long the server is asked to keep the past readable while a backup runs; its default is five minutes."""

_MANIFEST = "manifest.json"
_BATCH_BYTES = 4_000_000
_LEVEL = 5  # of zlib: 6 is a quarter slower for two per cent
_TOO_OLD = 239  # SnapshotTooOld
_SNAPSHOT_GONE = {_TOO_OLD, 246}  # SnapshotUnavailable: a collection younger than the moment
_RAW = CodecOptions(document_class=RawBSONDocument)
_SKIPPED = ("system.",)

Result = TypeVar("Result")
OnProgress = Callable[[int, int], None]
"""Called with the number of documents done and their total."""


@dataclass(frozen=True)
class CollectionContent:
    """What a collection held, to compare."""

    n: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is of."""

    schema_version: int
    code_version: str
    created_at: str
    database: str
    cluster_time: str
    collections: dict[str, CollectionContent]
    jobs: dict[str, CollectionContent] = field(default_factory=dict)
    """Collections of the FireWorks database, if it was included."""
    indexes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Indexes of each collection (`jobs/...` for those of FireWorks), as `createIndexes` takes them."""

    @property
    def n_documents(self) -> int:
        """Documents in all."""
        return sum(content.n for content in (*self.collections.values(), *self.jobs.values()))


@translated
def backup(store: Store, path: Path, *, jobs: str | None = None, on_progress: OnProgress | None = None) -> Manifest:
    """Write everything to one file, as it is at one moment, while others go on writing.

    Args:
        store: The database.
        path: File to write; it appears whole or not at all.
        jobs: Name of the FireWorks database on the same server, to be included as it is at the same moment.
        on_progress: Told how many documents are written.

    Raises:
        DatabaseError: The file exists, or the server could not keep the moment readable for long enough.
    """
    if path.exists():
        raise DatabaseError(f"{path} exists already; expected a new file; a backup never overwrites another")
    temporary = path.with_name(path.name + ".part")
    try:
        with _kept_past(store):
            manifest = at_one_moment(store, lambda session: _write(store, temporary, session, jobs, on_progress))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def at_one_moment(store: Store, read: Callable[[ClientSession], Result], *, n_attempts: int = 5) -> Result:
    """Call a function whose reads see the database as it was at one moment; it can be called more than once.

    Args:
        store: The database.
        read: Reads with the session that it is given.
        n_attempts: How often it is tried while collections are made or indexed at the very moment.

    Raises:
        DatabaseError: The server could not keep the moment readable for long enough.
    """
    for attempt in range(n_attempts):
        try:
            with store.client.start_session(snapshot=True) as session:
                return read(session)
        except OperationFailure as error:
            if error.code not in _SNAPSHOT_GONE:
                raise
            if error.code == _TOO_OLD or attempt == n_attempts - 1:
                raise DatabaseError(
                    "the server forgot the moment that was being read; expected it readable to the end; "
                    "raise minSnapshotHistoryWindowInSeconds on the server and run the same command again"
                ) from error
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def read_manifest(path: Path) -> Manifest:
    """Read what a backup is of, without reading its documents.

    Raises:
        DatabaseError: No backup, a damaged one, or one of a newer format or schema.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            told = json.loads(archive.read(_MANIFEST))
    except OSError as error:
        raise DatabaseError(f"can't read the backup {path}: {error.strerror or error}; expected a file") from error
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise damaged(path, f"{error}") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise damaged(path, "its manifest is of something else")
    if told["format_version"] > FORMAT_VERSION or told["schema_version"] > SCHEMA_VERSION:
        raise DatabaseError(
            f"{path} has format {told['format_version']} and schema version {told['schema_version']}; expected at most "
            f"{FORMAT_VERSION} and {SCHEMA_VERSION}; install Wyloop {told['code_version']} or newer"
        )
    for name in ("collections", "jobs"):
        told[name] = {key: CollectionContent(**content) for key, content in told[name].items()}
    return Manifest(**{key: value for key, value in told.items() if key not in ("format", "format_version")})


def damaged(path: Path, reason: str) -> DatabaseError:
    """Return the error of a backup that is not what it was."""
    return DatabaseError(f"the backup {path} is damaged ({reason}); expected it as it was written; take another copy")


def documents_of(path: Path, member: str, expected: CollectionContent) -> Iterator[list[RawBSONDocument]]:
    """Yield the documents of one collection of a backup in batches; at the end their number and hash are compared.

    Raises:
        DatabaseError: They are not what the manifest says.
    """
    hashed, n = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.bson") as stream:
            batch: list[RawBSONDocument] = []
            n_bytes = 0
            while head := stream.read(4):
                size = int.from_bytes(head, "little")
                if not 5 <= size <= 17_000_000:
                    raise damaged(path, f"{member} holds a document of {size} bytes")
                raw = head + stream.read(size - 4)
                hashed.update(raw)
                n, n_bytes = n + 1, n_bytes + size
                batch.append(RawBSONDocument(raw, codec_options=_RAW))
                if n_bytes > _BATCH_BYTES:
                    yield batch
                    batch, n_bytes = [], 0
            if batch:
                yield batch
    except (OSError, zipfile.BadZipFile, KeyError, EOFError, ValueError, zlib.error, InvalidBSON) as error:
        raise damaged(path, f"{member}: {error}") from error
    if n != expected.n or hashed.hexdigest() != expected.sha256:
        raise damaged(path, f"{member} holds {n} documents of another hash; expected {expected.n}")


def content_of(
    database: "Database[Any]",
    collection: str,
    *,
    session: ClientSession | None = None,
    write: Callable[[bytes], object] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> CollectionContent:
    """Read a collection in the order of `_id`: its count, bytes and hash.

    Args:
        database: Where it is.
        collection: Its name.
        session: A snapshot's session.
        write: Takes the bytes too.
        on_batch: Told the number of documents of each batch.
    """
    hashed, n, n_bytes = hashlib.sha256(), 0, 0
    batches = database[collection].find_raw_batches({}, sort=[("_id", 1)], hint=[("_id", 1)], session=session)
    for batch in batches:
        hashed.update(batch)
        in_batch = _count(batch)
        n, n_bytes = n + in_batch, n_bytes + len(batch)
        if write is not None:
            write(batch)
        if on_batch is not None:
            on_batch(in_batch)
    return CollectionContent(n, n_bytes, hashed.hexdigest())


def collection_names(database: "Database[Any]") -> list[str]:
    """Return the names of a database's collections, the server's own left out."""
    return sorted(name for name in database.list_collection_names() if not name.startswith(_SKIPPED))


def _write(
    store: Store, path: Path, session: ClientSession, jobs: str | None, on_progress: OnProgress | None
) -> Manifest:
    # the first read of the session fixes the moment for all that follow, in every database
    schema = store.database["schema"].find_one({"_id": "wyloop"}, session=session) or {"version": SCHEMA_VERSION}
    places = [(store.database, name, name) for name in collection_names(store.database)]
    if jobs is not None:
        work = store.client[jobs]
        places += [(work, name, f"jobs/{name}") for name in collection_names(work)]
    total = sum(database[name].estimated_document_count() for database, name, _ in places)
    contents: dict[str, CollectionContent] = {}
    indexes: dict[str, list[dict[str, Any]]] = {}
    n_done = 0

    def move(n: int) -> None:
        nonlocal n_done
        n_done += n
        if on_progress is not None:
            on_progress(n_done, max(total, n_done))

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for database, name, member in places:
            with archive.open(f"{member}.bson", "w", force_zip64=True) as stream:
                contents[member] = content_of(database, name, session=session, write=stream.write, on_batch=move)
            indexes[member] = _indexes(database, name)
        manifest = Manifest(
            schema_version=int(schema["version"]),
            code_version=code_version(),
            created_at=now().isoformat(),
            database=store.name,
            cluster_time=str(session._snapshot_time.time if session._snapshot_time else ""),
            collections={key: value for key, value in contents.items() if "/" not in key},
            jobs={key.partition("/")[2]: value for key, value in contents.items() if "/" in key},
            indexes=indexes,
        )
        told = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(manifest)
        archive.writestr(_MANIFEST, json.dumps(told, indent=1))
    return manifest


def _indexes(database: "Database[Any]", collection: str) -> list[dict[str, Any]]:
    found = [dict(index) for index in database[collection].list_indexes() if index["name"] != "_id_"]
    plain: list[dict[str, Any]] = json.loads(json_util.dumps(found, json_options=json_util.RELAXED_JSON_OPTIONS))
    return plain


@contextmanager
def _kept_past(store: Store) -> Iterator[None]:
    """Ask the server to keep the past readable for long enough; a user who may not ask gets its usual five minutes."""
    name = "minSnapshotHistoryWindowInSeconds"
    admin = store.client.admin
    before: Any = None
    try:
        before = admin.command({"getParameter": 1, name: 1})[name]
        if before < SNAPSHOT_SECONDS:
            admin.command({"setParameter": 1, name: SNAPSHOT_SECONDS})
        else:
            before = None
    except OperationFailure:
        before = None
    try:
        yield
    finally:
        if before is not None:
            admin.command({"setParameter": 1, name: before})


def _count(batch: Sequence[int]) -> int:
    n = position = 0
    while position < len(batch):
        position += int.from_bytes(bytes(batch[position : position + 4]), "little")
        n += 1
    return n
