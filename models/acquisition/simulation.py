"""Discovery played back on known data: part of it is known, the rest answers requests, one unit of budget each.

Whatever chooses learns inside the simulation, from the known crystals and the answers to its own requests.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wyloop.models.acquisition import scores
from wyloop.models.acquisition.batch import Diversity, Kind, choose
from wyloop.models.acquisition.boosting import Boosting
from wyloop.models.acquisition.surrogate import Surrogate
from wyloop.models.errors import CampaignError, TargetError
from wyloop.models.screening.funnel import gene_values
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

if TYPE_CHECKING:
    from wyloop.models.mpvae.aim import Belief  # torch: three seconds

logger = logging.getLogger(__name__)

ASKED = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
"""What the oracle answers; everything else about a hidden crystal is in its gene."""
EARLY_SHARE = 0.01  # of the hidden crystals: the enrichment is that of the first requests


class Learner(Protocol):
    """A model that has learnt from labels."""

    def belief(self, genes: Sequence[Gene]) -> "Belief":
        """Return what is expected of genes."""


Learn = Callable[[Sequence[Gene], Sequence[Mapping[str, float]]], Learner]
MODELS: Mapping[str, Learn] = {"surrogate": Surrogate, "boosting": Boosting}


@dataclass(frozen=True)
class Crystals:
    """The data: genes with their labels, row by row."""

    genes: Sequence[Gene]
    labels: Sequence[Mapping[str, float]]

    def __len__(self) -> int:
        return len(self.genes)


@dataclass(frozen=True)
class Plan:
    """How a simulation goes."""

    n_known: int = 714
    n_requests: int = 320
    batch_size: int = 32
    model: str = "surrogate"
    policy: str = "probability"
    exploration: float = 0.0
    """Share of each batch that is chosen for what it teaches."""
    diversity: Diversity = field(default_factory=Diversity)

    def check(self, n_rows: int) -> None:
        """Refuse a plan that can't be played.

        Raises:
            CampaignError: A number is out of range, or the model or policy is unknown.
        """
        if not 2 <= self.n_known < n_rows:
            raise CampaignError(f"{self.n_known} known crystals of {n_rows}; expected 2 to {n_rows - 1}")
        if self.n_requests < 1 or self.batch_size < 1:
            raise CampaignError(
                f"{self.n_requests} requests in batches of {self.batch_size}; expected at least one of each"
            )
        if self.model not in MODELS:
            raise CampaignError(f"no model {self.model!r}; expected one of {', '.join(MODELS)}")
        scores.policy(self.policy)
        scores.n_exploring(self.batch_size, self.exploration)


@dataclass(frozen=True)
class Discovery:
    """What a simulation found."""

    seed: int
    n_hidden: int
    n_on_target: int
    """Distinct hidden genes that meet the target and are not known."""
    found: tuple[int, ...]
    """Of them found after each request, the first after one."""

    @property
    def n_found(self) -> int:
        """Distinct genes on target found."""
        return self.found[-1] if self.found else 0

    @property
    def base_rate(self) -> float:
        """Share of the hidden crystals that meet the target: what a random request finds."""
        return self.n_on_target / self.n_hidden

    @property
    def acceleration_factor(self) -> float:
        """Found, against what as many random requests are expected to find."""
        return self._over_random(len(self.found))

    @property
    def ceiling(self) -> float:
        """The greatest acceleration factor that there can be at this budget."""
        n_requests = len(self.found)
        return min(n_requests, self.n_on_target) / (n_requests * self.base_rate) if self.n_on_target else 0.0

    @property
    def enrichment(self) -> float:
        """Share of hits among the first requests, 1 % of the hidden crystals, over that among all."""
        return self._over_random(min(len(self.found), max(1, round(EARLY_SHARE * self.n_hidden))))

    @property
    def area(self) -> float:
        """Area under the discovery curve, found against requests, over that of an oracle's; 0 to 1."""
        best = np.minimum(np.arange(1, len(self.found) + 1), self.n_on_target)
        return float(np.sum(self.found) / best.sum()) if best.any() else 0.0

    def _over_random(self, n_requests: int) -> float:
        if not n_requests or not self.n_on_target:
            return 0.0
        return self.found[n_requests - 1] / (n_requests * self.base_rate)


