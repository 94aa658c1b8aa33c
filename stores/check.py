"""Look over the whole database: schemas, indexes, references, derived documents; nothing is changed.

The server does the looking (`$jsonSchema`, aggregations), so that memory stays bounded whatever the size.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pymongo.client_session import ClientSession

from wyloop.stores import check_derived, check_links
from wyloop.stores.backup import at_one_moment
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import SCHEMA_VERSION, WyloopDocument
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import translated
from wyloop.stores.findings import CheckReport, Collected, Finding, finding
from wyloop.stores.indexes import expected_indexes, index_faults
from wyloop.stores.validation import explain, json_schema

DERIVED = frozenset({"encodings", "materials", "hulls", "optimade_structures", "optimade_references"})
"""Collections that builders make from others: their documents may be dropped and built again."""

OnProgress = Callable[[int, int], None]
Look = Callable[[Store, ClientSession], Iterator[Finding]]


@translated
def check(store: Store, *, on_progress: OnProgress | None = None) -> CheckReport:
    """Find violations of schemas, wrong indexes, orphans, stale derived documents and contradictions.

    Documents are read as they are at one moment, so that writers at work are no findings.

    Args:
        store: The database, opened without its checks if it may be broken.
        on_progress: Told how many of the looks are done.
    """
    started = time.perf_counter()
    looks = all_looks()

    def at(session: ClientSession) -> Collected:
        collected = Collected()
        for n_done, look in enumerate(looks, 1):
            collected.take(look(store, session))
            if on_progress is not None:
                on_progress(n_done, len(looks))
        return collected

    collected = at_one_moment(store, at)
    n_documents = sum(store.database[name_of(document)].estimated_document_count() for document in DOCUMENTS)
    seconds = time.perf_counter() - started
    return CheckReport(tuple(collected.findings), dict(collected.counts), n_documents, seconds)


def all_looks() -> list[Look]:
    """Return every look at the database, each yielding its findings."""
    schemas = [_schema_look(document) for document in DOCUMENTS]
    return [*schemas, *check_links.LOOKS, *check_derived.LOOKS, _indexes]


def name_of(document: type[WyloopDocument]) -> str:
    """Return the name of a document's collection."""
    return str(document._meta["collection"])


def identity_of(document: type[WyloopDocument], fields: Mapping[str, Any]) -> str:
    """Return what names a stored document: its first unique key, or its `_id` if that is broken too."""
    key = next(spec.keys for spec in expected_indexes() if spec.collection == name_of(document) and is_unique(spec))
    values = [fields.get(name) for name, _ in key]
    return ":".join(map(str, values)) if None not in values else str(fields.get("_id"))


def is_unique(spec: Any) -> bool:  # noqa: ANN401 - IndexSpec
    """Whether an index makes an identity."""
    return bool(spec.options.get("unique"))


def broken(document: type[WyloopDocument]) -> dict[str, Any]:
    """Return the query of the documents of a collection that break its schema."""
    return {"$nor": [{"$jsonSchema": json_schema(document)}]}


def _schema_look(document: type[WyloopDocument]) -> Look:
    def look(store: Store, session: ClientSession) -> Iterator[Finding]:
        name = name_of(document)
        schema = json_schema(document)
        kind = "derived_document_breaks_schema" if name in DERIVED else "document_breaks_schema"
        for found in store.database[name].find(broken(document), session=session):
            version = found.get("schema_version")
            if isinstance(version, int) and version < SCHEMA_VERSION:
                what = f"schema_version {version}; expected {SCHEMA_VERSION}"
                yield finding("document_of_older_schema", name, identity_of(document, found), what)
                found["schema_version"] = SCHEMA_VERSION
                if not explain(schema, found):
                    continue
            what = explain(schema, found) or "breaks the schema"
            yield finding(kind, name, identity_of(document, found), what)

    return look


def _indexes(store: Store, session: ClientSession) -> Iterator[Finding]:
    del session  # indexes have no past
    for fault in index_faults(store.database):
        name, label = fault.spec.collection, fault.spec.label
        if is_unique(fault.spec):
            yield from _duplicates(store, name, [key for key, _ in fault.spec.keys])
        if fault.present is None:
            yield finding("index_missing", name, label, f"no index {label}")
        else:
            yield finding("index_with_other_options", name, label, f"index {fault.present} has other options")
    known: dict[str, set[Any]] = {}
    for spec in expected_indexes():
        known.setdefault(spec.collection, {(("_id", 1),)}).add(spec.keys)
    present = set(store.database.list_collection_names())
    for name in sorted(known.keys() & present):
        for label, index in store.database[name].index_information().items():
            if tuple(map(tuple, index["key"])) not in known[name]:
                yield finding("index_unknown", name, label, f"index {label} is not one of the documents'")


def _duplicates(store: Store, collection: str, keys: list[str]) -> Iterator[Finding]:
    stages: list[dict[str, Any]] = [
        {"$group": {"_id": {key: f"${key}" for key in keys}, "n": {"$sum": 1}}},
        {"$match": {"n": {"$gt": 1}}},
    ]
    for row in store.database[collection].aggregate(stages, allowDiskUse=True):
        identity = ":".join(str(row["_id"].get(key)) for key in keys)
        yield finding("identity_not_unique", collection, identity, f"{row['n']} documents with this identity")
