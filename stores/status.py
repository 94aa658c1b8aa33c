"""How much is in the database: what `status` and an empty-database check need."""

from wyloop.stores.connection import Store
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.failures import translated


@translated
def counts(store: Store) -> dict[str, int]:
    """Return the number of documents of each collection."""
    names = [document._meta["collection"] for document in DOCUMENTS]
    return {name: store.database[name].estimated_document_count() for name in names}
