"""What a round's candidates wait in quarantine for is computed again within the budget, and nothing starves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import CSCL, NACL, open_round, propose
from tests.flows.test_review import PREDICTION, TARGET, finished
from wyloop.flows.authority import Authority, acting_for
from wyloop.flows.launchpad import states, worker_name
from wyloop.flows.physics import JobsUnderWayError
from wyloop.flows.policy import Policy
from wyloop.flows.recheck import recheck_quarantined
from wyloop.flows.reconcile import reconcile
from wyloop.flows.review import CHECK_PROTOCOL
from wyloop.flows.write_back import write_materials
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import budget, calculations, campaigns, candidates, materials
from wyloop.stores.budget import Limits
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.leases import acquire_lease

if TYPE_CHECKING:
    from fireworks import LaunchPad

POLICY = Policy(n_candidates=5, n_relaxations=3, hull_cutoff=9.0)
FAR = -2.1  # eV/atom; more than five standard deviations from the predicted -1.0


@pytest.fixture
def store(in_process: Store) -> Store:
    return in_process


def quarantined(store: Store, *genes: Gene) -> tuple[CampaignRecord, RoundRecord]:
    """A round whose candidates all came out far from the prediction."""
    campaign, record = open_round(store, POLICY, TARGET)
    for gene in genes:
        candidate = propose(store, record, gene, "dispatched", prediction=PREDICTION)
        finished(store, record, candidate.candidate_id, "mlip-screen/1", FAR, gene)
    told = write_materials(store, campaign, record, POLICY)
    assert told == {"n_materials": 0, "n_quarantined": len(genes)}
    return campaign, record


def recheck(store: Store, lpad: "LaunchPad", campaign: CampaignRecord, record: RoundRecord) -> dict[str, object]:
    token = acquire_lease(store, campaign.campaign_id, worker_name(), 60)
    assert token is not None
    with acting_for(Authority(store.name, campaign.campaign_id, record.round_id, token)):
        return recheck_quarantined(store, lpad, campaign, record, POLICY)


def seconds(store: Store, record: RoundRecord) -> Sequence[calculations.CalculationRecord]:
    return [one for one in calculations.of_round(store, record.round_id) if one.protocol == CHECK_PROTOCOL]


def test_each_is_computed_again_once_and_counts_if_that_agrees(store: Store, lpad: "LaunchPad") -> None:
    campaign, record = quarantined(store, NACL, CSCL)
    for _ in range(2):  # a look, and another one
        with pytest.raises(JobsUnderWayError, match="0 of 2 calculations finished"):
            recheck(store, lpad, campaign, record)
    asked = seconds(store, record)
    assert [one.status for one in asked] == ["requested", "requested"]
    assert set(states(lpad, [one.calculation_id for one in asked]).values()) == {"READY"}
    assert lpad.fireworks.count_documents({}) == 2
    assert [one.state for one in budget.reservations(store)] == ["dispatched", "dispatched"]
    assert all(len(one.inputs) == 1 for one in asked)  # no free parameters: there is one structure
    for found, energy in zip(asked, (FAR - 0.01, -1.7), strict=True):  # one agrees, one comes to something else
        finished(store, record, str(found.candidate_id), CHECK_PROTOCOL, energy, Gene.parse(found.subject))
    told = recheck(store, lpad, campaign, record)
    assert told == {"n_asked_again": 2, "n_confirmed": 1, "n_for_a_person": 1, "n_beyond_budget": 0}
    assert recheck(store, lpad, campaign, record) == told
    ends = {str(one.gene): one.status for one in candidates.of_round(store, record.round_id)}
    assert ends == {asked[0].subject: "validated", asked[1].subject: "quarantined"}
    assert len(materials.materials(store, campaign_id=campaign.campaign_id)) == 1
    assert budget.reservations(store) == []  # settled
    assert reconcile(store, lpad, with_prefect=False).done == {}


def test_an_unconverged_one_is_replaced_by_a_second_that_converges(store: Store, lpad: "LaunchPad") -> None:
    campaign, record = open_round(store, POLICY, TARGET)
    candidate = propose(store, record, NACL, "dispatched", prediction=PREDICTION)
    finished(store, record, candidate.candidate_id, "mlip-screen/1", -1.0, NACL, problems=("forces above 0.05 eV/Å",))
    assert write_materials(store, campaign, record, POLICY) == {"n_materials": 0, "n_quarantined": 1}
    with pytest.raises(JobsUnderWayError):
        recheck(store, lpad, campaign, record)
    (again,) = seconds(store, record)
    finished(store, record, candidate.candidate_id, CHECK_PROTOCOL, -1.05, NACL)
    told = recheck(store, lpad, campaign, record)
    assert told == {"n_asked_again": 1, "n_confirmed": 0, "n_for_a_person": 0, "n_beyond_budget": 0}
    (material,) = materials.materials(store, campaign_id=campaign.campaign_id)
    assert (material.formation_energy_per_atom, material.calculation_ids) == (-1.05, (again.calculation_id,))


def test_what_the_budget_does_not_allow_waits_for_a_person(store: Store, lpad: "LaunchPad") -> None:
    campaign, record = quarantined(store, NACL, CSCL)
    budget.set_limits(store, campaign.campaign_id, {"all": Limits(jobs=1)})
    with pytest.raises(JobsUnderWayError, match="0 of 1"):
        recheck(store, lpad, campaign, record)
    (asked,) = seconds(store, record)
    finished(store, record, str(asked.candidate_id), CHECK_PROTOCOL, FAR, Gene.parse(asked.subject))
    told = recheck(store, lpad, campaign, record)
    assert told == {"n_asked_again": 1, "n_confirmed": 1, "n_for_a_person": 1, "n_beyond_budget": 1}
    assert lpad.fireworks.count_documents({}) == 1
    assert budget.contradictions(store) == []


def test_one_that_ends_after_its_campaign_is_accepted_by_reconcile(store: Store, lpad: "LaunchPad") -> None:
    campaign, record = quarantined(store, NACL, CSCL)
    with pytest.raises(JobsUnderWayError):
        recheck(store, lpad, campaign, record)
    campaigns.set_campaign_state(store, campaign.campaign_id, "stopped")
    first, other = seconds(store, record)
    finished(store, record, str(first.candidate_id), CHECK_PROTOCOL, FAR, Gene.parse(first.subject))
    done = reconcile(store, lpad, with_prefect=False).done
    assert done["result_not_written_back"] == [first.candidate_id]
    assert reconcile(store, lpad, with_prefect=False).done == {}
    ends = {str(one.gene): one.status for one in candidates.of_round(store, record.round_id)}
    assert ends == {first.subject: "validated", other.subject: "quarantined"}
