"""Open the database: one client for pymongo and mongoengine, a replica set checked, indexes made and verified."""
# mypy: disable-error-code="import-untyped"
# mongoengine ships no types.

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import mongoengine
from gridfs import GridFS
from pymongo import IndexModel, MongoClient
from pymongo.database import Database
from pymongo.errors import InvalidURI, OperationFailure, PyMongoError

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.base import ALIAS, SCHEMA_VERSION, WyloopDocument
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import describe
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

    def close(self) -> None:
        """Close the client and forget its mongoengine connection."""
        connections = mongoengine.connection._connections
        if connections.get(ALIAS) is self.client:
            mongoengine.disconnect(ALIAS)
        mongoengine.disconnect(self.alias)
        self.client.close()


def connect(settings: Settings) -> Store:
    """Open the database, check that it can be written, and make its indexes.

    The store connected last in a process is the one that mongoengine's documents speak to; everything in `stores`
    uses the store it is given.

    Raises:
        DatabaseError: No address, no server, a wrong password, a read-only server, no replica set, a newer schema.
    """
    if settings.uri is None:
        raise DatabaseError("no MongoDB address; expected WYLOOP_STORES_URI=mongodb://host:port/ or 'wyloop up' before")
    uri = settings.uri.get_secret_value()
    try:
        client = _client(uri, settings.timeout_ms)
    except (InvalidURI, ValueError, PyMongoError) as error:
        text = str(error).splitlines()[0].replace(uri, "the address")
        raise DatabaseError(
            f"can't read the MongoDB address ({text}); expected mongodb://host:port/; correct WYLOOP_STORES_URI"
        ) from error
    host = ",".join(f"{name}:{port}" for name, port in sorted(client.nodes)) or _host(uri)
    try:
        _check_server(client, host, settings.timeout_ms)
        database = client[settings.database]
        _check_schema(database)
        for document in DOCUMENTS:
            _make_indexes(database, document)
    except DatabaseError:
        client.close()
        raise
    except PyMongoError as error:
        client.close()
        raise DatabaseError(f"{host}: {describe(error)}") from error
    alias = f"{ALIAS}-{uuid4().hex}"
    _register(client, settings.database, alias)
    return Store(client, database, GridFS(database), host, settings.database, uri, alias)


def _client(uri: str, timeout_ms: int) -> "MongoClient[Document]":
    return MongoClient(
        uri,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        tz_aware=True,
        uuidRepresentation="standard",
        retryWrites=True,
        w="majority",
        appname="wyloop",
    )


def _host(uri: str) -> str:
    return uri.split("://", 1)[-1].rsplit("@", 1)[-1].split("/", 1)[0]


def _check_server(client: "MongoClient[Document]", host: str, timeout_ms: int) -> None:
    try:
        hello = client.admin.command("hello")
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
    if not is_router and not hello.get("isWritablePrimary"):
        raise DatabaseError(f"the MongoDB at {host} is read-only; expected a writable primary; connect to the primary")


def _check_schema(database: "Database[Document]") -> None:
    found = database["schema"].find_one({"_id": "wyloop"})
    if found is None:
        database["schema"].update_one({"_id": "wyloop"}, {"$setOnInsert": {"version": SCHEMA_VERSION}}, upsert=True)
        found = database["schema"].find_one({"_id": "wyloop"}) or {"version": SCHEMA_VERSION}
    if found["version"] > SCHEMA_VERSION:
        raise DatabaseError(
            f"database {database.name!r} has schema version {found['version']}; expected at most {SCHEMA_VERSION}; "
            "install the newer Wyloop that wrote it"
        )


def _make_indexes(database: "Database[Document]", document: type[WyloopDocument]) -> None:
    collection = database[document._meta["collection"]]
    specs = document._meta["index_specs"]
    try:
        collection.create_indexes([IndexModel(spec["fields"], unique=spec.get("unique", False)) for spec in specs])
    except OperationFailure as error:
        if error.code in (85, 86, 11000):  # other options, other keys, duplicates
            raise DatabaseError(
                f"can't make the indexes of {collection.name} ({str(error).split(', full error')[0]}); expected unique "
                "identities; remove the duplicates or the foreign index"
            ) from error
        raise
    present = {tuple(index["key"]): bool(index.get("unique")) for index in collection.index_information().values()}
    for spec in specs:
        if present.get(tuple(spec["fields"])) is not bool(spec.get("unique", False)):
            raise DatabaseError(
                f"collection {collection.name} has no proper index on {spec['fields']}; expected "
                f"unique={spec.get('unique', False)}; drop the index there and connect again"
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
