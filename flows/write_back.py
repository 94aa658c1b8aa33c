"""What came of a round: finished calculations become materials, hulls are updated, candidates get their end."""

import logging
from collections import Counter

from wyloop.flows.policy import Policy
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
from wyloop.stores.verdicts import judge

logger = logging.getLogger(__name__)


def write_materials(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Write every usable result of the round back as a material, update the hulls, and settle each candidate.

    A result may come after the first verdict (DFT after the force field). Repeating it changes nothing; after further
    calculations it completes what they add.

    Returns:
        How many candidates ended in which status.
    """
    open_candidates = candidates.of_round(store, record.round_id, statuses=OPEN_STATUSES)
    by_candidate = calculations_by_candidate(store, open_candidates)
    genes: list[str] = []
    n_failed = 0
    for candidate in open_candidates:
        reason = _reason_to_reject(by_candidate[candidate.candidate_id].get("relaxation"))
        if reason is None:
            genes.append(str(candidate.gene))
        else:
            candidates.set_status(store, [candidate.candidate_id], "failed", reason=reason)
            n_failed += 1
    build_materials(store, genes)
    build_hulls(store)
    statuses = Counter({"failed": n_failed} if n_failed else {})
    new = {material_id(gene) for gene in genes}
    # A new material can lift older ones off the hull: all of the campaign's are judged again.
    for material in materials.materials(store, campaign_id=campaign.campaign_id):
        status = _settle(store, campaign, policy, material)
        statuses[status] += material.material_id in new
    logger.info("round %d: %s", record.number, dict(statuses))
    return {
        "n_materials": len(genes),
        **{f"n_{status}": count for status, count in sorted(statuses.items()) if count},
    }


def calculations_by_candidate(store: Store, chosen: list[CandidateRecord]) -> dict[str, dict[str, CalculationRecord]]:
    """Return each candidate's calculations by kind; results of the same gene asked for by others count as well."""
    of_gene: dict[str, list[CalculationRecord]] = {}
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in chosen]):
        of_gene.setdefault(found.subject, []).append(found)
    return {candidate.candidate_id: best_of_kind(of_gene.get(str(candidate.gene), [])) for candidate in chosen}


def _reason_to_reject(relaxation: CalculationRecord | None) -> str | None:
    if relaxation is None or relaxation.status in ("requested", "running"):
        return "never relaxed"
    if relaxation.status == "failed":
        return f"relaxation failed: {relaxation.error}"
    if relaxation.problems:
        return f"relaxation not believed: {'; '.join(relaxation.problems)}"
    if relaxation.crystal is None:
        return "relaxation completed without a crystal"
    return None


def _settle(store: Store, campaign: CampaignRecord, policy: Policy, material: MaterialRecord) -> str:
    """Give the candidate of a material its end, with the hull distance known, and say why."""
    judgement = judge(material, Target.parse(campaign.target), policy.hull_cutoff)
    if material.candidate_id is not None:
        candidates.set_status(store, [material.candidate_id], judgement.status, reason=judgement.reason)
    return judgement.status
