"""Each state of damage is made by hand in a real LaunchPad and a real database, mended, and looked at again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from fireworks import FWAction, FWorker

from tests.flows.rounds import NACL, open_round, process, propose, starter, status_of
from wyloop.flows import authority, charges, reconcile
from wyloop.flows.authority import Authority
from wyloop.flows.dispatch import ask_for_screening, chain
from wyloop.flows.launchpad import Job, states, submit, submit_all, worker_name
from wyloop.flows.policy import Policy
from wyloop.models.physics.workflows import CATEGORY
from wyloop.stores import budget, calculations, campaigns, candidates, materials
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.leases import acquire_lease, release_lease

if TYPE_CHECKING:
    from fireworks import LaunchPad

POLICY = Policy(n_candidates=5, n_relaxations=3, quarantine_sigma=1000)
OLD = "2026-01-01T00:00:00"


@pytest.fixture
def store(in_process: Store) -> Store:
    return in_process


@contextmanager
def acting(store: Store, record: RoundRecord) -> Iterator[None]:
    """Hold the campaign's lease as a step does."""
    token = acquire_lease(store, record.campaign_id, worker_name(), 60)
    assert token is not None
    with authority.acting_for(Authority(store.name, record.campaign_id, record.round_id, token)):
        yield
    release_lease(store, record.campaign_id, worker_name())


@pytest.fixture
def dispatched(store: Store, lpad: "LaunchPad") -> tuple[CampaignRecord, RoundRecord, dict[str, str]]:
    """A campaign whose round has reserved and dispatched one candidate's relaxation and phonons."""
    campaign, record = open_round(store, POLICY)
    candidate = propose(store, record, NACL, "selected", rank=1)
    wanted = ask_for_screening(store, candidate, [starter("NaCl-225").crystal], record, POLICY)
    with acting(store, record):
        protocols = {"relaxation": POLICY.relaxation_protocol, "phonon": POLICY.phonon_protocol}
        chains = [{identity: protocols[kind] for kind, identity in wanted.items()}]
        assert charges.reserve_chains(store, record, chains) == [True]
        assert submit_all(lpad, [chain(candidate, wanted, "screening")]) == [True]
    candidates.set_status(store, [candidate.candidate_id], "dispatched")
    for step in ("reserve", "dispatch"):
        campaigns.record_step(store, record.round_id, step, counts={})
    assert mended(store, lpad) == {}
    return campaign, record, wanted


def mended(store: Store, lpad: "LaunchPad") -> dict[str, list[str]]:
    """Reconcile, and see that a second run has nothing to do."""
    first = reconcile.reconcile(store, lpad, with_prefect=False)
    assert first.failed == {}
    again = reconcile.reconcile(store, lpad, with_prefect=False)
    assert (again.done, again.failed) == ({}, {})
    assert budget.contradictions(store) == []
    return first.done


def dead_worker() -> str:
    with process({}, "-c", "pass") as ended:
        ended.wait()
    return f"{worker_name().rpartition(':')[0]}:{ended.pid}"


Dispatched = tuple[CampaignRecord, RoundRecord, dict[str, str]]


