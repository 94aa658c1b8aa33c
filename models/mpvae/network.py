"""The networks: a set transformer over orbits, property heads, and a recurrent decoder that follows the grammar."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from wyloop.models.mpvae.config import NetworkConfig
from wyloop.models.mpvae.data import Batch
from wyloop.models.mpvae.decoder import Decoder
from wyloop.models.mpvae.vocabulary import (
    N_GROUPS,
    N_LETTERS,
    element_features,
    elements,
    position_tables,
)

HEAD_OUTPUTS = 7
"""Formation energy, gap size and log volume, each standardised and each with a log scale; then the metal logit."""
N_CALIBRATION = 5
"""Scale factors of the three uncertainties, temperature of the metal logit, gap rule (0 expected, 1 most likely)."""


class PositionEmbedding(nn.Module):
    """A vector for every Wyckoff position of every group, shape (231, 27, width)."""

    site_symmetry: Tensor
    position: Tensor
    numbers: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        tables = position_tables()
        self.register_buffer("site_symmetry", torch.from_numpy(tables.site_symmetry), persistent=False)
        self.register_buffer("position", torch.from_numpy(tables.position), persistent=False)
        numbers = torch.stack(
            [
                torch.from_numpy(tables.multiplicity).clamp(min=1).float().log(),
                torch.from_numpy(tables.n_free_parameters).float(),
            ],
            dim=-1,
        )
        self.register_buffer("numbers", numbers, persistent=False)
        self.of_symmetry = nn.Embedding(int(tables.site_symmetry.max()) + 1, width)
        self.of_position = nn.Embedding(int(tables.position.max()) + 1, width)
        self.of_letter = nn.Embedding(N_LETTERS, width)
        self.of_numbers = nn.Linear(2, width)
        nn.init.normal_(self.of_position.weight, std=0.1)

    def forward(self, space_group: Tensor, letter: Tensor) -> Tensor:
        """Embed positions given by ITA number and letter, any common shape."""
        embedded: Tensor = (
            self.of_symmetry(self.site_symmetry[space_group, letter])
            + self.of_position(self.position[space_group, letter])
            + self.of_letter(letter)
            + self.of_numbers(self.numbers[space_group, letter])
        )
        return embedded


class GroupEmbedding(nn.Module):
    """A vector for every space group from its number, point group and crystal system."""

    point_group: Tensor
    crystal_system: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        tables = position_tables()
        self.register_buffer("point_group", torch.from_numpy(tables.point_group), persistent=False)
        self.register_buffer("crystal_system", torch.from_numpy(tables.crystal_system), persistent=False)
        self.of_number = nn.Embedding(N_GROUPS, width)
        self.of_point_group = nn.Embedding(int(tables.point_group.max()) + 1, width)
        self.of_system = nn.Embedding(int(tables.crystal_system.max()) + 1, width)

    def forward(self, space_group: Tensor) -> Tensor:
        """Embed ITA numbers."""
        embedded: Tensor = (
            self.of_number(space_group)
            + self.of_point_group(self.point_group[space_group])
            + self.of_system(self.crystal_system[space_group])
        )
        return embedded


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, normalised before each."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.n_heads = config.n_heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Update tokens (n, length, width); mask (n, 1, 1, length) is true where there is a token."""
        n, length, width = tokens.shape
        qkv = self.qkv(self.norm_attention(tokens)).view(n, length, 3, self.n_heads, width // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens + self.dropout(self.out(mixed.transpose(1, 2).reshape(n, length, width)))
        updated: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return updated


class Encoder(nn.Module):
    """Orbits, in any order, to one vector a gene."""

    features: Tensor
    multiplicity: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("features", torch.from_numpy(element_features()), persistent=False)
        self.register_buffer("multiplicity", torch.from_numpy(position_tables().multiplicity), persistent=False)
        n_features = self.features.shape[1]
        self.of_element = nn.Embedding(len(elements()) + 1, width)
        self.of_features = nn.Linear(n_features, width)
        self.of_position = PositionEmbedding(width)
        self.of_group = GroupEmbedding(width)
        self.of_amounts = nn.Linear(2, width)
        self.of_composition = nn.Linear(4 * n_features + 2, width)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.n_layers)])
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, batch: Batch) -> Tensor:
        """Return pooled features, shape (n, 2 * width)."""
        present = batch.element > 0
        multiplicity = self.multiplicity[batch.space_group.unsqueeze(1), batch.letter].float() * present
        n_atoms = multiplicity.sum(dim=1, keepdim=True)
        fraction = multiplicity / n_atoms
        features = self.features[batch.element]
        amounts = torch.stack([fraction, multiplicity.clamp(min=1).log()], dim=-1)
        orbits = (
            self.of_element(batch.element)
            + self.of_features(features)
            + self.of_position(batch.space_group.unsqueeze(1).expand_as(batch.letter), batch.letter)
            + self.of_amounts(amounts)
        )
        group = self.of_group(batch.space_group)
        whole = group + self.of_composition(self._composition(features, fraction, present, n_atoms))
        tokens = torch.cat([whole.unsqueeze(1), orbits + group.unsqueeze(1)], dim=1)
        mask = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)[:, None, None, :]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        mean = (tokens[:, 1:] * fraction.unsqueeze(-1)).sum(dim=1)
        pooled: Tensor = self.norm(torch.cat([tokens[:, 0], mean], dim=1))
        return pooled

    @staticmethod
    def _composition(features: Tensor, fraction: Tensor, present: Tensor, n_atoms: Tensor) -> Tensor:
        """Mean, mean deviation, least and greatest of the elemental descriptors over the atoms, and two counts."""
        weight = fraction.unsqueeze(-1)
        mean = (features * weight).sum(dim=1)
        deviation = ((features - mean.unsqueeze(1)).abs() * weight).sum(dim=1)
        absent = ~present.unsqueeze(-1)
        least = features.masked_fill(absent, torch.inf).amin(dim=1)
        greatest = features.masked_fill(absent, -torch.inf).amax(dim=1)
        counts = torch.cat([n_atoms.log(), present.sum(dim=1, keepdim=True).float().log()], dim=1)
        return torch.cat([mean, deviation, least, greatest, counts], dim=1)


