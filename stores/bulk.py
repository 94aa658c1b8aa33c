"""Bulk writing by identity: what is new goes in by insert, at half the time of an upsert, what is there is found so."""

from collections.abc import Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

DUPLICATE_KEY = 11000  # MongoDB's code
Document = dict[str, Any]


def insert_new(
    collection: "Collection[Document]", documents: Sequence[Document] | Sequence[RawBSONDocument]
) -> list[int]:
    """Insert documents, which get an `_id` if they have none; those whose identity is there already are left out.

    Returns:
        Places of the documents that were left out, in order.

    Raises:
        BulkWriteError: A write failed for another reason than a duplicate identity.
    """
    if not documents:
        return []
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        return duplicates(error)
    return []


def duplicates(error: BulkWriteError) -> list[int]:
    """Return the places of writes that failed because their identity is there already, in order.

    Raises:
        BulkWriteError: The same, if a write failed for another reason.
    """
    details = error.details or {}
    failures = details.get("writeErrors", [])
    if details.get("writeConcernErrors") or any(one["code"] != DUPLICATE_KEY for one in failures):
        raise error
    return sorted(one["index"] for one in failures)


def insert_or_replace(collection: "Collection[Document]", documents: Sequence[Document], key: str) -> None:
    """Insert documents, and replace those whose identity, the field `key`, is there already."""
    made_ids = any("_id" not in document for document in documents)  # by the insert: another than the one there
    known = insert_new(collection, documents)
    if known:
        operations = []
        for place in known:
            document = {name: value for name, value in documents[place].items() if name != "_id" or not made_ids}
            operations.append(ReplaceOne({key: document[key]}, document, upsert=True))
        collection.bulk_write(operations, ordered=False)
