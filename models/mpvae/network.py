"""The networks: set transformers over orbits for the latent vector and for the properties, heads, and the decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from wyloop.models.mpvae.config import NetworkConfig
from wyloop.models.mpvae.data import Batch
from wyloop.models.mpvae.decoder import Decoder
from wyloop.models.mpvae.embedding import EmbeddedGenes, GeneEmbedding, PositionEmbedding

LOG_SCALE_RANGE = (-5.0, 3.0)


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, normalised before each."""

    def __init__(self, config: NetworkConfig, dropout: float) -> None:
        super().__init__()
        width = config.width
        self.n_heads = config.n_heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
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
    """Embedded orbits, in any order, to one vector a gene."""

    def __init__(self, config: NetworkConfig, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(config, dropout) for _ in range(config.n_layers)])
        self.norm = nn.LayerNorm(2 * config.width)

    def forward(self, genes: EmbeddedGenes) -> Tensor:
        """Return pooled features, shape (n, 2 * width)."""
        tokens = torch.cat([genes.whole.unsqueeze(1), genes.orbits], dim=1)
        mask = torch.cat([torch.ones_like(genes.present[:, :1]), genes.present], dim=1)[:, None, None, :]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        mean = (tokens[:, 1:] * genes.fraction.unsqueeze(-1)).sum(dim=1)
        pooled: Tensor = self.norm(torch.cat([tokens[:, 0], mean], dim=1))
        return pooled


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
            nn.Linear(width, config.n_outputs),
        )

    def forward(self, vector: Tensor) -> Tensor:
        """Return raw outputs, shape (n, n_outputs)."""
        outputs: Tensor = self.layers(vector)
        return outputs


class Expert(nn.Module):
    """One member of the ensemble that predicts properties: genes to raw outputs."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.embedding = GeneEmbedding(config.width)
        self.encoder = Encoder(config, config.dropout)
        self.head = Head(2 * config.width, config)

    def forward(self, batch: Batch) -> Tensor:
        """Return raw outputs, shape (n, n_outputs)."""
        outputs: Tensor = self.head(self.encoder(self.embedding(batch)))
        return outputs


class LatentEncoder(nn.Module):
    """Genes to mean and log-variance of q(z|x).

    Beside the set transformer stands a plain sum over orbits (deep sets), which loses no orbit however many there are:
    that makes exact reconstruction easy to learn. No dropout: it would blur what is to be written back exactly.

    Source: Zaheer et al., arXiv:1703.06114, for sums over sets.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, summary = config.width, config.summary_width
        self.embedding = GeneEmbedding(width)
        self.encoder = Encoder(config, dropout=0.0)
        self.of_orbit = nn.Sequential(nn.Linear(width, summary), nn.GELU(), nn.Linear(summary, summary))
        self.to_mean = nn.Linear(2 * width + summary, config.latent_dim)
        self.to_log_var = nn.Linear(2 * width + summary, config.latent_dim)
        nn.init.zeros_(self.to_log_var.weight)
        nn.init.constant_(self.to_log_var.bias, -3.0)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, shape (n, latent_dim) each."""
        genes = self.embedding(batch)
        total = (self.of_orbit(genes.orbits) * genes.present.unsqueeze(-1)).sum(dim=1)
        vector = torch.cat([self.encoder(genes), total], dim=1)
        return self.to_mean(vector), self.to_log_var(vector).clamp(-10, 4)


@dataclass(frozen=True)
class Encoded:
    """The posterior q(z|x) of genes."""

    mean: Tensor
    """Shape (n, latent_dim)."""
    log_var: Tensor
    """Log-variance, shape (n, latent_dim)."""


class MPVAE(nn.Module):
    """The multi-property variational autoencoder over genes.

    Raw property outputs, shape (..., n_outputs): the values of `config.properties`, standardised (the volume by its
    logarithm); a log scale of each; the metal logit. The `experts`, an ensemble, make the predictions; `latent_head`
    reads the latent vector alone, which orders the latent space by property and gives gradients to search it.

    Source: Yamazaki et al. 2025 (WyCryst+) for the idea; Lee et al., arXiv:1810.00825, for attention over sets;
    Lakshminarayanan et al., arXiv:1612.01474, for ensembles.
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
        latent_dim, n_properties = config.latent_dim, len(config.properties)
        self.latent_encoder = LatentEncoder(config)
        self.decoder = Decoder(config, PositionEmbedding(config.decoder_width // 2))
        self.latent_head = Head(latent_dim, config)
        self.experts = nn.ModuleList([Expert(config) for _ in range(config.n_experts)])
        # Mean and standard deviation of each property's labels over the training rows.
        self.register_buffer("label_mean", torch.zeros(n_properties))
        self.register_buffer("label_std", torch.ones(n_properties))
        # Factor of each property's uncertainty; temperature of the metal logit; metal probability that means no gap.
        self.register_buffer("calibration", torch.tensor([1.0] * n_properties + [1.0, 0.5]))
        self.register_buffer("prior_mean", torch.zeros(config.n_prior_components, latent_dim))
        self.register_buffer("prior_std", torch.ones(config.n_prior_components, latent_dim))
        self.register_buffer("prior_weight", torch.full((config.n_prior_components,), 1 / config.n_prior_components))

    def encode(self, batch: Batch) -> Encoded:
        """Map genes to the mean and log-variance of q(z|x).

        Source: Kingma and Welling, arXiv:1312.6114, section 3.
        """
        return Encoded(*self.latent_encoder(batch))

    def opinions(self, batch: Batch) -> Tensor:
        """Return each expert's raw outputs, shape (n_experts, n, n_outputs)."""
        return torch.stack([expert(batch) for expert in self.experts])

    def properties(self, batch: Batch) -> Tensor:
        """Return the raw outputs of the ensemble, shape (n, n_outputs).

        Values and metal logit are means. The scales hold both what the experts expect as noise and how much they
        disagree: the variance of a Laplace distribution of scale b is 2 b^2.
        """
        values, log_scales, metal = split_outputs(self.opinions(batch))
        disagreement = values.var(dim=0, unbiased=False)
        scale = (log_scales.exp().square().mean(dim=0) + disagreement / 2).sqrt()
        return torch.cat([values.mean(dim=0), scale.log(), metal.mean(dim=0).unsqueeze(-1)], dim=1)


def split_outputs(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split raw outputs (..., n_outputs) into values and log scales (..., n_properties) and metal logit (...)."""
    n_properties = (outputs.shape[-1] - 1) // 2
    log_scales = outputs[..., n_properties:-1].clamp(*LOG_SCALE_RANGE)
    return outputs[..., :n_properties], log_scales, outputs[..., -1]
