"""What a target means to the network: limits of the grammar, distances of properties, probability of meeting it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import relu

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.network import MPVAE
from wyloop.models.mpvae.predict import Prediction, property_arrays
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.targets import Condition, Target
from wyloop.models.wyckoff.gene import Gene

SCALES = {"formation_energy_per_atom": 0.5, "band_gap": 0.5, "volume_per_atom": 5.0}
"""Distances outside a range count in these units: eV/atom, eV, Å^3."""
MARGIN = 0.15  # of a scale: the search aims inside the range
CLEAR_GAP = 0.05  # eV; a target from here on wants no metal, one below wants metals
MAX_ELEMENTS = 3  # unless the target or references say otherwise: compounds whose gaps the shipped model has seen
DEFAULT_MIN_ELEMENTS = 2
VOLUME_ERROR = 0.05  # typical relative error of a predicted volume
MIN_STD = 1e-6
PREDICTED = (
    "formation_energy_per_atom",
    "formation_energy_per_atom_std",
    "band_gap",
    "band_gap_std",
    "metal_probability",
    "volume_per_atom",
)


def limits_of(target: Target, max_atoms: int, max_elements: int = MAX_ELEMENTS) -> Limits:
    """Translate the structural conditions of a target for the decoder.

    Compounds are wanted unless the target says otherwise: from two elements to `max_elements`.

    Raises:
        TargetError: The conditions exclude every gene.
    """
    ids, condition = element_ids(), target.elements
    allowed = (set(ids) if condition.may is None else set(ids) & set(condition.may)) - set(condition.must_not)
    required = set(condition.must)
    unknown = sorted(required - set(ids))
    free = range(min(DEFAULT_MIN_ELEMENTS, len(allowed)), max(max_elements, len(required), DEFAULT_MIN_ELEMENTS) + 1)
    counts = _accepted(target, "nelements", range(1, len(allowed) + 1)) if "nelements" in target.fields else list(free)
    counts = [count for count in counts if len(required) <= count <= len(allowed)]
    sizes = _accepted(target, "nsites", range(1, max_atoms + 1))
    space_groups = target.space_group_numbers()
    if unknown:
        raise TargetError(f"element {unknown[0]!r} of target '{target}' is unknown to the model; expected H to Lr")
    if not space_groups or not required <= allowed or not counts or not sizes:
        raise TargetError(f"no gene can meet target '{target}'; expected space groups and elements that allow one")
    return Limits(
        space_groups=frozenset(space_groups if len(space_groups) < 230 else ()),
        allowed=frozenset(ids[symbol] for symbol in allowed),
        required=frozenset(ids[symbol] for symbol in required),
        min_elements=counts[0],
        max_elements=counts[-1],
        max_atoms=sizes[-1],
    )


def _accepted(target: Target, field: str, values: range) -> list[int]:
    """Return the values that every condition on a field accepts."""
    conditions = [condition for condition in target.conditions if condition.field == field]
    return [value for value in values if all(condition.accepts(value) for condition in conditions)]


def structure_matches(target: Target, limits: Limits, gene: Gene) -> bool:
    """Whether a gene fulfils every condition that needs no prediction."""
    if not limits.min_elements <= len(gene.amounts) <= limits.max_elements or gene.nsites > limits.max_atoms:
        return False
    values: dict[str, object] = {
        "space_group_number": gene.space_group_number,
        "crystal_system": gene.space_group.crystal_system,
        "nelements": len(gene.amounts),
        "nsites": gene.nsites,
        "elements": gene.elements,
        "chemsys": gene.chemsys,
    }
    if "formula_pretty" in target.fields:
        values["formula_pretty"] = gene.formula_pretty  # slow, so only when asked for
    return all(c.accepts(values[c.field]) for c in target.conditions if c.field in values)


def property_miss(target: Target, values: Mapping[str, float]) -> float:
    """Distance of predicted properties from the target, 0 if and only if they meet it."""
    total = 0.0
    for condition in target.conditions:
        value = values.get(condition.field)
        if value is None or condition.accepts(value):
            continue
        low, high = target.range(condition.field) or (value, value)
        outside = max(low - value, value - high, 0.0) / SCALES[condition.field]
        total += max(outside, 1e-6)  # on an excluded end, or not finite
    return total


@dataclass(frozen=True)
class Belief:
    """What is expected of genes, with Laplace errors: arrays of shape (n,) each."""

    formation_energy: NDArray[np.float64]
    """eV/atom."""
    formation_energy_std: NDArray[np.float64]
    gap_size: NDArray[np.float64]
    """PBE gap if there is one, eV."""
    gap_size_std: NDArray[np.float64]
    metal_probability: NDArray[np.float64]
    volume_per_atom: NDArray[np.float64]
    """Å^3."""

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> "Belief":
        """Read predictions, which keep the gap with metal or not taken into account.

        Where a metal is the likelier, its size is not kept: it follows from the spread, taken as half the size.
        """
        columns = [[getattr(prediction, name) for prediction in predictions] for name in PREDICTED]
        energy, energy_std, gap, gap_std, metal, volume = np.array(columns, dtype=np.float64)
        open_share = np.maximum(1.0 - metal, MIN_STD)
        has_size = gap > 0
        size = np.where(has_size, gap, gap_std / np.sqrt(open_share * (0.25 + metal)))
        variance = np.where(has_size, gap_std**2 / open_share - metal * size**2, (0.5 * size) ** 2)
        return cls(energy, energy_std, size, np.sqrt(np.maximum(variance, MIN_STD)), metal, volume)


def probability_of_target(target: Target, prediction: Prediction) -> float:
    """Probability that a gene has the properties that a target asks for, 0 to 1, under the calibrated uncertainty.

    Formation energy, gap (metal or not, then the size) and volume count, taken as independent; what needs no
    prediction is left to `structure_matches`, and what the model can't predict counts as met.
    """
    return float(probabilities_of_target(target, Belief.of([prediction]))[0])


def probabilities_of_target(target: Target, belief: Belief) -> NDArray[np.float64]:
    """Return `probability_of_target` of many genes, shape (n,)."""
    probability = np.ones_like(belief.formation_energy)
    for condition in target.conditions:
        if not isinstance(condition, Condition):
            continue
        low = -math.inf if condition.low is None else condition.low
        high = math.inf if condition.high is None else condition.high
        if condition.field == "formation_energy_per_atom":
            probability = probability * _laplace(low, high, belief.formation_energy, belief.formation_energy_std)
        elif condition.field == "volume_per_atom":
            std = VOLUME_ERROR * 2**0.5 * belief.volume_per_atom
            probability = probability * _laplace(low, high, belief.volume_per_atom, std)
        elif condition.field == "band_gap":
            metal = belief.metal_probability * condition.accepts(0.0)
            size = _laplace(max(low, 0.0) or -math.inf, high, belief.gap_size, belief.gap_size_std)
            probability = probability * (metal + (1.0 - belief.metal_probability) * size)
    return probability


def _laplace(low: float, high: float, centre: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of Laplace distributions between two ends, shape (n,)."""
    scale = np.maximum(std, MIN_STD) / 2**0.5

    def below(end: float) -> NDArray[np.float64]:
        distance = (end - centre) / scale
        tail = 0.5 * np.exp(-np.abs(distance))
        return np.where(distance < 0, tail, 1.0 - tail)

    return below(high) - below(low)


