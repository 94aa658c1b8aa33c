"""How much a gene looks like the crystals that have been made: learnt from known crystals and unlabelled ones.

The weights are in synthesizability.safetensors with their card in synthesizability.json, written by
make_synthesizability.py beside this module. Nothing is trained at run time.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from wyloop.models.errors import ModelError
from wyloop.models.screening.features import N_FEATURES, gene_features
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene

WEIGHTS = Path(__file__).with_name("synthesizability.safetensors")
CARD = Path(__file__).with_name("synthesizability.json")
THRESHOLD = 0.4  # as in the WyCryst workflow, doi:10.1016/j.matt.2024.05.042
BATCH_SIZE = 4096
NODE_FIELDS = ("feature", "threshold", "left", "right", "value")

Trees = dict[str, NDArray[np.generic]]


def synthesizability(genes: Sequence[Gene], *, threshold: float = THRESHOLD) -> list[Verdict]:
    """Judge genes by their likeness to known crystals.

    Returns:
        One verdict a gene. Value: the mean vote of the classifiers, 0 to 1, against random decorations of known
        prototypes and random orbits at even odds. It is a rank, not the probability that a synthesis succeeds.
    """
    comparison = ("below", "at least")
    return [
        Verdict("synthesizability", ok, value, "1", f"likeness {value:.2f}, {comparison[ok]} {threshold}")
        for value in (float(score) for score in likeness(genes))
        for ok in (value >= threshold,)
    ]


def likeness(genes: Sequence[Gene]) -> NDArray[np.float64]:
    """Return the mean vote of the classifiers for each gene, shape (len(genes),), 0 to 1."""
    trees = _trees(WEIGHTS)
    parts = [genes[start : start + BATCH_SIZE] for start in range(0, len(genes), BATCH_SIZE)]
    return np.concatenate([np.zeros(0), *(vote(trees, gene_features(part)) for part in parts)])


def vote(trees: Trees, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the classifiers, each a logistic function of the sum of its trees.

    Args:
        trees: `feature`, `threshold`, `left`, `right` and `value`, shape (n_bags, n_trees, n_nodes): a row goes left
            where its feature is at most the threshold; a leaf is its own child; `baseline`, shape (n_bags,).
        features: Shape (n_rows, N_FEATURES).

    Returns:
        Shape (n_rows,), 0 to 1.
    """
    n_bags, n_trees, _ = trees["feature"].shape
    columns = np.ascontiguousarray(features.T)
    rows = np.arange(len(features))
    votes = np.zeros(len(features))
    for bag in range(n_bags):
        logit = np.full(len(features), float(trees["baseline"][bag]))
        for tree in range(n_trees):
            feature, threshold, left, right, value = (trees[name][bag, tree] for name in NODE_FIELDS)
            node = np.zeros(len(features), dtype=np.int16)
            while True:
                below = columns[feature[node], rows] <= threshold[node]
                following = np.where(below, left[node], right[node])
                if np.array_equal(following, node):
                    break
                node = following
            logit += value[node]
        votes += 1.0 / (1.0 + np.exp(-logit))
    return np.asarray(votes / n_bags)


def model_card() -> dict[str, Any]:
    """Return the card of the shipped weights: data, split, settings, metrics."""
    card: dict[str, Any] = json.loads(CARD.read_text())
    return card


@cache
def _trees(path: Path) -> Trees:
    try:
        trees: Trees = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"can't read {path.name}: {error}; run make_synthesizability.py or reinstall") from error
    n_features = int(trees["n_features"][0])
    if n_features != N_FEATURES:
        raise ModelError(
            f"{path.name} takes {n_features} features; expected {N_FEATURES}: run make_synthesizability.py"
        )
    return trees
