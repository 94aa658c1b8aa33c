"""Write `schema_<version>.zip`: a small database with documents of every collection, as the present code writes them.

Run once before the schema version rises: `python tests/stores/dumps/make_dump.py`. A dump is never written again.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydantic import SecretStr
from safetensors.numpy import save

from wyloop.models.crystal import Crystal
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.encode import encode
from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores import calculations, campaigns, candidates, registry
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store, connect
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material
from wyloop.stores.settings import Settings
from wyloop.stores.training import training_snapshot

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
PROTOCOLS = {"relaxation": "mlip-screen/1", "phonon": "mlip-phonon/1", "dft": "gpaw-pbe/1"}
RESULTS: dict[str, dict[str, object]] = {
    "relaxation": {"energy_per_atom": -4.1, "formation_energy_per_atom": -0.42, "converged": True, "n_steps": 12},
    "phonon": {"lowest_optical_frequency": 7.5, "frequencies": [7.5, 8.0], "is_stable": True, "is_prescreen": True},
    "dft": {"energy_per_atom": -4.5, "band_gap": 0.6, "is_direct": True, "is_metal": False, "cutoff": 400.0},
}


def rock_salt(cation: str, anion: str, a: float) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))


def zinc_blende(cation: str, anion: str, a: float) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.25] * 3]))


def fill(store: Store) -> None:
    """Write documents of every collection through the public functions: a campaign with one closed round."""
    write_structures(
        store,
        [
            SourceStructure("mp", "1", rock_salt("Na", "Cl", 5.6), -2.0, "mp-pbe", 5.0, "pbe"),
            SourceStructure("mp", "2", zinc_blende("Ga", "As", 5.65), -0.4, "mp-pbe", 0.2, "pbe"),
            SourceStructure("oqmd", "3", zinc_blende("Ga", "As", 5.7), -0.41, "oqmd-pbe"),
            SourceStructure("mp", "broken", Crystal(3.0 * np.eye(3), ("Na", "Cl"), np.array([[0.0] * 3, [1e-3] * 3]))),
        ],
    )
    build_encodings(store)
    campaign = campaigns.create_campaign(store, ("0.5 < band_gap < 2.0",), {"n_candidates": 1})
    campaigns.request_rounds(store, campaign.campaign_id, 1)
    record = campaigns.open_round(store, campaign.campaign_id)
    assert record is not None
    parent, model_id = models(store, campaign.campaign_id)
    crystal = zinc_blende("Al", "As", 5.66)
    candidate = propose(store, campaign.campaign_id, record.round_id, model_id, crystal)
    finished = [calculate(store, candidate, kind, crystal) for kind in PROTOCOLS]
    upsert_material(
        store,
        MaterialRecord(
            material_id(candidate.gene.fingerprint), candidate.gene.fingerprint, candidate.gene, crystal, -0.42,
            "chgnet", band_gap=0.6, band_gap_method="gpaw-pbe/1", phonon_verdict="stable", is_validated=True,
            candidate_id=candidate.candidate_id, campaign_id=campaign.campaign_id, round_number=1, model_id=model_id,
            calculation_ids=tuple(finished),
        ),
    )  # fmt: skip
    build_hulls(store)
    candidates.set_status(store, [candidate.candidate_id], "validated", reason="meets the target")
    funnel = [{"screen": "novelty", "n_in": 1, "n_out": 1}]
    campaigns.record_step(store, record.round_id, "train", counts={"n_rows": 3}, model_id=model_id, funnel=funnel)
    campaigns.close_round(store, record.round_id, {"parent": parent, "n_validated": 1})


def models(store: Store, campaign_id: str) -> tuple[str, str]:
    """Register a parent model and one trained on the database; their weights are no network."""
    snapshot = training_snapshot(store)
    shipped = save({"weight": np.zeros(4, dtype=np.float32)}, {"format": "wyloop-mpvae", "format_version": "1"})
    tuned = save({"weight": np.ones(4, dtype=np.float32)}, {"format": "wyloop-mpvae", "format_version": "1"})
    parent = registry.save_model(
        store, shipped, parent_id=None, card={"seed": 0}, snapshot=None, campaign_id=None, round_number=None
    )
    card = {"seed": 1, "metrics": {"mae": 0.1}}
    model_id = registry.save_model(
        store, tuned, parent_id=parent, card=card, snapshot=snapshot, campaign_id=campaign_id, round_number=1
    )
    return parent, model_id


def propose(store: Store, campaign_id: str, round_id: str, model_id: str, crystal: Crystal) -> CandidateRecord:
    """Propose and screen one candidate."""
    gene = encode(crystal)
    proposed = CandidateRecord(
        candidate_id=candidate_id(campaign_id, gene.fingerprint),
        campaign_id=campaign_id,
        round_id=round_id,
        round_number=1,
        gene=gene,
        prediction=Prediction(-0.4, 0.1, 0.9, 0.2, 0.05, 23.5),
        verdicts=(Verdict("novelty", True, 1.0, "1", "new gene"),),
        model_id=model_id,
        seed=7,
        status="passed",
        rank=0,
    )
    candidates.propose(store, [proposed])
    candidates.record_screening(store, [proposed])
    return proposed


def calculate(store: Store, candidate: CandidateRecord, kind: str, crystal: Crystal) -> str:
    """Ask for a calculation and complete it."""
    identity = calculation_id(candidate.gene.fingerprint, PROTOCOLS[kind], "0" * 8)
    asked = CalculationRecord(
        calculation_id=identity,
        candidate_id=candidate.candidate_id,
        round_id=candidate.round_id,
        kind=kind,
        subject=candidate.gene.fingerprint,
        protocol=PROTOCOLS[kind],
        protocol_hash="0" * 8,
        inputs=(crystal,),
    )
    calculations.request_calculation(store, asked)
    calculations.begin(store, identity, host="worker-1", fw_id=1)
    calculations.complete(store, identity, result=RESULTS[kind], crystal=crystal, core_seconds=1.5, peak_memory_mb=200)
    return identity


def main() -> None:
    """Fill a database of its own and write its backup beside this script."""
    from wyloop.stores.backup import backup
    from wyloop.stores.documents.base import SCHEMA_VERSION

    path = Path(__file__).parent / f"schema_{SCHEMA_VERSION}.zip"
    if path.exists():
        sys.exit(f"{path} exists already; a dump is never written again")
    with TemporaryDirectory() as folder:
        handle = start_mongod(Path(folder))
        try:
            store = connect(Settings(uri=SecretStr(handle.uri), database="dump"))
            fill(store)
            backup(store, path)
            store.close()
        finally:
            stop_mongod(Path(folder))


if __name__ == "__main__":
    main()
