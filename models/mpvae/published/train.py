"""Training of the published architecture: pre-training on formation energy, then both properties; counted in steps.

Repaired: scalers are fitted on training rows only, and the learning rate watches validation rows drawn by formula from
within the training rows (the original fits and watches on the test rows). Kept: RMSprop, and the last weights.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.data import GAP_FLOOR, TrainingRow, reduced_formula
from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import (
    EncodedGenes,
    augmented,
    encode_genes,
    is_encodable,
    to_tensors,
)
from wyloop.models.mpvae.published.losses import PublishedLosses, published_losses
from wyloop.models.mpvae.published.model import PublishedModel
from wyloop.models.mpvae.published.network import PublishedVAE

logger = logging.getLogger(__name__)

PROPERTIES = ("formation_energy_per_atom", "band_gap")
MIN_LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class _Rows:
    """Rows ready to be drawn from; with augmentation one an image."""

    genes: EncodedGenes
    labels: NDArray[np.float32]
    """Formation energy and band gap, NaN where unknown, shape (n, 2)."""


def pretrain_published(rows: Sequence[TrainingRow], config: PublishedConfig) -> PublishedModel:
    """Train the first half of the steps of a run with transfer: formation energy alone, on all rows.

    Raises:
        ModelError: No usable rows, or a diverged loss.
    """
    started = time.perf_counter()
    usable = _usable(rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = PublishedVAE(config)
        _fit_scales(network, _sides(usable, config)[0], PROPERTIES[:1])
        history = _Stage(network, config, usable, properties=PROPERTIES[:1]).run(config.n_steps // 2, "pre-training")
    return _model(network, config, _card(rows, usable, config.n_steps // 2, history, started))


def train_published(
    rows: Sequence[TrainingRow], config: PublishedConfig, *, initial: PublishedModel | None = None
) -> PublishedModel:
    """Train the published configuration; deterministic by seed on one thread.

    Args:
        rows: Training rows; those with more than three elements are left out, and counted in the card.
        config: Settings. With transfer, half of the steps pre-train on the formation energy of all rows.
        initial: What `pretrain_published` returned for the same rows and settings, to spare that half.

    Raises:
        ModelError: No usable rows, no row with a band gap where the task needs one, or a diverged loss.
    """
    if config.transfer and initial is None:
        initial = pretrain_published(rows, config)
    started = time.perf_counter()
    usable = [row for row in _usable(rows) if config.multi_property_rows == "all" or _has_gap(row)]
    if len(usable) < 2:
        raise ModelError(f"{len(usable)} of {len(rows)} rows for the multi-property task; expected at least two")
    n_before = config.n_steps // 2 if config.transfer else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = PublishedVAE(config)
        if initial is not None:
            network.load_state_dict(dict(initial.weights))
            network.freeze_half()
        _fit_scales(network, _sides(usable, config)[0], PROPERTIES[1:] if initial is not None else PROPERTIES)
        stage = _Stage(network, config, usable, properties=PROPERTIES, batch_statistics=initial is None)
        history = stage.run(config.n_steps - n_before, "multi-property")
    card = _card(rows, usable, config.n_steps, history, started)
    return _model(network, config, card if initial is None else card | {"pre_training": dict(initial.card)})


def _usable(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    usable = [row for row in rows if is_encodable(row.gene)]
    if len(usable) < 2:
        raise ModelError(f"{len(usable)} of {len(rows)} rows have at most three elements; expected at least two")
    return usable


def _model(network: PublishedVAE, config: PublishedConfig, card: dict[str, Any]) -> PublishedModel:
    card["n_parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return PublishedModel({name: value.clone() for name, value in network.state_dict().items()}, config, card)


def _card(
    rows: Sequence[TrainingRow],
    used: Sequence[TrainingRow],
    n_steps: int,
    history: list[dict[str, float]],
    started: float,
) -> dict[str, Any]:
    return {
        "model": "published",
        "n_rows": len(rows),
        "n_used": len(used),
        "n_steps": n_steps,
        "history": history,
        "code_version": version("wyloop"),
        "wall_time_s": round(time.perf_counter() - started, 1),
    }


class _Stage:
    """One stage of training: its rows, its optimiser, its random numbers."""

    def __init__(
        self,
        network: PublishedVAE,
        config: PublishedConfig,
        rows: Sequence[TrainingRow],
        *,
        properties: tuple[str, ...],
        batch_statistics: bool = True,
    ) -> None:
        self.network, self.config, self.batch_statistics = network, config, batch_statistics
        training, validation = _sides(rows, config)
        self.training = _collect(training, properties, augment=config.augment)
        self.validation = _collect(validation, properties, augment=False) if validation else None
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.RMSprop(trained, lr=config.learning_rate, alpha=0.9, eps=1e-7)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=config.plateau_factor, patience=config.plateau_patience, min_lr=MIN_LEARNING_RATE
        )

    def run(self, n_steps: int, name: str) -> list[dict[str, float]]:
        """Train for some steps; return the mean loss and the validation loss at each check."""
        rng = np.random.default_rng((self.config.seed, n_steps, len(name)))
        order: NDArray[np.int64] = np.zeros(0, np.int64)
        history: list[dict[str, float]] = []
        losses: list[float] = []
        for step in range(1, n_steps + 1):
            if len(order) < min(self.config.batch_size, len(self.training.labels)):
                order = rng.permutation(len(self.training.labels))
            chosen, order = order[: self.config.batch_size], order[self.config.batch_size :]
            losses.append(self._step(chosen))
            if step % self.config.steps_per_check == 0 or step == n_steps:
                history.append({"step": step, "loss": float(np.mean(losses)), **self._check()})
                losses = []
                if not np.isfinite(history[-1]["loss"]):
                    raise ModelError(f"the loss diverged by step {step} of {name}; try a smaller learning_rate")
                logger.info("%s step %d/%d, loss %.4f", name, step, n_steps, history[-1]["loss"])
        return history

    def _step(self, chosen: NDArray[np.int64]) -> float:
        self.network.train()
        if not self.batch_statistics:
            self.network.without_batch_statistics()
        self.optimiser.zero_grad()
        noise = torch.randn(len(chosen), self.config.latent_dim)
        total = self._losses(self.training, chosen, noise).total
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimiser.step()
        return float(total.detach())

    @torch.no_grad()
    def _check(self) -> dict[str, float]:
        """Measure the validation loss from the latent means, and let the learning rate follow it."""
        if self.validation is None:
            return {}
        self.network.eval()
        loss = float(self._losses(self.validation, np.arange(len(self.validation.labels)), None).total)
        self.schedule.step(loss)
        return {"validation_loss": loss, "learning_rate": self.optimiser.param_groups[0]["lr"]}

    def _losses(self, rows: _Rows, chosen: NDArray[np.int64], noise: torch.Tensor | None) -> PublishedLosses:
        array, group = to_tensors(rows.genes.take(chosen), float(self.network.amount_scale))
        outputs = self.network(array, group, noise)
        return published_losses(self.network, array, group, outputs, torch.from_numpy(rows.labels[chosen]), self.config)


def _has_gap(row: TrainingRow) -> bool:
    return row.labels.get("band_gap", 0.0) >= GAP_FLOOR


def _collect(rows: Sequence[TrainingRow], properties: tuple[str, ...], *, augment: bool) -> _Rows:
    labels = np.full((len(rows), len(PROPERTIES)), np.nan, np.float32)
    for index, row in enumerate(rows):
        for name in properties:
            labels[index, PROPERTIES.index(name)] = row.labels.get(name, np.nan)
    genes = [row.gene for row in rows]
    if augment:
        genes, source = augmented(genes)
        labels = labels[source]
    return _Rows(encode_genes(genes), labels)


def _sides(rows: Sequence[TrainingRow], config: PublishedConfig) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Split rows into training and validation by formula; a formula's side depends on it and the seed only."""
    sides: tuple[list[TrainingRow], list[TrainingRow]] = ([], [])
    for row in rows:
        text = f"{config.seed}:{reduced_formula(row.gene)}"
        drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        sides[drawn < config.validation_fraction].append(row)
    return (sides[0], sides[1]) if sides[0] else (list(rows), [])


def _fit_scales(network: PublishedVAE, training: Sequence[TrainingRow], properties: tuple[str, ...]) -> None:
    """Fit the scales of some properties, and of the amounts where energies are scaled, on training rows."""
    for name in properties:
        values = np.array([row.labels.get(name, np.nan) for row in training])
        known, index = values[~np.isnan(values)], PROPERTIES.index(name)
        if len(known) > 1 and known.std() > 0:
            network.label_mean[index], network.label_std[index] = float(known.mean()), float(known.std())
    if PROPERTIES[0] in properties:
        network.amount_scale.fill_(float(max(max(row.gene.amounts.values()) for row in training)))
