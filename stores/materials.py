"""Materials: crystals told apart by their structure, with their properties, methods and lineage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from pymongo.errors import DuplicateKeyError

from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, embedded, now
from wyloop.stores.documents.calculations import TransportFields
from wyloop.stores.documents.materials import MaterialDocument, PhysicsFields
from wyloop.stores.failures import translated
from wyloop.stores.methods import UNKNOWN
from wyloop.stores.records import JSON, composition_fields, crystal_fields, crystal_of, digest, object_id, to_json

_STAMP = ("_id", "last_updated", "code_version")
FROM_HULL = ("content_hash", "energies", "is_validated", "meets_target", "energy_above_hull", "hull_id")
"""Fields that the hull builder writes, in the order of their names' first writing."""


@dataclass(frozen=True)
class MethodEnergy:
    """The energy of a material by one method, eV/atom, and what it is from; what that method's hull makes of it."""

    method: str
    formation_energy_per_atom: float
    source_id: str
    energy_above_hull: float | None = None
    hull_id: str | None = None


@dataclass(frozen=True)
class MaterialRecord:
    """One crystal. Energies in eV/atom, gap in eV, frequency in THz; None is not computed."""

    material_id: str
    fingerprint: str
    gene: Gene
    crystal: Crystal
    formation_energy_per_atom: float | None
    energy_method: str | None
    energy_above_hull: float | None = None
    hull_id: str | None = None
    band_gap: float | None = None
    band_gap_method: str | None = None
    is_gap_direct: bool | None = None
    dft_formation_energy_per_atom: float | None = None
    lowest_optical_frequency: float | None = None
    phonon_verdict: str | None = None
    physics: Mapping[str, JSON] = field(default_factory=dict)
    """What DFT says beyond the fields above, as `PhysicsFields` names it."""
    is_validated: bool = False
    meets_target: bool = False
    candidate_id: str | None = None
    campaign_id: str | None = None
    round_number: int | None = None
    model_id: str | None = None
    calculation_ids: tuple[str, ...] = ()
    """Our own calculations; none for a crystal that is known from elsewhere only."""
    structure_ids: tuple[str, ...] = ()
    """Structures of the database that are this crystal."""
    sources: tuple[str, ...] = ()
    """Where these are from."""
    energies: tuple[MethodEnergy, ...] = ()
    input_hash: str = ""
    code_version: str = ""
    last_updated: datetime | None = None

    @property
    def formula_pretty(self) -> str:
        """Reduced formula."""
        return self.gene.formula_pretty

    @property
    def chemsys(self) -> str:
        """Chemical system, for example `O-Sr-Ti`."""
        return self.gene.chemsys

    @property
    def space_group_number(self) -> int:
        """Number of the gene's space group, 1 to 230."""
        return self.gene.space_group_number

    def values(self) -> dict[str, object]:
        """Return the values that targets speak of, by field name."""
        return {
            "band_gap": self.band_gap,
            "formation_energy_per_atom": self.formation_energy_per_atom,
            "energy_above_hull": self.energy_above_hull,
            "space_group_number": self.space_group_number,
            "nelements": len(self.gene.elements),
            "nsites": self.gene.nsites,
            "volume_per_atom": self.crystal.volume / self.crystal.nsites,
            "lowest_optical_frequency": self.lowest_optical_frequency,
            "crystal_system": self.gene.space_group.crystal_system,
            "formula_pretty": self.formula_pretty,
            "chemsys": self.chemsys,
            "elements": self.gene.elements,
        }


def material_id(fingerprint: str, first_structure_id: str | None = None) -> str:
    """Return the identity of a material.

    Args:
        fingerprint: Its gene.
        first_structure_id: The structure that came first into the database, of a crystal that is known from elsewhere
            only: several crystals may have one gene.
    """
    own = "m-" + digest(fingerprint, 12)
    return own if first_structure_id is None else f"{own}-{digest(first_structure_id, 6)}"


def material_document(record: MaterialRecord) -> dict[str, Any]:
    """Return a material as the document that the collection holds."""
    energies = record.energies
    if not energies and record.formation_energy_per_atom is not None:
        source_id = next(iter(record.calculation_ids or record.structure_ids), record.material_id)
        energies = (MethodEnergy(record.energy_method or UNKNOWN, record.formation_energy_per_atom, source_id),)
    own = (
        "material_id", "fingerprint", "formation_energy_per_atom", "energy_method", "band_gap", "band_gap_method",
        "is_gap_direct", "dft_formation_energy_per_atom", "lowest_optical_frequency", "phonon_verdict", "candidate_id",
        "campaign_id", "round_number", "model_id",
    )  # fmt: skip
    fields = {name: getattr(record, name) for name in own} | {
        **({"physics": dict(record.physics)} if record.physics else {}),
        **composition_fields(record.crystal.amounts),
        "space_group_number": record.space_group_number,
        "nsites": record.crystal.nsites,
        "volume_per_atom": record.crystal.volume / record.crystal.nsites,
        "calculation_ids": sorted(record.calculation_ids),
        "structure_ids": list(record.structure_ids),
        "sources": list(record.sources),
    }
    crystal = record.crystal
    input_hash = record.input_hash or digest([fields, crystal_fields(crystal), [asdict(one) for one in energies]], 32)
    told = hull_fields(
        input_hash, energies, record.energy_above_hull, record.hull_id, record.is_validated, record.meets_target
    )
    if record.physics:
        fields["physics"] = physics_fields(record.physics)
    document = checked(
        MaterialDocument,
        {
            **fields,
            **told,
            "crystal": {
                "lattice": np.asarray(crystal.lattice, dtype=np.float64),
                "species": list(crystal.species),
                "frac_coords": np.asarray(crystal.frac_coords, dtype=np.float64),
            },
            "input_hash": input_hash,
            "last_updated": record.last_updated or now(),
        },
    )
    return {"_id": object_id(record.material_id), **document}


