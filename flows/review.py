"""The end of a quarantine: a result is accepted or rejected, and material, hull and candidates follow at once."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wyloop.flows.authority import STARTS
from wyloop.flows.dispatch import CATEGORY, ask_for, id_of
from wyloop.flows.launchpad import Job, submit
from wyloop.flows.policy import Policy
from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError, RealizationError
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.realize import realize
from wyloop.stores import calculations, campaigns, candidates, materials, quarantine
from wyloop.stores.builders.assemble import best_of_kind, is_usable
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import OPEN_STATUSES, build_materials
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import material_id
from wyloop.stores.verdicts import judge

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

CHECK_PROTOCOL = "mlip-check/1"
"""What a relaxation that is not believed is computed by once more."""
N_STARTS = STARTS  # structures that the second relaxation starts from, built anew: as many as are reserved for


@dataclass(frozen=True)
class Decision:
    """What a review changed."""

    calculation_id: str
    review: str
    candidates: dict[str, str]
    """Status of each candidate of the gene that was taken on, by id."""

    @property
    def text(self) -> str:
        """One line for a person."""
        ends = ", ".join(f"{identity} is {status}" for identity, status in self.candidates.items())
        return f"{self.calculation_id} is {self.review}; {ends or 'no candidate waited for it'}"


def decide(store: Store, calculation_id: str, reason: str, *, is_accepted: bool) -> Decision:
    """Accept or reject a result, and bring material, hulls and candidates up to date; repeated, it changes nothing.

    Args:
        store: The database.
        calculation_id: The calculation.
        reason: Why, kept with the calculation.
        is_accepted: Whether it counts from now on.

    Raises:
        DatabaseError: No such calculation, one that is not completed or can't count, or no reason.
    """
    (quarantine.accept if is_accepted else quarantine.reject)(store, calculation_id, reason)
    found = calculations.calculation(store, calculation_id)
    taken_on = candidates.of_gene(store, found.subject, statuses=OPEN_STATUSES)
    if found.kind != "reference":
        build_materials(store, [found.subject])
        build_hulls(store)
    relaxation = best_of_kind(calculations.of_subjects(store, [found.subject])).get("relaxation")
    ends = {one.candidate_id: _settle(store, one, relaxation, reason) for one in taken_on}
    logger.info("calculation %s is %s: %s", calculation_id, found.review, reason)
    return Decision(calculation_id, str(found.review), ends)


def accept_confirmed(store: Store) -> list[str]:
    """Accept every quarantined result that a second calculation agrees with; return which."""
    found = quarantine.confirmed(store, quarantine.waiting(store))
    for identity, reason in found.items():
        decide(store, identity, reason, is_accepted=True)
    return sorted(found)


def second_of(found: CalculationRecord) -> str:
    """Return the id of the second relaxation of a gene whose first is not believed."""
    return id_of("relaxation", found.subject, CHECK_PROTOCOL)


def starts_of_second(candidate: CandidateRecord, found: CalculationRecord) -> list[Crystal]:
    """Return the structures that a second relaxation starts from: built anew, by another seed."""
    try:
        volume = candidate.prediction.volume_per_atom if candidate.prediction is not None else _volume(found)
        return realize(Gene.parse(found.subject), volume, seed=candidate.seed + 1, n_starts=N_STARTS)
    except RealizationError:  # what it started from the first time is all there is
        return list(found.inputs)


def compute_again(store: Store, lpad: "LaunchPad", calculation_id: str) -> str:
    """Submit by hand a second relaxation of a gene whose first is not believed, from other starts, once.

    A round does so by itself, within its campaign's budget (flows/recheck.py).

    Returns:
        The second calculation's id.

    Raises:
        DatabaseError: No such calculation, or it is no relaxation of a round's candidate.
    """
    found = calculations.calculation(store, calculation_id)
    if found.kind != "relaxation" or found.round_id is None or found.candidate_id is None:
        raise DatabaseError(
            f"{calculation_id} is a {found.kind}; expected the relaxation of a candidate; decide yourself"
        )
    candidate, record = candidates.candidate(store, found.candidate_id), campaigns.round_record(store, found.round_id)
    starts, owner = starts_of_second(candidate, found), candidate.candidate_id
    identity = ask_for(store, "relaxation", found.subject, CHECK_PROTOCOL, record, candidate_id=owner, inputs=starts)
    submit(lpad, [Job(identity, f"relaxation {found.subject} again", CATEGORY["relaxation"])], name=identity)
    return identity


def _volume(found: CalculationRecord) -> float:
    crystal = found.crystal or next(iter(found.inputs), None)
    if crystal is None:
        raise RealizationError(f"{found.calculation_id} has no crystal; expected one to take the volume of")
    return crystal.volume / crystal.nsites


def _settle(store: Store, candidate: CandidateRecord, relaxation: CalculationRecord | None, reason: str) -> str:
    """Give a candidate the end that its gene's calculations mean now."""
    status, why = "failed", f"relaxation rejected: {reason}"
    if is_usable(relaxation):
        campaign = campaigns.campaign(store, candidate.campaign_id)
        material = materials.material(store, material_id(candidate.gene.fingerprint))
        cutoff = Policy.model_validate(campaign.settings).hull_cutoff
        judgement = judge(material, Target.parse(campaign.target), cutoff)
        status, why = judgement.status, judgement.reason
    elif relaxation is not None and relaxation.review == "quarantined":
        return candidate.status
    candidates.set_status(store, [candidate.candidate_id], status, reason=why)
    return status
