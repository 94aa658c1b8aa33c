"""A campaign is killed before and after every write of every step and job, and goes on as if nothing had happened.

The undisturbed run is recorded action by action: a step, or one job. For each action the databases are put back to what
they were before it, a process that does it is killed at one write, another goes on, and both databases must be what the
undisturbed run left. `WYLOOP_CRASH_EVERY=1` tries all of them (`make crash-matrix`); a plain run tries some, by a seed.
"""

import logging
import os
import shutil
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from tests.flows.conftest import prefect_at
from tests.flows.crash import Action, Campaign, Server, difference, go_on, record, server_for
from tests.flows.fast_campaign import DONE, TARGET
from tests.flows.hosts import Host, hosts
from tests.flows.own_mongod import OwnMongod, fill_disk, small_disk
from tests.flows.rounds import fill, wait_for
from wyloop.flows.policy import Policy
from wyloop.stores import budget, campaigns
from wyloop.stores.budget import Limits
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(3600)]

logger = logging.getLogger(__name__)

EVERY = int(os.environ.get("WYLOOP_CRASH_EVERY", "24"))
SEED = os.environ.get("WYLOOP_CRASH_SEED", "0")
STOPPED = float(os.environ.get("WYLOOP_CRASH_STOPPED", "2"))  # s
POLICY = {
    "n_candidates": 5, "n_relaxations": 4, "n_dft": 1, "n_starts": 1, "max_per_chemsys": 5, "hull_cutoff": 9.0,
    "retraining": {"every_rounds": 0},
}  # fmt: skip

IMPATIENT = {
    "WYLOOP_FLOWS_LEASE_SECONDS": "3", "WYLOOP_FLOWS_RESERVATION_SECONDS": "1", "WYLOOP_FLOWS_LOST_AFTER_SECONDS": "3",
}  # fmt: skip
"""What else would take hours to be noticed: that another host is silent."""


