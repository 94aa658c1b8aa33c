"""A second opinion on genes by a model of another kind: boosted trees on composition and space group.

A search over genes finds the weak spots of the network that guides it, such as odd combinations of sites. Trees that
learnt from the same training rows, blind to sites, have other weak spots: genes on which both agree are likelier to be
what they seem. The trees are in weights/opinion.safetensors, written by make_opinion.py beside this module; nothing is
trained at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.data import GeneArrays, gene_arrays
from wyloop.models.mpvae.vocabulary import STOP, element_features, elements, position_tables
from wyloop.models.screening.charge import best_assignment
from wyloop.models.screening.features import element_properties
from wyloop.models.wyckoff.gene import Gene

WEIGHTS = Path(__file__).parent / "weights" / "opinion.safetensors"
MODELS = ("formation_energy", "metal", "gap")
FIELDS = ("feature", "threshold", "left", "right", "value", "root")
CHUNK = 256  # rows judged at a time
NORMS = (2, 3, 7)  # of the atomic shares
N_CHARGES = 5
N_DESCRIPTORS = 16  # of the network's descriptors: the first ones, which the shipped trees know

Trees = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Opinion:
    """What the trees expect, shape (n_genes,) each."""

    formation_energy: NDArray[np.float64]
    """eV/atom."""
    metal_probability: NDArray[np.float64]
    gap_size: NDArray[np.float64]
    """PBE gap if there is one, eV."""


GiveOpinion = Callable[[Sequence[Gene]], Opinion]


def second_opinion(genes: Sequence[Gene]) -> Opinion:
    """Judge genes with the shipped trees.

    Raises:
        ModelError: The file of the trees is missing or damaged.
    """
    return opinion_of(_shipped(WEIGHTS), genes)


def opinion_of(trees: Trees, genes: Sequence[Gene]) -> Opinion:
    """Judge genes with given trees.

    Args:
        trees: For each of `MODELS`, named `model.field`: nodes of all its trees one after the other (`feature`,
            `threshold`, `left`, `right`, `value`; a row goes left where its feature is at most the threshold; a leaf
            is its own child), the `root` of each tree, and the `baseline`.
        genes: At least none.
    """
    inputs = composition_features(genes)
    energy, metal, gap = (_sum_of_leaves(trees, model, inputs) for model in MODELS)
    return Opinion(energy, 1.0 / (1.0 + np.exp(-metal)), np.clip(gap, 0.0, None))


def _sum_of_leaves(trees: Trees, model: str, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    feature, threshold, left, right, value, root = (trees[f"{model}.{name}"] for name in FIELDS)
    total = np.full(len(inputs), float(trees[f"{model}.baseline"][0]))
    for start in range(0, len(inputs), CHUNK):
        rows = inputs[start : start + CHUNK]
        index = np.arange(len(rows))[:, None]
        node = np.broadcast_to(root, (len(rows), len(root)))
        while True:
            following = np.where(rows[index, feature[node]] <= threshold[node], left[node], right[node])
            if np.array_equal(following, node):
                break
            node = following
        total[start : start + CHUNK] += value[node].sum(axis=1, dtype=np.float64)
    return total


@cache
def _shipped(path: Path) -> Trees:
    try:
        trees: Trees = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"can't read {path.name}: {error}; run make_opinion.py or reinstall") from error
    return trees


def composition_features(genes: Sequence[Gene]) -> NDArray[np.float32]:
    """Describe genes by composition and space group alone, shape (n, n_features), unscaled.

    Mean, mean deviation, least, greatest and range of the elemental descriptors over the atoms; descriptors and share
    of the most electropositive and the most electronegative element; number of elements, atoms of the reduced formula,
    norms of the shares; space group, crystal system, point group; share of each element; the best oxidation states.
    """
    charges = np.array([_charges(gene) for gene in genes], np.float32).reshape(len(genes), N_CHARGES)
    return np.concatenate([_statistics(gene_arrays(genes)), charges], axis=1)


def _charges(gene: Gene) -> tuple[float, ...]:
    """Whether neutral; score, mixed valence, charge left (e/atom) and number of anions of the best assignment."""
    best = best_assignment(gene.amounts)
    if best is None:
        return (0.0, 0.0, 0.0, 1.0, 0.0)
    left = abs(best.net_charge) / gene.n_sites_conventional
    return (float(best.net_charge == 0), best.score, float(best.is_mixed), left, float(len(best.anions)))


@cache
def element_table() -> NDArray[np.float32]:
    """Return descriptors by element id: the network's own and the screens', shape (n_elements + 1, n)."""
    from pymatgen.core.periodic_table import Element  # lazy: pymatgen takes a second

    numbers = [0, *(int(Element(symbol).Z) for symbol in elements())]
    return np.hstack([element_features()[:, :N_DESCRIPTORS], element_properties()[numbers]]).astype(np.float32)


def _statistics(genes: GeneArrays) -> NDArray[np.float32]:
    tables, table = position_tables(), element_table()
    present = genes.element != STOP
    atoms = tables.multiplicity[genes.space_group[:, None], genes.letter] * present
    share = atoms / atoms.sum(axis=1, keepdims=True).clip(min=1)
    values = table[genes.element]
    mean = np.einsum("no,nof->nf", share, values)
    deviation = np.einsum("no,nof->nf", share, np.abs(values - mean[:, None]))
    absent = ~present[:, :, None]
    low = np.where(absent, np.inf, values).min(axis=1, initial=np.inf)
    high = np.where(absent, -np.inf, values).max(axis=1, initial=-np.inf)
    rows = np.arange(len(atoms))
    amounts = np.zeros((len(atoms), len(table)), dtype=np.int64)
    np.add.at(amounts, (rows[:, None], genes.element), atoms)
    shares = amounts / amounts.sum(axis=1, keepdims=True).clip(min=1)
    ends = [np.where(present, genes.element, len(table)).min(axis=1), genes.element.max(axis=1)]  # ids rise so
    extremes = [part for end in ends for part in (table[end], shares[rows, end, None])]
    n_elements = (amounts > 0).sum(axis=1)
    n_atoms = amounts.sum(axis=1) / np.gcd.reduce(amounts, axis=1).clip(min=1)
    norms = [(shares**power).sum(axis=1) ** (1 / power) for power in NORMS]
    group = genes.space_group
    plain = [n_elements, n_atoms, *norms, group, tables.crystal_system[group], tables.point_group[group]]
    parts = [mean, deviation, low, high, high - low, *extremes, np.stack(plain, axis=1), shares[:, 1:]]
    return np.concatenate(parts, axis=1).astype(np.float32)
