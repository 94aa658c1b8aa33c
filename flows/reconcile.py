"""Reconcile: campaigns, candidates, LaunchPad and Prefect are compared, and what a crash left between them is mended.

It changes nothing that is sound, so that a second run does nothing; every repair is one that may be repeated.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from wyloop.flows import charges, lost_jobs, runs
from wyloop.flows.authority import Authority, acting_for, current
from wyloop.flows.dispatch import CATEGORY, REFERENCE_PRIORITY, chain
from wyloop.flows.launchpad import Job, is_alive, run_again, states, submit_all, worker_name
from wyloop.flows.policy import Policy
from wyloop.flows.review import CHECK_PROTOCOL
from wyloop.flows.session import settings
from wyloop.flows.write_back import write_materials
from wyloop.models.errors import BudgetError, WyloopError
from wyloop.stores import budget, calculations, campaigns, candidates
from wyloop.stores.builders.assemble import best_of_kind
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.leases import acquire_lease, release_lease

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

ROUTINE = frozenset({"reservation_of_an_ended_job"})  # a look between a job's end and the collect step finds these

LEASE = 120.0  # s, for the repair of one campaign
ORDER = ("reference", "relax", "relaxation", "phonon", "vasp", "dft", "static", "dft_phonon", "bands", "transport")
"""Kinds of calculation in the order of a candidate's jobs: each may build on those before it."""
DISPATCHING = {"relaxation": "dispatch", "phonon": "dispatch"}
"""Kind of calculation to the step that submits it, others in `dft`: until it is done, what is missing is to come."""


@dataclass
class Repairs:
    """What was mended: kind of damage to the identities of what had it, and what could not be mended to why."""

    done: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, identities: list[str]) -> None:
        """Add what was mended of one kind."""
        if identities:
            self.done.setdefault(kind, []).extend(identities)
            level = logging.INFO if kind in ROUTINE else logging.WARNING
            logger.log(level, "mended %s: %d", kind.replace("_", " "), len(identities))

    @property
    def n_done(self) -> int:
        """How many were mended."""
        return sum(map(len, self.done.values()))


def reconcile(store: Store, lpad: "LaunchPad", *, with_prefect: bool = True) -> Repairs:
    """Find and mend what crashes left in the LaunchPad, the campaigns, the budgets and Prefect.

    Args:
        store: The database.
        lpad: The LaunchPad.
        with_prefect: Whether to look at Prefect's runs as well, if a server is configured and answers.
    """
    repairs = Repairs()
    _mend_launchpad(lpad, repairs)
    for campaign in campaigns.campaigns(store):
        _attempt(repairs, campaign.campaign_id, partial(_mend_under_lease, store, lpad, campaign, repairs))
    _collect(store, lpad, None, repairs)
    if with_prefect and runs.has_server():
        _attempt(repairs, "prefect", lambda: repairs.note("flow_run_without_process", runs.crash_zombies()))
    return repairs


def before_advance(store: Store, lpad: "LaunchPad", campaign: CampaignRecord, token: int) -> Repairs:
    """Mend what stands in the way of one campaign, whose lease this process holds."""
    repairs = Repairs()
    open_ones = budget.reservations(store, campaign_id=campaign.campaign_id)
    _mend_launchpad(lpad, repairs, [found.calculation_id for found in open_ones])
    _mend_campaign(store, lpad, campaign, token, repairs)
    return repairs


def _mend_launchpad(lpad: "LaunchPad", repairs: Repairs, calculation_ids: Sequence[str] | None = None) -> None:
    """Mend the jobs of some calculations, or all there are; jobs under way are few, and always looked at."""
    repairs.note("workflow_without_fireworks", lost_jobs.remove_hollow_workflows(lpad, calculation_ids))
    repairs.note("firework_without_workflow", lost_jobs.remove_orphans(lpad, calculation_ids))
    repairs.note("workflow_lock_leaked", lost_jobs.free_locks(lpad))
    lost = lost_jobs.give_back(lpad, settings().reservation_seconds, settings().lost_after_seconds)
    for kind, identities in lost.items():
        repairs.note(kind, identities)
    repairs.note("firework_behind_its_launch", lost_jobs.refresh_fireworks(lpad, settings().reservation_seconds))
    repairs.note("workflow_behind_its_fireworks", lost_jobs.refresh_workflows(lpad, calculation_ids))


