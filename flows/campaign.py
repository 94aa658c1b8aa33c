"""A campaign's rounds: what can be done now is done and recorded, then it ends; run it again to go on.

The same machine runs as a Prefect flow (`advance_campaign`) and as a plain function (`advance_locally`).
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from wyloop.flows import artifacts, charges, runs
from wyloop.flows.authority import Authority, acting_for
from wyloop.flows.launchpad import is_alive, worker_name
from wyloop.flows.physics import JobsUnderWayError
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.flows.reconcile import before_advance
from wyloop.flows.session import launchpad as open_launchpad
from wyloop.flows.session import settings
from wyloop.flows.session import store as open_store
from wyloop.flows.steps import STEPS
from wyloop.models.errors import BudgetError, CampaignError, LeaseLostError
from wyloop.stores import budget, campaigns
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.documents.budgets import ALL_PROTOCOLS
from wyloop.stores.leases import acquire_lease, release_lease, renew_lease

if TYPE_CHECKING:
    from wyloop.flows.steps import Step

logger = logging.getLogger(__name__)

WAITING, FINISHED, BUSY = "waiting", "finished", "busy"
DONE = "all rounds asked for are closed"
RunStep = Callable[[str, str, str, int], bool]
"""Runs a step, given its name, the campaign, the round and the fencing token; False if it has to wait."""


@flow(name="advance-campaign", flow_run_name="{campaign_id}")
def advance_campaign(campaign_id: str) -> str:
    """Do every step of the campaign that can be done now.

    Killed at any point and run again, it goes on where it was: each step is idempotent and recorded when done.

    Args:
        campaign_id: The campaign.

    Returns:
        `waiting` for jobs, `finished`, `busy` in another process, or the state that keeps it from going on: `paused`,
        `stopped`, `created`.

    Raises:
        CampaignError: No such campaign.
        LeaseLostError: Another process took over meanwhile; it goes on.
        DatabaseError: MongoDB is out of reach.
    """
    runs.mark(campaign_id)
    return _advance(campaign_id, _run_as_task, runs.run_id())


def advance_locally(campaign_id: str) -> str:
    """Do what `advance_campaign` does without Prefect: no server, no history, no artifacts."""
    return _advance(campaign_id, run_step, None)


def _advance(campaign_id: str, run: RunStep, run_id: str | None) -> str:
    store = open_store()
    with _lease(campaign_id, run_id) as token:
        if token is None:
            return BUSY
        campaign = campaigns.campaign(store, campaign_id)
        before_advance(store, open_launchpad(), campaign, token)
        while (campaign := campaigns.campaign(store, campaign_id)).state in ("active", "finished"):
            has_room = campaign.rounds_closed < campaign.rounds_requested
            reason = _spent(store, campaign) if has_room else None
            record = campaigns.open_round(store, campaign_id, token=token) if reason is None else None
            if record is None:
                if campaign.rounds_requested:
                    campaigns.finish_campaign(store, campaign_id, token, reason or DONE)
                return FINISHED
            for name in STEPS:
                if name not in record.steps and not run(name, campaign_id, record.round_id, token):
                    state = campaigns.campaign(store, campaign_id).state
                    return WAITING if state == "active" else state
        return campaign.state


def _spent(store: Store, campaign: CampaignRecord) -> str | None:
    """Return why a campaign between two rounds can't begin another, if it can't; a round under way is finished."""
    if campaigns.current_round(store, campaign.campaign_id) is not None:
        return None
    for row in budget.budget(store, campaign.campaign_id):
        if row.protocol != ALL_PROTOCOLS:
            continue
        if row.deadline is not None and now() >= row.deadline:
            return f"its time ended at {row.deadline:%Y-%m-%d %H:%M} UTC"
        if row.jobs_limit is not None and row.jobs_reserved + row.jobs_settled >= row.jobs_limit:
            return f"its budget of {row.jobs_limit} jobs is spent"
        seconds = row.core_seconds_reserved + row.core_seconds_spent
        if row.core_seconds_limit is not None and seconds >= row.core_seconds_limit:
            return f"its budget of {row.core_seconds_limit / 3600:g} core-hours is spent"
    rounds = campaigns.rounds(store, campaign.campaign_id)
    counts = (rounds[-1].steps.get("reserve") or {}).get("counts") if rounds else None
    if isinstance(counts, dict) and counts.get("n_beyond_budget") and not counts.get("n_reserved"):
        return "its budget does not allow another job"
    return None


def run_step(name: str, campaign_id: str, round_id: str, token: int) -> bool:
    """Run one step of a round under the campaign's lease, and record it as done.

    Returns:
        False if the step waits for jobs, or the campaign is not active any more.

    Raises:
        LeaseLostError: Another process advances the campaign since; nothing more was recorded.
    """
    store = open_store()
    renew_lease(store, campaign_id, token, settings().lease_seconds)
    campaign, record = campaigns.campaign(store, campaign_id), campaigns.round_record(store, round_id)
    if campaign.state != "active":
        return False
    function: Step = STEPS[name]
    authority = Authority(store.name, campaign_id, round_id, token)
    try:
        with acting_for(authority), _kept(store, campaign_id, token):
            counts = function(store, campaign, record, Policy.model_validate(campaign.settings))
    except JobsUnderWayError as waiting:
        charges.collect(store, open_launchpad(), campaign_id)
        with progress(f"{name}: calculations") as update:
            update(waiting.n_done, waiting.n_total)
        return False
    except BudgetError as error:
        campaigns.set_campaign_state(store, campaign_id, "paused", reason=str(error), only_from=("active",))
        return False
    except LeaseLostError:
        raise
    except CampaignError:
        if campaigns.campaign(store, campaign_id).state == "active":
            raise
        return False  # paused or stopped by a person while the step was under way: nothing was submitted
    fields = {key: counts[key] for key in ("model_id", "snapshot_hash") if key in counts}
    campaigns.record_step(store, round_id, name, counts=counts, token=token, **fields)
    return True


def _run_as_task(name: str, campaign_id: str, round_id: str, token: int) -> bool:
    """Run a step as a Prefect task of its name."""
    named = _step_task.with_options(name=name, task_run_name=f"{name} {round_id}")
    return named(name, campaign_id, round_id, token)


@task(
    name="step",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=runs.is_transient,
    on_failure=[artifacts.explain_failure],
)
def _step_task(name: str, campaign_id: str, round_id: str, token: int) -> bool:
    return run_step(name, campaign_id, round_id, token)


@contextmanager
def _kept(store: Store, campaign_id: str, token: int) -> Iterator[None]:
    """Renew the lease from time to time while a step runs, which may take minutes."""
    seconds = settings().lease_seconds
    is_over = threading.Event()

    def keep() -> None:
        while not is_over.wait(seconds / 3):
            try:
                renew_lease(store, campaign_id, token, seconds)
            except LeaseLostError:
                return  # the next write of the step finds out
            except Exception:  # noqa: BLE001 - a database that is away for a moment; the lease is longer than that
                logger.warning("could not renew the lease of %s", campaign_id)

    keeper = threading.Thread(target=keep, name=f"lease of {campaign_id}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        is_over.set()
        keeper.join(timeout=5)


@contextmanager
def _lease(campaign_id: str, run_id: str | None) -> Iterator[int | None]:
    """Hold the campaign while the block runs; yields the fencing token, None if another live process holds it."""
    store, owner = open_store(), worker_name()
    holder = campaigns.campaign(store, campaign_id).lease_owner
    if holder is not None and not is_alive(holder):
        release_lease(store, campaign_id, holder)
    token = acquire_lease(store, campaign_id, owner, settings().lease_seconds, run_id=run_id)
    try:
        yield token
    finally:
        if token is not None:
            release_lease(store, campaign_id, owner)
