"""Gaussian processes of few rows: a radial kernel with a length for each group of columns.

Lengths, amplitude and noise are given, since fitting them to some hundred rows does worse than fixed, sensible ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wyloop.models.acquisition.descriptors import groups
from wyloop.models.errors import ModelError

Array = NDArray[np.float64]

CLIP = 5.0  # standard deviations; a rare column must not drown the rest
AS_IS = "shares"  # the group that is not scaled by the rows
SHARES_SCALE = 3.0
N_ROUNDS = 6  # of filling in what lies below the limit
DEEPEST = -3.0  # of a value below the limit
FIRST_GUESS = -0.7
MIN_SPREAD = 1e-9


@dataclass(frozen=True)
class KernelSettings:
    """Covariance of two rows: amplitude² exp(-½ Σ (distance in a group / its length)²), values in their own spread."""

    lengths: Mapping[str, float]
    """By group; the columns of a group count together as one of unit variance."""
    amplitude: float = 1.0
    noise: float = 0.3


@dataclass(frozen=True)
class Scaling:
    """How columns are brought to one scale, learnt from the rows with labels."""

    mean: Array
    spread: Array

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> "Scaling":
        """Learn from descriptors, shape (n, n_columns)."""
        mean, spread = rows.mean(axis=0, dtype=float), rows.std(axis=0, dtype=float)
        spread[spread < MIN_SPREAD] = 1.0
        for name, part in groups().items():
            spread[part] *= (part.stop - part.start) ** 0.5
            if name == AS_IS:
                mean[part], spread[part] = 0.0, 1.0 / SHARES_SCALE
        return cls(mean, spread)

    def __call__(self, rows: NDArray[np.float32]) -> Array:
        """Scale descriptors; what is far out is brought nearer."""
        scaled: Array = (rows - self.mean) / self.spread
        for name, part in groups().items():
            if name != AS_IS:
                most = CLIP / (part.stop - part.start) ** 0.5
                scaled[:, part] = scaled[:, part].clip(-most, most)
        return scaled


class Kernel:
    """A Gaussian process on scaled rows; `left_out` and its `_std` are the answers for each row without that row."""

    def __init__(self, settings: KernelSettings, rows: Array, values: Array) -> None:
        """Fit values, shape (n,), to rows, shape (n, n_columns).

        Raises:
            ModelError: Fewer than two rows.
        """
        if len(rows) < 2:
            raise ModelError(f"{len(rows)} labelled rows; expected at least two to learn from")
        self._settings = settings
        self._lengths = np.ones(rows.shape[1])
        for name, part in groups().items():
            self._lengths[part] = settings.lengths[name]
        self._rows = rows / self._lengths
        self._centre, self._spread = float(values.mean()), max(float(values.std()), MIN_SPREAD)
        covariance = self._covariance(self._rows) + settings.noise**2 * np.eye(len(rows))
        self._inverse = np.linalg.inv(covariance)
        self._set(values)

    def _covariance(self, rows: Array) -> Array:
        squares: Array = np.square(rows).sum(axis=1)[:, None] + np.square(self._rows).sum(axis=1)
        squares -= 2.0 * rows @ self._rows.T
        np.exp(-0.5 * squares.clip(min=0.0), out=squares)
        squares *= self._settings.amplitude**2
        return squares

    def _set(self, values: Array) -> None:
        self._values = values
        self._weights = self._inverse @ ((values - self._centre) / self._spread)
        precision = np.diag(self._inverse)
        self.left_out: Array = values - self._spread * self._weights / precision
        self.left_out_std: Array = self._spread / np.sqrt(precision)

    @property
    def error_scale(self) -> float:
        """Root mean square of the errors of the rows left out, in their standard deviations; 1 if well calibrated."""
        return float(np.sqrt(np.square((self._values - self.left_out) / self.left_out_std).mean()))

    @classmethod
    def censored(cls, settings: KernelSettings, rows: Array, values: Array, is_below: NDArray[np.bool_]) -> "Kernel":
        """Fit values of which some are only known to lie below zero; those are filled in by what the others expect.

        Args:
            settings: Of the kernel.
            rows: Shape (n, n_columns).
            values: Shape (n,); where `is_below`, they do not count.
            is_below: Shape (n,).

        Source: Tobin, doi:10.2307/1907382; the filling in as in expectation maximisation, each row left out in turn.
        """
        filled = np.where(is_below, FIRST_GUESS, values)
        process = cls(settings, rows, filled)
        for _ in range(N_ROUNDS):
            mean, std = process.left_out, process.left_out_std
            density, share = normal_density(-mean / std), normal_below(-mean / std)
            expected = mean - std * density / share.clip(min=1e-6)
            process._set(np.where(is_below, expected.clip(DEEPEST, 0.0), values))
        return process

    def mean(self, rows: Array) -> Array:
        """Return the expected values of scaled rows, shape (n,)."""
        found: Array = self._centre + self._spread * self._covariance(rows / self._lengths) @ self._weights
        return found

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Return expected values and their standard deviations, noise included, shape (n,) each."""
        covariance = self._covariance(rows / self._lengths)
        prior = self._settings.amplitude**2 + self._settings.noise**2
        variance = prior - np.einsum("nm,nm->n", covariance @ self._inverse, covariance)
        std = self._spread * np.sqrt(variance.clip(min=self._settings.noise**2))
        return self._centre + self._spread * covariance @ self._weights, std


def normal_density(distance: Array) -> Array:
    """Return the density of the standard normal distribution."""
    density: Array = np.exp(-0.5 * distance**2) / (2.0 * np.pi) ** 0.5
    return density


def normal_below(distance: Array) -> Array:
    """Return the share of the standard normal distribution below a value."""
    from scipy.special import ndtr  # lazy: importing does nothing heavy

    share: Array = ndtr(distance)
    return share
