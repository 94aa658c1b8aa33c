"""Judging a model on labelled rows, and what is fitted after training: calibration and the prior mixture."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import PROPERTIES
from wyloop.models.mpvae.data import (
    ENERGY,
    GAP,
    GAP_FLOOR,
    IS_METAL,
    VOLUME,
    Dataset,
    GeneArrays,
    TrainingRow,
    batches,
    dataset,
    genes_of,
)
from wyloop.models.mpvae.grammar import NO_LIMIT, Limits
from wyloop.models.mpvae.losses import standardise
from wyloop.models.mpvae.network import MPVAE, split_outputs
from wyloop.models.mpvae.predict import (
    BATCH_SIZE,
    METAL_FROM,
    TEMPERATURE,
    as_numpy,
    latent_vectors,
    property_arrays,
    raw_outputs,
)
from wyloop.models.mpvae.vocabulary import STOP, position_tables

N_DECODED = 1000
MIN_LABELLED, MIN_OF_A_KIND = 10, 5  # validation rows needed to calibrate
LEVELS = np.linspace(0.1, 0.9, 9)
METAL_TEMPERATURES = np.geomspace(0.3, 4.0, 40)
METAL_LIMITS = np.linspace(0.3, 0.9, 25)
GAP_ROWS_WEIGHT = 0.1
NO_ORBIT_LIMIT = 1_000_000
KERNEL_WIDTH = 2.5  # posterior standard deviations: nine genes in ten are new, and still like the data


def evaluate(checkpoint: Checkpoint, rows: Sequence[TrainingRow], *, seed: int = 0) -> dict[str, float]:
    """Measure a model on labelled rows.

    Returns:
        `n_rows`; `formation_energy_mae` (eV/atom), `band_gap_mae` over all rows and `band_gap_mae_with_gap` (eV),
        `volume_mape`, `metal_accuracy`, expected calibration errors `formation_energy_ece` and `metal_ece`;
        `NAME_mae` of each extra property in its unit; `exact_reconstruction`, `space_group_reconstruction` and
        `valid_share` (of genes drawn from the prior).
        A figure whose label no row has is left out.

    Raises:
        ModelError: No rows, or a label or element that the network does not know.
    """
    if not rows:
        raise ModelError("no rows to evaluate on; expected at least one")
    extra = checkpoint.config.extra_properties
    data = dataset(rows, max_orbits=NO_ORBIT_LIMIT, extra_properties=extra)
    metrics = evaluate_dataset(checkpoint.network, data)
    generator = torch.Generator().manual_seed(seed)
    latent = sample_prior(checkpoint.network, N_DECODED, generator)
    decoded = checkpoint.network.decoder.decode(latent, Limits(), temperature=1.0, generator=generator)
    n_valid = len(genes_of(decoded))  # raises on an invalid gene: the grammar allows none
    return metrics | {"valid_share": n_valid / N_DECODED}


def evaluate_dataset(network: MPVAE, data: Dataset) -> dict[str, float]:
    """Measure errors of the properties and exact reconstruction from the latent mean."""
    arrays = property_arrays(network, raw_outputs(network, data.genes))
    labels = data.labels.astype(float)
    energy, gap, volume, is_metal = (labels[:, column] for column in (ENERGY, GAP, VOLUME, IS_METAL))
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
    for index, name in enumerate(network.config.extra_properties):
        known = labels[:, len(PROPERTIES) + index]
        metrics[f"{name}_mae"] = _mean(np.abs(as_numpy(arrays.extra[:, index]) - known))
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
    """Fit the uncertainty scales, the metal temperature and the metal limit on validation rows (changes the network).

    What too few rows are labelled for stays as it was.
    """
    outputs = raw_outputs(network, data.genes)
    labels = standardise(network, torch.from_numpy(data.labels))
    values, log_scales, metal_logit = split_outputs(outputs)
    for index in range(values.shape[1]):
        known = ~labels.values[:, index].isnan()
        if known.sum() >= MIN_LABELLED:
            error = (values[known, index] - labels.values[known, index]).abs()
            network.calibration[index] = (error / log_scales[known, index].exp()).mean().clamp(0.1, 10)
    known = ~labels.is_metal.isnan()
    if min((labels.is_metal == 0).sum(), (labels.is_metal == 1).sum()) < MIN_OF_A_KIND:
        return
    logit, is_metal = metal_logit[known], labels.is_metal[known]
    nll = [float(binary_cross_entropy_with_logits(logit / t, is_metal)) for t in METAL_TEMPERATURES]
    network.calibration[TEMPERATURE] = float(METAL_TEMPERATURES[int(np.argmin(nll))])
    gap = torch.from_numpy(data.labels[:, GAP])
    has_gap = gap >= GAP_FLOOR
    errors = []
    for limit in METAL_LIMITS:
        network.calibration[METAL_FROM] = float(limit)
        error = (property_arrays(network, outputs).band_gap - gap).abs()
        # All rows count once, those with a gap a little more: a hidden semiconductor is worse than a false one.
        errors.append(float(error[~gap.isnan()].mean() + GAP_ROWS_WEIGHT * error[has_gap].mean()))
    network.calibration[METAL_FROM] = float(METAL_LIMITS[int(np.argmin(errors))])


@torch.no_grad()
def fit_prior(network: MPVAE, data: Dataset, seed: int) -> None:
    """Describe the latent vectors of training rows by a kernel around each of some of them (changes the network).

    Fewer and wider Gaussians would reach between the crystals, where the decoder writes what nobody has seen.

    Source: Tomczak and Welling, arXiv:1705.07120, for priors that mix posteriors.
    """
    n = network.config.n_prior_components
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = order.repeat(-(-n // len(order)))[:n]
    mean, std = latent_vectors(network, data.genes)
    network.prior_mean.copy_(mean[rows])
    network.prior_std.copy_(KERNEL_WIDTH * std[rows])
    network.prior_weight.fill_(1 / n)


def sample_prior(network: MPVAE, n: int, generator: torch.Generator, *, width: float = 1.0) -> Tensor:
    """Draw latent vectors from the prior, shape (n, latent_dim).

    Args:
        network: In evaluation mode.
        n: How many.
        generator: Source of randomness.
        width: Factor on the width of the prior's kernels; a smaller one stays nearer to crystals of the training.
    """
    component = torch.multinomial(network.prior_weight, n, replacement=True, generator=generator)
    noise = width * torch.randn(n, network.config.latent_dim, generator=generator)
    return network.prior_mean[component] + noise * network.prior_std[component]
