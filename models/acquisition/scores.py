"""What a candidate is worth computing: scores by policy, a bonus for exploring, and the weight of its cost.

A score is greater for the better candidate and has no unit; policies that need a belief take it as the models give it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import CampaignError
from wyloop.models.targets import Condition, Target
from wyloop.models.wyckoff.gene import Gene

if TYPE_CHECKING:
    from wyloop.models.mpvae.aim import Belief  # torch: three seconds

Array = NDArray[np.float64]

FREE_PARAMETERS = 8.0
"""The chance that the 3D structure is found falls to 1/e with so many free parameters: 100 % with none, 86 % with 3-5
and 30 % above 10 were measured with a good force field and ten starts."""
ATOMS = 10.0  # that double the cost of a calculation
INCUMBENT = 1.0  # miss, in the scales of `aim`, that a new candidate must improve on
N_DRAWS = 64


def probability(target: Target, belief: "Belief", rng: np.random.Generator) -> Array:
    """Score by the probability of meeting the whole target under the calibrated errors, shape (n,)."""
    from wyloop.models.mpvae.aim import probabilities_of_target

    return probabilities_of_target(target, belief)


def improvement(target: Target, belief: "Belief", rng: np.random.Generator, incumbent: float = INCUMBENT) -> Array:
    """Score by the expected improvement on a candidate that misses the target by `incumbent`, shape (n,).

    The miss is the distance outside the target's ranges, summed over the properties in the scales of
    `aim.SCALES`: near misses count for something, where the probability counts hits alone.

    Source: Jones, Schonlau and Welch, doi:10.1023/A:1008306431147, with the miss as what is minimised; by drawing.
    """
    from wyloop.models.mpvae.aim import SCALES

    draws = _draws(belief, rng)
    miss = np.zeros_like(next(iter(draws.values())))
    for condition in target.conditions:
        if isinstance(condition, Condition) and condition.field in draws:
            low = -math.inf if condition.low is None else condition.low
            high = math.inf if condition.high is None else condition.high
            values = draws[condition.field]
            outside = np.maximum(low - values, 0.0) + np.maximum(values - high, 0.0)
            miss += outside / SCALES[condition.field]
    score: Array = (incumbent - miss).clip(min=0.0).mean(axis=0)
    return score


def greedy(target: Target, belief: "Belief", rng: np.random.Generator) -> Array:
    """Score by the expected values alone, without their errors: minus the distance from the target, shape (n,)."""
    from wyloop.models.mpvae.aim import property_miss

    gap = np.where(belief.metal_probability > 0.5, 0.0, belief.gap_size)
    rows = zip(belief.formation_energy.tolist(), gap.tolist(), belief.volume_per_atom.tolist(), strict=True)
    names = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
    return -np.array([property_miss(target, dict(zip(names, row, strict=True))) for row in rows])


def random(target: Target, belief: "Belief", rng: np.random.Generator) -> Array:
    """Score by lot, the control that every other policy is measured against, shape (n,)."""
    return rng.random(len(belief.formation_energy))


Score = Callable[[Target, "Belief", np.random.Generator], Array]
POLICIES: Mapping[str, Score] = {
    "probability": probability,
    "improvement": improvement,
    "random": random,
    "greedy": greedy,
}


def policy(name: str) -> Score:
    """Look up a policy.

    Raises:
        CampaignError: There is none of this name.
    """
    if name not in POLICIES:
        raise CampaignError(f"no acquisition {name!r}; expected one of {', '.join(POLICIES)}")
    return POLICIES[name]


def _draws(belief: "Belief", rng: np.random.Generator) -> dict[str, Array]:
    """Draw properties of each gene, shape (N_DRAWS, n); the same quantiles for all, so that scores compare well."""
    from wyloop.models.mpvae.aim import VOLUME_ERROR

    quantiles = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
    laplace = np.sign(quantiles - 0.5) * -np.log(1.0 - 2.0 * np.abs(quantiles - 0.5)) / 2**0.5
    energy, size, volume = (rng.permutation(laplace)[:, None] for _ in range(3))
    is_metal = rng.permutation(quantiles)[:, None] < belief.metal_probability
    gap = (belief.gap_size + size * belief.gap_size_std).clip(min=0.0)
    return {
        "formation_energy_per_atom": belief.formation_energy + energy * belief.formation_energy_std,
        "band_gap": np.where(is_metal, 0.0, gap),
        "volume_per_atom": belief.volume_per_atom * (1.0 + 2**0.5 * VOLUME_ERROR * volume),
    }


def exploration(belief: "Belief") -> Array:
    """Score by what a label would teach: the spread of what models expect, in the scales of `aim.SCALES`, shape (n,).

    The spread grows with the disagreement of an ensemble; of the gap it holds metal or not, and the size.
    """
    from wyloop.models.mpvae.aim import SCALES

    open_share = 1.0 - belief.metal_probability
    gap = open_share * (belief.gap_size_std**2 + belief.metal_probability * belief.gap_size**2)
    squares = [gap / SCALES["band_gap"] ** 2]
    squares.append((belief.formation_energy_std / SCALES["formation_energy_per_atom"]) ** 2)
    total: Array = np.sqrt(np.nansum(squares, axis=0))
    return total


def n_exploring(n: int, share: float) -> int:
    """Return how many of a batch of `n` are chosen to explore.

    Raises:
        CampaignError: The share is out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise CampaignError(f"exploration share {share}; expected a number from 0 to 1")
    return round(n * share)


def chance_found(gene: Gene) -> float:
    """Chance that a relaxation finds the 3D structure of a gene, 0 to 1, by its free parameters."""
    return math.exp(-gene.n_free_parameters / FREE_PARAMETERS)


def relative_cost(gene: Gene) -> float:
    """Cost of a gene's calculations against that of a very small cell, 1 and more, by atoms of the primitive cell."""
    return 1.0 + gene.nsites / ATOMS


def cost_weight(gene: Gene) -> float:
    """What a score is multiplied with, so that gain by unit of cost counts: the chance that it is made, over cost."""
    return chance_found(gene) / relative_cost(gene)


def cost_weights(genes: Sequence[Gene]) -> Array:
    """Return `cost_weight` of many genes, shape (n,)."""
    return np.array([cost_weight(gene) for gene in genes], dtype=float)
