"""The machinery without physics: `python tests/benchmarks/bench_machinery.py [--quick]`.

Targets: 1 000 workflows dispatched in at most 30 s; 100 000 jobs in the LaunchPad slow a step by at most a factor of 2;
a round of 10 000 generated candidates, from refresh to selection, in at most 60 s on two cores. `--quick` takes a tenth
of each. Results are kept in `build/machinery.json`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from wyloop.flows import authority, charges, lost_jobs, reconcile, session
from wyloop.flows.authority import Authority
from wyloop.flows.launchpad import Job, launchpad, submit_all, worker_name
from wyloop.flows.policy import Policy
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


def main() -> None:
    """Measure the three, and print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    share = 10 if parser.parse_args().quick else 1
    told: dict[str, Any] = {"share": 1 / share}
    with tempfile.TemporaryDirectory(prefix="wyloop-machinery-") as folder:
        handle = start_mongod(Path(folder))
        os.environ["WYLOOP_STORES_URI"] = handle.uri
        os.environ["WYLOOP_FLOWS_LAUNCHPAD_DATABASE"] = "machinery_jobs"
        os.environ["WYLOOP_STORES_DATABASE"] = "machinery"
        store = connect(Settings(uri=SecretStr(handle.uri), database="machinery"))
        try:
            told |= dispatch(store, 1000 // share)
            told |= many_jobs(store, 100_000 // share)
            told |= whole_round(store, 10_000 // share)
        finally:
            store.close()
            stop_mongod(Path(folder))
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "machinery.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))


def dispatch(store: Store, n: int) -> dict[str, float]:
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
        began = time.perf_counter()
        STEPS["reserve"](store, made, record, policy)
        reserved = time.perf_counter()
        STEPS["dispatch"](store, made, record, policy)
        ended = time.perf_counter()
    campaigns.close_round(store, record.round_id, {})
    return {"n_workflows": n, "reserve_s": round(reserved - began, 2), "dispatch_s": round(ended - reserved, 2)}


def many_jobs(store: Store, n: int) -> dict[str, float]:
    """Time what every advance does, with few and with many jobs of others in the LaunchPad."""
    lpad = launchpad(store.uri, "machinery_jobs")
    before = _timed_looks(store, lpad, "few")
    jobs = [([Job(f"calc-filler-{i}", f"filler {i}", "mlip")], f"filler {i}") for i in range(n)]
    began = time.perf_counter()
    for start in range(0, n, 2000):
        submit_all(lpad, jobs[start : start + 2000])
    filled = time.perf_counter() - began
    after = _timed_looks(store, lpad, "many")
    began = time.perf_counter()
    reconcile.reconcile(store, lpad, with_prefect=False)
    whole = time.perf_counter() - began
    lpad.connection.close()
    return {
        "n_jobs": n,
        "fill_s": round(filled, 1),
        "look_few_s": round(before, 4),
        "look_many_s": round(after, 4),
        "slower": round(after / before, 2),
        "reconcile_all_s": round(whole, 2),
    }


def _timed_looks(store: Store, lpad: Any, name: str) -> float:  # noqa: ANN401 - a LaunchPad
    """Return the mean time of mending before an advance, submitting one chain and looking at its states, s."""
    made = campaigns.create_campaign(store, TARGET, Policy().model_dump(mode="json"), name)
    campaigns.request_rounds(store, made.campaign_id, 1)
    record = campaigns.open_round(store, made.campaign_id)
    assert record is not None
    times = []
    for number in range(N_STEPS):
        identity = f"calc-{name}-{number}"
        asked = CalculationRecord(identity, None, record.round_id, "reference", "Na", "gpaw-pbe/1", "0")
        calculations.request_calculation(store, asked)
        with _acting(store, record) as token:
            began = time.perf_counter()
            reconcile.before_advance(store, lpad, made, token)
            charges.reserve_chains(store, record, [{identity: "gpaw-pbe/1"}])
            submit_all(lpad, [([Job(identity, name, "dft")], name)])
            charges.collect(store, lpad, made.campaign_id)
            lost_jobs.give_back(lpad, 30.0)
            times.append(time.perf_counter() - began)
    return sum(times[1:]) / (len(times) - 1)  # the first one warms up


def whole_round(store: Store, n: int) -> dict[str, float]:
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
    told: dict[str, float] = {"n_candidates": n}
    with _acting(store, record) as token:
        for name in ("refresh", "train", "generate", "screen", "select", "reserve"):
            began = time.perf_counter()
            counts = STEPS[name](store, made, record, policy)
            fields = {key: counts[key] for key in ("model_id",) if key in counts}
            record = campaigns.record_step(store, record.round_id, name, counts=counts, token=token, **fields)
            told[f"{name}_s"] = round(time.perf_counter() - began, 2)
    told["round_s"] = round(sum(value for key, value in told.items() if key.endswith("_s")), 2)
    return told


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


if __name__ == "__main__":
    sys.exit(main())
