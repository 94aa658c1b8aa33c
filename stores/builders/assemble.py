"""What materials the structures and calculations of one gene make: pure functions, no database."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.protocols import PROTOCOLS
from wyloop.models.physics.references import formation_energy_per_atom
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.matching import matching_groups
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.materials import MaterialRecord, MethodEnergy, material_document, material_id
from wyloop.stores.methods import FORCE_FIELD, UNKNOWN, preference
from wyloop.stores.records import crystal_of, digest

PHYSICS = ("static", "dft_phonon", "bands", "transport")
"""Kinds of calculation that tell more of a material than energy and gap."""
GAP_BY = ("bands", "static")
"""Kinds whose gap counts before that of the light calculation, the finest first."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Owner:
    """The candidate that a material of ours belongs to."""

    candidate_id: str
    campaign_id: str
    round_number: int
    model_id: str | None


@dataclass(frozen=True)
class GeneInputs:
    """All that the materials of one gene are made of."""

    fingerprint: str
    structures: tuple[Mapping[str, Any], ...] = ()
    """Documents of the structures with this gene, first seen first."""
    calculations: tuple[CalculationRecord, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
    """Energies of elements by the DFT calculation's own protocol, eV/atom, those that are known."""
    owner: Owner | None = None


def best_of_kind(records: Iterable[CalculationRecord]) -> dict[str, CalculationRecord]:
    """Return the calculation of each kind that counts: a believed one before others, then the newest."""

    def order(record: CalculationRecord) -> tuple[bool, bool, datetime, str]:
        is_completed = record.status == "completed"
        finished = record.finished_at or _LONG_AGO
        return is_completed and not record.is_withheld, is_completed, finished, record.calculation_id

    return {record.kind: record for record in sorted(records, key=order)}


def is_usable(relaxation: CalculationRecord | None) -> bool:
    """Whether a relaxation makes a material: completed, believed, with its crystal."""
    return (
        relaxation is not None
        and relaxation.status == "completed"
        and not relaxation.is_withheld
        and relaxation.crystal is not None
    )


def reference_ids(dft: CalculationRecord) -> dict[str, str]:
    """Return the calculations, by element, that a DFT energy is counted from: those of the same protocol."""
    elements = () if dft.crystal is None else dft.crystal.amounts
    return {element: calculation_id(f"reference {element}", dft.protocol, dft.protocol_hash) for element in elements}


def documents_of(inputs: GeneInputs) -> list[dict[str, Any]]:
    """Return the documents of a gene's materials, without what the hulls make of them."""
    return [material_document(record) for record in materials_of(inputs)]


def materials_of(inputs: GeneInputs) -> list[MaterialRecord]:
    """Tell the crystals of one gene apart, and say of each what is known, by which methods and from where.

    What we computed ourselves comes after all known crystals, so it moves none of them to another material.
    """
    computed = _computed(inputs)
    crystals = [crystal_of(structure) for structure in inputs.structures]
    if computed is not None:
        crystals.append(computed.crystal)
    made: list[MaterialRecord] = []
    for group in matching_groups(crystals) if crystals else []:
        known = [inputs.structures[place] for place in group if place < len(inputs.structures)]
        is_ours = len(crystals) - 1 in group and computed is not None
        made.append(_with_sources(computed, known) if computed is not None and is_ours else _known(inputs, known))
    return made


def _computed(inputs: GeneInputs) -> MaterialRecord | None:
    """Return the material that our own calculations of a gene make, if they make one."""
    of_kind = best_of_kind(inputs.calculations)
    relaxation, phonon, dft = of_kind.get("relaxation"), of_kind.get("phonon"), of_kind.get("dft")
    if relaxation is None or relaxation.crystal is None or not is_usable(relaxation):
        return None
    phonon = None if phonon is not None and phonon.is_withheld else phonon
    has_phonon = phonon is not None and phonon.status == "completed"
    has_dft = dft is not None and dft.status == "completed" and not dft.is_withheld
    energy = _number(relaxation, "formation_energy_per_atom")
    by_dft = _dft_formation_energy(dft, inputs.references) if dft is not None and has_dft else None
    of_dft = {kind: found for kind in PHYSICS if (found := of_kind.get(kind)) is not None and _counts(found)}
    phonon = of_dft.get("dft_phonon", phonon)
    has_phonon = has_phonon or "dft_phonon" in of_dft
    gap = next((of_dft[kind] for kind in GAP_BY if kind in of_dft), dft if has_dft else None)
    completed = [
        found for found in of_kind.values() if found.status == "completed" and found.review in (None, "accepted")
    ]
    made = MaterialRecord(
        material_id=material_id(inputs.fingerprint),
        fingerprint=inputs.fingerprint,
        gene=Gene.parse(inputs.fingerprint),
        crystal=relaxation.crystal,
        formation_energy_per_atom=energy,
        energy_method=FORCE_FIELD,
        band_gap=_number(gap, "band_gap") if gap else None,
        band_gap_method=gap.protocol if gap else None,
        is_gap_direct=gap.result.get("is_direct") is True if gap else None,
        dft_formation_energy_per_atom=by_dft,
        lowest_optical_frequency=_number(phonon, "lowest_optical_frequency") if phonon and has_phonon else None,
        phonon_verdict=_phonon_verdict(phonon),
        physics=_physics(dft if has_dft else None, of_dft),
        calculation_ids=tuple(sorted(found.calculation_id for found in completed)),
        energies=_own_energies((FORCE_FIELD, energy, relaxation), (_method_of(dft), by_dft, dft)),
        last_updated=max(found.last_updated for found in completed if found.last_updated is not None),
    )
    if inputs.owner is not None:
        owner = inputs.owner
        made = replace(
            made,
            candidate_id=owner.candidate_id,
            campaign_id=owner.campaign_id,
            round_number=owner.round_number,
            model_id=owner.model_id,
        )
    return made


def _known(inputs: GeneInputs, known: Sequence[Mapping[str, Any]]) -> MaterialRecord:
    """Return the material that structures of one crystal make, the first seen first."""
    energies = _energies(known)
    main = energies[0] if energies else None
    source = next((row for row in known if main is not None and row["structure_id"] == main.source_id), known[0])
    gap = next((row for row in (source, *known) if row.get("band_gap") is not None), None)
    made = MaterialRecord(
        material_id=material_id(inputs.fingerprint, known[0]["structure_id"]),
        fingerprint=inputs.fingerprint,
        gene=Gene.parse(inputs.fingerprint),
        crystal=crystal_of(source),
        formation_energy_per_atom=None if main is None else main.formation_energy_per_atom,
        energy_method=None if main is None else main.method,
        band_gap=None if gap is None else gap["band_gap"],
        band_gap_method=None if gap is None else gap.get("band_gap_method"),
    )
    return _with_sources(made, known)


def _with_sources(material: MaterialRecord, known: Sequence[Mapping[str, Any]]) -> MaterialRecord:
    """Name the structures of a material, with their energies by other methods than its own."""
    own = {energy.method for energy in material.energies}
    energies = (*material.energies, *(energy for energy in _energies(known) if energy.method not in own))
    times = [row["last_updated"] for row in known]
    if material.last_updated is not None:
        times.append(material.last_updated)
    lineage = [material.candidate_id, material.campaign_id, material.round_number, material.model_id]
    contents = sorted([row["structure_id"], row["content_hash"]] for row in known)
    by_dft = material.dft_formation_energy_per_atom
    return replace(
        material,
        structure_ids=tuple(sorted(row["structure_id"] for row in known)),
        sources=tuple(sorted({row["source"] for row in known})),
        energies=energies,
        last_updated=max(times),
        input_hash=digest(
            [material.material_id, material.fingerprint, contents, list(material.calculation_ids), lineage, by_dft], 32
        ),
    )


def _energies(known: Iterable[Mapping[str, Any]]) -> tuple[MethodEnergy, ...]:
    """Return the lowest energy of each method, the method that stands for the crystal first."""
    lowest: dict[str, MethodEnergy] = {}
    for row in sorted(known, key=lambda row: str(row["structure_id"])):
        energy = row.get("formation_energy_per_atom")
        method = row.get("energy_method") or UNKNOWN
        if energy is not None and (method not in lowest or energy < lowest[method].formation_energy_per_atom):
            lowest[method] = MethodEnergy(method, energy, row["structure_id"])
    return tuple(lowest[method] for method in sorted(lowest, key=preference))


def _phonon_verdict(phonon: CalculationRecord | None) -> str:
    if phonon is None or phonon.status != "completed":
        return "not computed"
    stable = "stable" if phonon.result["is_stable"] else "unstable"
    return f"{stable} (force-field pre-screen)" if phonon.result["is_prescreen"] else stable


def _dft_formation_energy(dft: CalculationRecord, references: Mapping[str, float]) -> float | None:
    """Count a DFT energy from the elemental references of the same protocol, eV/atom; None if one is missing."""
    energy = _number(dft, "energy_per_atom")
    if dft.crystal is None or energy is None:
        return None
    try:
        return formation_energy_per_atom(energy, dft.crystal.amounts, references)
    except CalculatorError:  # a reference is still to come
        return None


def _own_energies(*found: tuple[str, float | None, CalculationRecord | None]) -> tuple[MethodEnergy, ...]:
    """Return those of our energies that are known, by method: each has its own hull, with the elements at zero."""
    return tuple(
        MethodEnergy(method, energy, record.calculation_id)
        for method, energy, record in found
        if energy is not None and record is not None
    )


def _method_of(dft: CalculationRecord | None) -> str:
    """Return the protocol that an energy is by, with its hash where its settings are not those known by that name."""
    if dft is None:
        return UNKNOWN
    known = PROTOCOLS.get(dft.protocol)
    is_known = known is None or known.hash == dft.protocol_hash
    return dft.protocol if is_known else f"{dft.protocol}@{dft.protocol_hash[:8]}"


def _counts(found: CalculationRecord) -> bool:
    return found.status == "completed" and not found.is_withheld


def _physics(dft: CalculationRecord | None, of_dft: Mapping[str, CalculationRecord]) -> dict[str, Any]:
    """Return what DFT says of a material beyond gap, energies and verdict, with the protocols that say it."""
    told: dict[str, Any] = {} if dft is None else {"dft_protocol": dft.protocol}
    static, phonon = of_dft.get("static"), of_dft.get("dft_phonon")
    bands, transport = of_dft.get("bands"), of_dft.get("transport")
    if static is not None:
        told["static_protocol"] = static.protocol
        names = ("direct_band_gap", "is_metal", "max_force", "max_stress", "magnetic_moment")
        told |= {name: static.result[name] for name in names if name in static.result}
    if phonon is not None:
        told["phonon_protocol"] = phonon.protocol
        told["phonon_tolerance"] = phonon.result.get("tolerance")
        told["phonon_frequencies"] = phonon.result.get("frequencies")
    if bands is not None:
        told["bands_calculation_id"] = bands.calculation_id
        told["direct_band_gap"] = bands.result.get("direct_band_gap")
    if transport is not None:
        told["transport_protocol"] = transport.protocol
        told["transport"] = transport.result.get("rows")
    return {name: value for name, value in told.items() if value is not None}


def _number(record: CalculationRecord, name: str) -> float | None:
    value = record.result.get(name)
    return float(value) if isinstance(value, int | float) else None
