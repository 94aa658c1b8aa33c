"""What came of a round: finished calculations become materials, hulls are updated, candidates get their end."""

import logging
from collections import Counter

from wyloop.flows.policy import Policy
from wyloop.flows.review import accept_confirmed
from wyloop.models.targets import Target
from wyloop.stores import calculations, candidates, materials
from wyloop.stores.builders.assemble import best_of_kind
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import OPEN_STATUSES, build_materials
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord, material_id
from wyloop.stores.quarantine import quarantine, reasons_to_quarantine
from wyloop.stores.verdicts import judge

logger = logging.getLogger(__name__)


def write_materials(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Write every usable result of the round back as a material, update the hulls, and settle each candidate.

    A result may come after the first verdict (DFT after the force field). Repeating it changes nothing; after further
    calculations it completes what they add. What is implausible is quarantined: it makes nothing until a second
    calculation agrees with it, or a person accepts it.

    Returns:
        How many candidates ended in which status.
    """
    open_candidates = candidates.of_round(store, record.round_id, statuses=OPEN_STATUSES)
    _quarantine(store, open_candidates, policy)
    n_accepted = len(accept_confirmed(store))
    by_candidate = calculations_by_candidate(store, open_candidates)
    relaxed: list[CandidateRecord] = []
    statuses: Counter[str] = Counter()
    for candidate in open_candidates:
        end = _end_without_material(by_candidate[candidate.candidate_id].get("relaxation"))
        if end is None:
            relaxed.append(candidate)
        else:
            status, reason = end
            candidates.set_status(store, [candidate.candidate_id], status, reason=reason)
            statuses[status] += 1
    build_materials(store, [str(candidate.gene) for candidate in relaxed])
    build_hulls(store)
    ours = {candidate.candidate_id for candidate in relaxed}
    # A new material can lift older ones off the hull: all of the campaign's are judged again.
    judged = {
        one.candidate_id: _judged(campaign, policy, one)
        for one in materials.materials(store, campaign_id=campaign.campaign_id)
        if one.candidate_id is not None
    }
    for candidate in relaxed:
        if candidate.candidate_id not in judged:  # its gene's material is a newer round's, such as another campaign's
            material = materials.material(store, material_id(candidate.gene.fingerprint))
            judged[candidate.candidate_id] = _judged(campaign, policy, material)
    before = candidates.ends(store, judged)
    for identity, (status, reason) in judged.items():
        if before.get(identity) != (status, reason):
            candidates.set_status(store, [identity], status, reason=reason)
        statuses[status] += identity in ours
    logger.info("round %d: %s", record.number, dict(statuses))
    return {
        "n_materials": len(relaxed),
        **({"n_accepted": n_accepted} if n_accepted else {}),
        **{f"n_{status}": count for status, count in sorted(statuses.items()) if count},
    }


def _quarantine(store: Store, chosen: list[CandidateRecord], policy: Policy) -> None:
    """Keep the implausible results of candidates apart; what was reviewed before stays as it is."""
    of_gene: dict[str, list[CalculationRecord]] = {}
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in chosen]):
        of_gene.setdefault(found.subject, []).append(found)
    for candidate in chosen:
        for found in of_gene.get(str(candidate.gene), ()):
            if found.review is None:
                reasons = reasons_to_quarantine(found, candidate.prediction, policy.quarantine_sigma)
                if reasons and quarantine(store, found.calculation_id, reasons):
                    logger.warning("calculation %s is quarantined: %s", found.calculation_id, "; ".join(reasons))


def calculations_by_candidate(store: Store, chosen: list[CandidateRecord]) -> dict[str, dict[str, CalculationRecord]]:
    """Return each candidate's calculations by kind; results of the same gene asked for by others count as well."""
    of_gene: dict[str, list[CalculationRecord]] = {}
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in chosen]):
        of_gene.setdefault(found.subject, []).append(found)
    return {candidate.candidate_id: best_of_kind(of_gene.get(str(candidate.gene), [])) for candidate in chosen}


def _end_without_material(relaxation: CalculationRecord | None) -> tuple[str, str] | None:
    """Return status and reason of a candidate whose relaxation makes no material; None if it makes one."""
    if relaxation is None or relaxation.status in ("requested", "running"):
        return "failed", "never relaxed"
    if relaxation.status == "failed":
        return "failed", f"relaxation failed: {relaxation.error}"
    if relaxation.review == "quarantined":
        return "quarantined", f"its relaxation waits for review: {'; '.join(relaxation.review_reasons)}"
    if relaxation.review == "rejected":
        return "failed", f"relaxation rejected: {relaxation.review_note}"
    if relaxation.is_withheld:
        return "failed", f"relaxation not believed: {'; '.join(relaxation.problems)}"
    if relaxation.crystal is None:
        return "failed", "relaxation completed without a crystal"
    return None


def _judged(campaign: CampaignRecord, policy: Policy, material: MaterialRecord) -> tuple[str, str]:
    """Return the end that a material means for its candidate, with the hull distance known, and why."""
    judgement = judge(material, Target.parse(campaign.target), policy.hull_cutoff)
    return judgement.status, judgement.reason
