"""What the OPTIMADE server serves: the collections `optimade_structures` and `optimade_references`, built by a builder.

Fields that the standard knows have its names (`entry_id` is its `id`); the others are served as `_wyloop_*`, described
by their `help_text` and `unit` here.
"""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import (
    BooleanField,
    DateTimeField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    ListField,
    StringField,
)

from wyloop.stores.documents.base import ArrayField, FloatField, StringsField, WyloopDocument


class SpeciesFields(EmbeddedDocument):
    """What sites hold: here always one element."""

    name = StringField(required=True)
    chemical_symbols = StringsField(required=True)
    concentration = ArrayField(unit="1", required=True)


class OptimadeStructureDocument(WyloopDocument):
    """One crystal as OPTIMADE describes it, with what the database knows about it."""

    meta = {
        "collection": "optimade_structures",
        "indexes": [
            {"fields": ["entry_id"], "unique": True},
            {"fields": ["immutable_id"], "unique": True},
            {"fields": ["element_pairs", "nelements", "entry_id"]},
            {"fields": ["elements", "nelements", "entry_id"]},
            {"fields": ["chemical_formula_reduced", "entry_id"]},
            {"fields": ["chemical_formula_anonymous", "entry_id"]},
            {"fields": ["chemsys"]},
            {"fields": ["space_group_it_number", "entry_id"]},
            {"fields": ["band_gap", "formation_energy_per_atom"]},
            {"fields": ["last_modified", "entry_id"]},
            {"fields": ["reference_ids"], "sparse": True},
        ],
    }

    entry_id = StringField(required=True)
    immutable_id = StringField(required=True)
    last_modified = DateTimeField(required=True)
    elements = StringsField(required=True)
    nelements = IntField(unit="1", required=True, min_value=1)
    elements_ratios = ArrayField(unit="1", required=True)
    chemical_formula_descriptive = StringField(required=True)
    chemical_formula_reduced = StringField(required=True)
    chemical_formula_hill = StringField(required=True)
    chemical_formula_anonymous = StringField(required=True)
    dimension_types = ListField(IntField(unit="1"), required=True)
    nperiodic_dimensions = IntField(unit="1", required=True, min_value=0, max_value=3)
    lattice_vectors = ArrayField(unit="Å", width=3, required=True)
    space_group_it_number = IntField(unit="1", min_value=1, max_value=230)
    space_group_symbol_hermann_mauguin = StringField()
    cartesian_site_positions = ArrayField(unit="Å", width=3, required=True)
    nsites = IntField(unit="1", required=True, min_value=1)
    species = ListField(EmbeddedDocumentField(SpeciesFields), required=True)
    species_at_sites = StringsField(required=True)
    structure_features = StringsField()
    reference_ids = StringsField()

    # how the builder and the server find entries; not served
    origin = StringField(required=True, choices=("structures", "materials"))
    input_hash = StringField(required=True)
    element_pairs = StringsField()  # "As-Ga" of every two elements: one index finds both at once

    chemsys = StringField(required=True, help_text="Chemical system: the elements in alphabetical order, with dashes.")
    source = StringField(required=True, help_text="Collection that the crystal came from, or wyloop: computed here.")
    source_id = StringField(required=True, help_text="Identity of the crystal in its source.")
    provenance = StringField(help_text="Address, or program and settings, that the source's row came from.")
    citation = StringField(help_text="Publication that the source's values are from.")
    material_id = StringField(help_text="Material that the crystal is, the same one for the same crystal elsewhere.")
    is_validated = BooleanField(
        required=True, help_text="Whether the crystal was computed here and passed every check of its campaign."
    )
    fingerprint = StringField(
        help_text="Gene in canonical form: the space group number, and the elements on its Wyckoff letters."
    )
    wyckoff_sequence = StringField(help_text="Elements with their Wyckoff letters, canonical under the normalizer.")
    protostructure = StringField(help_text="Prototype label: anonymous formula, Pearson symbol, space group, letters.")
    symprec = FloatField(unit="Å", help_text="Distance tolerance with which the space group was found.")
    volume = FloatField(unit="Å^3", min_value=0, help_text="Volume of the cell.")
    volume_per_atom = FloatField(unit="Å^3", min_value=0, help_text="Volume of the cell divided by its sites.")
    formation_energy_per_atom = FloatField(
        unit="eV/atom", help_text="Formation energy from the elements, by _wyloop_energy_method."
    )
    energy_method = StringField(help_text="Method or source of the formation energy.")
    energy_above_hull = FloatField(
        unit="eV/atom", help_text="Energy above the convex hull that _wyloop_hull_id names, elements at zero."
    )
    hull_id = StringField(help_text="Hull: its chemical system and the methods whose energies are in it.")
    dft_formation_energy_per_atom = FloatField(
        unit="eV/atom", help_text="Formation energy by this platform's own density functional calculation."
    )
    band_gap = FloatField(unit="eV", min_value=0, help_text="Band gap by _wyloop_band_gap_method; 0 is gapless.")
    band_gap_method = StringField(help_text="Method or source of the band gap.")
    is_gap_direct = BooleanField(help_text="Whether the band gap is direct.")
    lowest_optical_frequency = FloatField(
        unit="THz", help_text="Lowest optical phonon frequency at the zone centre; below zero: imaginary."
    )
    phonon_verdict = StringField(help_text="What the phonons at the zone centre say of the dynamical stability.")
    campaign_id = StringField(help_text="Campaign that found the crystal.")
    round_number = IntField(unit="1", min_value=0, help_text="Round of the campaign.")
    candidate_id = StringField(help_text="Candidate that the crystal was computed for.")
    model_id = StringField(help_text="Model version that proposed the candidate.")


class OptimadeReferenceDocument(WyloopDocument):
    """One publication that entries cite."""

    meta = {"collection": "optimade_references", "indexes": [{"fields": ["entry_id"], "unique": True}]}

    entry_id = StringField(required=True)
    last_modified = DateTimeField(required=True)
    note = StringField(required=True)
    doi = StringField()
    url = StringField()
    year = StringField()
