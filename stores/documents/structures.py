"""Known crystals as they were ingested: the collection `structures`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import IntField, StringField

from wyloop.stores.documents.base import ArrayField, FloatField, StringsField, WyloopDocument


class StructureDocument(WyloopDocument):
    """One crystal from one source, with what the source says about it."""

    meta = {
        "collection": "structures",
        "indexes": [
            {"fields": ["structure_id"], "unique": True},
            {"fields": ["source", "source_id"], "unique": True},
            {"fields": ["chemsys", "formula_pretty"]},
            {"fields": ["last_updated"]},
            {"fields": ["fingerprint"]},
            {"fields": ["material_id"]},
            {"fields": ["functional"], "sparse": True},  # only calculations that users bring have one
            # queries: what must be equal, then the order with its tie-breaker, then what is only filtered
            {"fields": ["elements", "space_group_number", "formation_energy_per_atom", "structure_id", "band_gap"]},
            {"fields": ["space_group_number", "formation_energy_per_atom", "structure_id", "band_gap"]},
            {"fields": ["formation_energy_per_atom", "structure_id", "band_gap"]},
            {"fields": ["band_gap", "structure_id", "formation_energy_per_atom"]},
        ],
    }

    structure_id = StringField(required=True)
    source = StringField(required=True)
    source_id = StringField(required=True)
    content_hash = StringField(required=True)
    crystal_hash = StringField(required=True)
    lattice = ArrayField(unit="Å", width=3, required=True)
    species = StringsField(required=True)
    frac_coords = ArrayField(unit="1", width=3, required=True)
    formula_pretty = StringField(required=True)
    formula_anonymous = StringField(required=True)
    chemsys = StringField(required=True)
    elements = StringsField(required=True)
    nelements = IntField(unit="1", required=True, min_value=1)
    nsites = IntField(unit="1", required=True, min_value=1)
    volume = FloatField(unit="Å^3", required=True, min_value=0)
    volume_per_atom = FloatField(unit="Å^3", required=True, min_value=0)
    formation_energy_per_atom = FloatField(unit="eV/atom")
    energy_method = StringField()
    band_gap = FloatField(unit="eV", min_value=0)
    band_gap_method = StringField()
    space_group_number = IntField(unit="1", min_value=1, max_value=230)  # of the gene, else as reported
    reported_space_group_number = IntField(unit="1", min_value=1, max_value=230)  # by the source
    energy_per_atom = FloatField(unit="eV/atom")  # total energy of a calculation; never without its functional
    functional = StringField()
    provenance = StringField()  # address, or program and settings, that the row came from
    citation = StringField()
    # written by the builders, gone when the row is ingested with other content: what lacks them is to do
    fingerprint = StringField()
    protostructure = StringField()
    material_id = StringField()
