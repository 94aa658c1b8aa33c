"""Training: data, network, optimiser, loop. Deterministic by seed, resumable from the last whole epoch."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint, new_network
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import GAP, IS_METAL, VOLUME, Batch, Dataset, TrainingRow, batches, dataset, split
from wyloop.models.mpvae.evaluate import calibrate, evaluate_dataset, fit_prior
from wyloop.models.mpvae.losses import losses
from wyloop.models.mpvae.network import MPVAE
from wyloop.models.mpvae.run_state import RunState, load_state, save_state
from wyloop.models.mpvae.variation import random_images, varied

logger = logging.getLogger(__name__)

WARM_UP = 0.05
GRADIENT_NORM = 1.0
MIN_KIND_SHARE = 0.05
HISTORY = ("epoch", "loss", "reconstruction", "kl", "properties", "score")
"""What the card says of every epoch."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did. Losses are means over the training batches."""

    epoch: int
    n_epochs: int
    loss: float
    reconstruction: float
    """Nats per crystal."""
    kl: float
    """Nats per crystal."""
    properties: float
    score: float
    """What early stopping watches, smaller is better; NaN without validation rows."""
    validation: dict[str, float]
    seconds: float


def train(
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    *,
    initial: Checkpoint | None = None,
    run_folder: Path | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    fabric: Fabric | None = None,
) -> Checkpoint:
    """Train on rows, or fine-tune a checkpoint on them.

    The validated weights are a running average; those of the best epoch are kept, or the initial ones if no epoch was
    better (the card says so as `kept`). With a run folder, every whole epoch is stored there, and the same call goes on
    after the last one and ends as if it had never been interrupted. Band gaps must be PBE ones, as the shipped weights
    were trained on; other methods' gaps would shift every prediction.

    Args:
        rows: Training rows; validation rows are drawn among them by formula.
        config: Settings. A checkpoint given as `initial` brings its own network sizes.
        initial: Start from these weights, scales and prior instead of fresh ones.
        run_folder: Where the state after each epoch is kept.
        on_epoch: Called after each epoch, also once for each epoch already in the run folder.
        fabric: Where to train: device and processes; one process on the CPU if not given. Every process calls this
            with the same arguments and gets the same checkpoint (see `launch.py`).

    Raises:
        ModelError: No usable rows, a bad label, an unknown element, a run folder of another run, or a diverged loss.
    """
    started = time.perf_counter()
    extra = (initial.config if initial is not None else config.network).extra_properties
    data = dataset(rows, max_orbits=config.max_orbits, extra_properties=extra)
    if initial is not None:
        data = without_lone_metal_labels(data)
    training_rows, validation_rows = split(data, config.validation_fraction, config.seed)
    training = data.take(training_rows)
    validation = data.take(validation_rows) if len(validation_rows) else None
    with torch.random.fork_rng(devices=[]):
        network = _network(config, initial, training)
        fabric = fabric or Fabric(accelerator="cpu", devices=1)
        run = _Run(config, training, validation, network, fabric)
        state = run.resume(run_folder, _identity(data, config, initial))
        for metrics in state.history:
            _report(EpochMetrics(**metrics), on_epoch)
        while state.epoch < config.n_epochs and state.epoch - state.best_epoch < config.patience:
            metrics_now = run.epoch(state)
            if run_folder is not None and fabric.is_global_zero:
                save_state(run_folder, state, run.optimiser)
            _report(metrics_now, on_epoch)
        network = run.judge
        network.load_state_dict(state.best)
        if config.fit_prior:
            fit_prior(network, training, config.seed)
        calibrate(network, validation or training)
    card = _card(config, data, training, validation, state, network, time.perf_counter() - started)
    if initial is not None:
        card["initial"] = {"data": initial.card.get("data"), "code_version": initial.card.get("code_version")}
    return Checkpoint({k: v.clone() for k, v in network.state_dict().items()}, network.config, card)


@dataclass(frozen=True)
class _EpochData:
    """What one epoch trains on."""

    shown: Batch
    target: Batch
    labels: Tensor
    n_orbits: NDArray[np.int64]


class _Objective(nn.Module):
    """The training loss as a module, so that Fabric can run it on any device and in several processes."""

    def __init__(self, network: MPVAE, config: TrainingConfig, trained: list[nn.Parameter]) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.trained = list(trained)
        self.anchor = [p.detach().clone() for p in trained] if config.anchor_weight else []

    def forward(self, shown: Batch, target: Batch, labels: Tensor, noise: Tensor) -> Tensor:
        """Return the total loss and, to be reported, reconstruction, KL and properties; shape (4,)."""
        terms = losses(self.network, shown, target, labels, noise, self.config)
        total = terms.total
        if self.anchor:
            moved = [(p - start).square().sum() for p, start in zip(self.trained, self.anchor, strict=True)]
            total = total + self.config.anchor_weight * torch.stack(moved).sum()
        return torch.stack([total, terms.reconstruction, terms.kl, terms.properties])


