"""Computed crystals: the collection `materials`, written from calculations."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import BooleanField, EmbeddedDocumentField, IntField, StringField

from wyloop.stores.documents.base import CrystalFields, FloatField, StringsField, WyloopDocument


class MaterialDocument(WyloopDocument):
    """One computed crystal, its properties with their methods, and where it came from."""

    meta = {
        "collection": "materials",
        "indexes": [
            {"fields": ["material_id"], "unique": True},
            {"fields": ["fingerprint"], "unique": True},
            {"fields": ["chemsys"]},
            {"fields": ["candidate_id"]},
            {"fields": ["campaign_id", "round_number"]},
            {"fields": ["band_gap", "formation_energy_per_atom"]},
        ],
    }

    material_id = StringField(required=True)
    fingerprint = StringField(required=True)
    formula_pretty = StringField(required=True)
    formula_anonymous = StringField(required=True)
    chemsys = StringField(required=True)
    elements = StringsField(required=True)
    nelements = IntField(unit="1", required=True, min_value=1)
    nsites = IntField(unit="1", required=True, min_value=1)
    volume_per_atom = FloatField(unit="Å^3", required=True, min_value=0)
    space_group_number = IntField(unit="1", required=True, min_value=1, max_value=230)
    crystal = EmbeddedDocumentField(CrystalFields, required=True)
    formation_energy_per_atom = FloatField(unit="eV/atom")
    energy_method = StringField()
    energy_above_hull = FloatField(unit="eV/atom")
    hull_id = StringField()
    band_gap = FloatField(unit="eV", min_value=0)
    band_gap_method = StringField()
    is_gap_direct = BooleanField()
    dft_formation_energy_per_atom = FloatField(unit="eV/atom")
    lowest_optical_frequency = FloatField(unit="THz")
    phonon_verdict = StringField()
    is_validated = BooleanField(required=True)
    meets_target = BooleanField(required=True)
    candidate_id = StringField()
    campaign_id = StringField()
    round_number = IntField(unit="1", min_value=0)
    model_id = StringField()
    calculation_ids = StringsField()
