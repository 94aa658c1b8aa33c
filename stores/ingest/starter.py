"""The built-in starter set into an empty database."""

from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.ingest.report import IngestReport
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.starter.read import starter_set

SOURCE = "wyloop-starter"


@translated
def wants_starter(store: Store) -> bool:
    """Whether the starter set belongs into this database: it is empty, or an interrupted ingest left a part of it."""
    structures = store.database["structures"]
    is_begun = structures.find_one({"source": SOURCE}, {"_id": 1}) is not None
    return is_begun or structures.find_one({}, {"_id": 1}) is None


@translated
def ingest_starter(store: Store) -> IngestReport:
    """Write the starter set's crystals, energies and gaps into `structures`; writing them again changes nothing."""
    structures = [
        SourceStructure(
            source=SOURCE,
            source_id=entry.structure_id,
            crystal=entry.crystal,
            formation_energy_per_atom=entry.formation_energy_per_atom,
            energy_method="chgnet",
            band_gap=entry.band_gap,
            band_gap_method=entry.band_gap_method,
            space_group_number=entry.space_group_number,
            citation=entry.citation,
        )
        for entry in starter_set()
    ]
    written = write_structures(store, structures)
    return IngestReport(len(structures), written.n_added, written.n_unchanged, written.n_updated)