def test_reserved_without_launch(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation = dispatched[2]["relaxation"]
    lpad.fireworks.update_one({"state": "READY"}, {"$set": {"state": "RESERVED"}})
    lpad.fireworks.update_one({"state": "RESERVED"}, {"$set": {"updated_on": OLD}})
    assert mended(store, lpad) == {"reservation_without_launch": [relaxation]}
    assert states(lpad, [relaxation]) == {relaxation: "READY"}


def test_reserved_with_a_launch_that_it_does_not_name(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation = dispatched[2]["relaxation"]
    firework, launch_id = lpad.checkout_fw(FWorker(name=dead_worker()), "/tmp")
    lpad.fireworks.update_one({"fw_id": firework.fw_id}, {"$set": {"state": "RESERVED", "launches": []}})
    assert mended(store, lpad) == {"reservation_without_launch": [relaxation]}
    assert lpad.launches.find_one({"launch_id": launch_id})["state"] == "RUNNING"  # its history stays
    assert states(lpad, [relaxation]) == {relaxation: "READY"}


def test_orphaned_fireworks(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    wanted = dispatched[2]
    lpad.workflows.delete_many({})
    lpad.fireworks.update_many({}, {"$set": {"created_on": OLD}})
    found = mended(store, lpad)
    assert set(found) == {"firework_without_workflow", "calculation_without_job"}
    assert sorted(found["calculation_without_job"]) == sorted(wanted.values())
    assert lpad.fireworks.count_documents({}) == 2
    assert lpad.workflows.count_documents({}) == 1
    assert lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")[0].spec["calculation_id"] == wanted["relaxation"]


def test_workflows_without_fireworks(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    lpad.fireworks.delete_one({"state": "READY"})
    found = mended(store, lpad)
    assert len(found["workflow_without_fireworks"]) == 1
    assert sorted(found["calculation_without_job"]) == sorted(dispatched[2].values())


def test_leaked_workflow_lock(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    lpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert list(mended(store, lpad)) == ["workflow_lock_leaked"]
    assert lpad.workflows.find_one({"locked": {"$exists": True}}) is None


def test_launch_ended_while_the_workflow_was_locked(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation, phonon = dispatched[2]["relaxation"], dispatched[2]["phonon"]
    calculations.complete(store, relaxation, result={"converged": True}, core_seconds=2.0)
    firework, launch_id = lpad.checkout_fw(FWorker(name=dead_worker()), "/tmp")
    launch = lpad.get_launch_by_id(launch_id)
    launch.state, launch.action = "COMPLETED", FWAction()
    lpad.launches.find_one_and_replace({"launch_id": launch_id}, launch.to_db_dict())
    lpad.workflows.update_one({"nodes": firework.fw_id}, {"$set": {"locked": True}})
    found = mended(store, lpad)
    assert found["workflow_lock_leaked"]
    assert found["firework_behind_its_launch"] == [relaxation]
    assert found["reservation_of_an_ended_job"] == [relaxation]
    assert states(lpad, [relaxation, phonon]) == {relaxation: "COMPLETED", phonon: "READY"}


def test_dead_heartbeat(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation = dispatched[2]["relaxation"]
    _, launch_id = lpad.checkout_fw(FWorker(name="another-host:1"), "/tmp")
    assert mended(store, lpad) == {}  # it may well live
    history = {"state_history.$[].updated_on": OLD, "state_history.$[].created_on": OLD}
    lpad.launches.update_one({"launch_id": launch_id}, {"$set": history})
    assert mended(store, lpad) == {"job_of_a_silent_worker": [relaxation]}


def test_dead_worker_on_this_host(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation = dispatched[2]["relaxation"]
    lpad.checkout_fw(FWorker(name=dead_worker()), "/tmp")
    assert mended(store, lpad) == {"job_of_a_dead_worker": [relaxation]}
    assert states(lpad, [relaxation]) == {relaxation: "READY"}


def test_workflow_that_does_not_know_its_fireworks(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    lpad.workflows.update_one({}, {"$set": {"fw_states": {}, "state": "RUNNING"}})
    assert list(mended(store, lpad)) == ["workflow_behind_its_fireworks"]
    assert sorted(lpad.workflows.find_one({})["fw_states"].values()) == ["READY", "WAITING"]


def test_result_not_written_back(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    campaign, record, wanted = dispatched
    for kind, result in (
        ("relaxation", {"converged": True, "energy_per_atom": -3.0, "formation_energy_per_atom": -2.1}),
        ("phonon", {"is_stable": True, "is_prescreen": True}),
    ):
        crystal = starter("NaCl-225").crystal if kind == "relaxation" else None
        calculations.complete(store, wanted[kind], result=result, crystal=crystal, core_seconds=1.0)
        fw_id = lpad.get_fw_ids({"spec.calculation_id": wanted[kind]})[0]
        _, launch_id = lpad.checkout_fw(FWorker(name=worker_name()), "/tmp", fw_id=fw_id)
        lpad.complete_launch(launch_id, FWAction(), "COMPLETED")
    campaigns.close_round(store, record.round_id, {})
    found = mended(store, lpad)
    (candidate,) = candidates.of_round(store, record.round_id)
    assert found["result_not_written_back"] == [candidate.candidate_id]
    assert candidate.status in ("validated", "unstable", "off_target")
    assert len(materials.materials(store, campaign_id=campaign.campaign_id)) == 1
    assert sorted(found["reservation_of_an_ended_job"]) == sorted(wanted.values())


def test_reservation_without_job(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    _, record, _ = dispatched
    with acting(store, record):
        charges.reserve_chains(store, record, [{"calc-never-asked-for": "gpaw-pbe/1"}])
    assert mended(store, lpad) == {}  # the round's next step may ask for it
    campaigns.close_round(store, record.round_id, {})
    found = mended(store, lpad)
    assert found["reservation_without_job"] == ["calc-never-asked-for"]


def test_jobs_of_a_stopped_campaign_are_not_submitted(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    campaign, _, wanted = dispatched
    lpad.fireworks.delete_many({})
    lpad.workflows.delete_many({})
    campaigns.set_campaign_state(store, campaign.campaign_id, "paused")
    assert mended(store, lpad) == {}
    campaigns.set_campaign_state(store, campaign.campaign_id, "stopped")
    assert sorted(mended(store, lpad)["reservation_without_job"]) == sorted(wanted.values())
    assert lpad.fireworks.count_documents({}) == 0


def test_requested_calculation_without_firework(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    lpad.fireworks.delete_many({})
    lpad.workflows.delete_many({})
    found = mended(store, lpad)
    assert sorted(found["calculation_without_job"]) == sorted(dispatched[2].values())
    assert lpad.workflows.count_documents({}) == 1
    assert {found.state for found in budget.reservations(store)} == {"dispatched"}


def test_every_kind_of_calculation_has_its_place() -> None:
    assert set(reconcile.ORDER) == calculations.RESULTS.keys()
    assert CATEGORY.keys() - {"write_back"} <= set(reconcile.ORDER)


def test_lease_of_a_dead_process(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    campaign = dispatched[0]
    acquire_lease(store, campaign.campaign_id, dead_worker(), 3600)
    assert mended(store, lpad) == {"lease_of_a_dead_process": [campaign.campaign_id]}
    assert campaigns.campaign(store, campaign.campaign_id).lease_owner is None


def test_a_campaign_in_other_hands_is_left_to_them(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    campaign = dispatched[0]
    lpad.fireworks.delete_many({})
    lpad.workflows.delete_many({})
    acquire_lease(store, campaign.campaign_id, "another-host:1", 3600)
    assert mended(store, lpad) == {}


def test_a_job_that_is_sound_is_left_alone(store: Store, lpad: "LaunchPad", dispatched: Dispatched) -> None:
    relaxation = dispatched[2]["relaxation"]
    lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")
    submit(lpad, [Job("calc-by-hand", "relax CsCl", "mlip")], "by hand")
    assert mended(store, lpad) == {}
    assert states(lpad, [relaxation]) == {relaxation: "RUNNING"}
    assert status_of(store, relaxation) == "requested"
