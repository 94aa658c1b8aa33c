import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.evaluate import evaluate
from wyloop.models.mpvae.launch import train_in_processes
from wyloop.models.mpvae.predict import predict
from wyloop.models.mpvae.run_state import FILE_NAME
from wyloop.models.mpvae.train import EpochMetrics, train
from wyloop.models.wyckoff.gene import Gene

from .conftest import TINY

SHORT = TrainingConfig(network=TINY, n_epochs=4, batch_size=32, learning_rate=3e-3, average_decay=0.9)


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


def test_training_learns(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    metrics = tiny.card["metrics"]
    before, after = metrics["validation_before"], metrics["validation"]
    assert after["formation_energy_mae"] < 0.5 * before["formation_energy_mae"]
    assert after["band_gap_mae"] < 0.7 * before["band_gap_mae"]
    everything = evaluate(tiny, rows)
    assert everything["exact_reconstruction"] > 0.3
    assert everything["valid_share"] == 1.0
    assert everything["n_rows"] == len(rows)


def test_same_seed_gives_the_same_weights_and_another_seed_others(rows: list[TrainingRow]) -> None:
    config = SHORT.model_copy(update={"n_epochs": 2})
    state = torch.get_rng_state()
    one, two = train(rows, config), train(rows, config)
    assert same_weights(one, two)
    assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers are left alone
    assert not same_weights(one, train(rows, config.model_copy(update={"seed": 1})))


def test_stopped_run_goes_on_as_if_never_stopped(rows: list[TrainingRow], tmp_path: Path) -> None:
    whole = train(rows, SHORT)

    class StoppedError(Exception):
        pass

    def stop(metrics: EpochMetrics) -> None:
        if metrics.epoch == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(rows, SHORT, run_folder=tmp_path, on_epoch=stop)
    epochs: list[int] = []
    resumed = train(rows, SHORT, run_folder=tmp_path, on_epoch=lambda metrics: epochs.append(metrics.epoch))
    assert epochs == [1, 2, 3, 4]
    assert same_weights(whole, resumed)
    assert whole.card["metrics"] == resumed.card["metrics"]


PROGRAM = """
import sys, time, torch
from pathlib import Path
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.train import train
from wyloop.models.wyckoff.gene import Gene
torch.set_num_threads(1)
lines = [line.split("|") for line in Path(sys.argv[2]).read_text().splitlines()]
rows = [TrainingRow(Gene.parse(gene), {"formation_energy_per_atom": float(energy)}) for gene, energy in lines]
config = TrainingConfig.model_validate_json(Path(sys.argv[3]).read_text())
def hang(metrics):
    if metrics.epoch == 2:
        time.sleep(600)
train(rows, config, run_folder=Path(sys.argv[1]), on_epoch=hang)
"""


def test_run_killed_with_sigkill_goes_on_as_if_never_killed(rows: list[TrainingRow], tmp_path: Path) -> None:
    bare = [TrainingRow(r.gene, {"formation_energy_per_atom": r.labels["formation_energy_per_atom"]}) for r in rows]
    (tmp_path / "rows").write_text("\n".join(f"{r.gene}|{r.labels['formation_energy_per_atom']!r}" for r in bare))
    (tmp_path / "config").write_text(SHORT.model_dump_json())
    folder = tmp_path / "run"
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "rows"), str(tmp_path / "config")]
    process = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    seen: float = 0
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / FILE_NAME
        if path.exists() and (modified := path.stat().st_mtime) != seen:
            seen, changed = modified, time.monotonic()
        if seen and time.monotonic() - changed > 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    epochs: list[int] = []
    resumed = train(bare, SHORT, run_folder=folder, on_epoch=lambda metrics: epochs.append(metrics.epoch))
    assert epochs == [1, 2, 3, 4]
    assert same_weights(train(bare, SHORT), resumed)


