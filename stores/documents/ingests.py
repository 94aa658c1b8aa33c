"""How far an ingest over the network came: the collection `ingests`, one small document an address and filter."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import BooleanField, DateTimeField, IntField, StringField

from wyloop.stores.documents.base import WyloopDocument


class IngestDocument(WyloopDocument):
    """An ingest that can be killed and goes on: the next page, and the rows of the pages before it."""

    meta = {
        "collection": "ingests",
        "indexes": [{"fields": ["ingest_id"], "unique": True}],
    }

    ingest_id = StringField(required=True)
    source = StringField(required=True)
    url = StringField(required=True)
    filter = StringField()
    next_link = StringField()
    is_finished = BooleanField(required=True)
    n_rows = IntField(unit="1", required=True, min_value=0)
    n_refused = IntField(unit="1", required=True, min_value=0)
    started_at = DateTimeField(required=True)