def latent_miss(network: MPVAE, target: Target, possible: Tensor, latent: Tensor) -> Tensor:
    """Differentiable distance of latent vectors from the target, as the latent head sees them, shape (n,).

    Args:
        network: In evaluation mode.
        target: Its ranges of predicted properties count.
        possible: Space groups allowed, shape (231,), bool.
        latent: Shape (n, latent_dim).
    """
    arrays = property_arrays(network, network.latent_head(latent))
    miss = torch.zeros(len(latent))
    columns = {
        "formation_energy_per_atom": arrays.formation_energy,
        "band_gap": arrays.gap_size,
        "volume_per_atom": arrays.volume_per_atom,
    }
    gap = target.range("band_gap")
    is_metal_wanted = gap is not None and gap[1] < CLEAR_GAP
    for name, column in columns.items():
        ends = target.range(name)
        if ends is not None and not (name == "band_gap" and is_metal_wanted):
            scale = SCALES[name]
            margin = min(MARGIN, (ends[1] - ends[0]) / (4 * scale))
            miss = miss + relu((ends[0] - column) / scale + margin) + relu((column - ends[1]) / scale + margin)
    if gap is not None:
        metal_logit = torch.logit(arrays.metal_probability, eps=1e-6)
        if gap[0] >= CLEAR_GAP:
            miss = miss + 0.3 * relu(metal_logit + 2.0)
        elif is_metal_wanted:
            miss = miss + 0.3 * relu(metal_logit.neg() + 2.0)
    if not bool(possible[1:].all()):
        log_probability = network.decoder.space_group_logits(latent).log_softmax(dim=1)
        miss = miss + 0.2 * -log_probability[:, possible].logsumexp(dim=1)
    return miss
