import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework, FWorker, ScriptTask

from tests.conftest import MongoServer
from wyloop.flows.launchpad import Job, is_alive, list_jobs, states, submit, worker_name
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


def test_liveness() -> None:
    assert is_alive(worker_name())
    assert is_alive("another-host:1")
    assert not is_alive(dead_worker())
    assert worker_name().endswith(f":{os.getpid()}")


def test_foreign_fireworks_do_not_disturb(lpad: "LaunchPad") -> None:
    lpad.add_wf(Firework([ScriptTask.from_str("true")], name="someone else's"))
    assert submit(lpad, CHAIN, "NaCl")
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "READY"}
