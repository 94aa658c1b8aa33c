"""A long campaign on the fast oracle whose processes are killed at random: `python tests/benchmarks/soak.py`.

    --rounds 200     rounds of the campaign
    --kills 4        mean seconds between two kills, of the process that advances it or of a worker
    --seed 0         of the kills

Printed every few rounds: resident memory and open files of the process that forks the others and of mongod, documents.
At the end the invariants are checked: every round closed, every job submitted once, budgets equal to reservations, no
candidate without an end, nothing for `wyloop db check` or `wyloop reconcile` to find. Exit status 1 if one fails.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
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
    "quarantine_sigma": 1000.0, "retraining": {"every_rounds": 0},
    "screening": {"binding": ["validity"]},
}  # fmt: skip
FLAT = 1.3  # growth of memory from the first fifth to the last that is still called flat


def main() -> int:
    """Run the campaign under fire and check what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kills", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak.json")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wyloop-soak-") as folder:
        mongod = OwnMongod(Path(folder))
        campaign = Campaign(mongod.uri, "soak", Path(folder))
        store = connect(Settings(uri=SecretStr(mongod.uri), database="soak", timeout_ms=20_000))
        try:
            prepare(store, campaign, wanted.rounds)
            with server_for(campaign) as server:
                samples, n_kills = run(store, mongod, campaign, server, wanted)
            faults = invariants(store, campaign, wanted.rounds) + growth(samples)
        finally:
            store.close()
            campaign.client.close()
            mongod.stop()
    told = {"rounds": wanted.rounds, "kills": n_kills, "seed": wanted.seed, "samples": samples, "faults": faults}
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(told, indent=1))
    print(f"{n_kills} kills in {wanted.rounds} rounds; " + ("\n".join(faults) or "every invariant holds"))
    return 1 if faults else 0


def prepare(store: Store, campaign: Campaign, n_rounds: int) -> None:
    """Define the campaign, its budget just what it needs."""
    policy = Policy.model_validate(POLICY).model_dump(mode="json")
    campaign.campaign_id = campaigns.create_campaign(store, TARGET, policy).campaign_id
    budget.set_limits(store, campaign.campaign_id, {"all": budget.Limits(jobs=n_rounds * 4)})
    campaigns.request_rounds(store, campaign.campaign_id, n_rounds)
    campaign.environment_more = {"WYLOOP_TEST_ROUNDS": str(n_rounds)}


def run(
    store: Store, mongod: OwnMongod, campaign: Campaign, server: Server, wanted: argparse.Namespace
) -> tuple[list[dict[str, Any]], int]:
    """Run it to its end; a child is killed at a random moment, and the next one goes on."""
    rng = random.Random(wanted.seed)
    samples: list[dict[str, Any]] = []
    n_kills, step = 0, max(1, wanted.rounds // 20)
    while (closed := campaigns.campaign(store, campaign.campaign_id).rounds_closed) < wanted.rounds:
        if closed >= len(samples) * step:
            samples.append(sample(store, mongod, server, closed))
            print(json.dumps(samples[-1]), flush=True)
        pid = server.leave("run")
        deadline = time.monotonic() + rng.expovariate(1 / wanted.kills)
        while time.monotonic() < deadline and is_alive(pid):
            time.sleep(0.05)
        if is_alive(pid):
            psutil.Process(pid).send_signal(signal.SIGKILL)
            n_kills += 1
        server.reap(pid)
        campaign.end_transactions()
    samples.append(sample(store, mongod, server, closed))
    return samples, n_kills


def is_alive(pid: int) -> bool:
    """Whether a child still runs; one that ended waits for the server as a zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def sample(store: Store, mongod: OwnMongod, server: Server, n_closed: int) -> dict[str, Any]:
    """Measure memory (MB), open files and documents."""
    assert mongod.process is not None
    database = psutil.Process(mongod.process.pid)
    parent = psutil.Process(server.process.pid)
    return {
        "round": n_closed,
        "server_mb": round(parent.memory_info().rss / 1e6, 1),
        "server_files": parent.num_fds(),
        "mongod_mb": round(database.memory_info().rss / 1e6, 1),
        "mongod_files": database.num_fds(),
        "locks": store.database["locks"].estimated_document_count(),
        "candidates": store.database["candidates"].estimated_document_count(),
    }


def invariants(store: Store, campaign: Campaign, n_rounds: int) -> list[str]:
    """Return what does not hold."""
    return [*_of_rounds(store, campaign, n_rounds), *_of_jobs(campaign), *_of_repair(store, campaign)]


def _of_rounds(store: Store, campaign: Campaign, n_rounds: int) -> Iterator[str]:
    found = campaigns.rounds(store, campaign.campaign_id)
    if [one.number for one in found if one.state == "closed"] != list(range(1, n_rounds + 1)):
        yield "not every round is closed"
    open_ones = store.database["candidates"].count_documents(
        {"status": {"$in": ["selected", "dispatched", "proposed"]}}
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
    for name in ("server_mb", "server_files", "mongod_files"):
        first = sum(one[name] for one in samples[:part]) / part
        last = sum(one[name] for one in samples[-part:]) / part
        if last > FLAT * first + 5:
            faults.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
