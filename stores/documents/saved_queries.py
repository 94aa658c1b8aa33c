"""Questions that users gave a name: the collection `saved_queries`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import IntField, StringField

from wyloop.stores.documents.base import StringsField, WyloopDocument


class SavedQueryDocument(WyloopDocument):
    """One question: its conditions in their canonical form, where to look, in which order, how many rows."""

    meta = {"collection": "saved_queries", "indexes": [{"fields": ["name"], "unique": True}]}

    name = StringField(required=True)
    conditions = StringsField()
    collection = StringField(required=True, choices=("all", "materials", "structures", "candidates"))
    sort = StringField()
    limit = IntField(unit="1", min_value=0)
