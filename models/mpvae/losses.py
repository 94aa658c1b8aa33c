"""The terms of the training loss, each a mean over the batch in its own unit, missing labels masked."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import GAP, GAP_FLOOR, IS_METAL, VOLUME, Batch
from wyloop.models.mpvae.network import MPVAE, Encoded, split_outputs

VOLUME_WEIGHT = 0.3  # it guides the realisation only


@dataclass(frozen=True)
class Losses:
    """Terms of the loss, and their weighted sum."""

    total: Tensor
    reconstruction: Tensor
    """-log p(gene | z), nats per crystal."""
    kl: Tensor
    """KL(q(z|x) || N(0, 1)), nats per crystal."""
    properties: Tensor
    """Property loss of the experts, in standard deviations of the labels."""
    latent_properties: Tensor
    """The same as read from the latent vector alone."""


def losses(
    network: MPVAE, shown: Batch, target: Batch, labels: Tensor, noise: Tensor, config: TrainingConfig
) -> Losses:
    """Compute the loss of one batch.

    Args:
        network: In training mode.
        shown: Any normalizer images of the genes: what the experts see.
        target: The canonical genes.
        labels: Shape (n, n_properties + 1), NaN where unknown.
        noise: Standard normal, shape (n, latent_dim).
        config: Gives the weights.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B for the KL; Kingma et al., arXiv:1606.04934, for free bits.
    """
    labelled = (~labels.isnan()).any(dim=1).nonzero().squeeze(1)
    standardised = standardise(network, labels[labelled])
    total = reconstruction = kl = properties = latent_properties = labels.new_zeros(())
    if config.train_autoencoder:
        encoded = network.encode(shown if config.augment_latent else target)
        latent = encoded.mean + noise * (0.5 * encoded.log_var).exp()
        likelihood = network.decoder.likelihood(latent, target)
        reconstruction = (likelihood.space_group + likelihood.orbits).mean()
        divergence = kl_divergence(encoded)
        kl = divergence.sum(dim=1).mean()
        latent_properties = property_loss(network.latent_head(latent[labelled]), standardised)
        total = (
            config.reconstruction_weight * reconstruction
            + config.kl_weight * divergence.mean(dim=0).clamp(min=config.free_bits).sum()
            + config.latent_property_weight * latent_properties
        )
    if config.train_experts:
        opinions = network.opinions(shown.take(labelled))
        properties = torch.stack([property_loss(opinion, standardised) for opinion in opinions]).mean()
        # Each expert learns as fast as if it were alone.
        total = total + config.property_weight * properties * len(network.experts)
    return Losses(total, reconstruction, kl, properties, latent_properties)


def kl_divergence(encoded: Encoded) -> Tensor:
    """KL divergence of each latent dimension from N(0, 1), nats, shape (n, latent_dim)."""
    return -0.5 * (1 + encoded.log_var - encoded.mean.square() - encoded.log_var.exp())


@dataclass(frozen=True)
class Standardised:
    """Labels in the network's own scale, NaN where unknown."""

    values: Tensor
    """Properties, the gap of rows with a gap only, the volume as its logarithm; shape (n, n_properties)."""
    is_metal: Tensor
    """0 or 1, shape (n,)."""
    zero_gap: Tensor
    """No gap at all on the scale of the gap sizes, a single number."""


def standardise(network: MPVAE, labels: Tensor) -> Standardised:
    """Bring labels (n, n_properties + 1) to the network's scale; a gap of zero teaches 'metal' only."""
    columns = list(labels[:, :IS_METAL].unbind(dim=1))
    columns[GAP] = torch.where(columns[GAP] < GAP_FLOOR, torch.nan, columns[GAP])
    columns[VOLUME] = columns[VOLUME].log()
    standard = (torch.stack(columns, dim=1) - network.label_mean) / network.label_std
    return Standardised(standard, labels[:, IS_METAL], -network.label_mean[GAP] / network.label_std[GAP])


def property_loss(outputs: Tensor, labels: Standardised) -> Tensor:
    """Absolute errors, log scales of their Laplace distributions, and cross-entropy of metal or not.

    The scale sees the error as a constant, so that hard rows do not lose their weight.

    Source: Powell, J. Econometrics 25, 303 (1984), for absolute errors of a value that is cut off at zero.
    """
    values, log_scale, metal_logit = split_outputs(outputs)
    known = ~labels.values.isnan()
    error = (values - labels.values.nan_to_num()).abs() * known
    scale_loss = (log_scale + error.detach() * (-log_scale).exp()) * known
    weights = values.new_ones(values.shape[1])
    weights[VOLUME] = VOLUME_WEIGHT
    regression = ((error + 0.1 * scale_loss).sum(dim=0) / known.sum(dim=0).clamp(min=1) * weights).sum()
    is_known = ~labels.is_metal.isnan()
    # The gap to be expected, off by what counts in the end; a known metal has the gap 0 (`zero` on this scale).
    size = torch.where(labels.is_metal == 1, labels.zero_gap, labels.values[:, GAP])
    expected = labels.zero_gap + metal_logit.neg().sigmoid() * (values[:, GAP] - labels.zero_gap)
    has_gap = ~size.isnan() & is_known
    gap = ((expected - size.nan_to_num()).abs() * has_gap).sum() / has_gap.sum().clamp(min=1)
    # A metal's gap may be read as anything from zero down, so that the size alone tells most metals too.
    is_metal = labels.is_metal == 1
    above = (relu(values[:, GAP] - labels.zero_gap) * is_metal).sum() / is_metal.sum().clamp(min=1)
    metal = binary_cross_entropy_with_logits(metal_logit, labels.is_metal.nan_to_num(), reduction="none")
    return regression + 0.5 * (gap + above + (metal * is_known).sum() / is_known.sum().clamp(min=1))
