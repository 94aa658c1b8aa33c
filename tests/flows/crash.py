"""A campaign that is killed: snapshots of its databases, orders to the fork server, and what must be equal after."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from bson import ObjectId
from pymongo import MongoClient

DONE, MAX_ACTIONS = 0, 60
SERVER = Path(__file__).with_name("fast_campaign.py")
VOLATILE = frozenset(
    {"rev", "host", "fw_id", "fencing_token", "core_seconds", "core_seconds_spent", "peak_memory_mb"}
)  # fmt: skip
"""Who did it, how often somebody began, and what it cost: that such a value is there counts, not which it is."""
OF_TIMES = {"hulls": "input_hash"}
"""Collection to a hash in it that is made of times."""
LEFT_OVER = "fs.chunks"
"""Chunks of files whose writer was killed; `wyloop db check --repair` drops them. Contents of whole files are told."""

Snapshot = dict[str, list[dict[str, Any]]]


@dataclass
class Campaign:
    """A fast campaign in databases of its own on a server."""

    uri: str
    database: str
    folder: Path
    campaign_id: str = ""
    environment_more: dict[str, str] = field(default_factory=dict)
    client: "MongoClient[dict[str, Any]]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = MongoClient(self.uri, w=1, journal=False, tz_aware=True)

    def close(self) -> None:
        """Drop the databases."""
        for name in (self.database, self.jobs):
            self.client.drop_database(name)
        self.client.close()

    @property
    def jobs(self) -> str:
        """Name of the LaunchPad's database."""
        return f"{self.database}_jobs"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes that work on it."""
        return {
            "WYLOOP_STORES_URI": self.uri,
            "WYLOOP_STORES_DATABASE": self.database,
            "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": self.jobs,
            "WYLOOP_FLOWS_RESERVATION_SECONDS": "0",
            **self.environment_more,
        }

    def steps(self) -> list[str]:
        """Return the steps recorded in the last round."""
        found = self.client[self.database]["rounds"].find_one({}, {"steps": 1}, sort=[("number", -1)])
        return list((found or {}).get("steps", {}))

    def job_states(self) -> dict[str, str]:
        """Return calculation to state of its job."""
        found = self.client[self.jobs]["fireworks"].find({}, {"spec.calculation_id": 1, "state": 1})
        return {row["spec"]["calculation_id"]: row["state"] for row in found}

    def end_transactions(self) -> None:
        """Abort what a killed process left open; the server does it by itself after a minute."""
        self.client.admin.command("killAllSessions", [])

    def snapshot(self) -> Snapshot:
        """Return every document of both databases."""
        return {
            f"{name}/{collection}": list(self.client[name][collection].find())
            for name in (self.database, self.jobs)
            for collection in self.client[name].list_collection_names()
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Put both databases back to a snapshot; indexes stay."""
        present = {
            f"{name}/{collection}"
            for name in (self.database, self.jobs)
            for collection in self.client[name].list_collection_names()
        }
        for key in present | snapshot.keys():
            name, _, collection = key.partition("/")
            self.client[name][collection].delete_many({})
            if documents := snapshot.get(key):
                self.client[name][collection].insert_many(documents)

    def told(self) -> dict[str, Any]:
        """Return all that two runs must agree in: everything but ids that the database gives, times and costs."""
        told: dict[str, Any] = {}
        database = self.client[self.database]
        for collection in sorted(database.list_collection_names()):
            rows = [plain(row, OF_TIMES.get(collection)) for row in database[collection].find()]
            if rows and collection != LEFT_OVER:
                told[collection] = in_order(rows)
        told["contents"] = in_order(
            {"filename": row["filename"], "sha256": sha256(self._content(row["_id"])).hexdigest()}
            for row in database["fs.files"].find()
        )
        told["jobs"] = self.job_states()
        of_id = {
            row["fw_id"]: row["spec"]["calculation_id"]
            for row in self.client[self.jobs]["fireworks"].find({}, {"fw_id": 1, "spec.calculation_id": 1})
        }
        told["workflows"] = sorted(
            [sorted(of_id.get(node, f"missing {node}") for node in row["nodes"]), row["state"], bool(row.get("locked"))]
            for row in self.client[self.jobs]["workflows"].find()
        )
        return told

    def _content(self, file: object) -> bytes:
        chunks = self.client[self.database]["fs.chunks"].find({"files_id": file}).sort("n", 1)
        return b"".join(row["data"] for row in chunks)


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort documents by what they hold."""
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True, default=str))


def plain(value: Any, besides: str | None = None) -> Any:  # noqa: ANN401 - whatever a document holds
    """Put a word for what two runs need not agree in; a field that is null is one that is not there."""
    if isinstance(value, Mapping):
        found = {key: item for key, item in value.items() if item is not None}
        return {key: "any" if key in VOLATILE or key == besides else plain(item) for key, item in found.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return "a time"
    return "an id" if isinstance(value, ObjectId) else value


@dataclass
class Server:
    """The fork server."""

    process: "subprocess.Popen[str]"
    campaign: Campaign

    def order(self, action: str, **options: Any) -> int:  # noqa: ANN401 - plain JSON
        """Let a child do something; return its exit status, minus the signal if one ended it."""
        self.start(action, **options)
        return self.wait()

    def start(self, action: str, **options: Any) -> None:  # noqa: ANN401 - plain JSON
        """Let a child begin something."""
        order = {
            "action": action,
            "environment": self.campaign.environment,
            "folder": str(self.campaign.folder),
            "campaign_id": self.campaign.campaign_id,
            **options,
        }
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()

    def wait(self) -> int:
        """Return the number that the server says next: a child's process id if it was asked for, or exit status."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the fork server has ended"
        return int(line)

    def leave(self, action: str, **options: Any) -> int:  # noqa: ANN401 - plain JSON
        """Let a child begin something and go on without it; return its process id, for `reap`."""
        self.start(action, is_left=True, **options)
        return self.wait()

    def reap(self, pid: int) -> int:
        """Wait for a child that was left; return its exit status."""
        return self.order("reap", pid=pid)

    def n_writes(self, action: str, **options: Any) -> int:  # noqa: ANN401 - plain JSON
        """Let a child do something undisturbed; return how many writes it took."""
        path = self.campaign.folder / "count"
        path.unlink(missing_ok=True)
        assert self.order(action, count=str(path), **options) == 0
        return int(path.read_text())


