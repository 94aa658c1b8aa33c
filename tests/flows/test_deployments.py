import os

import pytest

from tests.flows.rounds import POLICY
from wyloop.flows.campaign import BUSY
from wyloop.flows.deployments import advance_campaigns
from wyloop.flows.launchpad import worker_name
from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


def campaign(store: Store, name: str, *, n_rounds: int = 1) -> CampaignRecord:
    made = campaigns.create_campaign(store, ("band_gap > 1",), POLICY.model_dump(mode="json"), name)
    return campaigns.request_rounds(store, made.campaign_id, n_rounds)


def held_by_another(store: Store, name: str) -> CampaignRecord:
    """A campaign that wants a round and is advanced by a live process, which pytest's parent stands for."""
    made = campaign(store, name)
    owner = f"{worker_name().rpartition(':')[0]}:{os.getppid()}"
    assert campaigns.acquire_lease(store, made.campaign_id, owner, 600) == 1
    return made


def test_only_campaigns_that_want_rounds_are_advanced(in_process: Store) -> None:
    assert advance_campaigns() == {}
    campaign(in_process, "finished", n_rounds=0)
    for state in ("paused", "stopped"):
        campaigns.set_campaign_state(in_process, campaign(in_process, state).campaign_id, state)
    wanted = held_by_another(in_process, "active")
    assert advance_campaigns() == {wanted.campaign_id: BUSY}
    assert in_process.database["rounds"].count_documents({}) == 0


def test_a_campaign_that_fails_does_not_stop_the_others(in_process: Store) -> None:
    empty = campaign(in_process, "nothing to train on")  # WyloopError
    broken = campaign(in_process, "settings of another version")  # not ours: pydantic's
    in_process.database["campaigns"].update_one(
        {"campaign_id": broken.campaign_id}, {"$set": {"settings.n_candidates": -1}}
    )
    held_by_another(in_process, "last")
    with pytest.raises(CampaignError) as caught:
        advance_campaigns()
    message = str(caught.value)
    assert message.startswith("2 campaigns not advanced, 1 were; ")
    assert f"{empty.campaign_id}: " in message
    assert f"{broken.campaign_id}: " in message
    assert "0 training rows" in message
    states = {found.campaign_id: found.lease_owner for found in campaigns.campaigns(in_process)}
    assert (states[empty.campaign_id], states[broken.campaign_id]) == (None, None)
