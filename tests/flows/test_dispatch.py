from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fireworks import FWAction, FWorker

from tests.flows.rounds import CSCL, NACL, POLICY, open_round, propose, starter, status_of
from wyloop.flows.dispatch import ask_for, ask_for_screening, n_unfinished, submit_chain, submit_references
from wyloop.flows.launchpad import MAX_LAUNCHES, run_again, states, worker_name
from wyloop.models.errors import CalculatorError
from wyloop.stores import calculations
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

NOTHING = {"converged": False}


@pytest.fixture
def record(database: Store) -> RoundRecord:
    return open_round(database)[1]


@pytest.fixture
def chain(database: Store, lpad: "LaunchPad", record: RoundRecord) -> dict[str, str]:
    """A candidate's relaxation and phonons, asked for and submitted."""
    candidate = propose(database, record, NACL, "selected", rank=3)
    wanted = ask_for_screening(database, candidate, [starter("NaCl-225").crystal], record, POLICY)
    assert submit_chain(lpad, candidate, wanted, "screening")
    return wanted


def end(lpad: "LaunchPad", calculation_id: str, state: str, *, is_good: bool = True) -> None:
    """Let FireWorks check a job out and end it, as a worker would."""
    fw_id = lpad.get_fw_ids({"spec.calculation_id": calculation_id})[0]
    _, launch_id = lpad.checkout_fw(FWorker(name=worker_name()), "/tmp", fw_id=fw_id)
    lpad.complete_launch(launch_id, FWAction(defuse_children=not is_good), state)


def test_a_chain_asked_for_twice_is_one(
    database: Store, lpad: "LaunchPad", record: RoundRecord, chain: dict[str, str]
) -> None:
    candidate = propose(database, record, NACL, "selected", rank=3)
    assert list(chain) == ["relaxation", "phonon"]
    assert ask_for_screening(database, candidate, (), record, POLICY) == chain
    assert len(calculations.calculation(database, chain["relaxation"]).inputs) == 1  # of the first request
    assert not submit_chain(lpad, candidate, chain, "screening")
    assert database.database["calculations"].count_documents({}) == 2
    assert lpad.workflows.count_documents({}) == 1
    jobs = list(lpad.fireworks.find({}, {"name": 1, "spec._priority": 1, "spec._category": 1}).sort("name"))
    assert [(job["name"], job["spec"]["_priority"], job["spec"]["_category"]) for job in jobs] == [
        ("phonon NaCl 225", 997, "mlip"),
        ("relaxation NaCl 225", 997, "mlip"),
    ]


def test_subject_and_protocol_are_the_identity(database: Store, record: RoundRecord, chain: dict[str, str]) -> None:
    others = {
        ask_for(database, "relaxation", str(CSCL), "mlip-screen/1", record),
        ask_for(database, "dft", str(NACL), "gpaw-pbe/1", record),
    }
    assert len(others | set(chain.values())) == 4
    again = ask_for(database, "relaxation", str(NACL), "mlip-screen/1", replace(record, round_id="another-round"))
    assert again == chain["relaxation"]
    assert calculations.calculation(database, again).round_id == record.round_id
    with pytest.raises(CalculatorError, match="no protocol 'vasp/9'"):
        ask_for(database, "dft", str(NACL), "vasp/9", record)


def test_finished_are_those_with_a_result(database: Store, lpad: "LaunchPad", chain: dict[str, str]) -> None:
    identities = list(chain.values())
    assert n_unfinished(database, lpad, identities) == 2
    calculations.begin(database, chain["relaxation"])
    assert n_unfinished(database, lpad, identities) == 2
    calculations.complete(database, chain["relaxation"], result={"converged": True})
    end(lpad, chain["relaxation"], "COMPLETED")
    assert n_unfinished(database, lpad, identities) == 1
    assert states(lpad, identities)[chain["phonon"]] == "READY"
    calculations.fail(database, chain["phonon"], error="no phonons")
    end(lpad, chain["phonon"], "COMPLETED")
    assert n_unfinished(database, lpad, identities) == 0
    assert n_unfinished(database, lpad, []) == 0


def test_what_was_taken_off_the_list_is_not_waited_for(
    database: Store, lpad: "LaunchPad", chain: dict[str, str]
) -> None:
    calculations.complete(database, chain["relaxation"], result=NOTHING, problems=["forces above 0.05 eV/Å"])
    end(lpad, chain["relaxation"], "COMPLETED", is_good=False)
    assert states(lpad, [chain["phonon"]]) == {chain["phonon"]: "DEFUSED"}
    assert n_unfinished(database, lpad, list(chain.values())) == 0


def test_what_waits_behind_an_unexpected_failure_is_not_waited_for(
    database: Store, lpad: "LaunchPad", chain: dict[str, str]
) -> None:
    calculations.fail(database, chain["relaxation"], error="TypeError: unexpected")
    end(lpad, chain["relaxation"], "FIZZLED")
    assert states(lpad, list(chain.values())) == {chain["relaxation"]: "FIZZLED", chain["phonon"]: "WAITING"}
    assert n_unfinished(database, lpad, list(chain.values())) == 0


def test_a_job_that_stops_without_a_result_runs_again_and_then_fails(
    database: Store, lpad: "LaunchPad", chain: dict[str, str]
) -> None:
    relaxation = chain["relaxation"]
    for _ in range(MAX_LAUNCHES - 1):
        calculations.begin(database, relaxation)
        end(lpad, relaxation, "FIZZLED")  # such as a worker that lost the database
        assert n_unfinished(database, lpad, list(chain.values())) == 2
        assert states(lpad, [relaxation]) == {relaxation: "READY"}
    calculations.begin(database, relaxation)
    end(lpad, relaxation, "FIZZLED")
    n_unfinished(database, lpad, list(chain.values()))
    found = calculations.calculation(database, relaxation)
    assert (found.status, found.error) == ("failed", "its job stopped 3 times without a result")
    assert n_unfinished(database, lpad, list(chain.values())) == 0
    assert states(lpad, [relaxation]) == {relaxation: "FIZZLED"}
    assert not run_again(lpad, relaxation)
    assert not run_again(lpad, "calc-unknown")


def test_references_are_shared_and_submitted_once(database: Store, lpad: "LaunchPad", record: RoundRecord) -> None:
    first = submit_references(database, lpad, ["Cl", "Na"], "gpaw-pbe/1", record)
    second = submit_references(database, lpad, ["Cl", "K"], "gpaw-pbe/1", replace(record, round_id="next-round"))
    assert first[0] == second[0]
    assert lpad.workflows.count_documents({}) == 3
    assert set(states(lpad, [*first, *second]).values()) == {"READY"}
    sodium = calculations.calculation(database, first[1])
    assert (sodium.kind, sodium.subject, sodium.round_id) == ("reference", "Na", record.round_id)
    job = lpad.fireworks.find_one({"spec.calculation_id": first[1]})
    assert (job["name"], job["spec"]["_category"], job["spec"]["_priority"]) == ("reference Na", "dft", 2000)


def test_references_that_are_known_need_no_job(database: Store, lpad: "LaunchPad", record: RoundRecord) -> None:
    sodium = ask_for(database, "reference", "Na", "gpaw-pbe/1", record)
    calculations.complete(database, sodium, result={"energy_per_atom": -1.3})
    assert submit_references(database, lpad, ["Na"], "gpaw-pbe/1", record) == [sodium]
    assert lpad.fireworks.count_documents({}) == 0
    assert status_of(database, sodium) == "completed"
