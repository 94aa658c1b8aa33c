import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework

from tests.conftest import MongoServer
from tests.flows.rounds import NACL, open_round, starter, status_of, wait_for, worker
from wyloop.flows.dispatch import ask_for
from wyloop.flows.launchpad import Job, states, submit
from wyloop.flows.lost_jobs import give_back
from wyloop.flows.worker import StopRequested, run_worker
from wyloop.models.crystal import Crystal
from wyloop.models.physics.dft import dft_reference_energy
from wyloop.models.physics.relax import relax
from wyloop.models.wyckoff.encode import encode
from wyloop.stores import calculations
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad


def submit_chain(store: Store, lpad: "LaunchPad", start: Crystal, name: str = "NaCl") -> list[str]:
    """Relaxation and phonons of a crystal as one workflow."""
    record, subject = open_round(store)[1], str(encode(start))
    identities = [
        ask_for(store, "relaxation", subject, "mlip-screen/1", record, inputs=[start]),
        ask_for(store, "phonon", subject, "mlip-gamma/1", record),
    ]
    submit(lpad, [Job(identity, name, "mlip") for identity in identities], name)
    return identities


def long_job() -> Crystal:
    """A spinel under strain: its relaxation takes seconds, its start milliseconds."""
    relaxed = starter("MgAl2O4-227").crystal
    return Crystal(1.08 * relaxed.lattice, relaxed.species, relaxed.frac_coords)


def test_it_runs_what_is_ready_and_what_follows(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path
) -> None:
    identities = submit_chain(in_process, lpad, starter("NaCl-225").crystal)
    dft = ask_for(in_process, "reference", "Li", "gpaw-pbe/1", open_round(in_process)[1])
    submit(lpad, [Job(dft, "reference Li", "dft")], "reference Li")
    n_run = run_worker(mongod.uri, launchpad_name, categories=["mlip"], run_folder=process_state, once=True)
    assert n_run == 2
    assert states(lpad, [*identities, dft]) == dict.fromkeys(identities, "COMPLETED") | {dft: "READY"}
    assert [status_of(in_process, identity) for identity in identities] == ["completed", "completed"]
    assert lpad.workflows.find_one({"name": "NaCl"})["state"] == "COMPLETED"
    assert Path.cwd() != process_state  # given back


def test_a_failed_job_ends_its_workflow_and_not_the_worker(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path
) -> None:
    sodium_chloride, record = starter("NaCl-225").crystal, open_round(in_process)[1]
    # Known not to relax into its subject; phonons behind it would make no sense.
    wrong = [
        ask_for(in_process, "relaxation", str(NACL), "mlip-screen/1", record),
        ask_for(in_process, "phonon", str(NACL), "mlip-gamma/1", record),
    ]
    submit(lpad, [Job(identity, "wrong", "mlip", priority=5) for identity in wrong], "wrong")
    # Phonon settings for a relaxation: an error that nobody expects.
    odd = ask_for(in_process, "relaxation", "odd", "mlip-gamma/1", record, inputs=[sodium_chloride])
    submit(lpad, [Job(odd, "odd", "mlip")], "odd")
    assert run_worker(mongod.uri, launchpad_name, run_folder=process_state, once=True) == 2
    assert states(lpad, [*wrong, odd]) == {wrong[0]: "COMPLETED", wrong[1]: "DEFUSED", odd: "FIZZLED"}
    assert [status_of(in_process, identity) for identity in (*wrong, odd)] == ["failed", "requested", "failed"]


