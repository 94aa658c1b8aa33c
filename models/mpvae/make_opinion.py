"""Train the trees of the second opinion: `python models/mpvae/make_opinion.py DATA_FOLDER OUT_FOLDER`.

Learns from mp20_biternary_train alone, never from the test file. Writes opinion.safetensors and its card, opinion.json,
with the errors on a fifth of the formulas that a first fit did not see.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same bytes again, and no spinning threads on a busy machine

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from wyloop.models.mpvae.checkpoint import write_whole
from wyloop.models.mpvae.data import GAP_FLOOR, TrainingRow, reduced_formula
from wyloop.models.mpvae.make_shipped_weights import TRAIN, read, rounded
from wyloop.models.mpvae.opinion import Trees, composition_features, opinion_of

SETTINGS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_leaf_nodes": 20,
    "min_samples_leaf": 8,
    "l2_regularization": 1.0,
    "max_features": 0.3,
    "early_stopping": False,
    "random_state": 0,
}
N_TREES = {"formation_energy": 700, "metal": 250, "gap": 350}


def main() -> None:
    """Read, judge on held-out formulas, train on all rows, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("out_folder", type=Path)
    arguments = parser.parse_args()
    path = arguments.data_folder / TRAIN
    rows = list(read(path).values())
    held_out = [row for row in rows if is_held_out(row)]
    errors = judged(fit([row for row in rows if not is_held_out(row)]), held_out)
    trees = fit(rows)
    card = {
        "model": "histogram gradient boosting (scikit-learn), one model each for formation energy, metal or not, gap",
        "data": {"name": TRAIN, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "n_rows": len(rows)},
        "settings": SETTINGS | {"n_trees": N_TREES},
        "held_out": errors,
        "use": "ranks generated genes beside the network; predictions that are shown are the network's",
    }
    write_whole(arguments.out_folder / "opinion.safetensors", save(dict(sorted(trees.items()))))
    write_whole(arguments.out_folder / "opinion.json", (json.dumps(rounded(card), indent=2) + "\n").encode())
    print(json.dumps(rounded(errors)))


def is_held_out(row: TrainingRow) -> bool:
    """Whether a row's formula is among the fifth on which the card's errors are measured."""
    return hashlib.sha256(reduced_formula(row.gene).encode()).digest()[0] % 5 == 0


def fit(rows: Sequence[TrainingRow], n_trees: Mapping[str, int] = N_TREES) -> Trees:
    """Train on rows with formation energy (eV/atom) and gap (eV)."""
    from sklearn.ensemble import (  # type: ignore[import-untyped]  # ships no types
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    inputs = composition_features([row.gene for row in rows])
    energy, gap = labels(rows)
    has_gap = gap >= GAP_FLOOR
    trees: dict[str, NDArray[np.generic]] = {}
    for name, kind, chosen, answer in (
        ("formation_energy", HistGradientBoostingRegressor, np.ones_like(has_gap), energy),
        ("metal", HistGradientBoostingClassifier, np.ones_like(has_gap), ~has_gap),
        ("gap", HistGradientBoostingRegressor, has_gap, gap),
    ):
        model = kind(**SETTINGS, max_iter=n_trees[name]).fit(inputs[chosen], answer[chosen])
        trees |= {f"{name}.{field}": array for field, array in _arrays(model).items()}
    return trees


def labels(rows: Sequence[TrainingRow]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return formation energies (eV/atom) and gaps (eV), shape (n,) each."""
    energy = np.array([row.labels["formation_energy_per_atom"] for row in rows])
    return energy, np.array([row.labels["band_gap"] for row in rows])


def judged(trees: Trees, rows: Sequence[TrainingRow]) -> dict[str, float]:
    """Mean absolute errors on rows, eV/atom and eV."""
    energy, gap = labels(rows)
    opinion = opinion_of(trees, [row.gene for row in rows])
    gap_error = np.abs(np.where(opinion.metal_probability > 0.5, 0.0, opinion.gap_size) - gap)
    return {
        "n_rows": float(len(rows)),
        "formation_energy_mae": float(np.abs(opinion.formation_energy - energy).mean()),
        "band_gap_mae": float(gap_error.mean()),
        "band_gap_mae_with_gap": float(gap_error[gap >= GAP_FLOOR].mean()),
    }


def _arrays(model: Any) -> dict[str, NDArray[np.generic]]:  # noqa: ANN401  # a fitted estimator
    """Write the nodes of all trees one after the other, leaves as their own children."""
    parts, roots, start = [], [], 0
    for (predictor,) in model._predictors:  # noqa: SLF001  # scikit-learn shows the trees nowhere else
        nodes = predictor.nodes
        own = np.arange(len(nodes))
        is_leaf = nodes["is_leaf"].astype(bool)
        parts.append(
            {
                "feature": np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int16),
                "threshold": _rounded_down(np.where(is_leaf, 0.0, nodes["num_threshold"])),
                "left": (np.where(is_leaf, own, nodes["left"]) + start).astype(np.int32),
                "right": (np.where(is_leaf, own, nodes["right"]) + start).astype(np.int32),
                "value": np.where(is_leaf, nodes["value"], 0.0).astype(np.float32),
            }
        )
        roots.append(start)
        start += len(nodes)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    baseline = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1)  # noqa: SLF001
    return joined | {"root": np.array(roots, dtype=np.int32), "baseline": baseline}


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the greatest single-precision numbers that are not above: the same rows then go left."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


if __name__ == "__main__":
    main()
