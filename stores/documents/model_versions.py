"""Trained models: the collection `model_versions`; weights and snapshot ids are in GridFS."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DateTimeField, DictField, IntField, ObjectIdField, StringField

from wyloop.stores.documents.base import WyloopDocument


class ModelVersionDocument(WyloopDocument):
    """One checkpoint, what it was trained on and what it reached."""

    meta = {
        "collection": "model_versions",
        "indexes": [
            {"fields": ["model_id"], "unique": True},
            {"fields": ["campaign_id", "round_number"]},
            {"fields": ["parent_id"]},
        ],
    }

    model_id = StringField(required=True)
    parent_id = StringField()
    card = DictField()
    weights_hash = StringField(required=True)
    n_bytes = IntField(unit="1", required=True, min_value=1)
    weights_file = ObjectIdField()
    weights_dropped_at = DateTimeField()  # card and snapshot stay: the same model can be trained again
    snapshot_file = ObjectIdField()
    snapshot_hash = StringField()
    n_rows = IntField(unit="1", min_value=0)
    campaign_id = StringField()
    round_number = IntField(unit="1", min_value=0)
