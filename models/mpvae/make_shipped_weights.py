"""Train the weights that come with the package: `python models/mpvae/make_shipped_weights.py DATA_FOLDER OUT_FOLDER`.

Trains on mp20_biternary_train and on mpts52 without every row whose material or formula is in mp20_biternary_test, then
measures once on the test file. A killed run goes on from its last epoch when started again with the same run folder.
"""

import argparse
import csv
import gzip
import hashlib
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from wyloop.models.errors import WyloopError
from wyloop.models.mpvae.checkpoint import Checkpoint, write_whole
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import TrainingRow, reduced_formula
from wyloop.models.mpvae.evaluate import evaluate
from wyloop.models.mpvae.train import EpochMetrics, train
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode

TRAIN, TEST, PRE_TRAIN = "mp20_biternary_train.csv.gz", "mp20_biternary_test.csv.gz", "mpts52_formation_energy.csv.gz"


def main() -> None:
    """Read, train, measure, write mpvae.safetensors and mpvae.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("out_folder", type=Path)
    parser.add_argument("--epochs", type=int, default=45, help="of the whole network")
    parser.add_argument("--autoencoder-epochs", type=int, default=30, help="of the autoencoder alone, after that")
    parser.add_argument("--max-orbits", type=int, default=12, help="of the rows of the pre-training file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-folder", type=Path, required=True, help="keeps the state after each epoch")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    csv.field_size_limit(sys.maxsize)
    started = time.perf_counter()
    rows, data_card = training_rows(arguments.data_folder, arguments.max_orbits)
    first = TrainingConfig(
        n_epochs=arguments.epochs,
        patience=arguments.epochs,
        augment_latent=True,
        fit_prior=False,
        seed=arguments.seed,
    )
    # The experts are done after the first run. The autoencoder goes on alone, and is shown canonical genes only.
    second = TrainingConfig(
        n_epochs=arguments.autoencoder_epochs,
        patience=arguments.autoencoder_epochs,
        variation_share=1.0,
        train_experts=False,
        seed=arguments.seed,
    )
    checkpoint = train(rows, first, run_folder=arguments.run_folder / "first", on_epoch=report)
    checkpoint = in_half_precision(
        train(rows, second, initial=checkpoint, run_folder=arguments.run_folder / "second", on_epoch=report)
    )
    test = list(read(arguments.data_folder / TEST).values())
    card = dict(checkpoint.card)
    card["data"] = card["data"] | data_card
    card["metrics"] = card["metrics"] | {"test": evaluate(checkpoint, test)}
    card["first_run"] = {"of": "the whole network, on the same rows", "config": first.model_dump(mode="json")}
    card["wall_time_s"] = round(time.perf_counter() - started, 1)
    checkpoint = Checkpoint(checkpoint.weights, checkpoint.config, rounded(card))
    checkpoint.save(arguments.out_folder / "mpvae.safetensors")
    write_whole(arguments.out_folder / "mpvae.json", (json.dumps(checkpoint.card, indent=2) + "\n").encode())
    shutil.rmtree(arguments.run_folder)
    print(json.dumps(checkpoint.card["metrics"], indent=2))


def training_rows(folder: Path, max_orbits: int) -> tuple[list[TrainingRow], dict[str, Any]]:
    """Read both training files, without what the test file has."""
    train_rows, extra = read(folder / TRAIN), read(folder / PRE_TRAIN)
    with gzip.open(folder / TEST, "rt") as file:
        test_ids = {row["material_id"] for row in csv.DictReader(file)}
    test_formulas = {reduced_formula(row.gene) for row in read(folder / TEST).values()}
    n_read, n_repeated = len(extra), sum(identity in train_rows for identity in extra)
    extra = {
        identity: row
        for identity, row in extra.items()
        if len(row.gene.orbits) <= max_orbits
        and identity not in train_rows
        and identity not in test_ids
        and reduced_formula(row.gene) not in test_formulas
    }
    files: list[dict[str, Any]] = [
        {"name": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in (TRAIN, PRE_TRAIN)
    ]
    used = [{"n_read": len(train_rows), "n_used": len(train_rows)}, {"n_read": n_read, "n_used": len(extra)}]
    files = [file | count for file, count in zip(files, used, strict=True)]
    note = (
        f"{PRE_TRAIN}: rows whose material_id or reduced formula is in {TEST} left out, "
        f"and {n_repeated} that {TRAIN} holds too; rows of it with more than {max_orbits} orbits left out too"
    )
    return [*train_rows.values(), *extra.values()], {"files": files, "note": note}


def read(path: Path) -> dict[str, TrainingRow]:
    """Encode the rows of a file by material_id; rows without a gene are reported and left out."""
    rows = {}
    with gzip.open(path, "rt") as file:
        for record in csv.DictReader(file):
            try:
                crystal = parse_cif(record["cif"])
                gene = encode(crystal)
            except WyloopError as error:
                print(f"{path.name} {record['material_id']}: {error}")
                continue
            labels = {
                "formation_energy_per_atom": float(record["formation_energy_per_atom"]),
                "volume_per_atom": crystal.volume / crystal.nsites,
            }
            if "band_gap" in record:
                labels["band_gap"] = float(record["band_gap"])
            rows[record["material_id"]] = TrainingRow(gene, labels)
    print(f"{path.name}: {len(rows)} rows", flush=True)
    return rows


def in_half_precision(checkpoint: Checkpoint) -> Checkpoint:
    """Round weights and prior to half precision, as they are shipped and measured: half the size of the file."""
    large = {name for name, _ in checkpoint.network.named_parameters()} | {"prior_mean", "prior_std"}
    weights = {name: tensor.half() if name in large else tensor for name, tensor in checkpoint.weights.items()}
    return Checkpoint(weights, checkpoint.config, checkpoint.card)


def report(metrics: EpochMetrics) -> None:
    """Print one line an epoch."""
    figures = " ".join(f"{name} {value:.4f}" for name, value in metrics.validation.items() if name != "n_rows")
    print(
        f"{metrics.epoch}/{metrics.n_epochs} {metrics.seconds:.0f} s loss {metrics.loss:.3f} "
        f"reconstruction {metrics.reconstruction:.3f} kl {metrics.kl:.1f} score {metrics.score:.4f} | {figures}",
        flush=True,
    )


def rounded(value: Any) -> Any:  # noqa: ANN401  # plain JSON
    """Round the numbers of a JSON value to six digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
