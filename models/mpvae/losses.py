"""The terms of the training loss, each a mean over the batch in its own unit, missing labels masked."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import GAP_FLOOR, Batch
from wyloop.models.mpvae.network import MPVAE, Encoded

LOG_SCALE_RANGE = (-5.0, 3.0)


@dataclass(frozen=True)
class Losses:
    """Terms of the loss, and their weighted sum."""

    total: Tensor
    reconstruction: Tensor
    """-log p(gene | z), nats per crystal."""
    kl: Tensor
    """KL(q(z|x) || N(0, 1)), nats per crystal."""
    properties: Tensor
    """Property loss of the predictions, in standard deviations of the labels."""
    latent_properties: Tensor
    """The same as read from the latent mean alone."""


def losses(network: MPVAE, shown: Batch, target: Batch, labels: Tensor, config: TrainingConfig) -> Losses:
    """Compute the loss of one batch.

    Args:
        network: In training mode.
        shown: What the encoder sees: any normalizer images of the genes.
        target: The canonical genes.
        labels: Shape (n, 4) in the order of LABELS, NaN where unknown.
        config: Gives the weights.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B for the KL; Kingma et al., arXiv:1606.04934, for free bits.
    """
    encoded = network.encode(shown)
    latent = encoded.mean + torch.randn_like(encoded.mean) * (0.5 * encoded.log_var).exp()
    likelihood = network.decoder.likelihood(latent, target)
    reconstruction = (likelihood.space_group + likelihood.orbits).mean()
    kl = kl_divergence(encoded)
    standardised = standardise(network, labels)
    properties = property_loss(network.properties(encoded), standardised)
    latent_properties = property_loss(network.latent_head(encoded.mean), standardised)
    total = (
        config.reconstruction_weight * reconstruction
        + config.kl_weight * kl.mean(dim=0).clamp(min=config.free_bits).sum()
        + config.property_weight * properties
        + config.latent_property_weight * latent_properties
    )
    return Losses(total, reconstruction, kl.sum(dim=1).mean(), properties, latent_properties)


def kl_divergence(encoded: Encoded) -> Tensor:
    """KL divergence of each latent dimension from N(0, 1), nats, shape (n, latent_dim)."""
    return -0.5 * (1 + encoded.log_var - encoded.mean.square() - encoded.log_var.exp())


@dataclass(frozen=True)
class Standardised:
    """Labels in the network's own scale, NaN where unknown."""

    values: Tensor
    """Formation energy, gap size (of rows with a gap) and log volume, shape (n, 3)."""
    is_metal: Tensor
    """0 or 1, shape (n,)."""
    zero_gap: Tensor
    """No gap at all on the scale of the gap sizes, a single number."""


def standardise(network: MPVAE, labels: Tensor) -> Standardised:
    """Bring labels (n, 4) to the network's scale; a gap of zero teaches 'metal' only."""
    gap = torch.where(labels[:, 1] < GAP_FLOOR, torch.nan, labels[:, 1])
    values = torch.stack([labels[:, 0], gap, labels[:, 3].log()], dim=1)
    standard = (values - network.label_mean) / network.label_std
    return Standardised(standard, labels[:, 2], -network.label_mean[1] / network.label_std[1])


def property_loss(outputs: Tensor, labels: Standardised) -> Tensor:
    """Absolute errors, log scales of their Laplace distributions, and cross-entropy of metal or not.

    The scale sees the error as a constant, so that hard rows do not lose their weight.
    """
    known = ~labels.values.isnan()
    error = (outputs[:, :3] - labels.values.nan_to_num()).abs() * known
    log_scale = outputs[:, 3:6].clamp(*LOG_SCALE_RANGE)
    scale_loss = (log_scale + error.detach() * (-log_scale).exp()) * known
    count = known.sum(dim=0).clamp(min=1)
    weights = torch.tensor([1.0, 1.0, 0.3])  # volume guides the realisation only
    regression = ((error + 0.1 * scale_loss).sum(dim=0) / count * weights).sum()
    is_known = ~labels.is_metal.isnan()
    # The gap to be expected, off by what counts in the end; a known metal has the gap 0 (`zero` on this scale).
    size = torch.where(labels.is_metal == 1, labels.zero_gap, labels.values[:, 1])
    expected = labels.zero_gap + outputs[:, 6].neg().sigmoid() * (outputs[:, 1] - labels.zero_gap)
    has_gap = ~size.isnan() & is_known
    gap = ((expected - size.nan_to_num()).abs() * has_gap).sum() / has_gap.sum().clamp(min=1)
    metal = binary_cross_entropy_with_logits(outputs[:, 6], labels.is_metal.nan_to_num(), reduction="none")
    return regression + 0.5 * gap + 0.5 * (metal * is_known).sum() / is_known.sum().clamp(min=1)
