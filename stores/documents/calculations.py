"""Jobs and their results: the collection `calculations`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import (
    BooleanField,
    DateTimeField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    GenericEmbeddedDocumentField,
    IntField,
    ListField,
    StringField,
)

from wyloop.stores.documents.base import ArrayField, CrystalFields, FloatField, StringsField, WyloopDocument

CALCULATION_STATUSES = ("requested", "running", "completed", "failed")


class RelaxationResult(EmbeddedDocument):
    """A relaxed crystal's energy and how far it moved; one that broke down has no energy."""

    energy_per_atom = FloatField(unit="eV/atom")
    formation_energy_per_atom = FloatField(unit="eV/atom")
    max_force = FloatField(unit="eV/Å")
    max_stress = FloatField(unit="GPa")
    volume_ratio = FloatField(unit="1")
    shortest_distance_ratio = FloatField(unit="1")
    n_steps = IntField(unit="1")
    converged = BooleanField(required=True)
    space_group_number = IntField(unit="1")
    fingerprint = StringField()
    wall_time = FloatField(unit="s")


class PhononResult(EmbeddedDocument):
    """Phonons at the zone centre."""

    lowest_optical_frequency = FloatField(unit="THz")
    tolerance = FloatField(unit="THz")
    frequencies = ArrayField(unit="THz")
    is_stable = BooleanField(required=True)
    is_prescreen = BooleanField(required=True)
    wall_time = FloatField(unit="s")


class DFTResult(EmbeddedDocument):
    """A crystal relaxed and its bands computed by DFT."""

    energy_per_atom = FloatField(unit="eV/atom", required=True)
    formation_energy_per_atom = FloatField(unit="eV/atom")
    band_gap = FloatField(unit="eV", min_value=0)
    is_direct = BooleanField()
    is_metal = BooleanField()
    max_force = FloatField(unit="eV/Å")
    max_stress = FloatField(unit="GPa")
    volume_ratio = FloatField(unit="1")
    n_steps = IntField(unit="1")
    converged = BooleanField()
    cutoff = FloatField(unit="eV")
    n_kpoints = IntField(unit="1")
    spin_polarized = BooleanField()
    space_group_number = IntField(unit="1")
    fingerprint = StringField()
    wall_time = FloatField(unit="s")


class ReferenceResult(EmbeddedDocument):
    """The energy of an elemental solid, from which formation energies are counted."""

    energy_per_atom = FloatField(unit="eV/atom", required=True)
    wall_time = FloatField(unit="s")


class CalculationDocument(WyloopDocument):
    """One job: what was asked, who ran it, what came out."""

    meta = {
        "collection": "calculations",
        "indexes": [
            {"fields": ["calculation_id"], "unique": True},
            {"fields": ["candidate_id"]},
            {"fields": ["subject"]},
            {"fields": ["status", "subject", "kind", "calculation_id"]},
            {"fields": ["round_id", "status"]},
        ],
    }

    calculation_id = StringField(required=True)
    candidate_id = StringField()
    round_id = StringField()
    kind = StringField(required=True)
    subject = StringField(required=True)  # fingerprint of a gene, or the element of a reference
    protocol = StringField(required=True)
    protocol_hash = StringField(required=True)
    status = StringField(required=True, choices=CALCULATION_STATUSES)
    result = GenericEmbeddedDocumentField(choices=(RelaxationResult, PhononResult, DFTResult, ReferenceResult))
    inputs = ListField(EmbeddedDocumentField(CrystalFields))  # start structures
    crystal = EmbeddedDocumentField(CrystalFields)
    fw_id = IntField(unit="1")
    host = StringField()
    core_seconds = FloatField(unit="s", min_value=0)
    peak_memory_mb = FloatField(unit="MB", min_value=0)
    problems = StringsField()
    error = StringField()
    log_tail = StringField()
    started_at = DateTimeField()
    finished_at = DateTimeField()