def _mend_under_lease(store: Store, lpad: "LaunchPad", campaign: CampaignRecord, repairs: Repairs) -> None:
    """Mend one campaign, unless a live process advances it: that one does the same first."""
    owner, holder = worker_name(), campaign.lease_owner
    if holder is not None and holder != owner and not is_alive(holder):
        release_lease(store, campaign.campaign_id, holder)
        repairs.note("lease_of_a_dead_process", [campaign.campaign_id])
    if not _needs_mending(store, lpad, campaign):
        return
    token = acquire_lease(store, campaign.campaign_id, owner, LEASE)
    if token is None:
        return
    try:
        _mend_campaign(store, lpad, campaign, token, repairs)
    finally:
        if holder != owner:
            release_lease(store, campaign.campaign_id, owner)


def _needs_mending(store: Store, lpad: "LaunchPad", campaign: CampaignRecord) -> bool:
    """Whether a look finds anything: a lease is only taken to mend."""
    return bool(_without_job(store, lpad, campaign) or _without_use(store, lpad, campaign) or _behind(store, campaign))


def _mend_campaign(store: Store, lpad: "LaunchPad", campaign: CampaignRecord, token: int, repairs: Repairs) -> None:
    identity = campaign.campaign_id
    _collect(store, lpad, identity, repairs)
    unused = _without_use(store, lpad, campaign)
    if unused:
        budget.release(store, unused, reason=f"its campaign is {campaign.state}, and it has no job")
        repairs.note("reservation_without_job", unused)
    if campaign.state == "active":
        repairs.note("job_without_result", _run_again(store, lpad, identity))
        _attempt(repairs, identity, lambda: _submit_missing(store, lpad, campaign, token, repairs))
    for record in _behind(store, campaign):
        behind = set(_not_written_back(store, record))
        write_materials(store, campaign, record, Policy.model_validate(campaign.settings))
        repairs.note("result_not_written_back", sorted(behind - set(_not_written_back(store, record))))


def _run_again(store: Store, lpad: "LaunchPad", campaign_id: str) -> list[str]:
    """Give another try to jobs that FireWorks gave up without a result, such as those that lost the database."""
    open_ones = [found.calculation_id for found in budget.reservations(store, campaign_id=campaign_id)]
    fizzled = [identity for identity, state in states(lpad, open_ones).items() if state == "FIZZLED"]
    unfinished = [found for found in calculations.of_ids(store, fizzled) if found.status not in charges.FINISHED]
    return [found.calculation_id for found in unfinished if run_again(lpad, found.calculation_id)]


def _collect(store: Store, lpad: "LaunchPad", campaign_id: str | None, repairs: Repairs) -> None:
    """Settle and release reservations whose jobs have ended; it is also what every look of a step does."""
    before = {found.calculation_id for found in budget.reservations(store, campaign_id=campaign_id)}
    if before and any(charges.collect(store, lpad, campaign_id).values()):
        after = {found.calculation_id for found in budget.reservations(store, campaign_id=campaign_id)}
        repairs.note("reservation_of_an_ended_job", sorted(before - after))


def _without_job(store: Store, lpad: "LaunchPad", campaign: CampaignRecord) -> list[CalculationRecord]:
    """Return the calculations of an active campaign's round that should have a job by now and have none."""
    record = campaigns.current_round(store, campaign.campaign_id)
    if campaign.state != "active" or record is None:
        return []
    policy = Policy.model_validate(campaign.settings)
    reserved = budget.reservations(store, campaign_id=campaign.campaign_id)
    identities = [found.calculation_id for found in reserved if found.round_id == record.round_id]
    wanted = {found.calculation_id: found for found in calculations.of_ids(store, identities)}
    # also those that another campaign had reserved, and gave up
    waiting = candidates.of_round(store, record.round_id, statuses=("dispatched",))
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in waiting]):
        if found.protocol in (policy.relaxation_protocol, policy.phonon_protocol):
            wanted[found.calculation_id] = found
    unfinished = [
        found
        for found in wanted.values()
        if found.status not in charges.FINISHED and _dispatching(found) in record.steps
    ]
    known = states(lpad, [found.calculation_id for found in unfinished])
    return [found for found in unfinished if found.calculation_id not in known]


