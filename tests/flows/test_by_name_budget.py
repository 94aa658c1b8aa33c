"""Who pays for a workflow by name: nobody for a candidate by hand, its campaign for one that a campaign has."""

from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import CSCL, NACL, open_round, propose
from wyloop.flows.by_name import add_candidate
from wyloop.flows.launchpad import states
from wyloop.models.errors import BudgetError, CampaignError
from wyloop.stores import budget, campaigns, candidates
from wyloop.stores.budget import Limits
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad


def test_by_hand_nobody_pays(in_process: Store, lpad: "LaunchPad") -> None:
    campaign, record = open_round(in_process)
    theirs = propose(in_process, record, NACL, "passed")
    added = add_candidate(in_process, lpad, NACL, "mlip-gamma/1")
    assert added.candidate.candidate_id != theirs.candidate_id
    assert budget.budget(in_process, campaign.campaign_id) == []
    assert budget.reservations(in_process) == []


def test_a_campaign_pays_for_its_own_candidate_or_nothing_is_submitted(in_process: Store, lpad: "LaunchPad") -> None:
    campaign, record = open_round(in_process)
    identity = campaign.campaign_id
    theirs = propose(in_process, record, NACL, "passed")
    budget.set_limits(in_process, identity, {"all": Limits(jobs=1)})
    with pytest.raises(BudgetError, match="does not allow 2 jobs more"):
        add_candidate(in_process, lpad, NACL, "mlip-gamma/1", campaign_id=identity)
    with pytest.raises(CampaignError, match="no candidate"):
        add_candidate(in_process, lpad, CSCL, "mlip-gamma/1", campaign_id=identity)
    assert (lpad.fireworks.count_documents({}), lpad.workflows.count_documents({})) == (0, 0)
    assert candidates.candidate(in_process, theirs.candidate_id).status == "passed"

    budget.set_limits(in_process, identity, {"all": Limits(jobs=2)})
    added = add_candidate(in_process, lpad, NACL, "mlip-gamma/1", campaign_id=identity)
    assert (added.candidate.candidate_id, added.candidate.status) == (theirs.candidate_id, "dispatched")
    relaxation, phonon = added.calculation_ids.values()
    assert states(lpad, [relaxation, phonon]) == {relaxation: "READY", phonon: "WAITING"}
    paid = budget.reservations(in_process, campaign_id=identity)
    assert {one.calculation_id: one.state for one in paid} == {relaxation: "dispatched", phonon: "dispatched"}
    assert budget.contradictions(in_process) == []
    campaigns.set_campaign_state(in_process, identity, "paused")
    with pytest.raises(CampaignError, match="is paused; expected it active"):
        add_candidate(in_process, lpad, NACL, "mlip-screen/1", campaign_id=identity, is_forced=True)
    assert lpad.workflows.count_documents({}) == 1
