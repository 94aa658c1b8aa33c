"""Judging a model on labelled rows, and what is fitted after training: calibration and the prior mixture."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import GAP_FLOOR, Dataset, GeneArrays, TrainingRow, batches, dataset, genes_of
from wyloop.models.mpvae.grammar import NO_LIMIT, Limits
from wyloop.models.mpvae.losses import standardise
from wyloop.models.mpvae.network import MPVAE
from wyloop.models.mpvae.predict import BATCH_SIZE, as_numpy, latent_vectors, property_arrays, raw_outputs
from wyloop.models.mpvae.vocabulary import STOP, position_tables

N_DECODED = 1000
MIN_LABELLED, MIN_OF_A_KIND = 10, 5  # validation rows needed to calibrate
LEVELS = np.linspace(0.1, 0.9, 9)
METAL_TEMPERATURES = np.geomspace(0.3, 4.0, 40)
NO_ORBIT_LIMIT = 1_000_000


def evaluate(checkpoint: Checkpoint, rows: Sequence[TrainingRow], *, seed: int = 0) -> dict[str, float]:
    """Measure a model on labelled rows.

    Returns:
        `n_rows`; `formation_energy_mae` (eV/atom), `band_gap_mae` over all rows and `band_gap_mae_with_gap` (eV),
        `volume_mape`, `metal_accuracy`, expected calibration errors `formation_energy_ece` and `metal_ece`;
        `exact_reconstruction`, `space_group_reconstruction` and `valid_share` (of genes drawn from the prior).
        A figure whose label no row has is left out.

    Raises:
        ModelError: No rows, or a label or element that the network does not know.
    """
    if not rows:
        raise ModelError("no rows to evaluate on; expected at least one")
    data = dataset(rows, max_orbits=NO_ORBIT_LIMIT)
    metrics = evaluate_dataset(checkpoint.network, data)
    generator = torch.Generator().manual_seed(seed)
    latent = sample_prior(checkpoint.network, N_DECODED, generator)
    decoded = checkpoint.network.decoder.decode(latent, Limits(), temperature=1.0, generator=generator)
    n_valid = len(genes_of(decoded))  # raises on an invalid gene: the grammar allows none
    return metrics | {"valid_share": n_valid / N_DECODED}


def evaluate_dataset(network: MPVAE, data: Dataset) -> dict[str, float]:
    """Measure errors of the properties and exact reconstruction from the latent mean."""
    arrays = property_arrays(network, raw_outputs(network, data.genes))
    energy, gap, is_metal, volume = (column.astype(float) for column in data.labels.T)
    energy_error = np.abs(as_numpy(arrays.formation_energy) - energy)
    gap_error = np.abs(as_numpy(arrays.band_gap) - gap)
    metal = as_numpy(arrays.metal_probability)
    scale = as_numpy(arrays.formation_energy_std) / 2**0.5
    metrics = {
        "n_rows": float(len(data)),
        "formation_energy_mae": _mean(energy_error),
        "band_gap_mae": _mean(gap_error),
        "band_gap_mae_with_gap": _mean(gap_error[gap >= GAP_FLOOR]),
        "volume_mape": _mean(np.abs(as_numpy(arrays.volume_per_atom) / volume - 1)),
        "metal_accuracy": _mean(np.where(np.isnan(is_metal), np.nan, (metal > 0.5) == (is_metal > 0.5))),
        "formation_energy_ece": _laplace_ece(energy_error / scale),
        "metal_ece": _binary_ece(metal, is_metal),
    }
    exact, group = _reconstructed(network, data.genes)
    metrics |= {"exact_reconstruction": float(exact.mean()), "space_group_reconstruction": float(group.mean())}
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _reconstructed(network: MPVAE, genes: GeneArrays) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each gene, and its space group, comes back from its latent mean, shape (n,) each."""
    orbit_sizes = position_tables().multiplicity[genes.space_group[:, None], genes.letter] * (genes.element != STOP)
    limits = Limits(max_elements=NO_LIMIT, max_atoms=int(orbit_sizes.sum(axis=1).max()))
    latent = latent_vectors(network, genes)[0]
    exact, same = np.zeros(len(latent), np.bool_), np.zeros(len(latent), np.bool_)
    for rows in batches(genes.n_orbits, BATCH_SIZE):
        decoded, wanted = network.decoder.decode(latent[rows], limits), genes.take(rows)
        same[rows] = exact[rows] = decoded.space_group == wanted.space_group
        width = max(wanted.element.shape[1], decoded.element.shape[1])
        for one, other in ((decoded.element, wanted.element), (decoded.letter, wanted.letter)):
            exact[rows] &= (_padded(one, width) == _padded(other, width)).all(axis=1)
    return exact, same