def simulate(
    crystals: Crystals,
    target: Target,
    plan: Plan,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Discovery:
    """Play one campaign on known data.

    Args:
        crystals: All of them; the seed says which are known.
        target: Conditions on what the gene says and on what the oracle answers.
        plan: The rules.
        seed: Draws the known crystals, and what the policy draws.
        on_progress: Called with requests made and planned.

    Raises:
        CampaignError: The plan can't be played on so many rows, or no row has what the target asks for.
        TargetError: The target asks for what neither gene nor oracle can tell.
    """
    plan.check(len(crystals))
    is_on_target = on_target(crystals, target)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(crystals))
    known, hidden = order[: plan.n_known].tolist(), order[plan.n_known :]
    seen = {str(crystals.genes[row]) for row in known}
    candidates = _new_ones(crystals, hidden.tolist(), seen)
    n_on_target = len({str(crystals.genes[row]) for row in candidates if is_on_target[row]})
    pool = [row for row in candidates if _fits(target, crystals.genes[row])]
    score = scores.policy(plan.policy)
    found: list[int] = []
    n_found = 0
    while len(found) < plan.n_requests and pool:
        n = min(plan.batch_size, plan.n_requests - len(found))
        learner = MODELS[plan.model]([crystals.genes[row] for row in known], [crystals.labels[row] for row in known])
        genes = [crystals.genes[row] for row in pool]
        belief, kinds = learner.belief(genes), _kinds(genes, plan.diversity)
        n_exploring = scores.n_exploring(n, plan.exploration)
        places = choose(score(target, belief, rng), kinds, n - n_exploring, plan.diversity)
        if n_exploring:
            spread = scores.exploration(belief)
            spread[places] = -np.inf
            taken = [kinds[place] for place in places]
            places += choose(spread, kinds, n_exploring, plan.diversity, already=taken)
        for row in [pool[place] for place in places]:
            gene = str(crystals.genes[row])
            n_found += int(is_on_target[row] and gene not in seen)
            seen.add(gene)
            known.append(row)
            found.append(n_found)
        if not places:
            break
        pool = [row for row in pool if str(crystals.genes[row]) not in seen]
        on_progress(len(found), plan.n_requests)
    logger.info("seed %d: %d of %d found in %d requests", seed, n_found, n_on_target, len(found))
    return Discovery(seed, len(hidden), n_on_target, tuple(found))


def on_target(crystals: Crystals, target: Target) -> NDArray[np.bool_]:
    """Mark the crystals that meet a target by their labels, shape (n,).

    Raises:
        CampaignError: No row has a label that the target asks for.
        TargetError: The target asks for what neither gene nor oracle can tell.
    """
    of_gene = gene_values(crystals.genes[0]) if len(crystals) else {}
    for name in target.fields:
        if name not in of_gene and name not in ASKED:
            known = ", ".join([*ASKED, *of_gene])
            raise TargetError(f"a simulation can't tell {name}; expected conditions on some of {known}")
        if name in ASKED and not any(name in row for row in crystals.labels):
            raise CampaignError(f"no row of the data has {name}, which the target asks for; expected some that do")
    values = (gene_values(gene) | dict(row) for gene, row in zip(crystals.genes, crystals.labels, strict=True))
    return np.array([target.matches(one) for one in values], dtype=bool)


def _new_ones(crystals: Crystals, rows: list[int], seen: set[str]) -> list[int]:
    """Return rows whose gene is not known; of several rows of one gene the first, as an oracle answers once."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(str(crystals.genes[row]), row)
    return [row for gene, row in first.items() if gene not in seen]


def _fits(target: Target, gene: Gene) -> bool:
    """Whether a gene meets every condition that it can tell itself."""
    values = gene_values(gene)
    return all(
        condition.accepts(values[condition.field]) for condition in target.conditions if condition.field in values
    )


def _kinds(genes: Sequence[Gene], diversity: Diversity) -> list[Kind]:
    """Return the kinds of genes; prototypes, which are slow, only where they count."""
    if diversity.max_per_prototype is None and not diversity.penalty:
        return [Kind(gene.chemsys) for gene in genes]
    return [Kind.of(gene) for gene in genes]
