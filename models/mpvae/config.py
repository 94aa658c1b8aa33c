"""Sizes of the network and settings of training; both are stored with every checkpoint."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

FINE_TUNE_ROWS = 10_000  # rows shown in all, over the epochs
PROPERTIES = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
"""What every network predicts: eV/atom, eV (PBE), Å^3."""


class NetworkConfig(BaseModel):
    """Sizes of the network; fixed for the life of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=128, ge=8)
    """Channels of the encoder's tokens."""
    n_layers: int = Field(default=3, ge=1)
    n_heads: int = Field(default=4, ge=1)
    n_experts: int = Field(default=4, ge=1)
    """Members of the ensemble that predicts the properties."""
    latent_dim: int = Field(default=160, ge=2)
    summary_width: int = Field(default=256, ge=8)
    """Channels of the sum over orbits that goes into the latent vector."""
    decoder_width: int = Field(default=256, ge=8)
    head_width: int = Field(default=256, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the experts and the heads."""
    n_prior_components: int = Field(default=8192, ge=1)
    """Kernels that describe the latent vectors of the training rows, each around one of them."""
    extra_properties: tuple[str, ...] = ()
    """Further numeric properties to learn, by field name, each in its own unit."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties in the order of the outputs."""
        return (*PROPERTIES, *self.extra_properties)

    @property
    def n_outputs(self) -> int:
        """Raw outputs of a head: a value and a log scale of each property, and the metal logit."""
        return 2 * len(self.properties) + 1


class TrainingConfig(BaseModel):
    """Settings of one training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig = NetworkConfig()
    """Ignored when training starts from a checkpoint, which brings its own."""
    n_epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Highest learning rate; it rises over the first 5 % of the steps and falls along a cosine."""
    weight_decay: float = Field(default=0.05, ge=0)
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is validated and kept."""
    augment: bool = True
    """Show the experts a random normalizer image of each gene in each epoch."""
    augment_latent: bool = False
    """Show it to the autoencoder too, whose answer stays canonical: it must then learn the canonical form itself."""
    train_experts: bool = True
    train_autoencoder: bool = True
    fit_prior: bool = True
    """Describe the latent vectors of the training rows anew at the end; else the initial description stays."""
    variation_share: float = Field(default=0.6, ge=0)
    """Unlabelled copies added to each epoch, as a share of the rows, with other elements and letters: they teach the
    autoencoder to write back any gene, not only known ones."""
    validation_fraction: float = Field(default=0.06, ge=0, lt=0.9)
    """Share of the rows kept for validation; rows of one formula stay together."""
    patience: int = Field(default=12, ge=1)
    """Epochs without a better validation score before training stops."""
    max_orbits: int = Field(default=24, ge=1)
    """Rows with more orbits are left out, and reported."""
    reconstruction_weight: float = Field(default=0.2, ge=0)
    """Weight of the negative log-likelihood of the gene, nats per crystal."""
    kl_weight: float = Field(default=1e-3, ge=0)
    """Weight of the KL divergence, nats per crystal."""
    free_bits: float = Field(default=0.05, ge=0)
    """KL below this many nats in a latent dimension is free."""
    property_weight: float = Field(default=1.0, ge=0)
    latent_property_weight: float = Field(default=0.3, ge=0)
    """Weight of the properties as read from the latent mean alone, which orders the latent space."""
    anchor_weight: float = Field(default=0.0, ge=0)
    """Pull towards the initial weights (squared distance), against forgetting while fine-tuning."""
    seed: int = 0

    @model_validator(mode="after")
    def _trains_something(self) -> "TrainingConfig":
        if not (self.train_experts or self.train_autoencoder):
            raise ValueError("train_experts and train_autoencoder are both off; expected at least one of them on")
        return self

    @classmethod
    def fine_tune(cls, *, n_epochs: int = 8, n_rows: int = 0, seed: int = 0) -> "TrainingConfig":
        """Return settings for new rows on a trained checkpoint, well under a minute on one core for some hundred rows.

        Args:
            n_epochs: Most epochs.
            n_rows: Rows that will be given; many rows get fewer epochs, so that time stays bounded.
            seed: Seed of the run.
        """
        if n_rows:
            n_epochs = max(1, min(n_epochs, FINE_TUNE_ROWS // n_rows))
        return cls(
            n_epochs=n_epochs,
            batch_size=64,
            learning_rate=2e-4,
            average_decay=0.9,
            validation_fraction=0.12,
            patience=4,
            anchor_weight=1e-2,
            fit_prior=False,
            seed=seed,
        )
