from typing import TYPE_CHECKING

from fireworks import FWorker

from tests.flows.test_launchpad import CHAIN, dead_worker
from wyloop.flows.launchpad import states, submit, worker_name
from wyloop.flows.lost_jobs import LOST_AFTER, give_back

if TYPE_CHECKING:
    from fireworks import LaunchPad

GRACE = 30.0  # s
OLD = "2026-01-01T00:00:00"


def test_job_of_a_dead_worker_is_given_back_even_if_locked(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    firework, _ = lpad.checkout_fw(FWorker(name=dead_worker()), "/tmp")
    lpad.workflows.update_one({"nodes": firework.fw_id}, {"$set": {"locked": True}})
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "RUNNING"}
    assert give_back(lpad, GRACE) == {"job_of_a_dead_worker": ["calc-relax"]}
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "READY"}
    assert give_back(lpad, GRACE) == {}


def test_job_of_a_live_worker_is_left_alone(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.checkout_fw(FWorker(name=worker_name()), "/tmp")
    assert give_back(lpad, GRACE) == {}
    assert states(lpad, ["calc-relax"]) == {"calc-relax": "RUNNING"}


def test_job_of_another_host_is_lost_when_it_has_been_silent_for_long(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.checkout_fw(FWorker(name="another-host:1"), "/tmp")
    assert give_back(lpad, GRACE, LOST_AFTER) == {}
    assert give_back(lpad, GRACE, 0.0) == {"job_of_a_silent_worker": ["calc-relax"]}


def test_reservation_without_launch_is_given_back_once_it_is_old(lpad: "LaunchPad") -> None:
    submit(lpad, CHAIN, "NaCl")
    lpad.fireworks.update_one({"state": "READY"}, {"$set": {"state": "RESERVED"}})
    assert give_back(lpad, GRACE) == {}  # a live worker may be about to write its launch
    lpad.fireworks.update_one({"state": "RESERVED"}, {"$set": {"updated_on": OLD}})
    assert give_back(lpad, GRACE) == {"reservation_without_launch": ["calc-relax"]}
