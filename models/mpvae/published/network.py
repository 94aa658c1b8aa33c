"""The published architecture: convolutions along the rows of the Wyckoff array, the space group beside it, latent 256.

Known of the original: convolutional encoder and decoder around a latent of 256, properties from the latent mean, 10.0 M
parameters, 0.3 % of them in 'half of the encoder'. Filled in after its ancestor FTCP: three convolutions of 32, 64 and
128 channels (kernels 5, 3, 3, strides 2, 2, 1) with batch norm, a dense layer of 1 024: 10.2 M, 0.3 % in convolutions.
Repaired: no ReLU before the space-group softmax (there, groups die).

Source: Zhu et al., Matter 7, 3469 (2024); Ren et al., Matter 5, 314 (2022) for FTCP.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import N_COLUMNS, N_ROWS, N_SPACE_GROUPS

N_PROPERTIES = 2  # formation energy and band gap
SLOPE = 0.2


@dataclass(frozen=True)
class Outputs:
    """What the network says of some genes."""

    mean: Tensor
    """Mean of q(z|x), shape (n, latent_dim)."""
    log_var: Tensor
    """Log-variance of q(z|x), shape (n, latent_dim)."""
    array: Tensor
    """Wyckoff array decoded, shape (n, 3, 224)."""
    space_group_logits: Tensor
    """Shape (n, 230)."""
    properties: Tensor
    """Standardised formation energy and band gap, from the latent mean, shape (n, 2)."""


class PublishedVAE(nn.Module):
    """A convolutional VAE over Wyckoff arrays with property regression from the latent mean."""

    label_mean: Tensor
    label_std: Tensor
    amount_scale: Tensor

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        last = config.n_filters
        first, middle, n_short = last // 4, last // 2, N_ROWS // 4
        self.convolutions = nn.Sequential(
            nn.Conv1d(N_COLUMNS, first, 5, stride=2, padding=2),
            nn.BatchNorm1d(first),
            nn.LeakyReLU(SLOPE),
            nn.Conv1d(first, middle, 3, stride=2, padding=1),
            nn.BatchNorm1d(middle),
            nn.LeakyReLU(SLOPE),
            nn.Conv1d(middle, last, 3, padding=1),
            nn.BatchNorm1d(last),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(nn.Linear(last * n_short + N_SPACE_GROUPS, config.hidden_width), nn.Sigmoid())
        self.to_mean = nn.Linear(config.hidden_width, config.latent_dim)
        self.to_log_var = nn.Linear(config.hidden_width, config.latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, last * n_short),
            nn.ReLU(),
            nn.Unflatten(1, (last, n_short)),
            nn.BatchNorm1d(last),
            nn.ConvTranspose1d(last, middle, 3, padding=1),
            nn.BatchNorm1d(middle),
            nn.ReLU(),
            nn.ConvTranspose1d(middle, first, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            nn.ConvTranspose1d(first, N_COLUMNS, 5, stride=2, padding=2, output_padding=1),
        )
        self.to_space_group = nn.Sequential(
            nn.Linear(config.latent_dim, config.latent_dim), nn.ReLU(), nn.Linear(config.latent_dim, N_SPACE_GROUPS)
        )
        self.to_properties = nn.Sequential(
            nn.ReLU(),
            nn.Linear(config.latent_dim, 128),
            nn.ReLU(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, N_PROPERTIES),
        )
        self.register_buffer("label_mean", torch.zeros(N_PROPERTIES))
        self.register_buffer("label_std", torch.ones(N_PROPERTIES))
        self.register_buffer("amount_scale", torch.ones(()))

    def encode(self, array: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), shape (n, latent_dim) each.

        Args:
            array: Shape (n, 3, 224).
            group: Space groups from 0, shape (n,), int64.
        """
        features = torch.cat([self.convolutions(array), one_hot(group, N_SPACE_GROUPS).float()], dim=1)
        hidden = self.hidden(features)
        return self.to_mean(hidden), self.to_log_var(hidden)

    def forward(self, array: Tensor, group: Tensor, noise: Tensor | None = None) -> Outputs:
        """Encode, draw with the given standard normal noise (n, latent_dim) or take the mean, and decode."""
        mean, log_var = self.encode(array, group)
        latent = mean if noise is None else mean + noise * (0.5 * log_var).exp()
        return Outputs(mean, log_var, self.decoder(latent), self.to_space_group(latent), self.to_properties(mean))

    def freeze_half(self) -> None:
        """Freeze the first half of the encoder's layers, its three convolutions, as the paper does."""
        for parameter in self.convolutions.parameters():
            parameter.requires_grad = False

    def without_batch_statistics(self) -> None:
        """Put batch norm in inference mode, as the paper does while fine-tuning; call after `train()`."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
