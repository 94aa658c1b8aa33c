"""Convex hulls of chemical systems: the collection `hulls`, built from structures and materials."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import EmbeddedDocument, EmbeddedDocumentListField, IntField, StringField

from wyloop.stores.documents.base import FloatField, StringsField, WyloopDocument


class HullEntryFields(EmbeddedDocument):
    """One crystal that takes part in a hull."""

    identity = StringField(required=True)
    formula_pretty = StringField(required=True)
    method = StringField(required=True)
    formation_energy_per_atom = FloatField(unit="eV/atom", required=True)
    energy_above_hull = FloatField(unit="eV/atom", required=True)


class HullDocument(WyloopDocument):
    """The hull of one chemical system; its id names the methods whose energies it holds."""

    meta = {
        "collection": "hulls",
        "indexes": [{"fields": ["hull_id"], "unique": True}, {"fields": ["chemsys"]}],
    }

    hull_id = StringField(required=True)
    chemsys = StringField(required=True)
    methods = StringsField()
    input_hash = StringField(required=True)
    n_entries = IntField(unit="1", required=True, min_value=0)
    entries = EmbeddedDocumentListField(HullEntryFields)
