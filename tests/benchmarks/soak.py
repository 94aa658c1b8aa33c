"""A long campaign on the fast oracle whose processes are killed at random: `python tests/benchmarks/soak.py`.

    --rounds 200     rounds of the campaign
    --kills 4        mean seconds between two kills of the process that advances it and runs its jobs
    --seed 0         of the kills
    --write          write docs/benchmarks/soak.md

Printed every few rounds, and kept in build/soak.json: resident memory and open files of the processes that work, of the
one that forks them and of mongod; documents. At the end the invariants are checked: every round closed, every job
submitted once, budgets equal to reservations, no candidate without an end, nothing for `wyloop db check` or `wyloop
reconcile` to find, nothing grown that should not. Exit status 1 if one fails.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr
from pymongo import MongoClient

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "flows"))

from crash import Campaign, Server, server_for  # type: ignore[import-not-found]  # noqa: E402 - beside the tests
from fast_campaign import TARGET  # type: ignore[import-not-found]  # noqa: E402
from own_mongod import OwnMongod  # type: ignore[import-not-found]  # noqa: E402

from wyloop.flows import reconcile  # noqa: E402
from wyloop.flows.launchpad import launchpad  # noqa: E402
from wyloop.flows.policy import Policy  # noqa: E402
from wyloop.stores import budget, campaigns  # noqa: E402
from wyloop.stores.check import check  # noqa: E402
from wyloop.stores.connection import Store, connect  # noqa: E402
from wyloop.stores.settings import Settings  # noqa: E402

POLICY = {
    "n_candidates": 3, "n_relaxations": 2, "n_dft": 0, "n_starts": 1, "max_per_chemsys": 50, "hull_cutoff": 9.0,
    "retraining": {"every_rounds": 0},
    "screening": {"binding": ["validity"]},
}  # fmt: skip
FLAT = 1.3  # growth of memory from the first fifth to the last that is still called flat
FEW = ("locks", "campaigns", "budgets", "model_versions", "fs.files", "fs.chunks", "schema", "ingests")
"""Collections that a round adds nothing to; every killed process may leave a lock or a chunk, of which one is kept."""
PAGE = ROOT / "docs" / "benchmarks" / "soak.md"
COLUMNS = {
    "round": "round", "minutes": "minutes", "kills": "kills", "worker_mb": "worker, MB",
    "worker_files": "its open files", "server_mb": "forking process, MB", "server_files": "its open files",
    "mongod_mb": "mongod, MB",
    "mongod_files": "its open files", "collections": "collections", "few": "documents that are few",
    "candidates": "candidates", "jobs": "jobs", "launches": "launches",
}  # fmt: skip


def main() -> int:
    """Run the campaign under fire and check what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kills", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak.json")
    parser.add_argument("--write", action="store_true")
    wanted = parser.parse_args()
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wyloop-soak-") as folder:
        mongod = OwnMongod(Path(folder))
        campaign = Campaign(mongod.uri, "soak", Path(folder))
        store = connect(Settings(uri=SecretStr(mongod.uri), database="soak", timeout_ms=20_000))
        try:
            prepare(store, campaign, wanted.rounds)
            with server_for(campaign) as server:
                samples = run(store, mongod, campaign, server, wanted)
            faults = invariants(store, campaign, wanted.rounds) + growth(samples)
        finally:
            store.close()
            campaign.client.close()
            mongod.stop()
    keep(wanted, samples, faults)
    end = f"{samples[-1]['kills']} kills in {wanted.rounds} rounds; " + ("\n".join(faults) or "every invariant holds")
    print(end)
    if wanted.write:
        PAGE.write_text(page(wanted, samples, end))
    return 1 if faults else 0


def keep(wanted: argparse.Namespace, samples: list[dict[str, Any]], faults: list[str] | None = None) -> None:
    """Write what was measured so far."""
    told = {"rounds": wanted.rounds, "seed": wanted.seed, "samples": samples, "faults": faults}
    wanted.out.write_text(json.dumps(told, indent=1))


