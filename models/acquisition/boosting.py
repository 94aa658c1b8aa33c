"""The plain loop that an acquisition has to beat: boosted trees on composition and space group, blind to sites."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.acquisition.descriptors import describe, groups
from wyloop.models.errors import ModelError
from wyloop.models.wyckoff.gene import Gene

if TYPE_CHECKING:
    from wyloop.models.mpvae.aim import Belief  # torch: three seconds

COMPOSITION = ("statistics", "ends", "symmetry", "shares")  # groups of columns; neither charges nor sites
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_leaf_nodes": 24,
    "min_samples_leaf": 8,
    "l2_regularization": 1.0,
    "max_features": 0.3,
    "max_bins": 48,  # some hundred rows fill no more
    "early_stopping": False,
}
N_ITERATIONS = {"energy": 200, "metal": 100, "size": 120}
ENERGY_ERROR = 0.3  # eV/atom; trees have no error of their own, so all rows get the same
SIZE_ERROR = 0.8  # eV
MIN_OF_A_KIND = 5


class Boosting:
    """Formation energy, metal or not, and the size of the gap, each by gradient boosting."""

    def __init__(self, genes: Sequence[Gene], labels: Sequence[Mapping[str, float]], *, seed: int = 0) -> None:
        """Learn from labelled genes: formation_energy_per_atom (eV/atom), band_gap (eV), volume_per_atom (Å^3).

        Raises:
            ModelError: scikit-learn is not installed.
        """
        try:
            from sklearn.ensemble import (  # type: ignore[import-untyped]  # ships no types
                HistGradientBoostingClassifier,
                HistGradientBoostingRegressor,
            )
        except ImportError as error:
            raise ModelError("gradient boosting needs scikit-learn; install it with pip") from error
        from wyloop.models.mpvae.data import GAP_FLOOR  # torch: three seconds

        inputs = _inputs(genes)
        columns = {
            name: np.array([row.get(name, np.nan) for row in labels], dtype=float)
            for name in ("formation_energy_per_atom", "band_gap", "volume_per_atom")
        }

        def regressor(values: NDArray[np.float64], n_iterations: int) -> Any:  # noqa: ANN401 - sklearn has no types
            is_known = np.isfinite(values)
            if is_known.sum() < 2:
                return None
            trees = HistGradientBoostingRegressor(**SETTINGS, max_iter=n_iterations, random_state=seed)
            return trees.fit(inputs[is_known], values[is_known])

        gap = columns["band_gap"]
        is_told, is_metal = np.isfinite(gap), gap < GAP_FLOOR
        self._energy = regressor(columns["formation_energy_per_atom"], N_ITERATIONS["energy"])
        self._size = regressor(np.where(is_metal, np.nan, gap), N_ITERATIONS["size"])
        self._metal, self._share = None, float(is_metal[is_told].mean()) if is_told.any() else np.nan
        if min(is_metal[is_told].sum(), (~is_metal[is_told]).sum()) >= MIN_OF_A_KIND:
            trees = HistGradientBoostingClassifier(**SETTINGS, max_iter=N_ITERATIONS["metal"], random_state=seed)
            self._metal = trees.fit(inputs[is_told], is_metal[is_told])
        volume = columns["volume_per_atom"]
        self._volume = float(np.nanmean(volume)) if np.isfinite(volume).any() else np.nan

    def belief(self, genes: Sequence[Gene]) -> "Belief":
        """Return what is expected of genes, with one error for all; NaN for what no label told."""
        from wyloop.models.mpvae.aim import Belief

        inputs, n = _inputs(genes), len(genes)
        energy = np.full(n, np.nan) if self._energy is None else self._energy.predict(inputs)
        size = np.full(n, np.nan) if self._size is None else self._size.predict(inputs).clip(min=0.0)
        metal = np.full(n, self._share) if self._metal is None else self._metal.predict_proba(inputs)[:, 1]
        return Belief(energy, np.full(n, ENERGY_ERROR), size, np.full(n, SIZE_ERROR), metal, np.full(n, self._volume))


def _inputs(genes: Sequence[Gene]) -> NDArray[np.float32]:
    columns = describe(genes)
    return np.hstack([columns[:, groups()[name]] for name in COMPOSITION])