def test_run_folder_of_another_run_is_refused(rows: list[TrainingRow], tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"n_epochs": 1})
    train(rows, config, run_folder=tmp_path)
    with pytest.raises(ModelError, match="another run folder"):
        train(rows[:-1], config, run_folder=tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged training state"):
        train(rows, config, run_folder=tmp_path)


def test_missing_labels_are_masked(rows: list[TrainingRow]) -> None:
    """A label that is NaN teaches what a label that is not there teaches; the other labels still count."""
    config = SHORT.model_copy(update={"n_epochs": 1})
    without = [TrainingRow(row.gene, {"formation_energy_per_atom": 1.0}) for row in rows]
    with_nan = [
        TrainingRow(row.gene, {"formation_energy_per_atom": 1.0, "band_gap": math.nan, "volume_per_atom": math.nan})
        for row in rows
    ]
    one, two = train(without, config), train(with_nan, config)
    assert same_weights(one, two)
    assert all(torch.isfinite(tensor).all() for tensor in one.weights.values())
    assert "band_gap_mae" not in one.card["metrics"]["validation"]
    unlabelled = train([TrainingRow(row.gene, {}) for row in rows], config)
    assert all(torch.isfinite(tensor).all() for tensor in unlabelled.weights.values())


def test_bad_training_data_is_one_clear_error(rows: list[TrainingRow]) -> None:
    gene = rows[0].gene
    with pytest.raises(ModelError, match="at least one"):
        train([], SHORT)
    with pytest.raises(ModelError, match="unknown label 'gap'"):
        train([TrainingRow(gene, {"gap": 1.0})], SHORT)
    with pytest.raises(ModelError, match="volume_per_atom = -1.0"):
        train([TrainingRow(gene, {"volume_per_atom": -1.0})], SHORT)
    with pytest.raises(ModelError, match="= inf"):
        train([TrainingRow(gene, {"formation_energy_per_atom": math.inf})], SHORT)
    with pytest.raises(ModelError, match="'Og'"):
        train([TrainingRow(Gene(225, (("Og", "a"),)), {})], SHORT)


def test_one_row_can_be_trained_on(rows: list[TrainingRow]) -> None:
    checkpoint = train(rows[:1], SHORT.model_copy(update={"n_epochs": 1}))
    assert checkpoint.card["split"]["n_validation"] == 0


def test_fine_tuning_learns_new_rows(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    """A shift of all energies by 0.5 eV/atom is learned; the prior and the scales stay."""
    moved = [
        TrainingRow(row.gene, {"formation_energy_per_atom": row.labels["formation_energy_per_atom"] + 0.5})
        for row in rows
    ]
    config = TrainingConfig.fine_tune(n_epochs=10).model_copy(update={"batch_size": 16, "learning_rate": 1e-3})
    tuned = train(moved, config, initial=tiny)
    metrics = tuned.card["metrics"]
    before, after = metrics["validation_before"], metrics["validation"]
    assert after["formation_energy_mae"] < 0.7 * before["formation_energy_mae"]
    assert torch.equal(tuned.weights["prior_mean"], tiny.weights["prior_mean"])
    assert tuned.config == tiny.config
    assert tuned.card["initial"]["data"] == tiny.card["data"]


def test_semiconductors_alone_do_not_make_it_forget_metals(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    with_gap = [row for row in rows if row.labels.get("band_gap", 0) > 0]
    config = TrainingConfig.fine_tune(n_epochs=6).model_copy(update={"learning_rate": 2e-3, "anchor_weight": 0.0})
    tuned = train(with_gap, config, initial=tiny)
    metals = [row.gene for row in rows if row.labels.get("band_gap") == 0]
    before = [prediction.metal_probability for prediction in predict(tiny, metals)]
    after = [prediction.metal_probability for prediction in predict(tuned, metals)]
    assert min(before) > 0.5
    assert np.mean(after) > 0.8
    assert torch.equal(tuned.weights["calibration"][-2:], tiny.weights["calibration"][-2:])


def test_fine_tuning_many_rows_takes_fewer_epochs() -> None:
    assert [TrainingConfig.fine_tune(n_rows=n).n_epochs for n in (0, 600, 2500, 7140, 100_000)] == [8, 8, 4, 1, 1]


def test_fine_tuning_that_makes_it_worse_keeps_the_initial_weights(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    config = TrainingConfig.fine_tune(n_epochs=2).model_copy(
        update={"learning_rate": 0.3, "average_decay": 0.0, "validation_fraction": 0.3}
    )
    tuned = train(rows, config, initial=tiny)
    assert tuned.card["kept"].startswith("initial weights")
    kept = {name: tensor for name, tensor in tuned.weights.items() if name != "calibration"}
    assert all(torch.equal(tensor, tiny.weights[name]) for name, tensor in kept.items())


def test_two_processes_give_what_one_gives(rows: list[TrainingRow]) -> None:
    """Same batches and same noise; equal numbers of labels in both halves, so only the order of the sums differs."""
    same = [row for row in rows if row.labels.get("band_gap", 0) > 0][:48]
    config = SHORT.model_copy(update={"n_epochs": 2, "variation_share": 0.0, "validation_fraction": 0.0})
    one, two = train(same, config), train_in_processes(same, config, n_processes=2)
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=1e-3, atol=1e-3)
    assert not same_weights(one, train(same, config.model_copy(update={"seed": 1})))


def test_a_further_property_is_learnt_and_predicted(rows: list[TrainingRow]) -> None:
    labelled = [
        TrainingRow(row.gene, dict(row.labels) | {"bulk_modulus": 50.0 - 10 * row.labels["formation_energy_per_atom"]})
        for row in rows
    ]
    network = TINY.model_copy(update={"extra_properties": ("bulk_modulus",)})
    config = SHORT.model_copy(update={"network": network, "n_epochs": 12, "batch_size": 16})
    checkpoint = train(labelled, config)
    metrics = evaluate(checkpoint, labelled)
    assert metrics["bulk_modulus_mae"] < 5  # the labels spread over 30
    prediction = predict(checkpoint, [labelled[0].gene])[0]
    value, std = prediction.extra["bulk_modulus"]
    assert prediction.values()["bulk_modulus"] == value
    assert std > 0
    with pytest.raises(ModelError, match="unknown label 'bulk_modulus'"):
        train(labelled, SHORT)


def test_autoencoder_and_experts_can_be_trained_alone(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    for trained, kept in (("autoencoder", "experts"), ("experts", "autoencoder")):
        changes = {"n_epochs": 1, "validation_fraction": 0.0, "fit_prior": trained == "autoencoder"}
        config = SHORT.model_copy(update=changes | {f"train_{kept}": False})
        other = train(rows, config, initial=tiny)
        moved = {name for name, tensor in other.weights.items() if not torch.equal(tensor, tiny.weights[name])}
        experts = {name for name in moved if name.startswith("experts.")}
        autoencoder = {name for name in moved if name.split(".")[0] in ("latent_encoder", "decoder", "latent_head")}
        assert bool(experts) is (trained == "experts")
        assert bool(autoencoder) is (trained == "autoencoder")
        assert ("prior_mean" in moved) is (trained == "autoencoder")
    with pytest.raises(ValueError, match="at least one"):
        TrainingConfig(train_experts=False, train_autoencoder=False)