def page(wanted: argparse.Namespace, samples: list[dict[str, Any]], end: str) -> str:
    """Return the page of a run."""
    rows = [[*COLUMNS.values()], ["---"] * len(COLUMNS), *([str(one[name]) for name in COLUMNS] for one in samples)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    loads = [one["load"] for one in samples]
    command = f"python tests/benchmarks/soak.py --rounds {wanted.rounds} --kills {wanted.kills:g} --seed {wanted.seed}"
    return f"""# Soak: a campaign of {wanted.rounds} rounds whose processes are killed at random

Written by `{command} --write`.

{end[:1].upper()}{end[1:]}.

- A real database, LaunchPad and rockets; generation is a fixed list of genes and a calculation takes no time. Each
  round proposes {POLICY["n_candidates"]} candidates and computes {POLICY["n_relaxations"]} of them: relaxation,
  phonons, and a second relaxation of what is quarantined.
- One process at a time advances the campaign and runs its jobs until it is killed (SIGKILL, {wanted.kills:g} s after
  its start on average, exponentially distributed); the next one goes on.
- Invariants checked at the end: every round closed in its order, no candidate without an end, each calculation one
  job, each job ended, no workflow locked, no open reservation, budgets equal to the sums of their reservations,
  nothing that `wyloop db check` or `wyloop reconcile` finds. Memory and open files of the last fifth of the run are at
  most {FLAT:g} times those of the first, and collections that do not grow with the rounds have no more documents.
- Load of the machine (2 cores, shared): {min(loads):.0f} to {max(loads):.0f}.

{table}
"""


def prepare(store: Store, campaign: Campaign, n_rounds: int) -> None:
    """Define the campaign, its budget just what it needs."""
    policy = Policy.model_validate(POLICY).model_dump(mode="json")
    campaign.campaign_id = campaigns.create_campaign(store, TARGET, policy).campaign_id
    budget.set_limits(store, campaign.campaign_id, {"all": budget.Limits(jobs=n_rounds * 5)})
    campaigns.request_rounds(store, campaign.campaign_id, n_rounds)
    campaign.environment_more = {"WYLOOP_TEST_ROUNDS": str(n_rounds)}


def run(
    store: Store, mongod: OwnMongod, campaign: Campaign, server: Server, wanted: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run it to its end; a child is killed at a random moment, and the next one goes on."""
    rng = random.Random(wanted.seed)
    samples: list[dict[str, Any]] = []
    started, step = time.monotonic(), max(1, wanted.rounds // 20)
    seen = {"kills": 0, "worker_mb": 0.0, "worker_files": 0}

    def measure(n_closed: int) -> None:
        minutes = round((time.monotonic() - started) / 60, 1)
        samples.append({"round": n_closed, "minutes": minutes, **seen, **sample(store, mongod, campaign, server)})
        seen.update(worker_mb=0.0, worker_files=0)
        print(json.dumps(samples[-1]), flush=True)
        keep(wanted, samples)

    while (closed := campaigns.campaign(store, campaign.campaign_id).rounds_closed) < wanted.rounds:
        if closed >= len(samples) * step and seen["worker_files"]:
            measure(closed)
        pid = server.leave("run")
        deadline = time.monotonic() + rng.expovariate(1 / wanted.kills)
        while time.monotonic() < deadline and is_alive(pid):
            watch(pid, seen)
            time.sleep(0.05)
        if is_alive(pid):
            psutil.Process(pid).send_signal(signal.SIGKILL)
            seen["kills"] += 1
        server.reap(pid)
        campaign.end_transactions()
    measure(closed)
    return samples


def watch(pid: int, seen: dict[str, Any]) -> None:
    """Note the most memory (MB) and open files that a working process had."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        seen["worker_mb"] = max(seen["worker_mb"], round(process.memory_info().rss / 1e6, 1))
        seen["worker_files"] = max(seen["worker_files"], process.num_fds())


def is_alive(pid: int) -> bool:
    """Whether a child still runs; one that ended waits for the server as a zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def sample(store: Store, mongod: OwnMongod, campaign: Campaign, server: Server) -> dict[str, Any]:
    """Measure memory (MB), open files, documents and the load of the machine."""
    assert mongod.process is not None
    database = psutil.Process(mongod.process.pid)
    parent = psutil.Process(server.process.pid)
    jobs = store.client[campaign.jobs]
    return {
        "server_mb": round(parent.memory_info().rss / 1e6, 1),
        "server_files": parent.num_fds(),
        "mongod_mb": round(database.memory_info().rss / 1e6, 1),
        "mongod_files": database.num_fds(),
        "collections": len(store.database.list_collection_names()) + len(jobs.list_collection_names()),
        "few": sum(store.database[name].count_documents({}) for name in FEW),
        "candidates": store.database["candidates"].count_documents({}),
        "jobs": jobs["fireworks"].count_documents({}),
        "launches": jobs["launches"].count_documents({}),
        "load": round(psutil.getloadavg()[0], 1),
    }


def invariants(store: Store, campaign: Campaign, n_rounds: int) -> list[str]:
    """Return what does not hold."""
    return [*_of_rounds(store, campaign, n_rounds), *_of_jobs(campaign), *_of_repair(store, campaign)]


def _of_rounds(store: Store, campaign: Campaign, n_rounds: int) -> Iterator[str]:
    found = campaigns.rounds(store, campaign.campaign_id)
    if [one.number for one in found if one.state == "closed"] != list(range(1, n_rounds + 1)):
        yield "not every round is closed"
    open_ones = store.database["candidates"].count_documents(
        {"status": {"$in": ["selected", "dispatched", "proposed", "quarantined"]}}
    )
    if open_ones:
        yield f"{open_ones} candidates have no end"
    yield from budget.contradictions(store)
    reserved = [one.calculation_id for one in budget.reservations(store)]
    if reserved:
        yield f"{len(reserved)} reservations are open"
    yield from (f"{one.kind}: {one.what}" for one in check(store).faults)


def _of_jobs(campaign: Campaign) -> Iterator[str]:
    with MongoClient(campaign.uri) as client:
        jobs = client[campaign.jobs]["fireworks"]
        names = [row["spec"]["calculation_id"] for row in jobs.find({}, {"spec.calculation_id": 1})]
        if len(names) != len(set(names)):
            yield "a calculation has two jobs"
        if n_open := jobs.count_documents({"state": {"$nin": ["COMPLETED", "DEFUSED", "FIZZLED"]}}):
            yield f"{n_open} jobs have not ended"
        if n_locked := client[campaign.jobs]["workflows"].count_documents({"locked": True}):
            yield f"{n_locked} workflows are locked"


def _of_repair(store: Store, campaign: Campaign) -> Iterator[str]:
    import os

    os.environ.update(campaign.environment)
    lpad = launchpad(campaign.uri, campaign.jobs)
    repairs = reconcile.reconcile(store, lpad, with_prefect=False)
    lpad.connection.close()
    for kind, found in repairs.done.items():
        yield f"left to mend: {kind}: {len(found)}"


def growth(samples: list[dict[str, Any]]) -> list[str]:
    """Return what grew from the first fifth of the run to the last."""
    part = max(1, len(samples) // 5)
    faults = []
    for name in ("worker_mb", "worker_files", "server_mb", "server_files", "mongod_files", "collections", "few"):
        first = sum(one[name] for one in samples[:part]) / part
        last = sum(one[name] for one in samples[-part:]) / part
        if last > FLAT * first + 5:
            faults.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