def _dispatching(found: CalculationRecord) -> str:
    """Return the step that submits a calculation."""
    return "recheck" if found.protocol == CHECK_PROTOCOL else DISPATCHING.get(found.kind, "dft")


def _submit_missing(store: Store, lpad: "LaunchPad", campaign: CampaignRecord, token: int, repairs: Repairs) -> None:
    missing = _without_job(store, lpad, campaign)
    if not missing:
        return
    record = campaigns.current_round(store, campaign.campaign_id)
    round_id = record.round_id if record is not None else str(missing[0].round_id)
    acting = current() or Authority(store.name, campaign.campaign_id, round_id, token)
    chains: dict[str, list[CalculationRecord]] = {}
    for found in sorted(missing, key=lambda one: ORDER.index(one.kind)):
        is_alone = found.candidate_id is None or found.protocol == CHECK_PROTOCOL
        chains.setdefault(found.calculation_id if is_alone else str(found.candidate_id), []).append(found)
    with acting_for(acting):
        submit_all(lpad, [_chain_again(store, found) for found in chains.values()])
    left = {found.calculation_id for found in _without_job(store, lpad, campaign)}
    repairs.note("calculation_without_job", [one.calculation_id for one in missing if one.calculation_id not in left])


def _chain_again(store: Store, found: list[CalculationRecord]) -> tuple[list[Job], str]:
    first = found[0]
    if first.candidate_id is not None:
        candidate = candidates.candidate(store, first.candidate_id)
        return chain(candidate, {one.kind: one.calculation_id for one in found}, "again")
    jobs = [
        Job(one.calculation_id, f"{one.kind} {one.subject}", CATEGORY[one.kind], priority=REFERENCE_PRIORITY)
        for one in found
    ]
    return jobs, f"{first.kind} {first.subject} again"


def _without_use(store: Store, lpad: "LaunchPad", campaign: CampaignRecord) -> list[str]:
    """Return what is reserved without a job for rounds that are over, or a campaign that is."""
    record = campaigns.current_round(store, campaign.campaign_id)
    round_id = record.round_id if record is not None and campaign.state in ("active", "paused") else None
    open_ones = budget.reservations(store, campaign_id=campaign.campaign_id)
    old = [found.calculation_id for found in open_ones if round_id is None or found.round_id != round_id]
    known = states(lpad, old) if old else {}
    return [identity for identity in old if identity not in known]


def _behind(store: Store, campaign: CampaignRecord) -> list[RoundRecord]:
    """Return the rounds that are over with candidates that have a result and no end."""
    is_over = campaign.state in ("stopped", "finished")
    rounds = campaigns.rounds(store, campaign.campaign_id)
    closed = [record for record in rounds if is_over or record.state == "closed"]
    return [record for record in closed if _not_written_back(store, record)]


def _not_written_back(store: Store, record: RoundRecord) -> list[str]:
    """Return the candidates of a closed round that have a result and no end, or wait for what is there by now."""
    waiting = candidates.of_round(store, record.round_id, statuses=("dispatched", "selected", "quarantined"))
    if not waiting:
        return []
    of_gene: dict[str, list[CalculationRecord]] = {}
    for found in calculations.of_subjects(store, [str(candidate.gene) for candidate in waiting]):
        of_gene.setdefault(found.subject, []).append(found)
    return [one.candidate_id for one in waiting if _has_ended(one.status, of_gene.get(str(one.gene), []))]


def _has_ended(status: str, found: Sequence[CalculationRecord]) -> bool:
    """Whether a candidate's calculations mean an end for it: any relaxation, or after a quarantine a decided one."""
    if status != "quarantined":
        return any(one.kind == "relaxation" and one.status in charges.FINISHED for one in found)
    relaxation = best_of_kind(found).get("relaxation")
    return relaxation is not None and relaxation.status == "completed" and relaxation.review != "quarantined"


def _attempt(repairs: Repairs, subject: str, mend: Callable[[], None]) -> None:
    """Let one repair that fails not stop the others."""
    try:
        mend()
    except BudgetError as error:
        repairs.failed[subject] = str(error)
    except WyloopError as error:
        repairs.failed[subject] = str(error)
        logger.warning("could not mend %s: %s", subject, error)