def test_it_ends_when_it_is_not_wanted(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path
) -> None:
    identities = submit_chain(in_process, lpad, starter("NaCl-225").crystal)
    assert run_worker(mongod.uri, launchpad_name, run_folder=process_state, is_wanted=lambda: False) == 0
    assert states(lpad, identities[:1]) == {identities[0]: "READY"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_between_jobs_touches_none(
    in_process: Store,
    lpad: "LaunchPad",
    mongod: MongoServer,
    launchpad_name: str,
    process_state: Path,
    number: signal.Signals,
) -> None:
    odd = ask_for(in_process, "relaxation", "odd", "mlip-gamma/1", open_round(in_process)[1], inputs=[long_job()])
    submit(lpad, [Job(odd, "odd", "mlip")], "odd")
    n_looks = 0

    def stop_at_the_second_look() -> bool:
        nonlocal n_looks
        n_looks += 1
        if n_looks == 2:
            os.kill(os.getpid(), number)
        return True

    n_run = run_worker(mongod.uri, launchpad_name, run_folder=process_state, is_wanted=stop_at_the_second_look)
    assert n_run == 1
    # It failed by itself, not by the stop: it is not given back.
    assert states(lpad, [odd]) == {odd: "FIZZLED"}
    assert status_of(in_process, odd) == "failed"


def test_a_stop_is_no_failure_of_a_job() -> None:
    assert not issubclass(StopRequested, Exception)


@pytest.mark.slow
def test_sigterm_gives_the_job_back_and_another_worker_finishes_it_once(
    database: Store, lpad: "LaunchPad", own_environment: dict[str, str]
) -> None:
    relaxation, phonon = submit_chain(database, lpad, long_job())
    with worker(own_environment) as first:
        wait_for(lambda: status_of(database, relaxation) == "running")
        first.terminate()
        assert first.wait(60) == 0
    assert states(lpad, [relaxation, phonon]) == {relaxation: "READY", phonon: "WAITING"}
    interrupted = calculations.calculation(database, relaxation)
    assert (interrupted.status, interrupted.error) == ("running", None)
    assert give_back(lpad, 30.0) == {}
    with worker(own_environment, "--once") as second:
        assert second.wait(300) == 0
    assert states(lpad, [relaxation, phonon]) == {relaxation: "COMPLETED", phonon: "COMPLETED"}
    finished = calculations.calculation(database, relaxation)
    assert finished.status == "completed"
    assert finished.problems == ()
    assert finished.host != interrupted.host
    job = Firework.from_dict(lpad.get_fw_dict_by_id(lpad.get_fw_ids({"spec.calculation_id": relaxation})[0]))
    assert [launch.state for launch in job.launches] == ["COMPLETED"]
    assert [launch.state for launch in job.archived_launches] == ["FIZZLED"]


@pytest.mark.slow
def test_sigkill_loses_the_job_until_it_is_found_and_run_again(
    in_process: Store, lpad: "LaunchPad", own_environment: dict[str, str], mongod: MongoServer, launchpad_name: str
) -> None:
    relaxation, phonon = submit_chain(in_process, lpad, long_job())
    with worker(own_environment) as first:
        wait_for(lambda: status_of(in_process, relaxation) == "running")
        first.kill()
        first.wait()
    assert states(lpad, [relaxation]) == {relaxation: "RUNNING"}
    assert give_back(lpad, 30.0) == {"job_of_a_dead_worker": [relaxation]}
    assert states(lpad, [relaxation]) == {relaxation: "READY"}
    with worker(own_environment, "-n", "1") as second:
        assert second.wait(300) == 0
    found = calculations.calculation(in_process, relaxation)
    assert found.status == "completed"
    assert states(lpad, [relaxation, phonon]) == {relaxation: "COMPLETED", phonon: "READY"}
    # The same protocol on the same start: killed once or not, the result is the same, and that of the starter set.
    assert found.result["energy_per_atom"] == pytest.approx(relax(long_job()).energy_per_atom, abs=1e-5)
    expected = starter("MgAl2O4-227").formation_energy_per_atom
    assert found.result["formation_energy_per_atom"] == pytest.approx(expected, abs=0.005)
    assert completed_launches(lpad, relaxation) == 1


@pytest.mark.dft
@pytest.mark.slow
def test_sigkill_in_the_middle_of_dft_runs_it_once_more_with_the_same_result(
    in_process: Store, lpad: "LaunchPad", own_environment: dict[str, str], tmp_path: Path
) -> None:
    lithium = ask_for(in_process, "reference", "Li", "gpaw-pbe/1", open_round(in_process)[1])
    submit(lpad, [Job(lithium, "reference Li", "dft")], "reference Li")
    with worker({**own_environment, "TMPDIR": str(tmp_path)}, "--categories", "dft") as first:
        wait_for(lambda: any("iter:   2" in log.read_text() for log in tmp_path.glob("wyloop-job-*/calculator.txt")))
        first.kill()
        first.wait()
    assert status_of(in_process, lithium) == "running"
    assert give_back(lpad, 30.0) == {"job_of_a_dead_worker": [lithium]}
    with worker(own_environment, "--once") as second:
        assert second.wait(500) == 0
    found = calculations.calculation(in_process, lithium)
    assert (found.status, found.error) == ("completed", None)
    assert found.result["energy_per_atom"] == pytest.approx(dft_reference_energy("Li"), abs=1e-6)
    assert completed_launches(lpad, lithium) == 1


def completed_launches(lpad: "LaunchPad", calculation_id: str) -> int:
    """How often a calculation's job ran to its end; it was started twice."""
    job = Firework.from_dict(lpad.get_fw_dict_by_id(lpad.get_fw_ids({"spec.calculation_id": calculation_id})[0]))
    states = [launch.state for launch in (*job.launches, *job.archived_launches)]
    assert len(states) == 2
    return states.count("COMPLETED")
