"""Crystals that other generators wrote, on their way into a round: the collection `imports`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DictField, EmbeddedDocumentField, StringField

from wyloop.stores.documents.base import CrystalFields, WyloopDocument

IMPORT_OUTCOMES = ("waiting", "candidate", "known", "duplicate")


class ImportDocument(WyloopDocument):
    """One gene that a generator proposed by file, for the next round of a campaign."""

    meta = {
        "collection": "imports",
        "indexes": [
            {"fields": ["import_id"], "unique": True},
            {"fields": ["campaign_id", "generator", "fingerprint"], "unique": True},
            {"fields": ["campaign_id", "round_id", "generator"]},
        ],
    }

    import_id = StringField(required=True)
    campaign_id = StringField(required=True)
    generator = StringField(required=True)
    fingerprint = StringField(required=True)
    crystal = EmbeddedDocumentField(CrystalFields)
    origin = DictField(default=None)  # file, row and identity there
    round_id = StringField()  # the round that took it
    outcome = StringField(required=True, choices=IMPORT_OUTCOMES)
