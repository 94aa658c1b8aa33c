"""The machinery without physics: `python tests/benchmarks/bench_machinery.py [--quick] [--only PART] [--write]`.

Targets: 1 000 workflows dispatched in at most 30 s; 100 000 jobs in the LaunchPad slow a step by at most a factor of 2;
a round of 10 000 generated candidates, from refresh to selection, in at most 60 s on two cores. `--quick` takes a tenth
of each. Beside the time on the wall stands the processor time of this process and its children, and mongod's, since a
machine with other work shows only that. Results are kept in `build/machinery.json`; `--write` makes the page.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from wyloop.flows import authority, charges, lost_jobs, reconcile, session
from wyloop.flows.authority import Authority
from wyloop.flows.launchpad import Job, launchpad, submit_all, worker_name
from wyloop.flows.policy import Policy
from wyloop.flows.worker import pin_threads
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores import calculations, campaigns, candidates
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store, connect
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.leases import acquire_lease, release_lease
from wyloop.stores.settings import Settings

ROOT = Path(__file__).parents[2]
TARGET = ("0.5 < band_gap < 2", "formation_energy_per_atom < -1", "space_group_number >= 143")
ELEMENTS = (
    "Li",
    "Na",
    "K",
    "Rb",
    "Cs",
    "Be",
    "Mg",
    "Ca",
    "Sr",
    "Ba",
    "Sc",
    "Y",
    "La",
    "Ti",
    "Zr",
    "Hf",
    "V",
    "Nb",
    "Ta",
)
ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N", "P", "As", "H", "C", "Si", "Ge", "Sn")
N_STEPS = 5  # of each kind that is timed


PARTS = ("dispatch", "jobs", "round")
PAGE = ROOT / "docs" / "benchmarks" / "machinery.md"
KEPT = ROOT / "build" / "machinery.json"
LIMITS = {"dispatch_s": 30.0, "slower": 2.0, "round_s": 60.0}


@dataclass(frozen=True)
class Times:
    """Seconds since some moment: on the wall, of this process and its children that ended, of mongod."""

    wall: float
    own: float
    mongod: float

    @classmethod
    def now(cls) -> "Times":
        """Read the clocks; mongod is the one whose process id `main` notes."""
        own = os.times()
        fields = Path(f"/proc/{MONGOD[0]}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        seconds = ticks / os.sysconf("SC_CLK_TCK")
        return cls(time.perf_counter(), own.user + own.system + own.children_user + own.children_system, seconds)

    def since(self, name: str) -> dict[str, float]:
        """Return what passed since, under names that begin so."""
        now = Times.now()
        return {
            f"{name}_s": round(now.wall - self.wall, 2),
            f"{name}_own_cpu_s": round(now.own - self.own, 2),
            f"{name}_mongod_cpu_s": round(now.mongod - self.mongod, 2),
        }


MONGOD = [0]


def main() -> None:
    """Measure what is asked for, and print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    pin_threads()
    share = 10 if given.quick else 1
    before = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept = {part: before[part] for part in PARTS if part in before}
    with tempfile.TemporaryDirectory(prefix="wyloop-machinery-") as folder:
        handle = start_mongod(Path(folder))
        MONGOD[0] = handle.pid
        os.environ["WYLOOP_STORES_URI"] = handle.uri
        os.environ["WYLOOP_FLOWS_LAUNCHPAD_DATABASE"] = "machinery_jobs"
        try:
            for part in given.only:
                os.environ["WYLOOP_STORES_DATABASE"] = f"machinery_{part}"
                session.store.cache_clear()
                store = connect(Settings(uri=SecretStr(handle.uri), database=f"machinery_{part}"))
                load = os.getloadavg()[0]
                told = MEASURES[part](store, SIZES[part] // share)
                kept[part] = told | {"load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)}
                store.close()
                print(json.dumps({part: kept[part]}, indent=1), flush=True)
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(kept, indent=1))
        finally:
            stop_mongod(Path(folder))
    if given.write:
        PAGE.write_text(_page(kept))


def dispatch(store: Store, n: int) -> dict[str, Any]:
    """Reserve and submit n candidates' relaxation and phonons, as the steps do."""
    from wyloop.flows.steps import STEPS

    policy = Policy(n_candidates=n, n_relaxations=n)
    made = campaigns.create_campaign(store, TARGET, policy.model_dump(mode="json"), "dispatch")
    campaigns.request_rounds(store, made.campaign_id, 1)
    record = campaigns.open_round(store, made.campaign_id)
    assert record is not None
    candidates.propose(store, _selected(record, n))
    submit_all(
        session.launchpad(), [([Job("calc-first", "first", "mlip")], "first")]
    )  # imports, and makes the LaunchPad
    with _acting(store, record):
        began = Times.now()
        STEPS["reserve"](store, made, record, policy)
        told = began.since("reserve")
        began = Times.now()
        STEPS["dispatch"](store, made, record, policy)
        told |= began.since("dispatch")
    campaigns.close_round(store, record.round_id, {})
    return {"n_workflows": n, **told}


def many_jobs(store: Store, n: int) -> dict[str, Any]:
    """Time what every advance does, with few and with many jobs of others in the LaunchPad."""
    lpad = launchpad(store.uri, "machinery_jobs")
    _timed_looks(store, lpad, "warm")
    few = _timed_looks(store, lpad, "few")
    jobs = [([Job(f"calc-filler-{i}", f"filler {i}", "mlip")], f"filler {i}") for i in range(n)]
    began = Times.now()
    for start in range(0, n, 2000):
        submit_all(lpad, jobs[start : start + 2000])
    told = began.since("fill")
    many = _timed_looks(store, lpad, "many")
    began = Times.now()
    reconcile.reconcile(store, lpad, with_prefect=False)
    told |= began.since("reconcile_all")
    lpad.connection.close()
    cpu = [sum(value for key, value in looks.items() if key.endswith("cpu_s")) for looks in (few, many)]
    ratios = {"slower": round(many["many_s"] / few["few_s"], 2), "slower_cpu": round(cpu[1] / cpu[0], 2)}
    return {"n_jobs": n, **few, **many, **ratios, **told}


def _timed_looks(store: Store, lpad: Any, name: str) -> dict[str, float]:  # noqa: ANN401 - a LaunchPad
    """Return the mean times of mending before an advance, submitting one chain and looking at its states."""
    made = campaigns.create_campaign(store, TARGET, Policy().model_dump(mode="json"), name)
    campaigns.request_rounds(store, made.campaign_id, 1)
    record = campaigns.open_round(store, made.campaign_id)
    assert record is not None
    began = Times.now()
    for number in range(N_STEPS + 1):
        identity = f"calc-{name}-{number}"
        asked = CalculationRecord(identity, None, record.round_id, "reference", "Na", "gpaw-pbe/1", "0")
        calculations.request_calculation(store, asked)
        with _acting(store, record) as token:
            reconcile.before_advance(store, lpad, made, token)
            charges.reserve_chains(store, record, [{identity: "gpaw-pbe/1"}])
            submit_all(lpad, [([Job(identity, name, "dft")], name)])
            charges.collect(store, lpad, made.campaign_id)
            lost_jobs.give_back(lpad, 30.0)
        if number == 0:
            began = Times.now()  # the first one warms up
    return {key: round(value / N_STEPS, 4) for key, value in began.since(name).items()}


def whole_round(store: Store, n: int) -> dict[str, Any]:
    """Run the steps of a round that compute nothing, with n candidates and the shipped model."""
    from wyloop.flows.steps import STEPS

    ingest_starter(store)
    build_encodings(store)
    build_materials(store)
    build_hulls(store)
    policy = Policy.model_validate({"n_candidates": n, "n_relaxations": 24, "retraining": {"every_rounds": 0}})
    made = campaigns.create_campaign(store, TARGET, policy.model_dump(mode="json"), "round")
    campaigns.request_rounds(store, made.campaign_id, 1)
    record = campaigns.open_round(store, made.campaign_id)
    assert record is not None
    told: dict[str, Any] = {"n_candidates": n}
    whole = Times.now()
    with _acting(store, record) as token:
        for name in ("refresh", "train", "generate", "screen", "select", "reserve"):
            began = Times.now()
            counts = STEPS[name](store, made, record, policy)
            fields = {key: counts[key] for key in ("model_id",) if key in counts}
            record = campaigns.record_step(store, record.round_id, name, counts=counts, token=token, **fields)
            told |= began.since(name)
            told |= {key: value for key, value in counts.items() if key in ("n_proposed", "n_passed", "n_selected")}
    return told | whole.since("round")


@contextmanager
def _acting(store: Store, record: RoundRecord) -> Iterator[int]:
    token = acquire_lease(store, record.campaign_id, worker_name(), 3600)
    assert token is not None
    with authority.acting_for(Authority(store.name, record.campaign_id, record.round_id, token)):
        yield token
    release_lease(store, record.campaign_id, worker_name())


def _selected(record: RoundRecord, n: int) -> list[CandidateRecord]:
    pairs = [(first, second, number) for number in (225, 221, 216) for first in ELEMENTS for second in ANIONS]
    letters = {225: "ab", 221: "ab", 216: "ac"}
    texts = [f"{number} {first}:{letters[number][0]} {second}:{letters[number][1]}" for first, second, number in pairs]
    texts += [
        f"225 {first}:a {second}:b {third}:c" for first in ELEMENTS for second in ANIONS for third in ("Al", "Ga")
    ]
    genes = list(dict.fromkeys(canonical(Gene.parse(text)) for text in texts))[:n]
    first = CandidateRecord("", record.campaign_id, record.round_id, record.number, genes[0], status="selected")
    return [
        replace(first, candidate_id=candidates.candidate_id(record.campaign_id, gene.fingerprint), gene=gene, rank=rank)
        for rank, gene in enumerate(genes, start=1)
    ]


MEASURES: Mapping[str, Callable[[Store, int], dict[str, Any]]] = {
    "dispatch": dispatch,
    "jobs": many_jobs,
    "round": whole_round,
}
SIZES = {"dispatch": 1000, "jobs": 100_000, "round": 10_000}


def _page(kept: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "# The machinery itself",
        "",
        "`python tests/benchmarks/bench_machinery.py --write`: the steps of a round without physics, on a database of",
        "the starter set. Seconds on the wall, then processor time of the process and of mongod; the load is that of",
        "the machine, two cores, when it began and when it ended: above one or two, others were at work.",
        "",
    ]
    for part, told in kept.items():
        lines += [f"## {TITLES[part]}", "", f"Load {told['load_before']} to {told['load_after']}.", ""]
        lines += ["| | |", "| --- | --- |"]
        for key, value in told.items():
            if key.endswith("_cpu_s") or key.startswith("load"):
                continue
            cpu = [told.get(f"{key[:-2]}_{who}_cpu_s") for who in ("own", "mongod")]
            times = "" if None in cpu else f" ({cpu[0]} and {cpu[1]} of processor time)"
            limit = f"; must {LIMITS[key]:g}" if key in LIMITS else ""
            lines.append(f"| {key} | {value}{times}{limit} |")
        lines.append("")
    return "\n".join(lines)


TITLES = {
    "dispatch": "Dispatch of workflows, each a relaxation and its phonons",
    "jobs": "A step's looks with few and with many jobs of others in the LaunchPad",
    "round": "A round of generated candidates",
}


if __name__ == "__main__":
    sys.exit(main())
