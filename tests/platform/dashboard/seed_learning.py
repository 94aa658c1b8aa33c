"""A second campaign of three closed rounds from real crystals, the shipped model's latents, bands with a log."""

from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.mpvae.checkpoint import load_shipped
from wyloop.models.mpvae.predict import predict
from wyloop.models.physics.bands import band_path, density_of_states
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.stores import calculation_files, calculations, campaigns, candidates, registry
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.ingest.csv import read_csv
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.latents import build_latents
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material

N_ROUNDS, A_ROUND = 3, 8
TARGET = ("band_gap > 0.5",)
FREE_ELECTRON = 3.80998  # hbar^2 / 2 m, eV Å^2
N_BANDS = 12


def fill_learning(store: Store, file: Path) -> dict[str, str]:
    """Fill in what takes a model: campaign `learning`, its candidate with `bands`, and the `latent` model.

    Args:
        store: The database, with the starter set's materials.
        file: Crystals with calculated formation energies (eV/atom) and gaps (eV) that the model was not trained on.
    """
    checkpoint = load_shipped()
    card = dict(checkpoint.card) if checkpoint.card else {}
    model = registry.save_model(
        store, checkpoint.to_bytes(), parent_id=None, card=card, snapshot=None, campaign_id=None, round_number=None
    )
    made = campaigns.create_campaign(store, TARGET, {"n_candidates": A_ROUND}, name="Known crystals, round by round")
    campaigns.set_campaign_state(store, made.campaign_id, "active")
    campaigns.request_rounds(store, made.campaign_id, N_ROUNDS)
    rows = _new_crystals(store, file)
    first = ""
    for number in range(N_ROUNDS):
        record = campaigns.open_round(store, made.campaign_id)
        assert record is not None
        campaigns.record_step(store, record.round_id, "train", counts={}, model_id=model)
        own = rows[number * A_ROUND : (number + 1) * A_ROUND]
        predictions = predict(checkpoint, [encode(row.crystal) for row in own])
        for rank, (row, prediction) in enumerate(zip(own, predictions, strict=True), 1):
            gene = encode(row.crystal)
            candidate = CandidateRecord(
                candidate_id=candidates.candidate_id(made.campaign_id, gene.fingerprint), rank=rank,
                campaign_id=made.campaign_id, round_id=record.round_id, round_number=number + 1, gene=gene,
                prediction=prediction, model_id=model, sampler="mpvae", seed=number, status="validated",
            )  # fmt: skip
            candidates.propose(store, [candidate])
            first = first or _with_bands(store, candidate, row.crystal)
            _material(store, candidate, row)
        campaigns.close_round(store, record.round_id, {"funnel": [], "core_seconds": 3600.0})
    build_hulls(store)
    build_latents(store, model)
    return {"learning": made.campaign_id, "bands": first, "latent": model}


def _new_crystals(store: Store, file: Path) -> Sequence[SourceStructure]:
    """Return crystals that the database does not know, each gene once, those with a gap and those without."""
    known = set(store.database["materials"].distinct("fingerprint"))

    def new() -> Any:  # noqa: ANN401 - a generator
        for row in read_csv(file, Tally()):
            if isinstance(row, SourceStructure) and row.crystal.nsites < 12:
                fingerprint = encode(row.crystal).fingerprint
                if fingerprint not in known:
                    known.add(fingerprint)
                    yield row

    return list(islice(new(), N_ROUNDS * A_ROUND))


def _material(store: Store, candidate: CandidateRecord, row: SourceStructure) -> None:
    gap = row.band_gap
    record = MaterialRecord(
        material_id(str(candidate.gene)), str(candidate.gene), candidate.gene, row.crystal,
        row.formation_energy_per_atom, "mp-pbe", band_gap=gap, band_gap_method=None if gap is None else "mp-pbe",
        candidate_id=candidate.candidate_id, campaign_id=candidate.campaign_id, round_number=candidate.round_number,
        model_id=candidate.model_id,
    )  # fmt: skip
    upsert_material(store, record)
    judged = {"is_validated": True, "meets_target": bool(gap and gap > 0.5), "content_hash": "judged"}
    store.database["materials"].update_one({"material_id": record.material_id}, {"$set": judged})


def _with_bands(store: Store, candidate: CandidateRecord, crystal: Crystal) -> str:
    """Store bands of free electrons in the crystal's zone, two spins, as a job would, with its log."""
    cell = standardize(crystal)
    kpoints, lengths, labels = band_path(cell, 0.1)
    grid = np.array(list(product((np.arange(4) + 0.5) / 4, repeat=3)))
    arrays = {
        "path_kpoints": kpoints,
        "path_lengths": lengths,
        "path_eigenvalues": np.array([_free_electrons(cell, kpoints), _free_electrons(cell, kpoints) + 0.3]),
        "label_places": np.array([place for place, _ in labels], dtype=float),
        "levels": np.array([5.0, 8.0]),
    }
    on_grid = _free_electrons(cell, grid)[None]
    weights = np.full(len(grid), 1 / len(grid))
    arrays["dos_energies"], arrays["dos"] = density_of_states(on_grid, weights, 5.0, 0.2)
    subject = str(candidate.gene)
    job = calculations.calculation_id(subject, "gpaw-bands/1", "0" * 16)
    asked = CalculationRecord(
        job, candidate.candidate_id, candidate.round_id, "bands", subject, "gpaw-bands/1", "0" * 16, (crystal,)
    )
    calculations.request_calculation(store, asked)
    calculations.begin(store, job, host="here:1", fw_id=99)
    files = calculation_files.put_files(store, job, arrays=arrays, raw="the whole log of the bands\n")
    result = {"band_gap": 1.25, "direct_band_gap": 1.25, "is_direct": True, "labels": [name for _, name in labels]}
    calculations.complete(store, job, result=result, crystal=crystal, core_seconds=99.0, files=files)
    return candidate.candidate_id


def _free_electrons(cell: Crystal, kpoints: Any) -> Any:  # noqa: ANN401 - arrays
    """Return the lowest bands of free electrons, eV, shape (k-points, bands)."""
    reciprocal = 2 * np.pi * np.linalg.inv(cell.lattice).T
    shifts = np.array(list(product(range(-2, 3), repeat=3)))
    waves = (kpoints[:, None] + shifts[None]) @ reciprocal
    return np.sort(FREE_ELECTRON * (waves**2).sum(axis=2), axis=1)[:, :N_BANDS]