def physics_fields(physics: Mapping[str, Any]) -> PhysicsFields:
    """Return what DFT says of a material as its document holds it."""
    rows = [embedded(TransportFields, row) for row in physics.get("transport") or ()]
    made: PhysicsFields = embedded(PhysicsFields, {**physics, **({"transport": rows} if rows else {})})
    return made


def hull_fields(
    input_hash: str,
    energies: Sequence[MethodEnergy],
    energy_above_hull: float | None,
    hull_id: str | None,
    is_validated: bool,
    meets_target: bool,
) -> dict[str, Any]:
    """Return what the hulls make of a material, as `FROM_HULL` names it; what is not known is left out."""
    fields = {
        "energies": [{key: value for key, value in asdict(energy).items() if value is not None} for energy in energies],
        "is_validated": is_validated,
        "meets_target": meets_target,
    }
    if hull_id is not None:
        fields |= {"energy_above_hull": energy_above_hull, "hull_id": hull_id}
    return {"content_hash": digest([input_hash, fields], 32), **fields}


@translated
def upsert_material(store: Store, record: MaterialRecord) -> bool:
    """Write a material; what stands there already is not written again.

    A record without hull fields keeps those that the hull builder wrote, unless its formation energy changed.

    Returns:
        Whether anything changed.
    """
    collection = store.database["materials"]
    fields = material_document(record)
    identity = {"material_id": record.material_id}
    found = collection.find_one(identity)
    if found is not None:
        same_energy = found.get("formation_energy_per_atom") == fields.get("formation_energy_per_atom")
        if same_energy and record.hull_id is None:
            fields |= {key: found[key] for key in FROM_HULL if key in found}
        if _content(found) == _content(fields):
            return False
    try:
        collection.replace_one(identity, fields, upsert=True)
    except DuplicateKeyError:  # another process inserted it in between
        collection.replace_one(identity, fields, upsert=True)
    return True


@translated
def material(store: Store, identity: str) -> MaterialRecord:
    """Return one material.

    Raises:
        DatabaseError: No material has this id.
    """
    found = store.database["materials"].find_one({"material_id": {"$eq": identity}})
    if found is None:
        raise DatabaseError(f"no material {identity!r}; expected an id that 'wyloop db query' shows")
    return material_record(found)


@translated
def materials(
    store: Store,
    *,
    campaign_id: str | None = None,
    round_number: int | None = None,
    candidate_ids: Sequence[str] | None = None,
    is_validated: bool | None = None,
) -> list[MaterialRecord]:
    """Return materials, of a campaign, round or candidates if given: on target, validated, near the hull first."""
    criteria: dict[str, Any] = {}
    if campaign_id is not None:
        criteria["campaign_id"] = {"$eq": campaign_id}
    if round_number is not None:
        criteria["round_number"] = {"$eq": round_number}
    if candidate_ids is not None:
        criteria["candidate_id"] = {"$in": list(candidate_ids)}
    if is_validated is not None:
        criteria["is_validated"] = is_validated
    records = [material_record(found) for found in store.database["materials"].find(criteria)]
    return sorted(
        records,
        key=lambda record: (
            not record.meets_target,
            not record.is_validated,
            float("inf") if record.energy_above_hull is None else record.energy_above_hull,
            record.material_id,
        ),
    )


def _content(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in _STAMP and value is not None}


def _plain(physics: object) -> Mapping[str, JSON]:
    told = to_json(physics)
    return told if isinstance(told, dict) else {}


def material_record(found: Mapping[str, Any]) -> MaterialRecord:
    """Read a material's document."""
    return MaterialRecord(
        material_id=found["material_id"],
        fingerprint=found["fingerprint"],
        gene=Gene.parse(found["fingerprint"]),
        crystal=crystal_of(found["crystal"]),
        formation_energy_per_atom=found.get("formation_energy_per_atom"),
        energy_method=found.get("energy_method"),
        energy_above_hull=found.get("energy_above_hull"),
        hull_id=found.get("hull_id"),
        band_gap=found.get("band_gap"),
        band_gap_method=found.get("band_gap_method"),
        is_gap_direct=found.get("is_gap_direct"),
        dft_formation_energy_per_atom=found.get("dft_formation_energy_per_atom"),
        lowest_optical_frequency=found.get("lowest_optical_frequency"),
        phonon_verdict=found.get("phonon_verdict"),
        physics=_plain(found.get("physics")),
        is_validated=found["is_validated"],
        meets_target=found["meets_target"],
        candidate_id=found.get("candidate_id"),
        campaign_id=found.get("campaign_id"),
        round_number=found.get("round_number"),
        model_id=found.get("model_id"),
        calculation_ids=tuple(found.get("calculation_ids") or ()),
        structure_ids=tuple(found.get("structure_ids") or ()),
        sources=tuple(found.get("sources") or ()),
        energies=tuple(MethodEnergy(**energy) for energy in found.get("energies") or ()),
        input_hash=found["input_hash"],
        code_version=found["code_version"],
        last_updated=found["last_updated"],
    )
