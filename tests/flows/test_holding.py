from typing import TYPE_CHECKING

import pytest
from fireworks import FWorker

from tests.flows.rounds import NACL, open_round, propose, starter
from wyloop.flows import authority, charges, holding
from wyloop.flows.authority import Authority
from wyloop.flows.dispatch import ask_for_screening, chain
from wyloop.flows.launchpad import states, submit_all, worker_name
from wyloop.flows.policy import Policy
from wyloop.models.errors import BudgetError, CampaignError, LeaseLostError
from wyloop.stores import budget, campaigns
from wyloop.stores.budget import Limits
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.leases import acquire_lease, release_lease

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from wyloop.flows.launchpad import Job

GIVE_BACK = Policy(n_candidates=5, n_relaxations=3, on_pause="give_back")
Submitted = tuple[RoundRecord, dict[str, str], "tuple[list[Job], str]"]


def asked(store: Store, policy: Policy = GIVE_BACK) -> Submitted:
    """A campaign with one candidate's calculations asked for."""
    _, record = open_round(store, policy)
    candidate = propose(store, record, NACL, "selected", rank=1)
    wanted = ask_for_screening(store, candidate, [starter("NaCl-225").crystal], record, policy)
    return record, wanted, chain(candidate, wanted, "screening")


def submit(store: Store, lpad: "LaunchPad", submitted: Submitted, token: int | None = None) -> list[bool]:
    """Submit as a step of the campaign does."""
    record = submitted[0]
    if token is None:
        token = acquire_lease(store, record.campaign_id, worker_name(), 60)
        assert token is not None
    with authority.acting_for(Authority(store.name, record.campaign_id, record.round_id, token)):
        return submit_all(lpad, [submitted[2]])


def test_paused_jobs_wait_and_go_on(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    campaign_id, wanted = submitted[0].campaign_id, submitted[1]
    assert submit(in_process, lpad, submitted) == [True]
    holding.pause(in_process, lpad, campaign_id)
    assert set(states(lpad, list(wanted.values())).values()) == {"PAUSED"}
    assert lpad.checkout_fw(FWorker(name=worker_name()), "/tmp") == (None, None)
    record = holding.resume(in_process, lpad, campaign_id)
    assert record.state == "active"
    assert states(lpad, list(wanted.values())) == {wanted["relaxation"]: "READY", wanted["phonon"]: "WAITING"}
    assert {found.state for found in budget.reservations(in_process)} == {"dispatched"}


def test_a_running_job_is_left_to_end(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    submit(in_process, lpad, submitted)
    lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")
    holding.pause(in_process, lpad, submitted[0].campaign_id)
    wanted = submitted[1]
    assert states(lpad, list(wanted.values())) == {wanted["relaxation"]: "RUNNING", wanted["phonon"]: "PAUSED"}


def test_jobs_of_a_campaign_that_finishes_them_go_on(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process, GIVE_BACK.model_copy(update={"on_pause": "finish"}))
    submit(in_process, lpad, submitted)
    holding.pause(in_process, lpad, submitted[0].campaign_id)
    assert "READY" in states(lpad, list(submitted[1].values())).values()


def test_a_stopped_campaign_gives_its_budget_back(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    campaign_id = submitted[0].campaign_id
    submit(in_process, lpad, submitted)
    assert holding.stop(in_process, lpad, campaign_id, reason="enough").reason == "enough"
    assert set(states(lpad, list(submitted[1].values())).values()) == {"DEFUSED"}
    assert budget.reservations(in_process) == []
    assert budget.contradictions(in_process) == []
    with pytest.raises(CampaignError, match="is stopped; expected"):
        holding.resume(in_process, lpad, campaign_id)


def test_nothing_is_dispatched_while_it_is_paused(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    campaigns.set_campaign_state(in_process, submitted[0].campaign_id, "paused")
    with pytest.raises(CampaignError, match="is paused; expected an active campaign"):
        submit(in_process, lpad, submitted)
    assert lpad.fireworks.count_documents({}) == lpad.workflows.count_documents({}) == 0
    assert budget.reservations(in_process) == []


def test_who_lost_the_lease_dispatches_nothing(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    campaign_id = submitted[0].campaign_id
    token = acquire_lease(in_process, campaign_id, worker_name(), 60)
    release_lease(in_process, campaign_id, worker_name())
    acquire_lease(in_process, campaign_id, "another-host:1", 60)
    with pytest.raises(LeaseLostError):
        submit(in_process, lpad, submitted, token)
    assert lpad.fireworks.count_documents({}) == 0
    with pytest.raises(LeaseLostError):
        campaigns.record_step(in_process, submitted[0].round_id, "dispatch", counts={}, token=token)
    with pytest.raises(LeaseLostError):
        campaigns.close_round(in_process, submitted[0].round_id, {}, token=token)
    assert campaigns.round_record(in_process, submitted[0].round_id).state == "open"


def test_what_the_budget_does_not_allow_is_not_dispatched(in_process: Store, lpad: "LaunchPad") -> None:
    submitted = asked(in_process)
    record = submitted[0]
    budget.set_limits(in_process, record.campaign_id, {"all": Limits(jobs=1)})
    with pytest.raises(BudgetError, match="does not allow 2 jobs more"):
        submit(in_process, lpad, submitted)
    assert lpad.fireworks.count_documents({}) == 0
    chains = [{submitted[1]["relaxation"]: "mlip-screen/1"}, {submitted[1]["phonon"]: "mlip-gamma/1"}]
    assert charges.reserve_chains(in_process, record, chains) == [True, False]
