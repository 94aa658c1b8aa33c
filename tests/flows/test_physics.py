from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import NACL, POLICY, contents, open_round, propose, starter
from wyloop.flows.dispatch import ask_for_screening, submit_chain
from wyloop.flows.launchpad import states
from wyloop.flows.physics import JobsUnderWayError, promoted, relax_candidates, run_dft
from wyloop.flows.select import select_candidates
from wyloop.flows.write_back import write_materials
from wyloop.models.physics import gpaw_process
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, candidates
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

WITH_DFT = POLICY.model_copy(update={"n_dft": 1})
LIF, UO = canonical(Gene.parse("225 F:b Li:a")), canonical(Gene.parse("225 O:b U:a"))
SPINEL = canonical(Gene.parse("227 Al:d Mg:a O:e"))


@pytest.fixture
def campaign_round(database: Store) -> tuple[CampaignRecord, RoundRecord]:
    return open_round(database)


def computed(store: Store, campaign_round: tuple[CampaignRecord, RoundRecord], gene: Gene, energy: float) -> str:
    """Make a candidate that the force field found stable; its id."""
    campaign, record = campaign_round
    candidate = propose(store, record, gene, "dispatched", rank=1)
    wanted = ask_for_screening(store, candidate, [starter("NaCl-225").crystal], record, POLICY)
    result = {"converged": True, "formation_energy_per_atom": energy}
    calculations.complete(store, wanted["relaxation"], result=result, crystal=starter("NaCl-225").crystal)
    calculations.complete(store, wanted["phonon"], result={"is_stable": True, "is_prescreen": True})
    write_materials(store, campaign, record, POLICY)
    return candidate.candidate_id


def test_relaxations_are_submitted_once_and_waited_for(
    database: Store, lpad: "LaunchPad", campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    _, record = campaign_round
    for gene in (NACL, LIF):
        propose(database, record, gene)
    select_candidates(database, record, POLICY)
    for _ in range(2):
        with pytest.raises(JobsUnderWayError, match="0 of 4 calculations finished"):
            relax_candidates(database, lpad, record, POLICY)
    assert lpad.workflows.count_documents({}) == 2
    assert candidates.funnel(database, record.round_id)["dispatched"] == 2
    asked = calculations.of_round(database, record.round_id)
    for found in asked:
        if found.kind == "relaxation":
            result = {"converged": True, "formation_energy_per_atom": -2.0}
            calculations.complete(database, found.calculation_id, result=result, core_seconds=1.5)
        else:
            calculations.fail(database, found.calculation_id, error="no phonons")
    assert relax_candidates(database, lpad, record, POLICY) == {
        "n_calculations": 4,
        "n_failed": 2,
        "core_seconds": 3.0,
    }
    assert lpad.workflows.count_documents({}) == 2


def test_killed_between_two_submissions_the_rest_is_submitted(
    database: Store, lpad: "LaunchPad", campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    _, record = campaign_round
    for gene in (NACL, LIF):
        propose(database, record, gene)
    select_candidates(database, record, POLICY)
    # The kill came after the first workflow was in the LaunchPad and before its candidate was marked.
    first = candidates.of_round(database, record.round_id, statuses=("selected",))[0]
    submit_chain(lpad, first, ask_for_screening(database, first, (), record, POLICY), "screening")
    with pytest.raises(JobsUnderWayError):
        relax_candidates(database, lpad, record, POLICY)
    assert lpad.workflows.count_documents({}) == 2
    assert lpad.fireworks.count_documents({}) == 4


@pytest.mark.expects_findings("candidate_without_campaign", "candidate_without_round")  # the other campaign is made up
def test_what_another_campaign_computes_already_is_waited_for(
    database: Store, lpad: "LaunchPad", campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    _, record = campaign_round
    other = replace(record, round_id="another-r1", campaign_id="another")
    theirs = propose(database, other, NACL, "dispatched")
    wanted = ask_for_screening(database, theirs, [starter("NaCl-225").crystal], other, POLICY)
    submit_chain(lpad, theirs, wanted, "screening")
    propose(database, record, NACL, "selected", rank=1)
    with pytest.raises(JobsUnderWayError, match="0 of 2"):
        relax_candidates(database, lpad, record, POLICY)
    assert lpad.workflows.count_documents({}) == 1


def test_promotion_takes_small_stable_cells_that_dft_knows(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    _, record = campaign_round
    for gene in (NACL, LIF, UO, SPINEL):  # no PAW dataset of U; 14 atoms are too many
        computed(database, campaign_round, gene, -2.0)
    everyone = [candidate.gene for candidate, _ in promoted(database, record, POLICY.model_copy(update={"n_dft": 9}))]
    assert set(everyone) == {NACL, LIF}
    assert [candidate.gene for candidate, _ in promoted(database, record, WITH_DFT)] == everyone[:1]
    assert promoted(database, record, POLICY) == []


def test_dft_is_asked_for_once_with_the_references_it_needs(
    database: Store, lpad: "LaunchPad", campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    computed(database, campaign_round, NACL, -2.0)
    for _ in range(2):
        with pytest.raises(JobsUnderWayError, match="0 of 3"):
            run_dft(database, lpad, record, WITH_DFT)
    asked = [found for found in calculations.of_round(database, record.round_id) if found.kind in ("dft", "reference")]
    assert {found.subject for found in asked} == {str(NACL), "Na", "Cl"}
    assert lpad.workflows.count_documents({}) == 3
    assert {job["spec"]["_category"] for job in lpad.fireworks.find({}, {"spec._category": 1})} == {"dft"}

    for found in asked:
        energy = {"energy_per_atom": -3.0}
        result = energy | {"band_gap": 5.0} if found.kind == "dft" else energy
        crystal = starter("NaCl-225").crystal if found.kind == "dft" else None
        calculations.complete(database, found.calculation_id, result=result, crystal=crystal, core_seconds=10.0)
    # With a gap written back, nothing else would be promoted: what was asked for is remembered, not chosen again.
    write_materials(database, campaign, record, WITH_DFT)
    assert run_dft(database, lpad, record, WITH_DFT) == {
        "n_promoted": 1,
        "n_calculations": 3,
        "n_failed": 0,
        "core_seconds": 30.0,
    }
    assert set(states(lpad, [found.calculation_id for found in asked]).values()) == {"READY"}


def test_without_dft_asked_for_or_gpaw_there_is_none(
    database: Store,
    lpad: "LaunchPad",
    campaign_round: tuple[CampaignRecord, RoundRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, record = campaign_round
    computed(database, campaign_round, NACL, -2.0)
    before = contents(database, "calculations")
    assert run_dft(database, lpad, record, POLICY) == {"n_promoted": 0, "reason": "no DFT asked for"}
    monkeypatch.setattr(gpaw_process, "find_spec", lambda name: None)  # a Python without gpaw
    monkeypatch.setenv("PATH", "")
    outcome = run_dft(database, lpad, record, WITH_DFT)
    assert outcome["n_promoted"] == 0
    assert str(outcome["reason"]).startswith("GPAW is neither in this Python environment nor on the PATH; install")
    assert contents(database, "calculations") == before
