"""Pause, resume and stop a campaign: its state first, in which nothing more is dispatched, then the jobs not begun."""

import logging
from typing import TYPE_CHECKING

from wyloop.flows import charges
from wyloop.flows.definition import start
from wyloop.flows.policy import Policy
from wyloop.stores import budget, campaigns
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

NOT_BEGUN = ("READY", "WAITING")


def pause(store: Store, lpad: "LaunchPad", campaign_id: str, *, reason: str = "by a person") -> CampaignRecord:
    """Let a campaign dispatch nothing more; with `on_pause: give_back` its jobs that have not begun wait as well.

    Jobs that run are left to end, and what they cost is settled.

    Raises:
        CampaignError: No such campaign, or one that is not active.
    """
    campaigns.set_campaign_state(store, campaign_id, "paused", reason=reason, only_from=("active", "paused"))
    record = campaigns.campaign(store, campaign_id)
    if Policy.model_validate(record.settings).on_pause == "give_back":
        n_held = _set_jobs(store, lpad, campaign_id, NOT_BEGUN, "PAUSED")
        logger.info("%s: %d jobs wait until it goes on", campaign_id, n_held)
    return record


def resume(store: Store, lpad: "LaunchPad", campaign_id: str) -> CampaignRecord:
    """Let a paused campaign go on, and its jobs with it.

    Raises:
        CampaignError: No such campaign, or one that is neither paused nor active nor finished.
    """
    record = start(store, campaign_id)
    _set_jobs(store, lpad, campaign_id, ("PAUSED",), "WAITING")
    return record


def stop(store: Store, lpad: "LaunchPad", campaign_id: str, *, reason: str = "by a person") -> CampaignRecord:
    """End a campaign for good: jobs that have not begun are taken off the list, what they had reserved is released.

    Raises:
        CampaignError: No such campaign.
    """
    campaigns.set_campaign_state(store, campaign_id, "stopped", reason=reason)
    _set_jobs(store, lpad, campaign_id, (*NOT_BEGUN, "PAUSED"), "DEFUSED")
    charges.collect(store, lpad, campaign_id)
    return campaigns.campaign(store, campaign_id)


def _set_jobs(store: Store, lpad: "LaunchPad", campaign_id: str, states: tuple[str, ...], state: str) -> int:
    """Give a campaign's jobs in certain states another one; a worker that has taken one keeps it."""
    identities = [found.calculation_id for found in budget.reservations(store, campaign_id=campaign_id)]
    query = {"spec.calculation_id": {"$in": identities}, "state": {"$in": list(states)}}
    fw_ids = [row["fw_id"] for row in lpad.fireworks.find(query, {"_id": 0, "fw_id": 1})]
    n_set = 0
    for fw_id in fw_ids:
        changed = lpad.fireworks.update_one(
            {"fw_id": fw_id, "state": {"$in": list(states)}}, {"$set": {"state": state}}
        )
        if changed.modified_count:
            n_set += 1
            lpad._refresh_wf(fw_id)
    return n_set
