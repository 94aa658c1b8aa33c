"""Open the database: one client for pymongo and mongoengine, replica set, schema and indexes checked."""
# mypy: disable-error-code="import-untyped"
# mongoengine ships no types.

import warnings
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus
from uuid import uuid4

import mongoengine
from gridfs import GridFS
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import InvalidURI, OperationFailure, PyMongoError

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.base import ALIAS, SCHEMA_VERSION
from wyloop.stores.failures import describe
from wyloop.stores.indexes import index_faults, make_indexes
from wyloop.stores.settings import Settings

Document = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """An open database. Close it when done; the address is not shown, since it may hold a password."""

    client: "MongoClient[Document]" = field(repr=False)
    database: "Database[Document]" = field(repr=False)
    gridfs: GridFS = field(repr=False)
    host: str
    name: str
    uri: str = field(repr=False)
    alias: str = field(repr=False)
    is_read_only: bool = False

    def close(self) -> None:
        """Close the client and forget its mongoengine connection."""
        connections = mongoengine.connection._connections
        if connections.get(ALIAS) is self.client:
            mongoengine.disconnect(ALIAS)
        mongoengine.disconnect(self.alias)
        self.client.close()


def connect(settings: Settings, *, is_checked: bool = True) -> Store:
    """Open the database, check server, schema version and indexes, and make the indexes that are missing.

    With `settings.is_read_only` nothing is written and a secondary will do: a user who may only read is enough.
    The store connected last in a process is the one that mongoengine's documents speak to; everything in `stores`
    uses the store it is given.

    Args:
        settings: Where the database is.
        is_checked: Whether schema version and indexes must be right; without it nothing is written either, for what
            looks at a database or mends it as it is.

    Raises:
        DatabaseError: No address, no server, a wrong password, a read-only server, no replica set, another schema.
    """
    if settings.uri is None:
        raise DatabaseError("no MongoDB address; expected WYLOOP_STORES_URI=mongodb://host:port/ or 'wyloop up' before")
    uri = settings.uri.get_secret_value()
    client = _client(uri, settings)
    host = ",".join(f"{name}:{port}" for name, port in sorted(client.nodes)) or _host(uri)
    try:
        _check_server(client, host, settings)
        database = client[settings.database]
        if is_checked:
            _check_schema(database, is_read_only=settings.is_read_only)
            _check_indexes(database, is_read_only=settings.is_read_only)
    except DatabaseError:
        client.close()
        raise
    except PyMongoError as error:
        client.close()
        raise DatabaseError(f"{host}: {describe(error)}") from error
    alias = f"{ALIAS}-{uuid4().hex}"
    _register(client, settings.database, alias)
    return Store(
        client, database, GridFS(database), host, settings.database, uri, alias, is_read_only=settings.is_read_only
    )


def _client(uri: str, settings: Settings) -> "MongoClient[Document]":
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # pymongo leaves out an option that it can't read, such as tls
            return MongoClient(
                uri,
                serverSelectionTimeoutMS=settings.timeout_ms,
                connectTimeoutMS=settings.timeout_ms,
                tz_aware=True,
                uuidRepresentation="standard",
                retryWrites=True,
                w="majority",
                appname="wyloop",
                readPreference="primaryPreferred" if settings.is_read_only else "primary",
            )
    except (InvalidURI, ValueError, UserWarning, PyMongoError) as error:
        text = without_secrets(str(error).splitlines()[0], uri)
    # outside of the handler: the foreign error may quote a part of the password, and a traceback shows its cause
    raise DatabaseError(
        f"can't read the MongoDB address ({text}); expected mongodb://host:port/; correct WYLOOP_STORES_URI"
    )


