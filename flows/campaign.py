"""A campaign's rounds as a Prefect flow: it does what can be done now, records it, and ends; run it again to go on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from wyloop.flows import report
from wyloop.flows.generate import generate_candidates, screen_candidates
from wyloop.flows.launchpad import give_back_lost_jobs, is_alive, worker_name
from wyloop.flows.physics import JobsUnderWayError, relax_candidates, run_dft
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.flows.select import select_candidates
from wyloop.flows.session import launchpad as open_launchpad
from wyloop.flows.session import settings
from wyloop.flows.session import store as open_store
from wyloop.flows.train import train_model
from wyloop.flows.write_back import write_materials
from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

WAITING, FINISHED, BUSY = "waiting", "finished", "busy"


@flow(name="advance-campaign", flow_run_name="{campaign_id}")
def advance_campaign(campaign_id: str) -> str:
    """Do every step of the campaign that can be done now.

    Killed at any point and run again, it goes on where it was: each step is idempotent and recorded when done.

    Args:
        campaign_id: The campaign.

    Returns:
        `waiting` for jobs, `finished` with all rounds asked for, or `busy` in another process.

    Raises:
        CampaignError: No such campaign.
        DatabaseError: MongoDB is out of reach.
    """
    with _lease(campaign_id) as has_lease:
        if not has_lease:
            return BUSY
        give_back_lost_jobs(open_launchpad())
        while (record := campaigns.open_round(open_store(), campaign_id)) is not None:
            for name, step in STEPS.items():
                if name not in record.steps and not step(campaign_id, record.round_id):
                    return WAITING
        return FINISHED


Step = Callable[[Store, CampaignRecord, RoundRecord, Policy], dict[str, object]]


def _step(name: str, function: Step) -> "Callable[[str, str], bool]":
    """Make a Prefect task of a step: run it, record it as done; False if it waits for jobs."""

    @task(name=name, task_run_name=f"{name} {{round_id}}", cache_policy=NO_CACHE)
    def run(campaign_id: str, round_id: str) -> bool:
        store = open_store()
        campaign, record = campaigns.campaign(store, campaign_id), campaigns.round_record(store, round_id)
        # A step may take minutes: whoever advances keeps the lease for as long as it does.
        if campaigns.acquire_lease(store, campaign_id, worker_name(), settings().lease_seconds) is None:
            raise CampaignError(f"{campaign_id} is advanced by another process since; expected to hold its lease")
        try:
            counts = function(store, campaign, record, Policy.model_validate(campaign.settings))
        except JobsUnderWayError as waiting:
            with progress(f"{name}: calculations") as update:
                update(waiting.n_done, waiting.n_total)
            return False
        fields = {key: counts[key] for key in ("model_id", "snapshot_hash") if key in counts}
        campaigns.record_step(store, round_id, name, counts=counts, **fields)
        return True

    return run


def refresh_data(store: Store, _campaign: CampaignRecord, _record: RoundRecord, _policy: Policy) -> dict[str, object]:
    """Encode every structure that is new or changed, and bring materials and hulls up to date."""
    with progress("encoding structures") as update:
        encodings = build_encodings(store, on_progress=update)
    with progress("telling materials apart") as update:
        materials = build_materials(store, on_progress=update)
    with progress("building hulls") as update:
        hulls = build_hulls(store, on_progress=update)
    return {
        "n_encoded": encodings.n_done,
        "n_refused": encodings.n_refused,
        "n_materials": materials.n_done,
        "n_hulls": hulls.n_done,
    }


def close(store: Store, campaign: CampaignRecord, record: RoundRecord, _policy: Policy) -> dict[str, object]:
    """Close the round with its summary and show it in Prefect."""
    summary = report.summarize(store, campaign, record)
    report.publish(store, campaign, record, summary)
    campaigns.close_round(store, record.round_id, summary)
    return {}


STEPS: dict[str, Callable[[str, str], bool]] = {
    "refresh": _step("refresh", refresh_data),
    "train": _step("train", lambda store, _campaign, record, policy: train_model(store, record, policy)),
    "generate": _step("generate", generate_candidates),
    "screen": _step("screen", screen_candidates),
    "select": _step("select", lambda store, _campaign, record, policy: select_candidates(store, record, policy)),
    "relax": _step(
        "relax", lambda store, _campaign, record, policy: relax_candidates(store, open_launchpad(), record, policy)
    ),
    "validate": _step("validate", write_materials),
    "dft": _step("dft", lambda store, _campaign, record, policy: run_dft(store, open_launchpad(), record, policy)),
    "write_back": _step("write_back", write_materials),
    "close": _step("close", close),
}
"""The steps of a round in their order."""


@contextmanager
def _lease(campaign_id: str) -> Iterator[bool]:
    """Hold the campaign while the block runs; yields False if another live process holds it."""
    store, owner = open_store(), worker_name()
    holder = campaigns.campaign(store, campaign_id).lease_owner
    if holder is not None and not is_alive(holder):
        campaigns.release_lease(store, campaign_id, holder)
    token = campaigns.acquire_lease(store, campaign_id, owner, settings().lease_seconds)
    try:
        yield token is not None
    finally:
        if token is not None:
            campaigns.release_lease(store, campaign_id, owner)
