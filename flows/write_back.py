"""What came of a round: finished calculations become materials, candidates get their end, hulls are updated."""

import logging
from collections import Counter
from dataclasses import replace

from wyloop.flows.policy import Policy
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.references import formation_energy_per_atom
from wyloop.models.targets import Target
from wyloop.stores import calculations, candidates, materials
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord, material_id

logger = logging.getLogger(__name__)

STILL_OPEN = ("dispatched", "off_target", "unstable", "validated")
"""Candidates whose calculations count; a result may come after the first verdict (DFT after the force field)."""


def write_materials(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Write every usable result of the round back as a material, update the hulls, and settle each candidate.

    Repeating it changes nothing; after further calculations it completes what they add.

    Returns:
        How many candidates ended in which status.
    """
    open_candidates = candidates.of_round(store, record.round_id, statuses=STILL_OPEN)
    by_candidate = calculations_by_candidate(store, open_candidates)
    written: list[MaterialRecord] = []
    n_failed = 0
    for candidate in open_candidates:
        of_kind = by_candidate.get(candidate.candidate_id, {})
        reason = _reason_to_reject(of_kind.get("relaxation"))
        if reason is not None:
            candidates.set_status(store, [candidate.candidate_id], "failed", reason=reason)
            n_failed += 1
            continue
        written.append(_material(store, candidate, of_kind, policy))
    for material in written:
        materials.upsert_material(store, material)
    build_hulls(store)
    statuses = Counter({"failed": n_failed} if n_failed else {})
    new = {material.material_id for material in written}
    # A new material can lift older ones off the hull: all of the campaign's are judged again.
    for material in materials.materials(store, campaign_id=campaign.campaign_id):
        status = _settle(store, campaign, policy, material)
        statuses[status] += material.material_id in new
    logger.info("round %d: %s", record.number, dict(statuses))
    return {
        "n_materials": len(written),
        **{f"n_{status}": count for status, count in sorted(statuses.items()) if count},
    }


def calculations_by_candidate(store: Store, chosen: list[CandidateRecord]) -> dict[str, dict[str, CalculationRecord]]:
    """Return each candidate's calculations by kind; results of the same gene asked for by others count as well."""
    of_fingerprint: dict[str, dict[str, CalculationRecord]] = {}
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in chosen]):
        of_fingerprint.setdefault(found.subject, {})[found.kind] = found
    return {candidate.candidate_id: of_fingerprint.get(str(candidate.gene), {}) for candidate in chosen}


def _reason_to_reject(relaxation: CalculationRecord | None) -> str | None:
    if relaxation is None or relaxation.status == "requested":
        return "never relaxed"
    if relaxation.status == "failed":
        return f"relaxation failed: {relaxation.error}"
    if relaxation.problems:
        return f"relaxation not believed: {'; '.join(relaxation.problems)}"
    return None


def _material(
    store: Store, candidate: CandidateRecord, of_kind: dict[str, CalculationRecord], policy: Policy
) -> MaterialRecord:
    relaxation = of_kind["relaxation"]
    crystal = relaxation.crystal
    if crystal is None:
        raise ValueError(f"calculation {relaxation.calculation_id} completed without a crystal")
    phonon = of_kind.get("phonon")
    has_phonon = phonon is not None and phonon.status == "completed"
    dft = of_kind.get("dft")
    has_dft = dft is not None and dft.status == "completed" and not dft.problems
    return MaterialRecord(
        material_id=material_id(str(candidate.gene)),
        fingerprint=str(candidate.gene),
        gene=candidate.gene,
        crystal=crystal,
        formation_energy_per_atom=_number(relaxation, "formation_energy_per_atom"),
        energy_method="chgnet",
        energy_above_hull=None,
        hull_id=None,
        band_gap=_number(dft, "band_gap") if dft and has_dft else None,
        band_gap_method=policy.dft_protocol if has_dft else None,
        is_gap_direct=dft.result.get("is_direct") is True if dft and has_dft else None,
        dft_formation_energy_per_atom=_dft_formation_energy(store, dft, policy) if dft and has_dft else None,
        lowest_optical_frequency=_number(phonon, "lowest_optical_frequency") if phonon and has_phonon else None,
        phonon_verdict=_phonon_verdict(phonon),
        is_validated=False,
        meets_target=False,
        candidate_id=candidate.candidate_id,
        campaign_id=candidate.campaign_id,
        round_number=candidate.round_number,
        model_id=candidate.model_id,
        calculation_ids=tuple(found.calculation_id for found in of_kind.values() if found.status == "completed"),
    )


def _phonon_verdict(phonon: CalculationRecord | None) -> str:
    if phonon is None or phonon.status != "completed":
        return "not computed"
    stable = "stable" if phonon.result["is_stable"] else "unstable"
    return f"{stable} (force-field pre-screen)" if phonon.result["is_prescreen"] else stable


def _dft_formation_energy(store: Store, dft: CalculationRecord, policy: Policy) -> float | None:
    """Count a DFT energy from the elemental references of the same protocol, eV/atom; None if one is missing."""
    if dft.crystal is None:
        return None
    chosen = protocol(policy.dft_protocol)
    energies: dict[str, float] = {}
    energy = _number(dft, "energy_per_atom")
    for element in dft.crystal.amounts:
        identity = calculation_id(f"reference {element}", chosen.identifier, chosen.hash)
        found = calculations.of_ids(store, [identity])
        reference = _number(found[0], "energy_per_atom") if found and found[0].status == "completed" else None
        if reference is None:
            return None
        energies[element] = reference
    return None if energy is None else formation_energy_per_atom(energy, dft.crystal.amounts, energies)


def _number(record: CalculationRecord, name: str) -> float | None:
    value = record.result.get(name)
    return float(value) if isinstance(value, int | float) else None


def unmet_conditions(material: MaterialRecord, target: Target) -> list[str]:
    """Return the conditions that a material's calculated values miss; what is not calculated misses none.

    A formation energy by DFT counts besides the force field's: both must fit.
    """
    values = material.values()
    unmet = [
        condition.texts[0]
        for condition in target.conditions
        if values.get(condition.field) is not None and not condition.accepts(values[condition.field])
    ]
    by_dft = material.dft_formation_energy_per_atom
    if by_dft is not None:
        unmet += [
            f"{condition.texts[0]} by DFT ({by_dft:.3f} eV/atom)"
            for condition in target.conditions
            if condition.field == "formation_energy_per_atom" and not condition.accepts(by_dft)
        ]
    return unmet


def _settle(store: Store, campaign: CampaignRecord, policy: Policy, material: MaterialRecord) -> str:
    """Decide what a material means for its campaign, with the hull distance known, and say why."""
    target = Target.parse(campaign.target)
    missing = [field for field in target.fields if material.values().get(field) is None]
    unmet = unmet_conditions(material, target)
    hull = material.energy_above_hull
    if hull is None or hull > policy.hull_cutoff:
        status, reason = "unstable", f"{hull} eV/atom above hull {material.hull_id}; cutoff {policy.hull_cutoff}"
    elif unmet:
        status, reason = "off_target", "calculated values miss " + ", ".join(unmet)
    else:
        status = "validated"
        reason = f"not calculated: {', '.join(missing)}" if missing else "every condition met by calculated values"
    is_validated = hull is not None and hull <= policy.hull_cutoff
    materials.upsert_material(
        store, replace(material, is_validated=is_validated, meets_target=status == "validated" and not missing)
    )
    if material.candidate_id is not None:
        candidates.set_status(store, [material.candidate_id], status, reason=reason)
    return status