def without_secrets(text: str, uri: str) -> str:
    """Return a text with the address, and whatever could be its password, masked."""
    text = text.replace(uri, "the address")
    authority = uri.split("://", 1)[-1]
    before_host = authority.rpartition("@")[0] or authority.split("/", 1)[0]
    parts = {before_host, before_host.partition(":")[2], *before_host.split(":")[1:]}
    parts |= {unquote_plus(part) for part in parts}
    for part in sorted((part for part in parts if part), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _host(uri: str) -> str:
    return uri.split("://", 1)[-1].rsplit("@", 1)[-1].split("/", 1)[0]


def _check_server(client: "MongoClient[Document]", host: str, settings: Settings) -> None:
    timeout_ms = settings.timeout_ms
    try:
        hello = client.admin.command("hello", read_preference=client.read_preference)
    except OperationFailure as error:
        raise DatabaseError(f"{host}: {describe(error)}") from error
    except PyMongoError as error:
        if client.secondaries:
            raise DatabaseError(
                f"the MongoDB at {host} is read-only: its replica set had no primary for {timeout_ms / 1000:g} s; "
                "expected a writable primary; wait for an election, or look at rs.status()"
            ) from error
        raise DatabaseError(
            f"no MongoDB answers at {host} within {timeout_ms / 1000:g} s; expected a running replica set; "
            "start it, or correct WYLOOP_STORES_URI"
        ) from error
    is_router = hello.get("msg") == "isdbgrid"
    if "setName" not in hello and not is_router:
        raise DatabaseError(
            f"the MongoDB at {host} is a standalone server; expected a replica set (one node is enough); "
            "start it with --replSet and run rs.initiate()"
        )
    if not settings.is_read_only and not is_router and not hello.get("isWritablePrimary"):
        raise DatabaseError(f"the MongoDB at {host} is read-only; expected a writable primary; connect to the primary")


def _check_schema(database: "Database[Document]", *, is_read_only: bool) -> None:
    found = database["schema"].find_one({"_id": "wyloop"})
    if found is None:
        if is_read_only:
            raise DatabaseError(
                f"database {database.name!r} holds no Wyloop data; expected one that was opened for writing before; "
                "run any 'wyloop db' command that writes, or correct WYLOOP_STORES_DATABASE"
            )
        database["schema"].update_one({"_id": "wyloop"}, {"$setOnInsert": {"version": SCHEMA_VERSION}}, upsert=True)
        found = database["schema"].find_one({"_id": "wyloop"}) or {"version": SCHEMA_VERSION}
    if found.get("is_restoring"):
        raise DatabaseError(
            f"database {database.name!r} holds a part of a backup, its restoring was interrupted; expected it whole; "
            "run the same 'wyloop db restore' again"
        )
    if found["version"] > SCHEMA_VERSION:
        raise DatabaseError(
            f"database {database.name!r} has schema version {found['version']}; expected at most {SCHEMA_VERSION}; "
            "install the newer Wyloop that wrote it"
        )
    if found["version"] < SCHEMA_VERSION:
        raise DatabaseError(
            f"database {database.name!r} has schema version {found['version']}; expected {SCHEMA_VERSION}; "
            "stop the workers and run 'wyloop db migrate', which makes a backup first"
        )


def _check_indexes(database: "Database[Document]", *, is_read_only: bool) -> None:
    faults = index_faults(database)
    if not is_read_only:
        make_indexes(database, faults)
    elif faults:
        fault = faults[0]
        raise DatabaseError(
            f"collection {fault.spec.collection} has no proper index {fault.spec.label}, and this connection only "
            "reads; expected all indexes; run 'wyloop db check --repair' as the owner"
        )


def _register(client: "MongoClient[Document]", database: str, alias: str) -> None:
    """Make the client mongoengine's, under a name of its own (which keeps it open) and as the documents' connection."""
    mongoengine.disconnect(ALIAS)
    for name in (alias, ALIAS):
        mongoengine.register_connection(
            name,
            db=database,
            uuidRepresentation="standard",
            mongo_client_class=lambda **_: client,
            appname=f"{name}-{alias}",  # distinct settings, else mongoengine hands out another alias's client
        )
        mongoengine.get_connection(name)
