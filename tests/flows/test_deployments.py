import os

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Completed, Running

from tests.flows.rounds import POLICY, process
from wyloop.flows import runs
from wyloop.flows.campaign import BUSY
from wyloop.flows.definition import create, define, start
from wyloop.flows.deployments import ZOMBIES, advance_campaigns, deploy_campaign, make_automation
from wyloop.flows.launchpad import worker_name
from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.leases import acquire_lease

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


def campaign(store: Store, name: str, *, n_rounds: int = 1) -> CampaignRecord:
    made = campaigns.create_campaign(store, ("band_gap > 1",), POLICY.model_dump(mode="json"), name)
    return campaigns.request_rounds(store, made.campaign_id, n_rounds)


def held_by_another(store: Store, name: str) -> CampaignRecord:
    """A campaign that wants a round and is advanced by a live process, which pytest's parent stands for."""
    made = campaign(store, name)
    owner = f"{worker_name().rpartition(':')[0]}:{os.getppid()}"
    assert acquire_lease(store, made.campaign_id, owner, 600) == 1
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


def test_a_campaign_is_advanced_when_its_schedule_says_so(in_process: Store) -> None:
    made = define({"target": "band_gap > 1", "name": "hourly", "schedule": {"interval_minutes": 60}})
    record = start(in_process, create(in_process, made).campaign_id)
    owner = f"{worker_name().rpartition(':')[0]}:{os.getppid()}"
    acquire_lease(in_process, record.campaign_id, owner, 600)
    assert advance_campaigns() == {record.campaign_id: BUSY}
    following = campaigns.campaign(in_process, record.campaign_id).next_advance_at
    assert following is not None
    assert 59 * 60 < (following - now()).total_seconds() <= 3600
    assert advance_campaigns() == {}


def test_prefect_knows_the_campaign_and_what_to_do_with_zombies(in_process: Store, prefect: str) -> None:
    made = campaign(in_process, "shown")
    for _ in range(2):
        deploy_campaign(made)
        make_automation()
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(f"advance-campaign/{made.campaign_id}")
        (automation,) = client.read_automations_by_name(ZOMBIES)
    assert set(found.tags) == {"wyloop", f"campaign:{made.campaign_id}"}
    assert found.schedules == []
    assert found.global_concurrency_limit is not None
    assert found.global_concurrency_limit.limit == 1
    assert automation.enabled


def test_a_run_whose_process_is_gone_is_marked_as_crashed(in_process: Store, prefect: str) -> None:
    with process({}, "-c", "pass") as ended:
        ended.wait()
    runs.crash_zombies()  # what other tests of this server left
    dead = f"{worker_name().rpartition(':')[0]}:{ended.pid}"
    with get_client(sync_client=True) as client:
        runs_made = [
            client.create_flow_run(advance_campaigns, tags=["wyloop", f"owner:{owner}"], state=Running())
            for owner in (dead, worker_name())
        ]
        assert runs.has_server()
        assert runs.crash_zombies() == [runs_made[0].name]
        assert runs.crash_zombies() == []
        states = [client.read_flow_run(one.id).state_name for one in runs_made]
        client.set_flow_run_state(runs_made[1].id, Completed(), force=True)
    assert states == ["Crashed", "Running"]
