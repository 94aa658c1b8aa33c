"""Crystals told apart by their structure: the collection `materials`, built from calculations and structures."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import (
    BooleanField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    ListField,
    StringField,
)

from wyloop.stores.documents.base import ArrayField, CrystalFields, FloatField, StringsField, WyloopDocument
from wyloop.stores.documents.calculations import TransportFields


class MethodEnergyFields(EmbeddedDocument):
    """The energy of a material by one method: our own, or the lowest of its sources; and what its hull makes of it."""

    method = StringField(required=True)
    formation_energy_per_atom = FloatField(unit="eV/atom", required=True)
    source_id = StringField(required=True)  # the structure or calculation that it is from
    energy_above_hull = FloatField(unit="eV/atom", min_value=0)
    hull_id = StringField()


class PhysicsFields(EmbeddedDocument):
    """What our DFT says beyond gap and energies, with the protocols that say it."""

    dft_protocol = StringField()
    static_protocol = StringField()
    phonon_protocol = StringField()
    direct_band_gap = FloatField(unit="eV", min_value=0)
    is_metal = BooleanField()
    max_force = FloatField(unit="eV/Å")
    max_stress = FloatField(unit="GPa")
    magnetic_moment = FloatField(unit="µB")
    phonon_tolerance = FloatField(unit="THz")
    phonon_frequencies = ArrayField(unit="THz")
    bands_calculation_id = StringField()  # its arrays and picture are the band structure and density of states
    transport_protocol = StringField()
    transport = ListField(EmbeddedDocumentField(TransportFields))


class MaterialDocument(WyloopDocument):
    """One crystal, whoever reported or computed it: its properties with their methods, and where it came from."""

    meta = {
        "collection": "materials",
        "indexes": [
            {"fields": ["material_id"], "unique": True},
            {"fields": ["fingerprint"]},
            {"fields": ["model_id"]},
            {"fields": ["structure_ids"]},
            {"fields": ["calculation_ids"]},
            {"fields": ["hull_id"]},
            {"fields": ["chemsys", "formula_pretty", "fingerprint"]},
            {"fields": ["candidate_id"]},
            {"fields": ["campaign_id", "round_number"]},
            # queries: what must be equal, then the order with its tie-breaker, then what is only filtered
            {"fields": ["elements", "space_group_number", "formation_energy_per_atom", "material_id", "band_gap"]},
            {"fields": ["space_group_number", "formation_energy_per_atom", "material_id", "band_gap"]},
            {"fields": ["formation_energy_per_atom", "material_id", "band_gap"]},
            {"fields": ["band_gap", "material_id", "formation_energy_per_atom"]},
            {"fields": ["energy_above_hull", "material_id"]},
            {"fields": ["is_validated", "material_id"]},
        ],
    }

    material_id = StringField(required=True)
    input_hash = StringField(required=True)
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
    band_gap = FloatField(unit="eV", min_value=0)
    band_gap_method = StringField()
    is_gap_direct = BooleanField()
    dft_formation_energy_per_atom = FloatField(unit="eV/atom")
    lowest_optical_frequency = FloatField(unit="THz")
    phonon_verdict = StringField()
    physics = EmbeddedDocumentField(PhysicsFields)
    candidate_id = StringField()
    campaign_id = StringField()
    round_number = IntField(unit="1", min_value=0)
    model_id = StringField()
    calculation_ids = StringsField()
    structure_ids = StringsField()
    sources = StringsField()
    # from here on the hull builder writes; last in their alphabetical order, so that `$set` leaves them where they are
    content_hash = StringField(required=True)
    energies = ListField(EmbeddedDocumentField(MethodEnergyFields))
    is_validated = BooleanField(required=True)
    meets_target = BooleanField(required=True)
    energy_above_hull = FloatField(unit="eV/atom")
    hull_id = StringField()
