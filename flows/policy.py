"""The policy of a campaign: how much is generated, how much is computed, and what decides."""

from pydantic import BaseModel, ConfigDict, Field

from wyloop.models.screening.funnel import ScreeningPolicy


class Policy(BaseModel):
    """What a campaign does in each round; stored with the campaign, so that a later run goes on in the same way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_candidates: int = Field(default=2500, ge=1)
    """Distinct valid genes generated a round."""
    n_relaxations: int = Field(default=24, ge=1)
    """Candidates built and relaxed with the force field a round."""
    n_dft: int = Field(default=0, ge=0)
    """Relaxed candidates that go on to DFT a round."""
    n_starts: int = Field(default=4, ge=1)
    """Start structures relaxed for a gene with free parameters or axis ratios; the one of lowest energy is kept."""
    max_nsites: int = Field(default=12, ge=1)
    """Largest primitive cell that is relaxed, atoms."""
    max_nsites_dft: int = Field(default=6, ge=1)
    """Largest primitive cell that goes to DFT, atoms."""
    max_per_chemsys: int = Field(default=2, ge=1)
    """Candidates of one chemical system relaxed a round, for diversity."""
    hull_cutoff: float = Field(default=0.1, ge=0)
    """Largest energy above hull of a validated material, eV/atom."""
    seed: int = 0
    relaxation_protocol: str = "mlip-screen/1"
    phonon_protocol: str = "mlip-gamma/1"
    dft_protocol: str = "gpaw-pbe/1"
    screening: ScreeningPolicy = ScreeningPolicy()
