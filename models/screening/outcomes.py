"""What past relaxations teach: a logistic head that says whether a candidate holds its gene and ends near the hull.

It is small on purpose: a ridge on standardised features, judged on chemical systems that it was not fitted on. It is an
extra score beside the other screens, never a binding one, and it is not used unless it orders held-out outcomes better
than the predicted hull distance alone does.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.screening.features import gene_features
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene

SCREEN = "past_outcomes"
"""Name of the verdict."""
MIN_OF_EACH = 50  # successes, and failures, below which nothing is fitted
N_FOLDS = 5
RIDGE = 30.0  # of standardised weights
MAX_NEWTON_STEPS = 50
FROM_VERDICTS = ("predicted_stability", "synthesizability", "predicted_properties")
"""Screens whose numbers are features too; a missing one is the mean."""
_TOLERANCE = 1e-8
_STEP_OF_STABILITY = 0  # its place in FROM_VERDICTS


@dataclass(frozen=True)
class Outcome:
    """What became of a gene that was computed."""

    gene: Gene
    verdicts: tuple[Verdict, ...]
    has_succeeded: bool
    """Whether it held its gene when relaxed, and ended near the hull."""


@dataclass(frozen=True)
class OutcomeHead:
    """A fitted head and how well it orders outcomes that it was not fitted on."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    n_successes: int
    n_failures: int
    auc: float
    """Area under the ROC curve over held-out chemical systems, 0.5 is chance."""
    auc_of_predicted_stability: float
    """The same of the predicted hull distance alone, on the same outcomes."""

    @property
    def is_used(self) -> bool:
        """Whether it orders held-out outcomes better than the screens do without it."""
        return self.auc > max(0.5, self.auc_of_predicted_stability)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, for a model's card."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "OutcomeHead":
        """Read what `to_json` wrote."""
        plain: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()}
        return cls(**plain)

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of success, shape (n,), of `outcome_features`, shape (n, n_features)."""
        return _sigmoid(_standardised(features, np.array(self.mean), np.array(self.scale)) @ self.weights + self.bias)

    def verdicts(self, genes: Sequence[Gene], given: Sequence[Sequence[Verdict]]) -> list[Verdict]:
        """Judge genes that the screens have judged; passed: not less likely than half of what was computed so far."""
        threshold = 0.5 * self.n_successes / (self.n_successes + self.n_failures)
        n = self.n_successes + self.n_failures
        return [
            Verdict(SCREEN, p >= threshold, p, "1", f"{p:.0%} likely to hold and be near the hull, by {n} outcomes")
            for p in self.probabilities(outcome_features(genes, given)).tolist()
        ]


def outcome_features(genes: Sequence[Gene], verdicts: Sequence[Sequence[Verdict]]) -> NDArray[np.float64]:
    """Return numbers of genes and of what the screens said of them, shape (n, n_features); NaN where there is none."""
    numbers = np.full((len(genes), len(FROM_VERDICTS)), np.nan)
    for row, given in enumerate(verdicts):
        for verdict in given:
            if verdict.screen in FROM_VERDICTS and verdict.value is not None:
                numbers[row, FROM_VERDICTS.index(verdict.screen)] = verdict.value
    return np.hstack([numbers, gene_features(genes).astype(np.float64)])


def fit_outcome_head(outcomes: Sequence[Outcome]) -> OutcomeHead | None:
    """Fit a head to outcomes, and judge it by cross-validation over chemical systems; the order of them is no matter.

    Returns:
        The head, or None with fewer than `MIN_OF_EACH` successes or failures.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.gene.fingerprint)
    labels = np.array([outcome.has_succeeded for outcome in ordered], dtype=np.float64)
    n_successes = int(labels.sum())
    if min(n_successes, len(labels) - n_successes) < MIN_OF_EACH:
        return None
    features = outcome_features([one.gene for one in ordered], [one.verdicts for one in ordered])
    folds = np.array([_fold(one.gene.chemsys) for one in ordered])
    held_out = np.full(len(labels), 0.5)
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        if outside.any() and 0 < labels[inside].sum() < inside.sum():
            mean, scale, weights, bias = _fitted(features[inside], labels[inside])
            held_out[outside] = _sigmoid(_standardised(features[outside], mean, scale) @ weights + bias)
    distance = features[:, _STEP_OF_STABILITY]
    by_distance = -np.where(np.isnan(distance), np.inf, distance)
    mean, scale, weights, bias = _fitted(features, labels)
    return OutcomeHead(
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        bias,
        n_successes,
        len(labels) - n_successes,
        auc(held_out, labels),
        auc(by_distance, labels),
    )


def auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often a success scores above a failure, ties half."""
    good, bad = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(good) or not len(bad):
        return 0.5
    below, up_to = np.searchsorted(bad, good, "left"), np.searchsorted(bad, good, "right")
    return float((below + up_to).mean() / (2 * len(bad)))


def _fitted(
    features: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Fit a ridge logistic regression by Newton's method; return mean, scale, weights and bias."""
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(features)
        n_known = known.sum(axis=0).clip(min=1)
        mean = np.where(known, features, 0.0).sum(axis=0) / n_known
        scale = np.sqrt((np.where(known, features - mean, 0.0) ** 2).sum(axis=0) / n_known)
    scale = np.where(scale > _TOLERANCE, scale, 1.0)
    inputs = np.hstack([_standardised(features, mean, scale), np.ones((len(features), 1))])
    penalty = np.append(np.full(features.shape[1], RIDGE), 0.0)  # the bias is free
    weights = np.zeros(inputs.shape[1])
    for _ in range(MAX_NEWTON_STEPS):
        chance = _sigmoid(inputs @ weights)
        slope = inputs.T @ (chance - labels) + penalty * weights
        curvature = (inputs.T * (chance * (1 - chance))) @ inputs + np.diag(penalty + _TOLERANCE)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < _TOLERANCE:
            break
    return mean, scale, weights[:-1], float(weights[-1])


def _standardised(
    features: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.where(np.isnan(features), 0.0, (features - mean) / scale)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -500.0, 500.0))))


def _fold(chemsys: str) -> int:
    return int.from_bytes(hashlib.sha256(chemsys.encode()).digest()[:4], "big") % N_FOLDS