@dataclass(frozen=True)
class Recorded:
    """The undisturbed run."""

    mongod: OwnMongod
    store: Store
    campaign: Campaign
    server: Server
    actions: list[Action]

    def action(self, name: str) -> Action:
        """Return the first action of a name."""
        return next(one for one in self.actions if one.name == name)

    def begin(self, action: Action, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - plain JSON
        """Put the databases back to before an action, and return what orders it."""
        self.campaign.restore(action.before)
        order = {"action": "job" if action.is_job else "advance", **options}
        return order if action.is_job else order | {"steps": action.steps_before, "n_more": 1}

    def leave_on(self, host: Host, action: str, **options: Any) -> int:  # noqa: ANN401 - plain JSON
        """Begin something on a host; return its process id."""
        uri = f"mongodb://{host.gateway}:{self.mongod.port}/?directConnection=true"
        environment = {**self.campaign.environment, **IMPATIENT, "WYLOOP_STORES_URI": uri}
        place = {"host": host.name, "network": host.network, "folder": str(host.folder)}
        return self.server.leave(action, environment=environment, **place, **options)

    def wrong(self, action: Action) -> str:
        """Go on after a crash, and say what differs from the undisturbed run."""
        self.campaign.end_transactions()
        go_on(self.campaign, self.server, action)
        told = self.campaign.told()
        broken = budget.contradictions(self.store)
        return difference(told, action.told_after) if told != action.told_after else "; ".join(broken)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("crash")
    disk = folder / "disk"
    disk.mkdir()
    with ExitStack() as stack:
        stack.enter_context(small_disk(disk))
        mongod = OwnMongod(disk)
        stack.callback(mongod.stop)
        campaign = Campaign(mongod.uri, "crash", folder)
        stack.callback(campaign.client.close)
        store = connect(Settings(uri=SecretStr(mongod.uri), database=campaign.database, timeout_ms=20_000))
        stack.callback(store.close)
        prepare(store, campaign)
        server = stack.enter_context(server_for(campaign))
        yield Recorded(mongod, store, campaign, server, record(campaign, server))


def prepare(store: Store, campaign: Campaign) -> None:
    """Fill the database and define the campaign."""
    fill(store, step=60)
    build_materials(store)
    build_hulls(store)
    policy = Policy.model_validate(POLICY).model_dump(mode="json")
    campaign.campaign_id = campaigns.create_campaign(store, TARGET, policy).campaign_id
    budget.set_limits(store, campaign.campaign_id, {"all": Limits(jobs=12)})
    campaigns.request_rounds(store, campaign.campaign_id, 1)


def kill_points(action: Action) -> list[tuple[int, bool]]:
    """Return the points of an action that this run tries: number of the write, and whether after it."""
    everything = [(n, is_after) for n in range(1, action.n_writes + 1) for is_after in (False, True)]
    start = zlib.crc32(f"{action.name} {SEED}".encode()) % EVERY
    return everything[start::EVERY]


def test_the_undisturbed_run_is_a_whole_round(recorded: Recorded) -> None:
    for action in recorded.actions:
        logger.info("%s: %d writes", action.name, action.n_writes)
    names = [action.name for action in recorded.actions]
    assert names[0] == "refresh"
    assert names[-1] == "close"
    assert sum(action.is_job for action in recorded.actions) >= 5
    assert {"reserve", "dispatch", "look after validate", "recheck", "promote", "dft", "settle"} <= set(names)
    final = recorded.actions[-1].told_after
    assert {row["status"] for row in final["candidates"]} >= {"validated", "failed"}
    assert {row["state"] for row in final["reservations"]} == {"settled", "released"}
    assert [row.get("review") for row in final["calculations"]].count("accepted") == 2  # one, and the second of it
    assert len(final["contents"]) == 2  # weights, and arrays of DFT


def test_killed_at_any_write_it_goes_on_as_if_nothing_had_happened(recorded: Recorded) -> None:
    wrong: list[str] = []
    n_tried = n_killed = 0
    for action in recorded.actions:
        for number, is_after in kill_points(action):
            status = recorded.server.order(**recorded.begin(action, kill_at=number, is_after=is_after))
            n_tried += 1
            n_killed += status == -signal.SIGKILL
            what = recorded.wrong(action)
            where = f"{action.name}, {'after' if is_after else 'before'} write {number} of {action.n_writes}"
            logger.info("%s: %s", where, what or "as if nothing had happened")
            if what:
                wrong.append(f"{where}: {what}")
                assert len(wrong) < 10, "\n".join(wrong)
    assert wrong == []
    assert n_killed >= 0.95 * n_tried  # now and then a run has a write less
    assert n_tried >= sum(2 * action.n_writes for action in recorded.actions) / EVERY - len(recorded.actions)
    assert faults(recorded.store) == []


def faults(store: Store) -> list[str]:
    """Return what `wyloop db check` finds."""
    return [f"{one.kind}: {one.what}" for one in check(store).faults]


@pytest.mark.parametrize("name", ["reserve", "dispatch", "close"])
def test_a_process_that_sleeps_while_another_takes_over_writes_nothing_more(recorded: Recorded, name: str) -> None:
    action = recorded.action(name)
    before = recorded.campaign.environment_more
    recorded.campaign.environment_more = {"WYLOOP_FLOWS_LEASE_SECONDS": str(STOPPED / 2)}
    try:
        middle = max(2, action.n_writes // 2)
        pid = recorded.server.leave(**recorded.begin(action, stop_at=middle))
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        time.sleep(STOPPED)
        what = recorded.wrong(action)
        os.kill(pid, signal.SIGCONT)
        status = recorded.server.reap(pid)
    finally:
        recorded.campaign.environment_more = before
    assert what == ""
    assert status != DONE  # it was told that its lease is lost
    told = recorded.campaign.told()
    assert told == action.told_after, difference(told, action.told_after)
    assert budget.contradictions(recorded.store) == []


@pytest.mark.parametrize("name", ["reserve", "dispatch", "job 1", "close"])
def test_mongod_is_killed_and_started_again(recorded: Recorded, name: str) -> None:
    action, mongod = recorded.action(name), recorded.mongod
    assert mongod.process is not None
    order = recorded.begin(action, kill_at=max(2, action.n_writes // 2), victim=mongod.process.pid)
    pid = recorded.server.leave(**order)
    wait_for(lambda: not mongod.is_running)
    mongod.start()
    recorded.server.reap(pid)  # it may have failed, or found the database again
    assert recorded.wrong(action) == ""


def test_what_a_step_tells_is_counted_in_the_database(recorded: Recorded) -> None:
    action, mongod, materials = recorded.action("refresh"), recorded.mongod, recorded.store.database["materials"]
    recorded.begin(action)
    everyone = list(materials.find())
    materials.delete_one({"_id": everyone[0]["_id"]})
    recorded.campaign.client.admin.command("fsync")  # of what is written from here on MongoDB loses count
    materials.insert_one(everyone[0])
    mongod.kill()
    mongod.start()
    assert materials.estimated_document_count() != materials.count_documents({}) == len(everyone)
    assert recorded.wrong(action) == ""


def test_three_hosts_of_which_one_is_killed_and_one_cut_off(recorded: Recorded, tmp_path: Path) -> None:
    server, final = recorded.server, recorded.actions[-1]
    in_a_job = recorded.action("job 1").n_writes // 2
    with hosts(tmp_path, ("steady", "killed", "cut-off")) as three:
        steady, killed, cut_off = three
        recorded.mongod.reach({one.gateway for one in three})
        recorded.campaign.restore(recorded.actions[0].before)
        looking, gone = recorded.leave_on(steady, "schedule"), recorded.leave_on(killed, "schedule")
        wait_for(lambda: "dispatch" in recorded.campaign.steps())
        sleeping = recorded.leave_on(cut_off, "work", stop_at=in_a_job)
        wait_for(lambda: psutil.Process(sleeping).status() == psutil.STATUS_STOPPED)
        cut_off.cut_off()
        if cut_off.network is not None:
            os.kill(sleeping, signal.SIGCONT)  # it goes on, and reaches nobody
        dying = recorded.leave_on(killed, "work", kill_at=in_a_job)
        assert server.reap(dying) == -signal.SIGKILL
        os.kill(gone, signal.SIGKILL)
        working = recorded.leave_on(steady, "work")
        assert server.reap(looking) == DONE
        cut_off.connect()
        os.kill(sleeping, signal.SIGCONT)
        assert [server.reap(pid) for pid in (gone, working, sleeping)] == [-signal.SIGKILL, DONE, DONE]
    told = recorded.campaign.told()
    assert told == final.told_after, difference(told, final.told_after)
    assert budget.contradictions(recorded.store) == []
    assert faults(recorded.store) == []
    ran_on = {str(row.get("host")).partition(":")[0] for row in recorded.store.database["calculations"].find()}
    assert "steady" in ran_on


def test_replies_are_lost_and_connections_closed(recorded: Recorded) -> None:
    recorded.campaign.restore(recorded.actions[0].before)
    recorded.mongod.fail_at_random(0.02)
    try:
        statuses = []
        while len(statuses) < 30 and DONE not in statuses:
            statuses.append(recorded.server.order("run"))
    finally:
        recorded.mongod.fail_at_random(0)
    assert recorded.server.order("run") == DONE
    recorded.server.order("advance", steps=recorded.actions[-1].steps_after)
    final = recorded.actions[-1].told_after
    told = recorded.campaign.told()
    assert told == final, difference(told, final)
    assert budget.contradictions(recorded.store) == []
    assert faults(recorded.store) == []


def test_the_disk_is_full(recorded: Recorded) -> None:
    disk = recorded.mongod.folder
    if not disk.is_mount():
        pytest.skip("no small disk: needs to be root")
    action = recorded.action("dispatch")
    order = recorded.begin(action)
    free = shutil.disk_usage(disk).free
    filler = fill_disk(disk)
    assert shutil.disk_usage(disk).free < 1_000_000 < free
    statuses = [recorded.server.order(**order) for _ in range(2)]
    filler.unlink()
    if not recorded.mongod.is_running:  # it ends itself rather than write halves
        recorded.mongod.start()
    assert all(status in (DONE, 1) for status in statuses)
    assert recorded.wrong(action) == ""


def test_the_prefect_server_is_down(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.flows.conftest import this_process
    from wyloop.flows.campaign import advance_campaign

    action = recorded.action("reserve")
    recorded.begin(action)
    for key, value in recorded.campaign.environment.items():
        monkeypatch.setenv(key, value)
    before = recorded.campaign.told()
    with this_process(), prefect_at("http://127.0.0.1:9/api"), pytest.raises(Exception, match="."):
        advance_campaign(recorded.campaign.campaign_id)
    assert recorded.campaign.told() == before
    assert recorded.wrong(action) == ""
