"""Settings of the published configuration; stored with every model.

From the paper: latent 256, RMSprop at 2e-4, batch 512. Stated here because the paper's figures depend on the batch:
its reconstruction, space-group and property losses are sums over a batch, its KL a mean, so at its batch of 512 one nat
of KL counts 1/512 of the rest. Here every term is a mean per crystal with that same balance, at any batch size.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PUBLISHED_BATCH_SIZE = 512


class PublishedConfig(BaseModel):
    """Settings of one training run of the published architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_steps: int = Field(default=800, ge=2)
    """Optimiser steps in all; with transfer, half of them pre-train (the original counts 55 epochs instead)."""
    batch_size: int = Field(default=PUBLISHED_BATCH_SIZE, ge=2)
    learning_rate: float = Field(default=2e-4, gt=0)
    plateau_factor: float = Field(default=0.5, gt=0, le=1)
    """Factor of the learning rate after `plateau_patience` checks without a better validation loss."""
    plateau_patience: int = Field(default=5, ge=1)
    steps_per_check: int = Field(default=40, ge=1)
    """Steps between two looks at the validation loss."""
    augment: bool = True
    """Every distinct normalizer image is a training row; otherwise the canonical one alone."""
    transfer: bool = True
    """Pre-train on formation energy with all rows, then train both properties with half of the encoder frozen."""
    multi_property_rows: Literal["with_gap", "all"] = "with_gap"
    """Rows of the multi-property task; the paper's are those with a band gap."""
    validation_fraction: float = Field(default=0.06, ge=0, lt=0.9)
    """Share of the training rows that the learning rate watches; rows of one formula stay together."""
    latent_dim: int = Field(default=256, ge=2)
    n_filters: int = Field(default=128, ge=4, multiple_of=4)
    """Channels of the last convolution; the ones before have a quarter and a half."""
    hidden_width: int = Field(default=1024, ge=2)
    """Width between the convolutions and the latent vector."""
    kl_weight: float = Field(default=1 / PUBLISHED_BATCH_SIZE, ge=0)
    """Weight of the KL divergence, nats per crystal."""
    space_group_weight: float = Field(default=1.0, ge=0)
    formula_weight: float = Field(default=1.0, ge=0)
    property_weight: float = Field(default=5.0, ge=0)
    """Weight of the squared errors of the standardised properties."""
    seed: int = 0
