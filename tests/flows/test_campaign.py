import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.flows.conftest import prefect_at, this_process
from tests.flows.rounds import POLICY, fill, process, wait_for, worker
from wyloop.flows.campaign import BUSY, FINISHED, STEPS, WAITING, advance_campaign, run_step
from wyloop.flows.launchpad import launchpad, worker_name
from wyloop.flows.review import CHECK_PROTOCOL
from wyloop.flows.worker import ONE_THREAD, run_worker
from wyloop.models.errors import CampaignError, LeaseLostError
from wyloop.models.targets import Target
from wyloop.stores import calculations, campaigns, candidates, materials, registry, stories
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store, connect
from wyloop.stores.leases import acquire_lease
from wyloop.stores.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from fireworks import LaunchPad

pytestmark = pytest.mark.slow

# Cubic cells of few free parameters keep the relaxations of the test to seconds.
TARGET = ("formation_energy_per_atom < -0.5", "space_group_number >= 195")
SMALL = POLICY.model_copy(update={"max_nsites": 6, "n_starts": 1, "hull_cutoff": 0.3})
ADVANCE = "import sys; from wyloop.flows.campaign import advance_campaign; print(advance_campaign(sys.argv[1]))"


@dataclass(frozen=True)
class Finished:
    """A campaign of two rounds that ran to its end, and what it took."""

    store: Store
    lpad: "LaunchPad"
    campaign_id: str
    outcomes: list[str]
    api_url: str


@pytest.fixture(scope="module")
def finished(mongod: MongoServer, prefect_api: str) -> Iterator[Finished]:
    """Two rounds with a worker beside this process."""
    name = f"test_{uuid4().hex[:20]}"
    environment = {
        **ONE_THREAD,
        "WYLOOP_STORES_URI": mongod.uri,
        "WYLOOP_STORES_DATABASE": name,
        "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": f"{name}_fireworks",
    }
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for key, value in environment.items():
            patch.setenv(key, value)
        store = connect(Settings(uri=SecretStr(mongod.uri), database=name))
        lpad = launchpad(mongod.uri, f"{name}_fireworks")
        stack.callback(store.close)
        stack.callback(lpad.connection.close)
        stack.callback(store.client.drop_database, f"{name}_fireworks")
        stack.callback(store.client.drop_database, name)
        fill(store)
        campaign = campaigns.create_campaign(store, TARGET, SMALL.model_dump(mode="json"))
        campaigns.request_rounds(store, campaign.campaign_id, 2)
        outcomes: list[str] = []
        with this_process(), prefect_at(prefect_api), worker(environment):
            deadline = time.monotonic() + 500
            while not outcomes or outcomes[-1] != FINISHED:
                assert time.monotonic() < deadline
                outcomes.append(advance_campaign(campaign.campaign_id))
                if outcomes[-1] == WAITING:
                    wait_for_a_job(store)
        yield Finished(store, lpad, campaign.campaign_id, outcomes, prefect_api)


