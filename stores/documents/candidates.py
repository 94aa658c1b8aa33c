"""Proposed genes with predictions and verdicts: the collection `candidates`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import (
    BooleanField,
    DictField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    ListField,
    StringField,
)

from wyloop.stores.documents.base import CrystalFields, FloatField, StringsField, WyloopDocument

CANDIDATE_STATUSES = (
    "proposed",
    "rejected",
    "passed",
    "selected",
    "dispatched",
    "failed",
    "quarantined",
    "unstable",
    "off_target",
    "validated",
)


class PredictionFields(EmbeddedDocument):
    """What the model said of a gene."""

    formation_energy_per_atom = FloatField(unit="eV/atom", required=True)
    formation_energy_per_atom_std = FloatField(unit="eV/atom", required=True)
    band_gap = FloatField(unit="eV", required=True)
    band_gap_std = FloatField(unit="eV", required=True)
    metal_probability = FloatField(unit="1", required=True)
    volume_per_atom = FloatField(unit="Å^3", required=True)
    extra = DictField(default=None)  # name of an extra property to value and deviation, units in the model card


class VerdictFields(EmbeddedDocument):
    """What one screen said, with the number that decided; the number's unit is a field, since screens differ."""

    screen = StringField(required=True)
    passed = BooleanField(required=True)
    value = FloatField(unit="as the field unit says")
    unit = StringField()
    reason = StringField()


_ENERGY, _GAP = "prediction.formation_energy_per_atom", "prediction.band_gap"


class CandidateDocument(WyloopDocument):
    """One gene proposed in a campaign."""

    meta = {
        "collection": "candidates",
        "indexes": [
            {"fields": ["candidate_id"], "unique": True},
            {"fields": ["campaign_id", "fingerprint"], "unique": True},
            {"fields": ["fingerprint"]},
            {"fields": ["model_id"]},
            # queries: what must be equal, then the order with its tie-breaker, then what is only filtered
            {"fields": ["elements", "space_group_number", _ENERGY, "candidate_id", _GAP]},
            {"fields": ["elements", "space_group_number", _GAP, "candidate_id", _ENERGY]},
            {"fields": ["space_group_number", _ENERGY, "candidate_id", _GAP]},
            {"fields": ["space_group_number", _GAP, "candidate_id", _ENERGY]},
            {"fields": [_ENERGY, "candidate_id", _GAP]},
            {"fields": [_GAP, "candidate_id", _ENERGY]},
            {"fields": ["round_id", "status", "rank", "candidate_id"]},
            {"fields": ["chemsys", "formula_pretty", "fingerprint"]},
        ],
    }

    candidate_id = StringField(required=True)
    campaign_id = StringField(required=True)
    round_id = StringField(required=True)
    round_number = IntField(unit="1", required=True, min_value=1)
    fingerprint = StringField(required=True)
    space_group_number = IntField(unit="1", required=True, min_value=1, max_value=230)
    wyckoff_sequence = StringField(required=True)
    formula_pretty = StringField(required=True)
    chemsys = StringField(required=True)
    elements = StringsField(required=True)
    nelements = IntField(unit="1", required=True, min_value=1)
    nsites = IntField(unit="1", required=True, min_value=1)
    prediction = EmbeddedDocumentField(PredictionFields)
    verdicts = ListField(EmbeddedDocumentField(VerdictFields))
    model_id = StringField()
    sampler = StringField(required=True)  # name of the generator that proposed it first
    crystal = EmbeddedDocumentField(CrystalFields)  # the generator's own, the first start structure of a relaxation
    origin = DictField(default=None)  # what the generator says of where it is from, such as file and row
    seed = IntField(unit="1", required=True, min_value=0)
    status = StringField(required=True, choices=CANDIDATE_STATUSES)
    reason = StringField()
    rank = IntField(unit="1", min_value=0)
