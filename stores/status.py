"""How much is in the database: what `status`, an empty-database check and the record of a step need."""

from collections.abc import Iterable

from wyloop.stores.connection import Store
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import translated


@translated
def counts(store: Store) -> dict[str, int]:
    """Return the number of documents of each collection."""
    names = [document._meta["collection"] for document in DOCUMENTS]
    return {name: store.database[name].estimated_document_count() for name in names}


@translated
def exact_counts(store: Store, names: Iterable[str]) -> dict[str, int]:
    """Return the number of documents of some collections, counted in an index.

    `counts` costs nothing, but it asks for what MongoDB keeps beside the documents, which an unclean shutdown leaves
    wrong for good: what is recorded must be counted.
    """
    return {name: store.database[name].count_documents({}, hint="_id_") for name in names}