def _padded(array: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    return np.pad(array, ((0, 0), (0, width - array.shape[1])))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _laplace_ece(ratios: NDArray[np.float64]) -> float:
    """Mean gap between stated and real coverage, for errors in units of their Laplace scale."""
    known = ratios[~np.isnan(ratios)]
    if not len(known):
        return float("nan")
    return float(np.mean([abs((known <= -np.log(1 - level)).mean() - level) for level in LEVELS]))


def _binary_ece(probability: NDArray[np.float64], answer: NDArray[np.float64]) -> float:
    known = ~np.isnan(answer)
    if not known.any():
        return float("nan")
    probability, answer = probability[known], answer[known]
    bins = np.minimum((probability * 10).astype(int), 9)
    gaps = [abs(probability[bins == b].sum() - answer[bins == b].sum()) for b in range(10)]
    return float(sum(gaps) / len(answer))


@torch.no_grad()
def calibrate(network: MPVAE, data: Dataset) -> None:
    """Fit the uncertainty scales, the metal temperature and the gap rule on validation rows (changes the network).

    What too few rows are labelled for stays as it was.
    """
    outputs = raw_outputs(network, data.genes)
    labels = standardise(network, torch.from_numpy(data.labels))
    for index in range(3):
        known = ~labels.values[:, index].isnan()
        if known.sum() >= MIN_LABELLED:
            error = (outputs[known, index] - labels.values[known, index]).abs()
            network.calibration[index] = (error / outputs[known, index + 3].exp()).mean().clamp(0.1, 10)
    known = ~labels.is_metal.isnan()
    has_both_kinds = min((labels.is_metal == 0).sum(), (labels.is_metal == 1).sum()) >= MIN_OF_A_KIND
    if has_both_kinds:
        logit, is_metal = outputs[known, 6], labels.is_metal[known]
        nll = [float(binary_cross_entropy_with_logits(logit / t, is_metal)) for t in METAL_TEMPERATURES]
        network.calibration[3] = float(METAL_TEMPERATURES[int(np.argmin(nll))])
    gap = torch.from_numpy(data.labels[:, 1])
    known = ~gap.isnan()
    if has_both_kinds and known.any():
        errors = []
        for rule in (0.0, 1.0):
            network.calibration[4] = rule
            errors.append(float((property_arrays(network, outputs).band_gap[known] - gap[known]).abs().mean()))
        network.calibration[4] = float(np.argmin(errors))


@torch.no_grad()
def fit_prior(network: MPVAE, data: Dataset, seed: int, n_iterations: int = 20) -> None:
    """Describe the latent vectors of training rows by a mixture of Gaussians found by k-means (changes the network).

    Source: Tomczak and Welling, arXiv:1705.07120, for priors that mix posteriors.
    """
    mean, std = latent_vectors(network, data.genes)
    generator = torch.Generator().manual_seed(seed)
    n_components = network.config.n_prior_components
    centres = mean[torch.randint(len(mean), (n_components,), generator=generator)]
    nearest = torch.zeros(len(mean), dtype=torch.int64)
    for _ in range(n_iterations):
        nearest = torch.cdist(mean, centres).argmin(dim=1)
        for component in range(n_components):
            members = mean[nearest == component]
            if len(members):
                centres[component] = members.mean(dim=0)
    for component in range(n_components):
        rows = nearest == component
        network.prior_weight[component] = rows.float().mean()
        network.prior_mean[component] = centres[component]
        if rows.any():
            spread = (mean[rows] - centres[component]).square().mean(dim=0) + std[rows].square().mean(dim=0)
            network.prior_std[component] = spread.sqrt()


def sample_prior(network: MPVAE, n: int, generator: torch.Generator) -> Tensor:
    """Draw latent vectors from the prior mixture, shape (n, latent_dim)."""
    component = torch.multinomial(network.prior_weight, n, replacement=True, generator=generator)
    noise = torch.randn(n, network.config.latent_dim, generator=generator)
    return network.prior_mean[component] + noise * network.prior_std[component]
