"""Second calculations: what a round's candidates wait in quarantine for is computed once more, within the budget."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wyloop.flows import charges
from wyloop.flows.dispatch import CATEGORY, ask_for, n_unfinished
from wyloop.flows.launchpad import Job, submit_all
from wyloop.flows.physics import JobsUnderWayError
from wyloop.flows.policy import Policy
from wyloop.flows.review import CHECK_PROTOCOL, second_of, starts_of_second
from wyloop.flows.write_back import write_materials
from wyloop.stores import calculations, candidates
from wyloop.stores.builders.materials import OPEN_STATUSES
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)


def recheck_quarantined(
    store: Store, lpad: "LaunchPad", campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> dict[str, object]:
    """Compute the round's quarantined relaxations once more, and accept those that the second calculation confirms.

    Each is reserved, asked for and submitted once, whatever interrupts it; those that the budget does not allow go on
    waiting for a person.

    Returns:
        How many were computed again and what came of them, counted in the database.

    Raises:
        JobsUnderWayError: Jobs are still to finish.
    """
    under_way = [found for found in calculations.of_round(store, record.round_id) if found.protocol == CHECK_PROTOCOL]
    granted = _ask(store, record, _waiting(store, record))
    identities = sorted({*granted, *(found.calculation_id for found in under_way)})
    if not identities:
        return _told(store, record)
    wanted = calculations.of_ids(store, identities)
    submit_all(lpad, [(_jobs(found), found.calculation_id) for found in wanted if found.status not in charges.FINISHED])
    unfinished = n_unfinished(store, lpad, identities)
    if unfinished:
        raise JobsUnderWayError(len(identities) - unfinished, len(identities))
    charges.collect(store, lpad, campaign.campaign_id)
    write_materials(store, campaign, record, policy)
    return _told(store, record)


def _waiting(store: Store, record: RoundRecord) -> list[tuple[CandidateRecord, CalculationRecord]]:
    """Return the candidates of a round whose first relaxation waits for review, with it."""
    of_gene = {str(one.gene): one for one in candidates.of_round(store, record.round_id, statuses=("quarantined",))}
    return [
        (of_gene[found.subject], found)
        for found in calculations.of_subjects(store, sorted(of_gene))
        if found.kind == "relaxation" and found.review == "quarantined" and found.protocol != CHECK_PROTOCOL
    ]


def _ask(store: Store, record: RoundRecord, waiting: Sequence[tuple[CandidateRecord, CalculationRecord]]) -> list[str]:
    """Reserve and ask for second calculations; return those that the budget allows."""
    identities = [second_of(found) for _, found in waiting]
    granted = charges.reserve_chains(store, record, [{identity: CHECK_PROTOCOL} for identity in identities])
    known = {found.calculation_id for found in calculations.of_ids(store, identities)}
    for (candidate, found), identity, is_granted in zip(waiting, identities, granted, strict=True):
        if is_granted and identity not in known:
            starts = starts_of_second(candidate, found)
            owner = candidate.candidate_id
            ask_for(store, "relaxation", found.subject, CHECK_PROTOCOL, record, candidate_id=owner, inputs=starts)
    return [identity for identity, is_granted in zip(identities, granted, strict=True) if is_granted]


def _jobs(found: CalculationRecord) -> list[Job]:
    return [Job(found.calculation_id, f"relaxation {found.subject} again", CATEGORY[found.kind])]


def _told(store: Store, record: RoundRecord) -> dict[str, object]:
    """Count second calculations of the round's candidates, and what waits for a person."""
    taken_on = candidates.of_round(store, record.round_id, statuses=(*OPEN_STATUSES, "failed"))
    found = calculations.of_subjects(store, [str(one.gene) for one in taken_on])
    seconds = {one.subject: one for one in found if one.protocol == CHECK_PROTOCOL}
    reviewed = [one for one in found if one.kind == "relaxation" and one.review and one.protocol != CHECK_PROTOCOL]
    waiting = [str(one.gene) for one in taken_on if one.status == "quarantined"]
    return {
        "n_asked_again": len(seconds),
        "n_confirmed": sum(one.review == "accepted" for one in reviewed),
        "n_for_a_person": len(waiting),
        "n_beyond_budget": sum(subject not in seconds for subject in waiting),
    }
