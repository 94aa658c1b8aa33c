"""Commands that tell what a campaign did: campaigns, candidates, jobs, workers."""

import gc
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.platform.conftest import Command
from wyloop.flows.launchpad import Job, launchpad, submit
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.platform.settings import all_settings
from wyloop.stores import calculations, campaigns, candidates, registry
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store

GENE = canonical(Gene.parse("216 As:a Ga:c"))
TARGET = ("0.5 < band_gap < 2.0",)


@pytest.fixture
def calculation(cli_store: Store) -> CalculationRecord:
    """One candidate of one round with a finished calculation whose job is in the LaunchPad."""
    store = cli_store
    campaign = campaigns.create_campaign(store, TARGET, {})
    campaigns.request_rounds(store, campaign.campaign_id, 1)
    record = campaigns.open_round(store, campaign.campaign_id)
    assert record is not None
    weights = {"parent_id": None, "snapshot": None, "campaign_id": campaign.campaign_id, "round_number": 1}
    checkpoint = save({"weight": np.zeros(2, dtype=np.float32)})
    model_id = registry.save_model(store, checkpoint, card={"seed": 1}, **weights)  # type: ignore[arg-type]  # mixed values
    proposed = CandidateRecord(
        candidate_id=candidate_id(campaign.campaign_id, GENE.fingerprint),
        campaign_id=campaign.campaign_id,
        round_id=record.round_id,
        round_number=1,
        gene=GENE,
        prediction=Prediction(-0.4, 0.1, 0.9, 0.2, 0.05, 23.5),
        model_id=model_id,
        seed=7,
    )
    candidates.propose(store, [proposed])
    verdicts = (
        Verdict("novelty", True, 1.0, "1", "new gene"),
        Verdict("predicted_stability", True, 0.02, "eV/atom", "near the hull"),
    )
    candidates.record_screening(store, [replace(proposed, verdicts=verdicts, status="passed", reason="")])
    asked = CalculationRecord(
        calculation_id=calculation_id(GENE.fingerprint, "mlip-screen/1", "0" * 8),
        candidate_id=proposed.candidate_id,
        round_id=record.round_id,
        kind="relaxation",
        subject=GENE.fingerprint,
        protocol="mlip-screen/1",
        protocol_hash="0" * 8,
    )
    calculations.request_calculation(store, asked)
    calculations.begin(store, asked.calculation_id)
    result = {"energy_per_atom": -4.1, "formation_energy_per_atom": -0.42, "converged": True, "max_force": 0.01}
    calculations.complete(store, asked.calculation_id, result=result, problems=["volume grew by a third"])
    lpad = launchpad(store.uri, all_settings().flows.launchpad_database)
    submit(lpad, [Job(asked.calculation_id, "relax GaAs", "mlip")], name="GaAs")
    lpad.connection.close()
    return asked


def test_campaigns(wyloop: Command, cli_store: Store, calculation: CalculationRecord) -> None:
    (row,) = wyloop("campaign", "list", "--json").json
    assert (row["target"], row["rounds_requested"], row["rounds_closed"]) == (list(TARGET), 1, 0)
    assert row["campaign_id"] in wyloop("campaign", "list").out
    shown = wyloop("campaign", "show", row["campaign_id"], "--json").json
    assert [(item["number"], item["candidates"]["passed"]) for item in shown["rounds"]] == [(1, 1)]
    told = wyloop("campaign", "show", row["campaign_id"]).out
    assert "0.5 < band_gap < 2" in told
    assert "round 1 candidates: 1 passed" in told
    assert "no campaign 'none'" in wyloop("campaign", "show", "none").error


def test_no_campaigns(wyloop: Command, cli_store: Store) -> None:
    assert wyloop("campaign", "list").out.startswith("no campaigns; 'wyloop campaign create' or 'wyloop discover'")
    assert wyloop("campaign", "list", "--json").json == []


def test_the_whole_story_of_a_candidate(wyloop: Command, calculation: CalculationRecord) -> None:
    identity = str(calculation.candidate_id)
    told = wyloop("candidate", "show", identity, "--json").json
    assert told["jobs"] == [{"calculation_id": calculation.calculation_id, "state": "READY"}]
    assert [verdict["screen"] for verdict in told["verdicts"]] == ["novelty", "predicted_stability"]
    text = wyloop("candidate", "show", identity).out
    for expected in (
        "GaAs",
        "seed 7",
        "band gap, eV                        0.9 ± 0.2",
        "formation energy per atom, eV/atom  -0.4 ± 0.1",
        "near the hull",
        "relaxation by mlip-screen/1: completed, job READY",
        "formation energy per atom, eV/atom  -0.42",
        "problems: volume grew by a third",
        "no material",
    ):
        assert expected in text
    assert "no candidate 'none'" in wyloop("candidate", "show", "none").error


def test_jobs(wyloop: Command, calculation: CalculationRecord) -> None:
    (row,) = wyloop("job", "list", "--json").json
    assert (row["name"], row["state"], row["calculation_id"]) == ("relax GaAs", "READY", calculation.calculation_id)
    assert "relax GaAs" in wyloop("job", "list", "--state", "ready").out
    assert wyloop("job", "list", "--state", "COMPLETED").out == "no jobs\n"
    assert "unknown job state 'LOST'" in wyloop("job", "list", "--state", "lost").error.replace("'lost'", "'LOST'")


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker has a process of its own: it takes signals, current folder and threads, and leaves its client open."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("as_before")
def test_a_worker_leaves_jobs_of_other_categories(
    wyloop: Command, calculation: CalculationRecord, tmp_path: Path
) -> None:
    arguments = ["--once", "-n", "3", "--categories", "dft, phonon", "--run-folder", tmp_path / "scratch"]
    answer = wyloop("worker", *arguments)
    assert (answer.status, answer.out, answer.err) == (0, "ran 0 jobs\n", "")
    assert [row["state"] for row in wyloop("job", "list", "--json").json] == ["READY"]


def test_a_worker_runs_what_is_ready(wyloop: Command, calculation: CalculationRecord, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wyloop.platform.cli.main", "worker", "-n", "1", "--categories", "mlip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran 1 jobs\n", "")
    (row,) = wyloop("job", "list", "--json").json
    assert (row["state"], row["category"]) == ("COMPLETED", "mlip")
    assert "job COMPLETED" in wyloop("candidate", "show", str(calculation.candidate_id)).out


def test_a_worker_without_a_database_is_one_line(wyloop: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", "mongodb://127.0.0.1:9/?replicaSet=rs0")
    monkeypatch.setenv("WYLOOP_STORES_TIMEOUT_MS", "200")
    assert "no MongoDB answers at 127.0.0.1:9" in wyloop("worker", "--once").error
