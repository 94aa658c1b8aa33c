"""Convex hulls of chemical systems: the collection `hulls`, built from materials."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DateTimeField, EmbeddedDocument, EmbeddedDocumentField, IntField, ListField, StringField

from wyloop.stores.documents.base import ArrayField, FloatField, StringsField, WyloopDocument


class HullEntryFields(EmbeddedDocument):
    """One material of the hull's chemical system."""

    identity = StringField(required=True)
    formula_pretty = StringField(required=True)
    amounts = ArrayField(unit="1", required=True)  # atoms of each element of the chemical system, in its order
    formation_energy_per_atom = FloatField(unit="eV/atom", required=True)
    energy_above_hull = FloatField(unit="eV/atom", required=True)
    last_updated = DateTimeField(required=True)  # of the material's own inputs


class HullDocument(WyloopDocument):
    """The hull of one chemical system by one method."""

    meta = {
        "collection": "hulls",
        "indexes": [
            {"fields": ["hull_id"], "unique": True},
            {"fields": ["chemsys", "method"], "unique": True},
            {"fields": ["stale"]},
        ],
    }

    hull_id = StringField(required=True)
    chemsys = StringField(required=True)
    method = StringField(required=True)
    input_hash = StringField(required=True)
    n_entries = IntField(unit="1", required=True, min_value=0)
    entries = ListField(EmbeddedDocumentField(HullEntryFields))  # the materials of exactly this chemical system
    phases = StringsField()  # the materials of its subsystems that the entries above decompose into
    stale = IntField(unit="1", min_value=1)  # there while something under it has changed since: to be built again