class Head(nn.Module):
    """Properties from a vector: two hidden layers."""

    def __init__(self, n_inputs: int, config: NetworkConfig) -> None:
        super().__init__()
        width = config.head_width
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, HEAD_OUTPUTS),
        )

    def forward(self, vector: Tensor) -> Tensor:
        """Return raw outputs, shape (n, 7), in the order of HEAD_OUTPUTS."""
        outputs: Tensor = self.layers(vector)
        return outputs


@dataclass(frozen=True)
class Encoded:
    """What the encoder says about genes."""

    pooled: Tensor
    """Shape (n, 2 * width)."""
    mean: Tensor
    """Mean of q(z|x), shape (n, latent_dim)."""
    log_var: Tensor
    """Log-variance of q(z|x), shape (n, latent_dim)."""


class MPVAE(nn.Module):
    """The multi-property variational autoencoder over genes.

    `head` reads pooled features and the latent mean and makes the predictions; `latent_head` reads the latent vector
    alone, which orders the latent space by property and gives gradients to search it.

    Source: Yamazaki et al. 2025 (WyCryst+) for the idea; Lee et al., arXiv:1810.00825, for attention over sets.
    """

    label_mean: Tensor
    label_std: Tensor
    calibration: Tensor
    prior_mean: Tensor
    prior_std: Tensor
    prior_weight: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        latent_dim = config.latent_dim
        self.encoder = Encoder(config)
        self.to_mean = nn.Linear(2 * config.width, latent_dim)
        self.to_log_var = nn.Linear(2 * config.width, latent_dim)
        self.decoder = Decoder(config, PositionEmbedding(config.decoder_width // 2))
        self.head = Head(2 * config.width + latent_dim, config)
        self.latent_head = Head(latent_dim, config)
        # Mean and standard deviation of formation energy, gap size and log volume over the training rows.
        self.register_buffer("label_mean", torch.zeros(3))
        self.register_buffer("label_std", torch.ones(3))
        self.register_buffer("calibration", torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
        self.register_buffer("prior_mean", torch.zeros(config.n_prior_components, latent_dim))
        self.register_buffer("prior_std", torch.ones(config.n_prior_components, latent_dim))
        self.register_buffer("prior_weight", torch.full((config.n_prior_components,), 1 / config.n_prior_components))
        nn.init.zeros_(self.to_log_var.weight)
        nn.init.constant_(self.to_log_var.bias, -2.0)

    def encode(self, batch: Batch) -> Encoded:
        """Map genes to pooled features and the mean and log-variance of q(z|x).

        Source: Kingma and Welling, arXiv:1312.6114, section 3.
        """
        pooled = self.encoder(batch)
        return Encoded(pooled, self.to_mean(pooled), self.to_log_var(pooled).clamp(-10, 4))

    def properties(self, encoded: Encoded) -> Tensor:
        """Return raw property outputs, shape (n, 7)."""
        outputs: Tensor = self.head(torch.cat([encoded.pooled, encoded.mean], dim=1))
        return outputs