def wait_for_a_job(store: Store) -> None:
    """Wait until nothing is requested or running, or a while has passed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if store.database["calculations"].find_one({"status": {"$in": ["requested", "running"]}}) is None:
            return
        time.sleep(0.2)


def genes(found: list[CandidateRecord]) -> set[str]:
    return {candidate.gene.fingerprint for candidate in found}


def test_both_rounds_are_closed_and_recorded_step_by_step(finished: Finished) -> None:
    assert set(finished.outcomes) == {WAITING, FINISHED}
    campaign = campaigns.campaign(finished.store, finished.campaign_id)
    assert (campaign.rounds_closed, campaign.lease_owner) == (2, None)
    found = campaigns.rounds(finished.store, finished.campaign_id)
    assert [(record.number, record.state) for record in found] == [(1, "closed"), (2, "closed")]
    for record in found:
        assert set(record.steps) == set(STEPS)
        assert record.steps["select"]["counts"]["n_selected"] == 3  # type: ignore[call-overload,index]  # plain JSON
        assert [row["n"] for row in record.summary["funnel"]][0] == SMALL.n_candidates  # type: ignore[index,union-attr,call-overload]


def test_no_gene_is_proposed_twice_or_known(finished: Finished) -> None:
    first, second = campaigns.rounds(finished.store, finished.campaign_id)
    before, after = (candidates.of_round(finished.store, record.round_id) for record in (first, second))
    assert len(genes(before)) == len(genes(after)) == SMALL.n_candidates
    assert genes(before).isdisjoint(genes(after))
    encoded = {row["fingerprint"] for row in finished.store.database["encodings"].find()}
    assert encoded.isdisjoint(genes(before) | genes(after))


def test_the_second_model_learnt_from_the_first_round(finished: Finished) -> None:
    first, second = campaigns.rounds(finished.store, finished.campaign_id)
    assert first.model_id is not None
    assert second.model_id is not None
    rows = [registry.model(finished.store, identity).n_rows for identity in (first.model_id, second.model_id)]
    validated = [
        found for found in materials.materials(finished.store) if found.is_validated and found.round_number == 1
    ]
    assert validated
    assert rows[0] is not None
    assert rows[1] == rows[0] + len(validated)
    snapshot = registry.load_snapshot(finished.store, second.model_id)
    assert snapshot is not None
    assert {found.material_id for found in validated} <= set(snapshot.row_ids)


def test_jobs_are_completed_and_each_was_submitted_once(finished: Finished) -> None:
    names = [job["spec"]["calculation_id"] for job in finished.lpad.fireworks.find({}, {"spec.calculation_id": 1})]
    again = finished.store.database["calculations"].count_documents({"protocol": CHECK_PROTOCOL})
    # relaxation and phonons of three candidates in two rounds, and second relaxations of what was quarantined
    assert len(names) == len(set(names)) == 12 + again
    assert finished.lpad.workflows.count_documents({}) == 6 + again
    states = {job["state"] for job in finished.lpad.fireworks.find({}, {"state": 1})}
    assert states <= {"COMPLETED", "DEFUSED"}
    assert finished.lpad.fireworks.count_documents({"state": "COMPLETED"}) >= 6
    done = [c for r in campaigns.rounds(finished.store, finished.campaign_id)
            for c in calculations.of_round(finished.store, r.round_id, statuses=("completed",))]  # fmt: skip
    assert done
    assert all(found.core_seconds is not None for found in done)


def test_validated_candidates_fit_the_target_by_calculated_values(finished: Finished) -> None:
    target = Target.parse(TARGET)
    found = materials.materials(finished.store, campaign_id=finished.campaign_id)
    assert found
    for material in found:
        assert material.candidate_id is not None
        story = stories.story(finished.store, material.candidate_id)
        on_target = material.is_validated and target.matches(material.values())
        assert (story["status"] == "validated") == on_target == material.meets_target
        for part in ("campaign", "round", "model", "hull"):
            assert story[part] is not None
        assert len(story["calculations"]) in (2, 3)  # type: ignore[arg-type]  # a list
    assert {candidate.status for record in campaigns.rounds(finished.store, finished.campaign_id)
            for candidate in candidates.of_round(finished.store, record.round_id)}.isdisjoint(
                {"proposed", "selected", "dispatched"})  # fmt: skip


def test_prefect_shows_flows_tasks_and_artifacts(finished: Finished) -> None:
    with prefect_at(finished.api_url), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[finished.campaign_id])), limit=200
        )
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(limit=200)}
    assert len(runs) >= len(finished.outcomes)
    assert {run.state_name for run in runs} == {"Completed"}
    for record in campaigns.rounds(finished.store, finished.campaign_id):
        assert artifacts[f"funnel-{record.round_id}"].type == "table"
        assert artifacts[f"best-materials-{record.round_id}"].flow_run_id in {run.id for run in runs}
        assert artifacts[f"summary-{record.round_id}"].type == "markdown"


def test_advancing_a_finished_campaign_changes_nothing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", finished.store.uri)
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", finished.store.name)
    monkeypatch.setenv("WYLOOP_FLOWS_LAUNCHPAD_DATABASE", finished.lpad.name)
    before = finished.store.database["rounds"].count_documents({})
    with this_process(), prefect_at(finished.api_url):
        assert advance_campaign(finished.campaign_id) == FINISHED
    assert finished.store.database["rounds"].count_documents({}) == before


def test_killed_at_any_step_it_goes_on_without_losing_or_repeating(
    finished: Finished,
    in_process: Store,
    lpad: "LaunchPad",
    launchpad_name: str,
    own_environment: dict[str, str],
    prefect: str,
    process_state: "Path",
) -> None:
    fill(in_process)
    campaign_id = campaigns.create_campaign(in_process, TARGET, SMALL.model_dump(mode="json")).campaign_id
    assert campaign_id == finished.campaign_id  # the same campaign in another database: the same seeds
    campaigns.request_rounds(in_process, campaign_id, 1)
    round_id = campaigns.round_id(campaign_id, 1)

    def is_recorded(step: str) -> bool:
        return (
            in_process.database["rounds"].find_one({"round_id": round_id, f"steps.{step}": {"$exists": True}})
            is not None
        )

    moments = {
        "training": lambda: is_recorded("refresh"),
        "generating": lambda: is_recorded("train"),
        "proposed": lambda: in_process.database["candidates"].find_one() is not None,
        "dispatching": lambda: lpad.workflows.find_one() is not None,
    }
    for is_there in moments.values():
        with process({**own_environment, "PREFECT_API_URL": prefect}, "-c", ADVANCE, campaign_id) as killed:
            wait_for(is_there)
            killed.kill()
            assert killed.wait() == -signal.SIGKILL
    outcome = advance_campaign(campaign_id)
    assert outcome == WAITING
    assert lpad.workflows.count_documents({}) == 3
    while outcome == WAITING:
        assert run_worker(in_process.uri, launchpad_name, run_folder=process_state, once=True) > 0
        outcome = advance_campaign(campaign_id)
    assert outcome == FINISHED
    assert campaigns.round_record(in_process, round_id).state == "closed"

    # As if nothing had happened: the candidates, their ends and ranks are those of the campaign that nobody killed.
    undisturbed = candidates.of_round(finished.store, round_id)
    resumed = candidates.of_round(in_process, round_id)
    assert [(c.candidate_id, c.status, c.rank) for c in resumed] == [
        (c.candidate_id, c.status, c.rank) for c in undisturbed
    ]
    names = [job["spec"]["calculation_id"] for job in lpad.fireworks.find({}, {"spec.calculation_id": 1})]
    again = sum(one.protocol == CHECK_PROTOCOL for one in calculations.of_round(in_process, round_id))
    assert len(names) == len(set(names)) == 6 + again
    assert lpad.workflows.count_documents({}) == 3 + again
    assert len(registry.models(in_process)) == 2


def test_a_campaign_in_other_hands_is_left_alone(in_process: Store, prefect: str) -> None:
    campaign_id = campaigns.create_campaign(in_process, TARGET, SMALL.model_dump(mode="json")).campaign_id
    campaigns.request_rounds(in_process, campaign_id, 1)
    owner = f"{worker_name().rpartition(':')[0]}:{os.getppid()}"  # a live process
    acquire_lease(in_process, campaign_id, owner, 600)
    assert advance_campaign(campaign_id) == BUSY
    assert campaigns.campaign(in_process, campaign_id).lease_owner == owner
    assert campaigns.rounds(in_process, campaign_id) == []

    # A step whose lease went to another one in the meantime does nothing.
    record = campaigns.open_round(in_process, campaign_id)
    assert record is not None
    with pytest.raises(LeaseLostError, match="advanced by another process"):
        run_step("refresh", campaign_id, record.round_id, 0)
    assert campaigns.round_record(in_process, record.round_id).steps == {}


def test_the_lease_of_a_dead_owner_is_taken_over(in_process: Store, prefect: str) -> None:
    campaign_id = campaigns.create_campaign(in_process, TARGET, SMALL.model_dump(mode="json")).campaign_id
    with process({}, "-c", "pass") as ended:
        ended.wait()
    acquire_lease(in_process, campaign_id, f"{worker_name().rpartition(':')[0]}:{ended.pid}", 600)
    assert advance_campaign(campaign_id) == FINISHED  # no round is asked for
    found = campaigns.campaign(in_process, campaign_id)
    assert (found.lease_owner, found.fencing_token) == (None, 2)


def test_no_such_campaign(in_process: Store, prefect: str) -> None:
    with pytest.raises(CampaignError, match="no campaign 'campaign-0'"):
        advance_campaign("campaign-0")
