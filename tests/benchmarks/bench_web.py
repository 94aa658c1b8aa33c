"""How fast the dashboard and the API answer 50 readers at once while a campaign writes.

    python tests/benchmarks/bench_web.py                        # 100 000 candidates, 50 readers, 60 s: about 5 minutes
    python tests/benchmarks/bench_web.py --size 5000 --seconds 10

Everything is on loopback: an embedded MongoDB in a temporary folder, the server in a process of its own, the readers in
another. Readers read pages one after the other with a pause of one second, as people do. A writer proposes candidates
and records screenings all the while.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import httpx
from pydantic import SecretStr
from scale_data import BATCH, Population

from wyloop.platform import processes
from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores import campaigns, candidates
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

TARGET_MS = 300.0
PAUSE = 1.0  # s between two requests of a reader
FILTERS = (
    "band_gap > 1",
    "elements has O",
    "band_gap > 2 and elements has Na",
    "space_group_number = 225",
    "nsites < 5",
)
PATHS = (
    "/", "/candidates", "/candidates?status=&sort=-band_gap", "/candidates?status=validated", "/materials", "/models",
    "/campaigns/{campaign}", "/candidates/{candidate}", "/api/campaigns", "/api/candidates?limit=50&sort=band_gap",
    "/api/candidates?filter={filter}&sort=formation_energy_per_atom", "/candidates?status=&filter={filter}",
    "/api/candidates/{candidate}", "/health",
)  # fmt: skip


def main() -> int:
    """Measure, print a table and keep it as JSON; 1 if the slowest twentieth takes longer than the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="candidates in the database")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("build/bench_web.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        handle = start_mongod(Path(folder), cache_gb=1)
        settings = Settings(uri=SecretStr(handle.uri), database="bench_web")
        store = connect(settings)
        try:
            found = measure(store, handle.uri, asked.size, asked.readers, asked.seconds)
        finally:
            store.close()
            stop_mongod(Path(folder))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    return int(found["all"]["p95_ms"] > TARGET_MS)


def measure(store: Store, uri: str, size: int, n_readers: int, seconds: float) -> dict[str, dict[str, float]]:
    """Fill, serve, read and write; return times by path, ms."""
    identity, ids = fill(store, size)
    port = processes.free_port()
    environment = os.environ | {"WYLOOP_STORES_URI": uri, "WYLOOP_STORES_DATABASE": store.name}
    command = [sys.executable, "-m", "wyloop.platform.cli.main", "api", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        is_over = threading.Event()
        writer = threading.Thread(target=write, args=(store, size, is_over))
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url)
            writer.start()
            times = asyncio.run(read(url, identity, ids, n_readers, seconds))
        finally:
            is_over.set()
            if writer.ident is not None:
                writer.join()
            server.terminate()
    found = {path: told(values) for path, values in sorted(times.items())}
    found["all"] = told([value for values in times.values() for value in values])
    found["machine"] = {"cores": float(os.cpu_count() or 1), "load": os.getloadavg()[0], "candidates": float(size)}
    return found


def fill(store: Store, size: int) -> tuple[str, list[str]]:
    """Propose so many candidates in rounds of campaigns; return a campaign and some candidates."""
    ids: list[str] = []
    identity = ""
    for made in Population().draw(size):
        record = made.candidate
        if record.campaign_id != identity:
            identity = record.campaign_id
            settings = {"n_candidates": BATCH}
            of_size = campaigns.create_campaign(store, ("band_gap > 1",), settings, name=identity)
            campaigns.request_rounds(store, of_size.campaign_id, 10)
            _add_rounds(store, identity)
        ids.append(record.candidate_id)
        _buffer.append(record)
        if len(_buffer) == 5000:
            candidates.propose(store, _buffer)
            _buffer.clear()
    candidates.propose(store, _buffer)
    _buffer.clear()
    return campaigns.campaigns(store)[0].campaign_id, ids[:: max(1, size // 200)]


_buffer: list[candidates.CandidateRecord] = []


def _add_rounds(store: Store, campaign_id: str) -> None:
    """Put the rounds in that the made-up candidates name."""
    from wyloop.stores.documents.base import checked, now
    from wyloop.stores.documents.campaigns import RoundDocument

    for number in range(1, 11):
        fields = {
            "round_id": f"{campaign_id}-r{number}", "campaign_id": campaign_id, "number": number, "seed": 1,
            "state": "closed", "created_at": now(),
        }  # fmt: skip
        store.database["rounds"].insert_one(checked(RoundDocument, fields))


def write(store: Store, size: int, is_over: threading.Event) -> None:
    """Propose and screen as a campaign does, a hundred at a time, until told to end."""
    new = Population(seed=1).draw(1_000_000, start=size)
    while not is_over.is_set():
        batch = [replace(made.candidate, status="proposed", verdicts=(), rank=None) for made, _ in zip(new, range(100))]  # noqa: B905
        candidates.propose(store, batch)
        candidates.record_screening(store, [replace(one, status="passed") for one in batch])
        is_over.wait(0.5)


def wait(url: str) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/api/health", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("the server did not start within 120 s")


async def read(url: str, campaign: str, ids: list[str], n_readers: int, seconds: float) -> dict[str, list[float]]:
    """Let readers read until the time is over; return times by path, ms."""
    times: dict[str, list[float]] = defaultdict(list)
    deadline = time.monotonic() + seconds

    async def reader(number: int) -> None:
        rng = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            await asyncio.sleep(rng.random() * PAUSE)
            while time.monotonic() < deadline:
                path = rng.choice(PATHS)
                shown = path.format(campaign=campaign, candidate=rng.choice(ids), filter=rng.choice(FILTERS))
                started = time.perf_counter()
                answer = await client.get(shown)
                times[path].append(1000 * (time.perf_counter() - started))
                if answer.status_code >= 500:
                    raise SystemExit(f"{shown}: {answer.status_code} {answer.text[:200]}")
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*(reader(number) for number in range(n_readers)))
    return times


def told(values: list[float]) -> dict[str, float]:
    """Return number, median, 95th percentile and longest of times, ms."""
    p95 = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return {"n": float(len(values)), "median_ms": median(values), "p95_ms": p95, "max_ms": max(values)}


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    machine = found["machine"]
    print(
        f"{machine['candidates']:.0f} candidates, {machine['cores']:.0f} cores, load {machine['load']:.1f}, "
        f"{platform.machine()}"
    )
    print("| path | requests | median, ms | 95 %, ms | longest, ms |\n| --- | ---: | ---: | ---: | ---: |")
    for path, row in found.items():
        if path != "machine":
            print(f"| `{path}` | {row['n']:.0f} | {row['median_ms']:.0f} | {row['p95_ms']:.0f} | {row['max_ms']:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
