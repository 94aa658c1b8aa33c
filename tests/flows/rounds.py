"""Small databases, rounds and candidates to try the flows on, made of crystals of the starter set."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from wyloop.flows.policy import Policy
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, campaigns, candidates, registry
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.starter.read import StarterEntry, starter_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

TARGET = ("formation_energy_per_atom < -0.5", "space_group_number >= 195")
POLICY = Policy(n_candidates=120, n_relaxations=3)
NACL, CSCL = canonical(Gene.parse("225 Cl:b Na:a")), canonical(Gene.parse("221 Cl:b Cs:a"))


def starter(name: str) -> StarterEntry:
    """Return one entry of the starter set, such as `NaCl-225`."""
    return next(entry for entry in starter_set() if entry.structure_id == f"starter-{name}")


def fill(store: Store, step: int = 11) -> None:
    """Ingest and encode every so many-th entry of the starter set."""
    chosen = starter_set()[::step]
    rows = [
        SourceStructure(
            "starter",
            entry.structure_id,
            entry.crystal,
            entry.formation_energy_per_atom,
            "chgnet",
            entry.band_gap,
            entry.band_gap_method,
            entry.space_group_number,
        )
        for entry in chosen
    ]
    write_structures(store, rows)
    build_encodings(store)


def open_round(
    store: Store, policy: Policy = POLICY, target: tuple[str, ...] = TARGET, *, n_rounds: int = 2
) -> tuple[CampaignRecord, RoundRecord]:
    """Make the campaign of a target, or find it, and open its next round."""
    campaign = campaigns.create_campaign(store, target, policy.model_dump(mode="json"))
    campaigns.request_rounds(store, campaign.campaign_id, n_rounds)
    record = campaigns.open_round(store, campaign.campaign_id)
    assert record is not None
    return campaigns.campaign(store, campaign.campaign_id), record


VERDICTS = (
    Verdict("validity", True, 2.0, "1", "2 atoms"),
    Verdict("novelty", True, 1.0, "1", "new"),
    Verdict("charge_neutrality", True, 1.0, "1", "Na+ Cl-"),
    Verdict("anion_family", True, 1.0, "1", "one"),
    Verdict("synthesizability", True, 0.8, "1", "likely"),
    Verdict("predicted_properties", True, 0.5, "1", "on target"),
    Verdict("predicted_stability", True, 0.0, "eV/atom", "on the hull"),
)


def model_of(store: Store) -> str:
    """Register a model that stands for the one that proposed; its weights are no network."""
    weights = save({"weight": np.zeros(1, dtype=np.float32)})
    return registry.save_model(
        store, weights, parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None
    )


def propose(store: Store, record: RoundRecord, gene: Gene, status: str = "passed", **fields: object) -> CandidateRecord:
    """Put a candidate into a round."""
    made = CandidateRecord(
        candidate_id=candidates.candidate_id(record.campaign_id, gene.fingerprint),
        campaign_id=record.campaign_id,
        round_id=record.round_id,
        round_number=record.number,
        gene=gene,
        verdicts=VERDICTS,
        model_id=model_of(store),
        status=status,
        reason="",
    )
    candidates.propose(store, [replace(made, **fields)])  # type: ignore[arg-type]  # by name
    return candidates.candidate(store, made.candidate_id)


def contents(store: Store, *collections: str) -> dict[str, list[dict[str, Any]]]:
    """Return whole collections, in the order of their documents, without the times of writing."""
    stamps = {"last_updated": 0}
    return {name: list(store.database[name].find({}, stamps).sort("_id")) for name in collections}


def wait_for(condition: Callable[[], bool], limit: float = 240.0) -> None:
    """Look every few milliseconds until a condition holds; fail after the limit, s."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.005)


@contextmanager
def process(environment: Mapping[str, str], *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run Python beside the test; whatever happens, it is gone afterwards."""
    started = subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def worker(environment: Mapping[str, str], *options: str) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    """Run `wyloop worker` beside the test."""
    return process(environment, "-m", "wyloop.platform.cli.main", "worker", *options)


def status_of(store: Store, calculation_id: str) -> str:
    """Return the status of a calculation."""
    return calculations.calculation(store, calculation_id).status