@contextmanager
def server_for(campaign: Campaign) -> Iterator[Server]:
    """Run the fork server beside the test."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, str(SERVER)],
        env={**os.environ, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Server(process, campaign)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Action:
    """One step or job of the undisturbed run."""

    name: str
    is_job: bool
    steps_before: list[str]
    steps_after: list[str]
    jobs_after: dict[str, str]
    before: Snapshot
    told_after: dict[str, Any]
    n_writes: int


def record(campaign: Campaign, server: Server) -> list[Action]:
    """Run the campaign to its end, one action after the other, and keep what was before and after each."""
    actions: list[Action] = []
    server.order("advance", steps=[])  # makes the LaunchPad
    while len(actions) < MAX_ACTIONS:
        before, steps_before, jobs_before = campaign.snapshot(), campaign.steps(), campaign.job_states()
        n_writes = server.n_writes("advance", steps=steps_before, n_more=1)
        is_look = campaign.steps() == steps_before
        is_job = is_look and campaign.job_states() == jobs_before  # else the look submitted some
        if is_job:
            if "close" in steps_before:
                return actions
            campaign.restore(before)
            n_writes = server.n_writes("job")
        steps, jobs = campaign.steps(), campaign.job_states()
        assert not is_job or jobs != jobs_before, f"stuck after {steps}"
        name = f"job {sum(one.is_job for one in actions) + 1}" if is_job else steps[-1]
        name = f"look after {steps[-1]}" if is_look and not is_job else name
        after = campaign.snapshot()
        server.order("advance", steps=steps)  # a look, which settles what has ended
        actions.append(Action(name, is_job, steps_before, steps, jobs, before, campaign.told(), n_writes))
        campaign.restore(after)
    raise AssertionError(f"not finished after {MAX_ACTIONS} actions")


def go_on(campaign: Campaign, server: Server, action: Action) -> None:
    """What the schedule and the workers would do after a crash, as far as this action goes."""
    is_look = not action.is_job and action.steps_before == action.steps_after
    assert server.order("advance", steps=action.steps_after, n_more=int(is_look)) == DONE
    for _ in range(3):
        if campaign.job_states() == action.jobs_after:
            break
        assert server.order("job") == DONE
        assert server.order("advance", steps=action.steps_after) == DONE


def difference(told: dict[str, Any], expected: dict[str, Any]) -> str:
    """Say where two states differ."""
    for key in sorted(told.keys() | expected.keys()):
        one, other = told.get(key), expected.get(key)
        if one != other:
            if isinstance(one, list) and isinstance(other, list):
                extra = [row for row in one if row not in other]
                missing = [row for row in other if row not in one]
                return f"{key}: extra {str(extra)[:400]}; missing {str(missing)[:400]}"
            return f"{key}: {str(one)[:400]}; expected {str(other)[:400]}"
    return "nothing"