class _Run:
    """The live parts of one run: network, optimiser, data in memory."""

    def __init__(
        self,
        config: TrainingConfig,
        training: Dataset,
        validation: Dataset | None,
        network: MPVAE,
        fabric: Fabric,
    ) -> None:
        self.config, self.training, self.validation = config, training, validation
        self.fabric, self.network = fabric, network
        # What is validated: the averaged weights, on the CPU.
        self.judge = new_network(network.config).eval()
        self.judge.load_state_dict(network.state_dict())
        network.to(fabric.device)
        self.parts = _parts(network, config)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        trained = [parameter for part in self.parts for parameter in part]
        for parameter in trained:
            parameter.requires_grad_(True)
        objective = _Objective(network, config, trained)
        optimiser = torch.optim.AdamW(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.objective, self.optimiser = fabric.setup(objective, optimiser)

    def resume(self, run_folder: Path | None, identity: str) -> RunState:
        """Return the state stored in the run folder, or the one before the first epoch."""
        state = load_state(run_folder, identity, self.optimiser) if run_folder is not None else None
        if state is not None:
            logger.info("resuming after epoch %d/%d", state.epoch, self.config.n_epochs)
            return state
        weights = _on_cpu(self.network.state_dict())
        best_score, first = math.inf, {}
        if self.validation is not None:
            first = evaluate_dataset(self.judge, self.validation)
            best_score = score(first)
        return RunState(identity, 0, 0, best_score, first, weights, dict(weights), dict(weights), [])

    def epoch(self, state: RunState) -> EpochMetrics:
        """Train one epoch, validate the average, and move the state on."""
        started = time.perf_counter()
        # Each epoch has its own stream of random numbers, so that a resumed run repeats it.
        rng = np.random.default_rng((self.config.seed, state.epoch))
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)) + self.fabric.global_rank)
        data = self._epoch_data(rng)
        chunks = list(batches(data.n_orbits, self.config.batch_size, rng))
        sums = np.zeros(4)
        self.network.load_state_dict(state.weights)
        average = {  # copies: the best epoch's average may be the same tensors
            name: state.average[name].to(self.fabric.device, copy=True) for name, _ in self.network.named_parameters()
        }
        self.objective.train()
        for index, rows in enumerate(chunks):
            step = state.epoch * len(chunks) + index
            sums += self._step(data, rows, step, len(chunks), noise)
            self._average(average, step)
        sums /= len(chunks)
        if not np.isfinite(sums).all():
            raise ModelError(f"the loss diverged in epoch {state.epoch + 1}; try a smaller learning_rate")
        state.weights = _on_cpu(self.network.state_dict())
        state.average = state.average | _on_cpu(average)
        validation, value = self._validate(state)
        loss, reconstruction, kl, properties = (float(x) for x in sums)
        metrics = EpochMetrics(
            epoch=state.epoch + 1,
            n_epochs=self.config.n_epochs,
            loss=loss,
            reconstruction=reconstruction,
            kl=kl,
            properties=properties,
            score=value,
            validation=validation,
            seconds=time.perf_counter() - started,
        )
        state.epoch += 1
        if math.isnan(value) or value < state.best_score:
            state.best_score = value if not math.isnan(value) else math.inf
            state.best_epoch, state.best = state.epoch, dict(state.average)
        state.history.append(asdict(metrics))
        return metrics

    def _epoch_data(self, rng: np.random.Generator) -> "_EpochData":
        data = self.training
        n_extra = int(self.config.variation_share * len(data))
        if n_extra:
            chosen = rng.choice(len(data), n_extra, replace=n_extra > len(data))
            data = data.with_unlabelled(varied(data.genes.take(chosen), rng))
        shown = random_images(data.genes, rng) if self.config.augment else data.genes
        return _EpochData(Batch.of(shown), Batch.of(data.genes), torch.from_numpy(data.labels), data.genes.n_orbits)

    def _step(
        self, data: "_EpochData", rows: NDArray[Any], step: int, n_batches: int, generator: torch.Generator
    ) -> NDArray[np.float64]:
        """Move the weights by one batch, of which each process takes its share; return the four losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * _schedule(step, n_batches * self.config.n_epochs)
        noise = torch.randn(len(rows), self.network.config.latent_dim, generator=generator)
        rank, n_ranks = self.fabric.global_rank, self.fabric.world_size
        mine = np.arange(len(rows))[rank::n_ranks] if len(rows) >= n_ranks else np.arange(len(rows))
        device, rows = self.fabric.device, rows[mine]
        terms = self.objective(
            data.shown.take(rows).to(device),
            data.target.take(rows).to(device),
            data.labels[rows].to(device),
            noise[mine].to(device),
        )
        self.optimiser.zero_grad()
        self.fabric.backward(terms[0])
        for part in self.parts:
            torch.nn.utils.clip_grad_norm_(part, GRADIENT_NORM)
        self.optimiser.step()
        reported = self.fabric.all_reduce(terms.detach(), reduce_op="mean")
        return torch.as_tensor(reported).double().cpu().numpy()

    def _average(self, average: dict[str, Tensor], step: int) -> None:
        """Move the running average of the weights towards them."""
        decay = min(self.config.average_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(self.network.parameters()), 1 - decay)

    def _validate(self, state: RunState) -> tuple[dict[str, float], float]:
        if self.validation is None:
            return {}, math.nan
        self.judge.load_state_dict(state.average)
        metrics = evaluate_dataset(self.judge, self.validation)
        return metrics, score(metrics)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, also those that are on the CPU already."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def score(metrics: dict[str, float]) -> float:
    """Reduce validation metrics to one number, smaller is better: errors in eV plus the share not reconstructed."""
    parts = (
        metrics.get("formation_energy_mae", 0.0),
        0.5 * metrics.get("band_gap_mae", 0.0),
        0.1 * (1 - metrics["exact_reconstruction"]),
    )
    return sum(part for part in parts if not math.isnan(part))


def without_lone_metal_labels(data: Dataset) -> Dataset:
    """Drop the labels "metal or not" where nearly all say the same.

    Many small sets hold semiconductors only; fine-tuned on them, a model would forget that there are metals.
    """
    is_metal = data.labels[:, IS_METAL]
    n_known, n_metals = int((~np.isnan(is_metal)).sum()), int((is_metal == 1).sum())
    if min(n_metals, n_known - n_metals) >= MIN_KIND_SHARE * n_known:
        return data
    logger.info("ignoring metal-or-not labels: %d of %d rows are metals", n_metals, n_known)
    labels = data.labels.copy()
    labels[:, IS_METAL] = np.nan
    return replace(data, labels=labels)


def _network(config: TrainingConfig, initial: Checkpoint | None, training: Dataset) -> MPVAE:
    if initial is not None:
        network = new_network(initial.config)
        network.load_state_dict(dict(initial.weights))
        return network
    network = new_network(config.network, config.seed)
    columns = list(training.labels[:, :IS_METAL].T)
    columns[GAP], columns[VOLUME] = np.where(columns[GAP] > 0, columns[GAP], np.nan), np.log(columns[VOLUME])
    for index, values in enumerate(columns):
        known = values[~np.isnan(values)]
        if len(known) > 1 and known.std() > 0:
            network.label_mean[index], network.label_std[index] = float(known.mean()), float(known.std())
    return network


def _schedule(step: int, n_steps: int) -> float:
    """Factor of the learning rate: a linear rise, then a cosine down to 2 %."""
    rise = max(1, int(WARM_UP * n_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))


def _parts(network: MPVAE, config: TrainingConfig) -> list[list[nn.Parameter]]:
    """The parameters to train, in parts that share none: the autoencoder and each expert."""
    autoencoder = (network.latent_encoder, network.decoder, network.latent_head)
    parts = [[p for module in autoencoder for p in module.parameters()]] if config.train_autoencoder else []
    return parts + [list(expert.parameters()) for expert in network.experts if config.train_experts]


def _report(metrics: EpochMetrics, on_epoch: Callable[[EpochMetrics], None] | None) -> None:
    logger.info(
        "trained epoch %d/%d, loss %.4f, score %.4f", metrics.epoch, metrics.n_epochs, metrics.loss, metrics.score
    )
    if on_epoch is not None:
        on_epoch(metrics)


def _identity(data: Dataset, config: TrainingConfig, initial: Checkpoint | None) -> str:
    parts = [data.digest, config.model_dump_json()]
    if initial is not None:
        parts += [f"{name}:{tensor.double().sum().item()!r}" for name, tensor in sorted(initial.weights.items())]
    return "|".join(parts)


def _card(
    config: TrainingConfig,
    data: Dataset,
    training: Dataset,
    validation: Dataset | None,
    state: RunState,
    network: MPVAE,
    seconds: float,
) -> dict[str, Any]:
    config = replace_network(config, network)
    after = evaluate_dataset(network, validation) if validation is not None else {}
    return {
        "model": "MPVAE",
        "data": {"sha256": data.digest, "n_rows": len(data)},
        "split": {
            "by": "formula, drawn by seed",
            "n_training": len(training),
            "n_validation": len(data) - len(training),
        },
        "metrics": {"validation": after, "validation_before": state.first, "n_epochs": state.epoch},
        "history": [{name: epoch[name] for name in HISTORY} for epoch in state.history],
        "kept": f"epoch {state.best_epoch}" if state.best_epoch else "initial weights: no epoch was better",
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "code_version": version("wyloop"),
        "wall_time_s": round(seconds, 1),
    }


def replace_network(config: TrainingConfig, network: MPVAE) -> TrainingConfig:
    """Return the settings with the sizes of the network that was really trained."""
    return config.model_copy(update={"network": network.config})
