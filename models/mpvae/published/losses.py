"""The published losses, each a mean per crystal.

Repaired: the formula term uses the decoded counts before rounding and the crystal's own space group (the original's has
no gradient and looks up the row of the group before), and the balance of the terms does not depend on the batch size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import COUNTS_START, multiplicities
from wyloop.models.mpvae.published.network import Outputs, PublishedVAE


@dataclass(frozen=True)
class PublishedLosses:
    """Terms of the loss, and their weighted sum."""

    total: Tensor
    reconstruction: Tensor
    """Squared error of the Wyckoff array, summed over its entries."""
    space_group: Tensor
    """Cross-entropy, nats."""
    kl: Tensor
    """KL(q(z|x) || N(0, 1)), nats, summed over the latent dimensions."""
    properties: Tensor
    """Squared errors of the standardised properties, missing labels masked."""
    formula: Tensor
    """Squared difference of multiplicities times counts from the composition, in shares of the atoms."""


def published_losses(
    network: PublishedVAE, array: Tensor, group: Tensor, outputs: Outputs, labels: Tensor, config: PublishedConfig
) -> PublishedLosses:
    """Compute the loss of one batch.

    Args:
        network: Gives the scales.
        array: What was encoded, shape (n, 3, 224).
        group: Space groups from 0, shape (n,), int64.
        outputs: What the network made of it.
        labels: Formation energy (eV/atom) and band gap (eV), NaN where unknown, shape (n, 2).
        config: Gives the weights.
    """
    reconstruction = (outputs.array - array).square().sum(dim=(1, 2)).mean()
    space_group = cross_entropy(outputs.space_group_logits, group)
    kl = -0.5 * (1 + outputs.log_var - outputs.mean.square() - outputs.log_var.exp()).sum(dim=1).mean()
    standard = (labels - network.label_mean) / network.label_std
    known = ~standard.isnan()
    error = (outputs.properties - standard.nan_to_num()).square() * known
    properties = (error.sum(dim=0) / known.sum(dim=0).clamp(min=1)).sum()
    formula = formula_term(outputs.array, array, group)
    total = (
        reconstruction
        + config.space_group_weight * space_group
        + config.kl_weight * kl
        + config.property_weight * properties
        + config.formula_weight * formula
    )
    return PublishedLosses(total, reconstruction, space_group, kl, properties, formula)


def formula_term(decoded: Tensor, array: Tensor, group: Tensor) -> Tensor:
    """Squared difference between multiplicities x decoded counts and the true amounts, both over the atoms in the cell.

    Args:
        decoded: Wyckoff arrays from the decoder, shape (n, 3, 224).
        array: The true ones.
        group: Space groups from 0, shape (n,), int64.
    """
    sizes = torch.from_numpy(multiplicities()).float()[group].unsqueeze(1)
    difference = ((decoded[:, :, COUNTS_START:] - array[:, :, COUNTS_START:]) * sizes).sum(dim=2)
    n_atoms = (array[:, :, COUNTS_START:] * sizes).sum(dim=(1, 2)).clamp(min=1)
    return (difference / n_atoms.unsqueeze(1)).square().sum(dim=1).mean()
