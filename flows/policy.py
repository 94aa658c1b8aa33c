"""The policy of a campaign: how much is generated, how much is computed, and what decides."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wyloop.models.screening.funnel import ScreeningPolicy

AcquisitionName = Literal["merit", "surrogate", "probability", "improvement", "greedy", "random"]
"""How candidates are ranked; `merit` is the screens' verdict, buildability and cost in one number, `surrogate` the same
with the probability of meeting the target by Gaussian processes that learn from all labels of the database."""


class RetrainingRule(BaseModel):
    """When a round trains a model of its own; otherwise it uses the campaign's last one, or the shipped one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_rounds: int = Field(default=1, ge=0, le=1000)
    """Train in the first round and in every so many-th after it; 0: never."""
    new_labels: int = Field(default=0, ge=0)
    """Train only when there are so many more training rows than the campaign's last model saw; 0: no matter."""


class DriftLimits(BaseModel):
    """How far the candidates of a round may move away from the first round's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_element_share: float = Field(default=1.0, gt=0, le=1)
    """Largest share of a round's batch that holds any one element."""
    max_prototype_share: float = Field(default=1.0, gt=0, le=1)
    """Largest share of a round's batch that any one prototype makes up."""


class PromotionRules(BaseModel):
    """What a relaxed candidate must be to go on to DFT, beside the sizes and numbers of the policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_energy_above_hull: float | None = Field(default=None, ge=0)
    """Largest energy above hull by the force field, eV/atom; none: the policy's hull cutoff."""
    needs_stable_phonons: bool = False
    """Whether the phonon pre-screen must have found no instability."""


class Policy(BaseModel):
    """What a campaign does in each round; stored with the campaign, so that a later run goes on in the same way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_candidates: int = Field(default=2500, ge=1)
    """Distinct valid genes generated a round."""
    n_relaxations: int = Field(default=24, ge=1)
    """Batch: candidates built and relaxed with the force field a round."""
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
    generators: dict[str, float] = Field(default_factory=lambda: {"mpvae": 1.0})
    """Generator to its share of the candidates of a round; the shares add up to one."""
    acquisition: AcquisitionName = "merit"
    """What ranks the candidates that passed the screens."""
    exploration: float = Field(default=0.0, ge=0, le=1)
    """Share of the batch that is chosen for what would be learnt, not for what is expected."""
    retraining: RetrainingRule = RetrainingRule()
    promotion: PromotionRules = PromotionRules()
    drift: DriftLimits = DriftLimits()
    quarantine_sigma: float = Field(default=5.0, gt=0)
    """Standard deviations of the prediction beyond which a result is computed again, and waits if that disagrees."""
    on_pause: Literal["finish", "give_back"] = "finish"
    """What happens to submitted jobs of a paused campaign: they run to their end, or those not yet begun wait."""
    relaxation_protocol: str = "mlip-screen/1"
    phonon_protocol: str = "mlip-gamma/1"
    dft_protocol: str = "gpaw-pbe/1"
    screening: ScreeningPolicy = ScreeningPolicy()

    @field_validator("generators")
    @classmethod
    def _shares(cls, given: dict[str, float]) -> dict[str, float]:
        if not given:
            raise ValueError("expected at least one generator, such as mpvae: 1.0")
        if bad := [name for name, share in given.items() if not 0 < share <= 1]:
            raise ValueError(f"share of {bad[0]} is {given[bad[0]]:g}; expected more than 0 and at most 1")
        if abs(sum(given.values()) - 1) > 1e-6:
            raise ValueError(f"the shares add up to {sum(given.values()):g}; expected 1")
        return given
