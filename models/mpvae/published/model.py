"""A trained published model: predictions, reconstruction, decoding, and its one sampler."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import with_weights, write_whole
from wyloop.models.mpvae.data import GAP_FLOOR, TrainingRow
from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import (
    DecodedGene,
    decoded_genes,
    encode_genes,
    from_tensors,
    is_encodable,
    to_tensors,
    without_foreign_letters,
)
from wyloop.models.mpvae.published.network import PublishedVAE
from wyloop.models.wyckoff.gene import Gene, canonical

FORMAT = "wyloop-published"
COPIES = 20
SIGMA = 1.4
"""Standard deviation of the sampler's noise, in latent units (those of the N(0, 1) prior)."""
BATCH_SIZE = 1024
N_PROBED = 180  # references perturbed to measure the valid share, as many as in the original's run


@dataclass(frozen=True)
class PublishedPrediction:
    """What the model expects of one gene."""

    formation_energy_per_atom: float
    """eV/atom."""
    band_gap: float
    """eV."""

    def values(self) -> dict[str, float]:
        """Return the properties by field name, as targets compare them."""
        return {"formation_energy_per_atom": self.formation_energy_per_atom, "band_gap": self.band_gap}


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """Weights with their settings and card."""

    weights: Mapping[str, Tensor]
    config: PublishedConfig
    card: Mapping[str, Any]
    """Plain JSON: rows, steps, parameters, losses, wall time."""

    @cached_property
    def network(self) -> PublishedVAE:
        """The network with these weights, in evaluation mode.

        Raises:
            ModelError: The weights do not fit the settings.
        """
        with torch.random.fork_rng(devices=[]):
            network = PublishedVAE(self.config)
        return with_weights(network, self.weights)

    def save(self, path: Path) -> None:
        """Write to a safetensors file, whole or not at all."""
        metadata = {
            "format": FORMAT,
            "config": self.config.model_dump_json(),
            "card": json.dumps(self.card, sort_keys=True),
        }
        write_whole(path, tensors_to_bytes({name: x.contiguous() for name, x in self.weights.items()}, metadata))

    @classmethod
    def load(cls, path: Path) -> "PublishedModel":
        """Read a file.

        Raises:
            ModelError: The file can't be read, or holds no such model.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ModelError(f"{path}: format {metadata.get('format')!r}; expected {FORMAT!r}")
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            config = PublishedConfig.model_validate_json(metadata["config"])
            model = cls(weights, config, json.loads(metadata["card"]))
        except (OSError, SafetensorError, KeyError, ValueError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"can't read model {path} ({reason}); expected what PublishedModel.save writes") from error
        _ = model.network  # weights that do not fit are refused here, not at first use
        return model


@torch.no_grad()
def latent_means(model: PublishedModel, genes: Sequence[Gene]) -> Tensor:
    """Return the latent means of genes as they are written, shape (n, latent_dim).

    Raises:
        ModelError: More than three elements, or an unknown one.
    """
    encoded = encode_genes(genes)
    means = [torch.zeros(0, model.config.latent_dim)]
    for start in range(0, len(encoded), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(encoded)))
        array, group = to_tensors(encoded.take(rows), float(model.network.amount_scale))
        means.append(model.network.encode(array, group)[0])
    return torch.cat(means)


@torch.no_grad()
def predict(model: PublishedModel, genes: Sequence[Gene]) -> list[PublishedPrediction]:
    """Predict the properties of genes, each in its canonical form; a band gap is never below 0.

    Raises:
        ModelError: More than three elements, or an unknown one.
    """
    network = model.network
    outputs = network.to_properties(latent_means(model, [canonical(gene) for gene in genes]))
    values = outputs * network.label_std + network.label_mean
    return [PublishedPrediction(energy, max(gap, 0.0)) for energy, gap in values.tolist()]


@torch.no_grad()
def decode(model: PublishedModel, latent: Tensor, *, drop_foreign_letters: bool = False) -> list[DecodedGene]:
    """Decode latent vectors (n, latent_dim); what is no gene comes back as its fault, unrepaired.

    Args:
        model: The model.
        latent: Shape (n, latent_dim).
        drop_foreign_letters: Drop orbits on letters that the space group does not have before the check, as the
            original does; here they are a fault otherwise.
    """
    found: list[DecodedGene] = []
    for part in torch.split(latent, BATCH_SIZE):
        written = from_tensors(model.network.decoder(part), model.network.to_space_group(part))
        found += decoded_genes(without_foreign_letters(written) if drop_foreign_letters else written)
    return found


def reconstruct(model: PublishedModel, genes: Sequence[Gene]) -> list[DecodedGene]:
    """Decode the latent means of genes, each in its canonical form."""
    return decode(model, latent_means(model, [canonical(gene) for gene in genes]))


def perturb_published(
    model: PublishedModel,
    references: Sequence[Gene],
    *,
    seed: int,
    copies: int = COPIES,
    sigma: float = SIGMA,
    drop_foreign_letters: bool = False,
) -> list[DecodedGene]:
    """Decode noisy copies of known genes, as the paper samples; invalid rows stay in, to be counted.

    Args:
        model: The model.
        references: Known crystals that already meet the target.
        seed: The same seed gives the same rows.
        copies: Noisy copies of each reference.
        sigma: Standard deviation of the noise, in latent units.
        drop_foreign_letters: As in `decode`.
    """
    generator = torch.Generator().manual_seed(seed)
    means = latent_means(model, [canonical(gene) for gene in references]).repeat_interleave(copies, dim=0)
    latent = means + sigma * torch.randn(means.shape, generator=generator)
    return decode(model, latent, drop_foreign_letters=drop_foreign_letters)


def evaluate_published(model: PublishedModel, rows: Sequence[TrainingRow], *, seed: int = 0) -> dict[str, float]:
    """Measure a model on labelled rows by the same definitions as `wyloop.models.mpvae.evaluate`.

    Returns:
        `n_rows` and `n_left_out` (more than three elements); `formation_energy_mae` (eV/atom), `band_gap_mae` over all
        rows and `band_gap_mae_with_gap` (eV); `exact_reconstruction` (space group, elements, every count) and
        `space_group_reconstruction`; `valid_share` of what the paper's sampler decodes from 180 of these rows.
        A figure whose label no row has is left out.

    Raises:
        ModelError: No row with at most three elements.
    """
    usable = [row for row in rows if is_encodable(row.gene)]
    if not usable:
        raise ModelError(f"{len(rows)} rows, none with at most three elements; expected at least one")
    genes = [canonical(row.gene) for row in usable]
    predictions = predict(model, genes)
    errors: dict[str, list[float]] = {"formation_energy_mae": [], "band_gap_mae": [], "band_gap_mae_with_gap": []}
    for row, prediction in zip(usable, predictions, strict=True):
        energy, gap = row.labels.get("formation_energy_per_atom"), row.labels.get("band_gap")
        if energy is not None:
            errors["formation_energy_mae"].append(abs(prediction.formation_energy_per_atom - energy))
        if gap is not None:
            errors["band_gap_mae"].append(abs(prediction.band_gap - gap))
        if gap is not None and gap >= GAP_FLOOR:
            errors["band_gap_mae_with_gap"].append(abs(prediction.band_gap - gap))
    back = reconstruct(model, genes)
    is_exact = [d.gene is not None and canonical(d.gene) == gene for d, gene in zip(back, genes, strict=True)]
    chosen = np.random.default_rng(seed).choice(len(genes), min(N_PROBED, len(genes)), replace=False)
    drawn = perturb_published(model, [genes[index] for index in chosen], seed=seed)
    return {
        "n_rows": float(len(usable)),
        "n_left_out": float(len(rows) - len(usable)),
        **{name: float(np.mean(values)) for name, values in errors.items() if values},
        "exact_reconstruction": float(np.mean(is_exact)),
        "space_group_reconstruction": _space_group_share(model, genes),
        "valid_share": float(np.mean([decoded.gene is not None for decoded in drawn])),
    }


@torch.no_grad()
def _space_group_share(model: PublishedModel, genes: Sequence[Gene]) -> float:
    group = model.network.to_space_group(latent_means(model, genes)).argmax(dim=1) + 1
    return float(np.mean(group.numpy() == np.array([gene.space_group_number for gene in genes])))
