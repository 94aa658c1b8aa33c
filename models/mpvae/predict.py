"""Predictions for genes, with calibrated uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import PROPERTIES
from wyloop.models.mpvae.data import ENERGY, GAP, VOLUME, Batch, GeneArrays, batches, gene_arrays
from wyloop.models.mpvae.network import MPVAE, split_outputs
from wyloop.models.wyckoff.gene import Gene

BATCH_SIZE = 512
TEMPERATURE, METAL_FROM = -2, -1  # places in `calibration`


@dataclass(frozen=True)
class Prediction:
    """What the model expects of one gene."""

    formation_energy_per_atom: float
    """eV/atom."""
    formation_energy_per_atom_std: float
    """eV/atom."""
    band_gap: float
    """PBE gap, eV; the value that targets are compared with."""
    band_gap_std: float
    """eV."""
    metal_probability: float
    """0 to 1."""
    volume_per_atom: float
    """Å^3."""
    extra: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Value and standard deviation of the network's extra properties, by name."""

    def values(self) -> dict[str, float]:
        """Return the properties by field name, as targets compare them."""
        return {
            "formation_energy_per_atom": self.formation_energy_per_atom,
            "band_gap": self.band_gap,
            "volume_per_atom": self.volume_per_atom,
            **{name: value for name, (value, _) in self.extra.items()},
        }


@dataclass(frozen=True)
class PropertyArrays:
    """Predictions as tensors, shape (n,) each."""

    formation_energy: Tensor
    """eV/atom."""
    formation_energy_std: Tensor
    gap_size: Tensor
    """Gap if there is one, eV."""
    gap_size_std: Tensor
    metal_probability: Tensor
    band_gap: Tensor
    """Gap with metal or not taken into account, eV."""
    band_gap_std: Tensor
    volume_per_atom: Tensor
    """Å^3."""
    extra: Tensor
    """Extra properties, shape (n, n_extra)."""
    extra_std: Tensor


def predict(checkpoint: Checkpoint, genes: Sequence[Gene]) -> list[Prediction]:
    """Predict the properties of genes; every normalizer image and order of orbits gives the same answer.

    Raises:
        ModelError: An element that the network does not know.
    """
    if not genes:
        return []
    arrays = property_arrays(checkpoint.network, raw_outputs(checkpoint.network, gene_arrays(genes)))
    columns = (
        arrays.formation_energy,
        arrays.formation_energy_std,
        arrays.band_gap,
        arrays.band_gap_std,
        arrays.metal_probability,
        arrays.volume_per_atom,
    )
    predictions = [Prediction(*row) for row in torch.stack(columns, dim=1).tolist()]
    names = checkpoint.config.extra_properties
    if not names:
        return predictions
    extras = torch.stack([arrays.extra, arrays.extra_std], dim=2).tolist()
    return [
        replace(prediction, extra={name: (value, std) for name, (value, std) in zip(names, extra, strict=True)})
        for prediction, extra in zip(predictions, extras, strict=True)
    ]


@torch.no_grad()
def raw_outputs(network: MPVAE, genes: GeneArrays) -> Tensor:
    """Return the raw property outputs of the network, shape (n, n_outputs)."""
    outputs = torch.zeros(len(genes.space_group), network.config.n_outputs)
    for rows in batches(genes.n_orbits, BATCH_SIZE):
        outputs[rows] = network.properties(Batch.of(genes.take(rows)))
    return outputs


@torch.no_grad()
def latent_vectors(network: MPVAE, genes: GeneArrays) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of q(z|x), shape (n, latent_dim) each."""
    n, latent_dim = len(genes.space_group), network.config.latent_dim
    mean, std = torch.zeros(n, latent_dim), torch.zeros(n, latent_dim)
    for rows in batches(genes.n_orbits, BATCH_SIZE):
        encoded = network.encode(Batch.of(genes.take(rows)))
        mean[rows], std[rows] = encoded.mean, (0.5 * encoded.log_var).exp()
    return mean, std


def property_arrays(network: MPVAE, outputs: Tensor) -> PropertyArrays:
    """Turn raw outputs (n, n_outputs) into physical properties; differentiable but for metal or not."""
    standard, log_scales, metal_logit = split_outputs(outputs)
    n_base = len(PROPERTIES)
    values = standard * network.label_std + network.label_mean
    scales = log_scales.exp() * network.label_std * network.calibration[: values.shape[1]]
    stds = scales * 2**0.5  # of a Laplace distribution
    size, size_std = values[:, GAP].clamp(min=0), stds[:, GAP]
    metal = torch.sigmoid(metal_logit / network.calibration[TEMPERATURE])
    gap = torch.where(metal > network.calibration[METAL_FROM], torch.zeros_like(size), size)
    gap_std = ((1 - metal) * (size_std.square() + metal * size.square())).sqrt()
    return PropertyArrays(
        formation_energy=values[:, ENERGY],
        formation_energy_std=stds[:, ENERGY],
        gap_size=size,
        gap_size_std=size_std,
        metal_probability=metal,
        band_gap=gap,
        band_gap_std=gap_std,
        volume_per_atom=values[:, VOLUME].clamp(0.0, 7.0).exp(),
        extra=values[:, n_base:],
        extra_std=stds[:, n_base:],
    )


def as_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """Copy a tensor to a double precision array."""
    array: NDArray[np.float64] = tensor.detach().double().numpy()
    return array
