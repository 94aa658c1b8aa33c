"""The end of a quarantine: a person, or a second calculation, decides, and all that follows from it follows."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import NACL, POLICY, contents, open_round, propose, starter
from wyloop.flows.dispatch import ask_for
from wyloop.flows.launchpad import states
from wyloop.flows.review import CHECK_PROTOCOL, compute_again, decide
from wyloop.flows.write_back import write_materials
from wyloop.models.errors import DatabaseError
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import calculations, candidates, materials, quarantine
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

TARGET = ("formation_energy_per_atom < -0.5",)
PREDICTION = Prediction(-1.0, 0.05, 5.0, 0.3, 0.0, 22.0)
WRITTEN = ("materials", "candidates", "calculations", "hulls")


@pytest.fixture
def quarantined(database: Store) -> tuple[CampaignRecord, RoundRecord, str, str]:
    """A round with one candidate whose formation energy is far from the predicted one; its id and its calculation's."""
    campaign, record = open_round(database, target=TARGET)
    candidate = propose(database, record, NACL, "dispatched", prediction=PREDICTION)
    identity = finished(database, record, candidate.candidate_id, "mlip-screen/1", -2.1)
    counts = write_materials(database, campaign, record, POLICY)
    assert counts == {"n_materials": 0, "n_quarantined": 1}
    return campaign, record, candidate.candidate_id, identity


def finished(
    store: Store,
    record: RoundRecord,
    candidate_id: str,
    protocol: str,
    energy: float,
    gene: Gene = NACL,
    problems: tuple[str, ...] = (),
) -> str:
    """Put a relaxation into the database that has completed."""
    crystal = starter("NaCl-225" if gene == NACL else "CsCl-221").crystal
    identity = ask_for(store, "relaxation", str(gene), protocol, record, candidate_id=candidate_id, inputs=(crystal,))
    result: dict[str, object] = {"converged": not problems}
    if not problems:
        result |= {"formation_energy_per_atom": energy, "energy_per_atom": energy - 1.5, "fingerprint": str(gene)}
    calculations.complete(store, identity, result=result, crystal=crystal, core_seconds=1.0, problems=problems)
    return identity


def test_it_waits_and_makes_nothing(database: Store, quarantined: tuple[CampaignRecord, RoundRecord, str, str]) -> None:
    campaign, record, candidate_id, identity = quarantined
    found = candidates.candidate(database, candidate_id)
    assert found.status == "quarantined"
    assert found.reason.startswith("its relaxation waits for review: formation energy -2.100 eV/atom is 15.6 sigma")
    assert materials.materials(database) == []
    before = contents(database, *WRITTEN)
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 0, "n_quarantined": 1}
    assert contents(database, *WRITTEN) == before
    assert [one.calculation_id for one in quarantine.waiting(database)] == [identity]


def test_a_person_accepts_and_rejects(
    database: Store, quarantined: tuple[CampaignRecord, RoundRecord, str, str]
) -> None:
    campaign, record, candidate_id, identity = quarantined
    done = decide(database, identity, "the structure is the known one", is_accepted=True)
    assert done.candidates == {candidate_id: "validated"}
    assert done.text == f"{identity} is accepted; {candidate_id} is validated"
    (material,) = materials.materials(database)
    assert (material.candidate_id, material.is_validated, material.energy_above_hull) == (candidate_id, True, 0.0)
    before = contents(database, "materials", "candidates", "hulls")
    assert decide(database, identity, "again", is_accepted=True).candidates == {candidate_id: "validated"}
    assert contents(database, "materials", "candidates", "hulls") == before
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}

    done = decide(database, identity, "a wrong force field", is_accepted=False)
    assert done.candidates == {candidate_id: "failed"}
    assert candidates.candidate(database, candidate_id).reason == "relaxation rejected: a wrong force field"
    assert materials.materials(database) == []
    assert database.database["hulls"].count_documents({"n_entries": {"$gt": 0}}) == 0
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 0}


def test_a_second_calculation_agrees(
    database: Store, quarantined: tuple[CampaignRecord, RoundRecord, str, str]
) -> None:
    campaign, record, candidate_id, identity = quarantined
    second = finished(database, record, candidate_id, CHECK_PROTOCOL, -2.12)
    counts = write_materials(database, campaign, record, POLICY)
    assert counts == {"n_materials": 1, "n_accepted": 2, "n_validated": 1}
    first = calculations.calculation(database, identity)
    assert (first.review, first.review_note) == (
        "accepted",
        f"{second} by {CHECK_PROTOCOL} agrees within 0.05 eV/atom",
    )
    assert calculations.calculation(database, second).review == "accepted"
    assert candidates.candidate(database, candidate_id).status == "validated"


def test_a_second_calculation_that_disagrees_leaves_it_to_a_person(
    database: Store, quarantined: tuple[CampaignRecord, RoundRecord, str, str]
) -> None:
    campaign, record, candidate_id, _ = quarantined
    finished(database, record, candidate_id, CHECK_PROTOCOL, -1.9)
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 0, "n_quarantined": 1}
    assert len(quarantine.waiting(database)) == 2


def test_one_within_the_limit_counts_at_once(database: Store) -> None:
    campaign, record = open_round(database, target=TARGET)
    candidate = propose(
        database, record, NACL, "dispatched", prediction=replace(PREDICTION, formation_energy_per_atom=-2.0)
    )
    finished(database, record, candidate.candidate_id, "mlip-screen/1", -2.1)
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}


def test_a_second_calculation_by_hand_is_asked_for_and_submitted_once(
    database: Store, lpad: "LaunchPad", quarantined: tuple[CampaignRecord, RoundRecord, str, str]
) -> None:
    _, record, candidate_id, identity = quarantined
    second = compute_again(database, lpad, identity)
    assert compute_again(database, lpad, identity) == second
    asked = calculations.calculation(database, second)
    assert (asked.protocol, asked.status, asked.candidate_id) == (CHECK_PROTOCOL, "requested", candidate_id)
    assert len(asked.inputs) == 1  # no free parameters: there is one structure
    assert states(lpad, [second]) == {second: "READY"}
    assert lpad.fireworks.count_documents({}) == 1
    phonon = ask_for(database, "phonon", str(NACL), "mlip-gamma/1", record)
    with pytest.raises(DatabaseError, match="expected the relaxation of a candidate"):
        compute_again(database, lpad, phonon)
