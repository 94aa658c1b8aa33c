"""Genes of the structures: the collection `encodings`, built from `structures`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import IntField, StringField

from wyloop.stores.documents.base import FloatField, WyloopDocument


class EncodingDocument(WyloopDocument):
    """The gene of one structure, or why it has none."""

    meta = {
        "collection": "encodings",
        "indexes": [
            {"fields": ["structure_id"], "unique": True},
            {"fields": ["fingerprint"]},
        ],
    }

    structure_id = StringField(required=True)
    input_hash = StringField(required=True)
    symprec = FloatField(unit="Å", required=True, min_value=0)
    fingerprint = StringField()
    space_group_number = IntField(unit="1", min_value=1, max_value=230)
    wyckoff_sequence = StringField()
    protostructure = StringField()
    refused = StringField()
