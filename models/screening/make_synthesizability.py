"""Train the synthesizability model and write its weights and card beside this script.

    python models/screening/make_synthesizability.py [DATA_FOLDER]

Positives are the crystals of mpts52 (all experimental) that are not in the test file. Unlabelled are decorations of the
same prototypes that nobody reported: one element swapped, all elements taken from another crystal, or the orbits drawn
anew. Bags of classifiers, each on all positives and as many of the unlabelled (Mordelet and Vert, arXiv:1010.0772).
The card reports a split in time: trained up to 2004, tested on what was first reported later. About 3 minutes.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save
from sklearn.ensemble import HistGradientBoostingClassifier  # type: ignore[import-untyped]  # ships no types

from wyloop.models.errors import GeneError, StructureError
from wyloop.models.screening.features import N_FEATURES, gene_features
from wyloop.models.screening.synthesizability import CARD, THRESHOLD, WEIGHTS, Trees, vote
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical

SEED = 0
LAST_TRAINING_YEAR = 2004
N_BAGS = 4
SETTINGS = {
    "max_iter": 120,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 20,
    "early_stopping": False,
}
N_NODES = 2 * 31 - 1
NODE_SOURCES = {"feature": "feature_idx", "threshold": "num_threshold", "left": "left", "right": "right"}
LARGEST_CELL = 52  # atoms, as in mpts52
KINDS = ("one element swapped", "all elements of another crystal", "orbits drawn anew")
KIND_SHARES = (0.5, 0.3, 0.2)


def main(data: Path) -> None:
    """Read, train on the early years, report on the late ones, train on all, write."""
    known = known_genes(data)
    every = {gene.fingerprint for gene in known}
    rng = np.random.default_rng(SEED)
    metrics = time_split(known, rng)
    print(json.dumps(metrics, indent=1))
    final = train(list(known), [gene for gene, _ in unlabelled(list(known), len(known) * 4, every, rng)])
    WEIGHTS.write_bytes(save(final))
    CARD.write_text(json.dumps(card(len(known), metrics), indent=1) + "\n")
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size / 1e6:.2f} MB")


def judge_time_split(data: Path) -> dict[str, float]:
    """Repeat the split in time that the card reports; writes nothing."""
    return time_split(known_genes(data), np.random.default_rng(SEED))


def time_split(known: dict[Gene, int], rng: np.random.Generator) -> dict[str, float]:
    """Train on the early years and report on the later ones."""
    every = {gene.fingerprint for gene in known}
    early = [gene for gene, year in known.items() if year <= LAST_TRAINING_YEAR]
    late = [gene for gene, year in known.items() if year > LAST_TRAINING_YEAR]
    print(f"{len(known)} known genes, {len(early)} up to {LAST_TRAINING_YEAR}")
    trees = train(early, [gene for gene, _ in unlabelled(early, len(early) * 4, {str(g) for g in early}, rng)])
    return evaluate(trees, early, late, unlabelled(late, len(late) * 2, every, rng))


def known_genes(data: Path) -> dict[Gene, int]:
    """Encode mpts52 without the test file's crystals and formulas; the earliest year of each gene."""
    rows = pd.read_csv(data / "mpts52_formation_energy.csv.gz")
    test = pd.read_csv(data / "mp20_biternary_test.csv.gz", usecols=["material_id", "pretty_formula"])
    rows = rows[~rows["theoretical"] & ~rows["material_id"].isin(test["material_id"])]
    test_formulas = set(test["pretty_formula"])
    known: dict[Gene, int] = {}
    for identity, cif, year in zip(rows["material_id"], rows["cif"], rows["year"], strict=True):
        try:
            gene = encode(parse_cif(cif))
        except StructureError as error:
            print(f"{identity}: {error}")
            continue
        if gene.formula_pretty not in test_formulas:
            known[gene] = min(known.get(gene, 9999), int(year))
    return known


def unlabelled(genes: Sequence[Gene], n: int, known: set[str], rng: np.random.Generator) -> list[tuple[Gene, str]]:
    """Make n distinct genes that are not known, from the prototypes and elements of those given, with their kind."""
    counts = Counter(element for gene in genes for element in gene.elements)
    symbols, frequencies = list(counts), np.array(list(counts.values()), dtype=float)
    frequencies /= frequencies.sum()
    made: dict[str, tuple[Gene, str]] = {}
    while len(made) < n:
        kind = KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]
        gene, other = (genes[i] for i in rng.integers(len(genes), size=2))
        if kind == KINDS[0]:
            new = str(rng.choice(symbols, p=frequencies))
            old = str(rng.choice(gene.elements))
            found = None if new in gene.elements else renamed(gene, {old: new})
        elif kind == KINDS[1]:
            same = len(other.elements) == len(gene.elements)
            names = [str(name) for name in rng.permutation(other.elements)]
            found = renamed(gene, dict(zip(gene.elements, names, strict=True))) if same else None
        else:
            found = redrawn(gene, rng)
        if found is not None and str(found) not in known:
            made.setdefault(str(found), (found, kind))
    return list(made.values())


