"""A small database with everything that the dashboard shows, made without training or physics."""

from dataclasses import replace
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, campaigns, candidates, registry
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material

TARGET = ("0.5 < band_gap < 4", "formation_energy_per_atom < -0.5")
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
SALTS = (("Na", "At", 6.4, -1.2, 2.5), ("K", "At", 6.9, -1.4, 0.0), ("Fr", "F", 6.0, -2.0, None))
HOSTILE = "<script>window.broken=1</script>"


def fill(store: Store) -> dict[str, str]:
    """Fill a database; return the ids that tests open: campaign, candidate, material, model, rejected."""
    from safetensors.numpy import save

    ingest_starter(store)
    build_encodings(store, n_processes=1)
    build_materials(store, n_processes=1)
    settings: dict[str, Any] = {"n_candidates": 3, "n_relaxations": 3}
    campaign = campaigns.create_campaign(store, TARGET, settings, name=f"Halides {HOSTILE}")
    identity = campaign.campaign_id
    campaigns.set_campaign_state(store, identity, "active")
    campaigns.request_rounds(store, identity, 2)
    record = campaigns.open_round(store, identity)
    assert record is not None
    card = {"metrics": {"validation": {"formation_energy_mae": 0.09}}, "history": [{"epoch": 1, "loss": 0.5}]}
    model = registry.save_model(
        store,
        save({"weight": np.zeros(1, dtype=np.float32)}),
        parent_id=None,
        card=card,
        snapshot=None,
        campaign_id=identity,
        round_number=1,
    )
    campaigns.record_step(store, record.round_id, "train", counts={"n_rows": 646}, model_id=model)
    ids = [_computed(store, identity, record.round_id, model, salt, rank) for rank, salt in enumerate(SALTS, 1)]
    rejected = _rejected(store, identity, record.round_id, model)
    build_hulls(store)
    judged = {"$set": {"is_validated": True, "meets_target": True, "content_hash": "judged"}}
    store.database["materials"].update_one({"candidate_id": ids[0][0]}, judged)
    funnel = [
        {"stage": "generated", "n": 4, "note": "distinct"},
        {"stage": "synthesizability", "n": 3, "note": "alone"},
    ]
    campaigns.close_round(store, record.round_id, {"funnel": funnel, "core_seconds": 120.0})
    campaigns.open_round(store, identity)
    return {
        "campaign": identity,
        "candidate": ids[0][0],
        "material": ids[0][1],
        "model": model,
        "rejected": rejected,
    }


def _computed(
    store: Store, campaign: str, round_id: str, model: str, salt: tuple[Any, ...], rank: int
) -> tuple[str, str]:
    """Put a rock salt in that was proposed, relaxed and found stable; return candidate and material."""
    cation, anion, a, energy, gap = salt
    crystal = Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))
    gene = encode(crystal)
    made = _candidate(campaign, round_id, model, gene, energy - 0.05 * rank)
    candidates.propose(store, [replace(made, status="validated", reason="not calculated: band_gap", rank=rank)])
    job = calculations.calculation_id(str(gene), "mlip-gamma/1", "0" * 16)
    calculations.request_calculation(
        store,
        CalculationRecord(job, made.candidate_id, round_id, "phonon", str(gene), "mlip-gamma/1", "0" * 16, (crystal,)),
    )
    calculations.begin(store, job, host="here:1", fw_id=rank)
    result = {"frequencies": [0.0, 0.0, 0.0, 3.1, 3.1, 4.8], "tolerance": 0.3, "is_stable": True, "is_prescreen": True}
    calculations.complete(store, job, result=result, crystal=crystal, core_seconds=2.5)
    record = MaterialRecord(
        material_id(str(gene)), str(gene), gene, crystal, energy, "chgnet",
        band_gap=gap, band_gap_method=None if gap is None else "gpaw-pbe/1", phonon_verdict="stable (pre-screen)",
        lowest_optical_frequency=3.1, candidate_id=made.candidate_id, campaign_id=campaign, round_number=1,
        model_id=model, calculation_ids=(job,),
    )  # fmt: skip
    upsert_material(store, record)
    return made.candidate_id, record.material_id


def _rejected(store: Store, campaign: str, round_id: str, model: str) -> str:
    made = _candidate(campaign, round_id, model, canonical(Gene.parse("221 O:c Sr:a Ti:b")), -3.0)
    verdicts = (Verdict("synthesizability", False, 0.2, "1", f"likeness 0.20, below 0.4 {HOSTILE}"),)
    reason = "synthesizability: likeness 0.20, below 0.4"
    candidates.propose(store, [replace(made, status="rejected", reason=reason, verdicts=verdicts)])
    return made.candidate_id


def _candidate(campaign: str, round_id: str, model: str, gene: Gene, energy: float) -> CandidateRecord:
    return CandidateRecord(
        candidate_id=candidates.candidate_id(campaign, gene.fingerprint),
        campaign_id=campaign,
        round_id=round_id,
        round_number=1,
        gene=gene,
        prediction=Prediction(energy, 0.08, 1.5, 0.4, 0.1, 20.0),
        verdicts=(Verdict("validity", True, 2.0, "1", "2 atoms"), Verdict("novelty", True, 1.0, "1", "new gene")),
        model_id=model,
        sampler="mpvae-conditional",
        seed=1,
    )
