"""Predictions for genes, with calibrated uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import Batch, GeneArrays, batches, gene_arrays
from wyloop.models.mpvae.losses import LOG_SCALE_RANGE
from wyloop.models.mpvae.network import HEAD_OUTPUTS, MPVAE
from wyloop.models.wyckoff.gene import Gene

BATCH_SIZE = 512
MOST_LIKELY_GAP = 0.5  # `calibration[4]` above this: zero if a metal is likelier than not, else the size


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

    def values(self) -> dict[str, float]:
        """Return the properties by field name, as targets compare them."""
        return {
            "formation_energy_per_atom": self.formation_energy_per_atom,
            "band_gap": self.band_gap,
            "volume_per_atom": self.volume_per_atom,
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
    return [Prediction(*row) for row in torch.stack(columns, dim=1).tolist()]


@torch.no_grad()
def raw_outputs(network: MPVAE, genes: GeneArrays) -> Tensor:
    """Return the raw property outputs of the network, shape (n, 7)."""
    outputs = torch.zeros(len(genes.space_group), HEAD_OUTPUTS)
    for rows in batches(genes.n_orbits, BATCH_SIZE):
        outputs[rows] = network.properties(network.encode(Batch.of(genes.take(rows))))
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
    """Turn raw outputs (n, 7) into physical properties; differentiable."""
    values = outputs[:, :3] * network.label_std + network.label_mean
    scales = outputs[:, 3:6].clamp(*LOG_SCALE_RANGE).exp() * network.label_std * network.calibration[:3]
    stds = scales * 2**0.5  # of a Laplace distribution
    size, size_std = values[:, 1].clamp(min=0), stds[:, 1]
    metal = torch.sigmoid(outputs[:, 6] / network.calibration[3])
    if float(network.calibration[4]) > MOST_LIKELY_GAP:
        gap = torch.where(metal > 0.5, torch.zeros_like(size), size)
    else:
        gap = (1 - metal) * size
    gap_std = ((1 - metal) * (size_std.square() + metal * size.square())).sqrt()
    volume = values[:, 2].clamp(0.0, 7.0).exp()
    return PropertyArrays(values[:, 0], stds[:, 0], size, size_std, metal, gap, gap_std, volume)


def as_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """Copy a tensor to a double precision array."""
    array: NDArray[np.float64] = tensor.detach().double().numpy()
    return array