def renamed(gene: Gene, names: dict[str, str]) -> Gene:
    """Put other elements on the orbits."""
    return canonical(
        Gene.of(gene.space_group_number, [(names.get(element, element), letter) for element, letter in gene.orbits])
    )


def redrawn(gene: Gene, rng: np.random.Generator) -> Gene | None:
    """Keep space group, elements and the number of orbits of each, and draw the letters at random."""
    letters = gene.space_group.letters
    orbits = [(element, letters[rng.integers(len(letters))]) for element, _ in gene.orbits]
    try:
        found = canonical(Gene.of(gene.space_group_number, orbits))
    except GeneError:  # a position without free parameters twice
        return None
    return found if found.nsites <= LARGEST_CELL else None


def train(positives: Sequence[Gene], others: Sequence[Gene]) -> Trees:
    """Train the bags, each on all positives and as many others, and stack their trees."""
    positive, other = gene_features(positives), gene_features(others)
    order = np.random.default_rng(SEED).permutation(len(other))
    bags = [train_bag(positive, other[part], seed) for seed, part in enumerate(np.array_split(order, N_BAGS))]
    return {name: np.stack([bag[name] for bag in bags]) for name in bags[0]} | {"n_features": np.array([N_FEATURES])}


def train_bag(positive: NDArray[np.float32], negative: NDArray[np.float32], seed: int) -> Trees:
    """Train one classifier of the positives against a bag of unlabelled; its trees as arrays padded to one size."""
    labels = np.concatenate((np.ones(len(positive)), np.zeros(len(negative))))
    model = HistGradientBoostingClassifier(**SETTINGS, random_state=seed).fit(np.vstack((positive, negative)), labels)
    trees: Trees = {
        "feature": np.zeros((len(model._predictors), N_NODES), dtype=np.int16),
        "threshold": np.zeros((len(model._predictors), N_NODES), dtype=np.float32),
        "left": np.tile(np.arange(N_NODES, dtype=np.int16), (len(model._predictors), 1)),
        "right": np.tile(np.arange(N_NODES, dtype=np.int16), (len(model._predictors), 1)),
        "value": np.zeros((len(model._predictors), N_NODES), dtype=np.float32),
        "baseline": np.array(model._baseline_prediction.item(), dtype=np.float32),
    }
    for place, (predictor,) in enumerate(model._predictors):  # no public way to the nodes
        nodes = predictor.nodes
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        for name, source in NODE_SOURCES.items():
            trees[name][place, inner] = nodes[source][inner]
        trees["value"][place, : len(nodes)] = nodes["value"]
    return trees


def evaluate(
    trees: Trees, early: Sequence[Gene], late: Sequence[Gene], others: Sequence[tuple[Gene, str]]
) -> dict[str, float]:
    """Report how many later crystals pass, and how many unlabelled with them."""

    def score(genes: Sequence[Gene]) -> NDArray[np.float64]:
        return vote(trees, gene_features(genes))

    formulas = {gene.formula_pretty for gene in early}
    new = np.array([gene.formula_pretty not in formulas for gene in late])
    known, unknown = score(late), score([gene for gene, _ in others])
    metrics = {
        "n_later_crystals": float(len(late)),
        "n_later_crystals_of_new_formula": float(new.sum()),
        "recall_at_threshold": float((known >= THRESHOLD).mean()),
        "recall_at_threshold_new_formula": float((known[new] >= THRESHOLD).mean()),
        "unlabelled_accepted_at_threshold": float((unknown >= THRESHOLD).mean()),
        "auc": float((np.searchsorted(np.sort(unknown), known) / len(unknown)).mean()),
    }
    for accepted in (0.05, 0.1, 0.2):
        cut = np.quantile(unknown, 1 - accepted)
        metrics[f"recall_where_{accepted:.0%}_of_unlabelled_pass"] = float((known >= cut).mean())
    kinds = np.array([kind for _, kind in others])
    for kind in KINDS:
        metrics[f"accepted_at_threshold: {kind}"] = float((unknown[kinds == kind] >= THRESHOLD).mean())
    return {name: round(value, 4) for name, value in metrics.items()}


def card(n_known: int, metrics: dict[str, float]) -> dict[str, object]:
    """Say what the weights are, what they were trained on and how good they are."""
    return {
        "model": "bagged gradient-boosted trees on gene features, positive-unlabelled",
        "data": "mpts52 (Materials Project, CC BY 4.0), experimental, the test file's ids and formulas left out",
        "n_positives": n_known,
        "unlabelled": dict(zip(KINDS, KIND_SHARES, strict=True)),
        "threshold": THRESHOLD,
        "settings": SETTINGS | {"n_bags": N_BAGS, "n_features": N_FEATURES, "seed": SEED},
        "time_split": {"trained_up_to": LAST_TRAINING_YEAR, "metrics": metrics},
        "shipped_weights": "same settings, trained on all years",
        "made": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    default = os.environ.get("WYLOOP_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
    main(Path(sys.argv[1] if len(sys.argv) > 1 else default))
