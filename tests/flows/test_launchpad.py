import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework, FWorker, ScriptTask

from tests.conftest import MongoServer
from wyloop.flows.launchpad import Job, give_back_lost_jobs, is_alive, list_jobs, states, submit, worker_name
from wyloop.models.errors import CampaignError

if TYPE_CHECKING:
    from fireworks import LaunchPad

CHAIN = (Job("calc-relax", "relax NaCl", "mlip", priority=5), Job("calc-phonon", "phonon NaCl", "mlip", priority=5))


def dead_worker() -> str:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return f"{worker_name().rpartition(':')[0]}:{process.pid}"


def test_a_chain_is_submitted_once(lpad: "LaunchPad") -> None:
    assert submit(lpad, CHAIN, "NaCl")
    assert not submit(lpad, CHAIN, "NaCl")
    assert states(lpad, ["calc-relax", "calc-phonon"]) == {"calc-relax": "READY", "calc-phonon": "WAITING"}
    assert lpad.workflows.count_documents({}) == 1


def test_spec_holds_ids_only(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN[:1], "NaCl")
    spec = lpad.fireworks.find_one({})["spec"]
    assert set(spec) == {"calculation_id", "_category", "_priority", "_tasks"}
    assert spec["_tasks"] == [
        {"_fw_name": "{{wyloop.flows.jobs.calculation.CalculationJob}}", "calculation_id": "calc-relax"}
    ]


def test_orphans_of_a_crash_in_add_wf_are_replaced(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.workflows.delete_many({})  # the crash: fireworks inserted, workflow not
    assert submit(lpad, CHAIN, "NaCl")
    assert lpad.fireworks.count_documents({}) == 2
    assert lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")[0].spec["calculation_id"] == "calc-relax"


def test_a_used_launchpad_is_never_reset(lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str) -> None:
    submit(lpad, CHAIN, "NaCl")
    rows = list_jobs(mongod.uri, launchpad_name)
    assert sorted((row.calculation_id, row.state, row.category) for row in rows) == [
        ("calc-phonon", "WAITING", "mlip"),
        ("calc-relax", "READY", "mlip"),
    ]
    assert list_jobs(mongod.uri, launchpad_name, state="ready")[0].name == "relax NaCl"
    with pytest.raises(CampaignError, match="unknown job state 'lost'"):
        list_jobs(mongod.uri, launchpad_name, state="lost")


def test_job_of_a_dead_worker_is_given_back_even_if_locked(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    firework, _ = lpad.checkout_fw(FWorker(name=dead_worker()), "/tmp")
    lpad.workflows.update_one({"nodes": firework.fw_id}, {"$set": {"locked": True}})
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "RUNNING"}
    assert give_back_lost_jobs(lpad) == [firework.fw_id]
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "READY"}
    assert give_back_lost_jobs(lpad) == []


def test_job_of_a_live_worker_is_left_alone(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")
    assert give_back_lost_jobs(lpad) == []
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "RUNNING"}


def test_reservation_without_launch_is_given_back_once_it_is_old(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.fireworks.update_one({"state": "READY"}, {"$set": {"state": "RESERVED"}})
    assert give_back_lost_jobs(lpad) == []  # a live worker may be about to write its launch
    lpad.fireworks.update_one({"state": "RESERVED"}, {"$set": {"updated_on": "2026-01-01T00:00:00"}})
    assert len(give_back_lost_jobs(lpad)) == 1


def test_liveness() -> None:
    assert is_alive(worker_name())
    assert is_alive("another-host:1")
    assert not is_alive(dead_worker())
    assert worker_name().endswith(f":{os.getpid()}")


def test_foreign_fireworks_do_not_disturb(lpad: "LaunchPad") -> None:
    lpad.add_wf(Firework([ScriptTask.from_str("true")], name="someone else's"))
    assert submit(lpad, CHAIN, "NaCl")
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "READY"}
