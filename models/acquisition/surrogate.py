"""A model of few labels: Gaussian processes on descriptors of genes, for the first rounds of a campaign.

From some hundred labelled crystals it learns in seconds, knows better than boosted trees what it does not know, and
uses nothing but the labels it is given: no weights that were trained on other data.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wyloop.models.acquisition.descriptors import describe
from wyloop.models.acquisition.kernel import Array, Kernel, KernelSettings, Scaling
from wyloop.models.errors import ModelError
from wyloop.models.wyckoff.gene import Gene

if TYPE_CHECKING:
    from wyloop.models.mpvae.aim import Belief  # torch: three seconds

MAX_ROWS = 2000  # with labels; more cost minutes and bring little, the rest is left out at random
MIN_OF_A_KIND = 5  # metals, or crystals with a gap, below which neither is told from the other
MIN_SIZE = 0.3  # √eV; below it the error of a gap is that of a gap of this size
TYPICAL_GAP = (1.0, 1.0)  # eV, and its error, where too few have one
N_NEWTON = 25
RIDGE = 1.0
METAL_SCALE = 3.0  # brings the second opinion on metals to the units of the first


def _settings(amplitude: float, noise: float, *lengths: float) -> KernelSettings:
    names = ("statistics", "ends", "charges", "sites", "symmetry", "shares")
    return KernelSettings(dict(zip(names, lengths, strict=True)), amplitude, noise)


ENERGY = _settings(0.92, 0.03, 1.4, 11.0, 4.5, 60.0, 65.0, 13.0)
SIZE = _settings(1.3, 0.37, 1.9, 8.0, 1.2, 4.5, 8.1, 21.0)
OPENNESS = _settings(1.0, 0.3, 1.6, 6.4, 1.05, 4.2, 6.3, 17.5)
METAL = _settings(0.9, 0.4, 1.6, 7.2, 0.84, 4.2, 4.2, 14.0)
"""Found by marginal likelihood, then by the order of hidden crystals, with other seeds than results are reported of."""


class Surrogate:
    """What is expected of genes by those with labels; make one with `fit`."""

    def __init__(self, genes: Sequence[Gene], labels: Sequence[Mapping[str, float]]) -> None:
        """Learn from labelled genes.

        Args:
            genes: With labels; above `MAX_ROWS` a part is taken, the same one every time.
            labels: Of each gene any of formation_energy_per_atom (eV/atom), band_gap (eV), is_metal (0 or 1) and
                volume_per_atom (Å^3).

        Raises:
            ModelError: Fewer than two genes.
        """
        if len(genes) < 2:
            raise ModelError(f"{len(genes)} labelled genes; expected at least two to learn from")
        if len(genes) > MAX_ROWS:
            kept = np.sort(np.random.default_rng(0).permutation(len(genes))[:MAX_ROWS]).tolist()
            genes, labels = [genes[row] for row in kept], [labels[row] for row in kept]
        inputs = describe(genes)
        self._scaling = Scaling.of(inputs)
        rows = self._scaling(inputs)
        self._energy = _process(ENERGY, rows, _column(labels, "formation_energy_per_atom"))
        self._volume = _process(ENERGY, rows, np.log(_column(labels, "volume_per_atom")))
        self._gap = _Gap(rows, _column(labels, "band_gap"), _column(labels, "is_metal"))

    @classmethod
    def fit(cls, genes: Sequence[Gene], labels: Sequence[Mapping[str, float]]) -> "Surrogate":
        """Learn from labelled genes, as the constructor says."""
        return cls(genes, labels)

    def belief(self, genes: Sequence[Gene]) -> "Belief":
        """Return what is expected of genes, with calibrated errors; NaN for what no label told."""
        from wyloop.models.mpvae.aim import Belief

        rows = self._scaling(describe(genes))
        energy, energy_std = _calibrated(self._energy, rows)
        size, size_std, metal = self._gap.expected(rows)
        volume, _ = _calibrated(self._volume, rows)
        return Belief(energy, energy_std, size, size_std, metal, np.exp(volume))


def _column(labels: Sequence[Mapping[str, float]], name: str) -> Array:
    return np.array([row.get(name, np.nan) for row in labels], dtype=float)


def _process(settings: KernelSettings, rows: Array, values: Array) -> Kernel | None:
    is_known = np.isfinite(values)
    return Kernel(settings, rows[is_known], values[is_known]) if is_known.sum() > 1 else None


def _calibrated(process: Kernel | None, rows: Array) -> tuple[Array, Array]:
    """Predict with errors scaled by those of the labelled rows, each left out in turn."""
    if process is None:
        return np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    mean, std = process.predict(rows)
    return mean, std * process.error_scale


class _Gap:
    """Metal or not, and the size of the gap if there is one, in its root, which makes the errors even."""

    def __init__(self, rows: Array, gap: Array, is_metal: Array) -> None:
        from wyloop.models.mpvae.data import GAP_FLOOR  # torch: three seconds

        metal = np.where(np.isfinite(is_metal), is_metal, np.where(np.isfinite(gap), gap < GAP_FLOOR, np.nan))
        is_sized = (metal == 0) & np.isfinite(gap)
        self._size = Kernel(SIZE, rows[is_sized], np.sqrt(gap[is_sized])) if is_sized.sum() >= MIN_OF_A_KIND else None
        is_told = (metal == 1) | is_sized
        n_metals = int((metal[is_told] == 1).sum())
        self._share = (n_metals + 1.0) / (int(is_told.sum()) + 2.0) if is_told.any() else np.nan
        self._openness: Kernel | None = None
        if n_metals >= MIN_OF_A_KIND and self._size is not None:
            rows, roots, of_metals = rows[is_told], np.sqrt(np.nan_to_num(gap[is_told])), metal[is_told] == 1
            self._openness = Kernel.censored(OPENNESS, rows, roots, of_metals)
            self._metal = Kernel(METAL, rows, of_metals.astype(float))
            opinions = _opinions(self._openness.left_out, self._metal.left_out)
            self._logistic = _logistic(opinions, of_metals)

    def expected(self, rows: Array) -> tuple[Array, Array, Array]:
        """Return size, its error, eV, and the probability of a metal, shape (n,) each."""
        n = len(rows)
        if self._size is None:
            size, size_std = (np.full(n, value) for value in TYPICAL_GAP)
        else:
            root, root_std = _calibrated(self._size, rows)
            size, size_std = np.square(root.clip(min=0.0)), 2.0 * root.clip(min=MIN_SIZE) * root_std
        if self._openness is None:
            return size, size_std, np.full(n, self._share)
        opinions = _opinions(self._openness.mean(rows), self._metal.mean(rows))
        return size, size_std, _sigmoid(opinions @ self._logistic)


def _opinions(openness: Array, metal: Array) -> Array:
    return np.stack([-openness, METAL_SCALE * metal, np.ones_like(metal)], axis=1)


def _logistic(inputs: Array, is_true: NDArray[np.bool_]) -> Array:
    """Fit a logistic regression by Newton's method, last column the constant, which alone is not held back."""
    weights = np.zeros(inputs.shape[1])
    penalty = np.diag([RIDGE] * (inputs.shape[1] - 1) + [1e-6])
    for _ in range(N_NEWTON):
        share = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (share - is_true) + penalty @ weights
        curvature = (inputs * (share * (1.0 - share)).clip(min=1e-6)[:, None]).T @ inputs + penalty
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights


def _sigmoid(values: Array) -> Array:
    share: Array = 1.0 / (1.0 + np.exp(-values.clip(-50.0, 50.0)))
    return share
