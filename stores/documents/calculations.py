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
    ObjectIdField,
    StringField,
)

from wyloop.stores.documents.base import ArrayField, CrystalFields, FloatField, StringsField, WyloopDocument

CALCULATION_STATUSES = ("requested", "running", "completed", "failed")
REVIEWS = ("quarantined", "accepted", "rejected")


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


class StaticResult(EmbeddedDocument):
    """A converged static DFT calculation of a relaxed crystal."""

    energy_per_atom = FloatField(unit="eV/atom", required=True)
    band_gap = FloatField(unit="eV", min_value=0)
    direct_band_gap = FloatField(unit="eV", min_value=0)
    is_direct = BooleanField()
    is_metal = BooleanField()
    max_force = FloatField(unit="eV/Å")
    max_stress = FloatField(unit="GPa")
    cutoff = FloatField(unit="eV")
    smearing = FloatField(unit="eV")
    kpoint_mesh = ArrayField(unit="1")
    n_kpoints = IntField(unit="1")
    spin_polarized = BooleanField()
    magnetic_moment = FloatField(unit="µB")
    wall_time = FloatField(unit="s")


class DFTPhononResult(EmbeddedDocument):
    """Phonons at the zone centre by DFT's forces; force constants are in the calculation's arrays."""

    lowest_optical_frequency = FloatField(unit="THz")
    tolerance = FloatField(unit="THz")
    frequencies = ArrayField(unit="THz")
    longitudinal_frequencies = ArrayField(unit="THz")
    is_stable = BooleanField(required=True)
    is_prescreen = BooleanField(required=True)
    n_displacements = IntField(unit="1")
    wall_time = FloatField(unit="s")


class BandsResult(EmbeddedDocument):
    """What the bands come to; they themselves are in the calculation's arrays, and drawn in its picture."""

    band_gap = FloatField(unit="eV", min_value=0)
    direct_band_gap = FloatField(unit="eV", min_value=0)
    is_direct = BooleanField()
    is_metal = BooleanField()
    fermi_level = FloatField(unit="eV")
    n_path_kpoints = IntField(unit="1")
    n_dense_kpoints = IntField(unit="1")
    labels = StringsField()
    wall_time = FloatField(unit="s")


class TransportFields(EmbeddedDocument):
    """Thermoelectric descriptors at one temperature and doping, for a constant relaxation time; means of directions."""

    carrier = StringField(required=True, choices=("p", "n"))
    temperature = FloatField(unit="K", required=True)
    doping = FloatField(unit="cm^-3", required=True)
    seebeck = FloatField(unit="µV/K", required=True)
    power_factor_over_tau = FloatField(unit="W/(m K^2 s)", required=True)
    conductivity_over_tau = FloatField(unit="1/(ohm m s)", required=True)
    conductivity_mass = FloatField(unit="electron masses", required=True)
    fitness = FloatField(unit="W^(5/3) m s^(-1/3) K^(-2)", required=True)


class TransportResult(EmbeddedDocument):
    """Thermoelectric descriptors by BoltzTraP2."""

    rows = ListField(EmbeddedDocumentField(TransportFields))
    wall_time = FloatField(unit="s")


class VaspResult(EmbeddedDocument):
    """What a VASP workflow ended with."""

    energy_per_atom = FloatField(unit="eV/atom", required=True)
    band_gap = FloatField(unit="eV", min_value=0)
    is_metal = BooleanField()


class AttemptFields(EmbeddedDocument):
    """An attempt that failed: its class, why, and what the next one changed."""

    failure = StringField(required=True)
    error = StringField(required=True)
    changes = StringsField()


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
            {"fields": ["status", "subject", "kind", "review", "calculation_id"]},
            {"fields": ["round_id", "status"]},
            {"fields": ["review", "calculation_id"], "sparse": True},
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
    result = GenericEmbeddedDocumentField(
        choices=(
            RelaxationResult,
            PhononResult,
            DFTResult,
            ReferenceResult,
            StaticResult,
            DFTPhononResult,
            BandsResult,
            TransportResult,
            VaspResult,
        )
    )
    inputs = ListField(EmbeddedDocumentField(CrystalFields))  # start structures
    crystal = EmbeddedDocumentField(CrystalFields)
    fw_id = IntField(unit="1")
    host = StringField()
    core_seconds = FloatField(unit="s", min_value=0)
    peak_memory_mb = FloatField(unit="MB", min_value=0)
    problems = StringsField()
    review = StringField(choices=REVIEWS)  # of an implausible result: it counts only once accepted
    review_reasons = StringsField()  # why it was quarantined
    review_note = StringField()  # who or what decided, and why
    reviewed_at = DateTimeField()
    error = StringField()
    failure = StringField()  # class of the failure: not converged, out of memory, wall time, bad input, machine
    attempts = ListField(EmbeddedDocumentField(AttemptFields))  # those before the last
    log_tail = StringField()
    arrays_file = ObjectIdField()  # GridFS: arrays by name (npz)
    picture_file = ObjectIdField()  # GridFS: bands drawn (svg)
    raw_file = ObjectIdField()  # GridFS: the calculator's log (gzip), where workers keep it
    started_at = DateTimeField()
    finished_at = DateTimeField()
