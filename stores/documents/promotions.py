"""Which model is in use: the collection `promotions`, one document a change, never overwritten."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DateTimeField, IntField, StringField

from wyloop.stores.documents.base import WyloopDocument

PROMOTION_ACTIONS = ("promote", "roll back")


class PromotionDocument(WyloopDocument):
    """A model put to use, or the one before it put back."""

    meta = {
        "collection": "promotions",
        "indexes": [{"fields": ["number"], "unique": True}],
    }

    number = IntField(unit="1", required=True, min_value=1)
    action = StringField(required=True, choices=PROMOTION_ACTIONS)
    model_id = StringField()  # in use from here on; none after the first promotion was rolled back
    reason = StringField()
    promoted_at = DateTimeField(required=True)
