"""What the doctor says of a database and its jobs."""

from tests.platform.conftest import Command
from wyloop.platform import doctor
from wyloop.platform.doctor import Check
from wyloop.platform.settings import all_settings
from wyloop.stores.connection import Store


def _check(name: str) -> Check:
    return next(check for check in doctor.examine(all_settings()) if check.name == name)


def test_a_sound_database_and_its_jobs(cli_store: Store) -> None:
    assert _check("contents").status == "ok"
    assert _check("jobs") == Check("jobs", "ok", "none")
    assert _check("dashboard").status == "ok"


def test_jobs_that_wait_for_workers_and_run_too_long(cli_store: Store) -> None:
    fireworks = cli_store.client[f"{cli_store.name}_fw"]["fireworks"]
    fireworks.insert_one({"fw_id": 1, "state": "READY", "updated_on": "2026-01-01T00:00:00"})
    assert "wyloop worker" in _check("jobs").remedy
    fireworks.update_one({"fw_id": 1}, {"$set": {"state": "RUNNING"}})
    found = _check("jobs")
    assert (found.status, found.remedy) == ("warn", "if its worker is gone: wyloop reconcile")


def test_a_database_of_another_schema(cli_store: Store) -> None:
    cli_store.database["schema"].update_one({"_id": "wyloop"}, {"$inc": {"version": 1}})
    found = _check("contents")
    cli_store.database["schema"].update_one({"_id": "wyloop"}, {"$inc": {"version": -1}})
    assert found.status == "fail"
    assert found.remedy == "install the newer Wyloop that wrote it"


def test_status_prints_the_figures(cli_store: Store, wyloop: Command) -> None:
    told = wyloop("status", "--figures", "--json").json
    assert told["figures"]["wyloop_up"] == 1.0
    assert told["figures"]['wyloop_documents{collection="structures"}'] == 0.0
    assert "wyloop_database_latency_seconds" in wyloop("status", "--figures").out
