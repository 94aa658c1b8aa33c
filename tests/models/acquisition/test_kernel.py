import numpy as np
import pytest

from wyloop.models.acquisition.descriptors import describe, groups
from wyloop.models.acquisition.kernel import Kernel, KernelSettings, Scaling
from wyloop.models.errors import ModelError
from wyloop.models.wyckoff.gene import Gene

ALKALI, HALIDES = ("Li", "Na", "K", "Rb", "Cs"), ("F", "Cl", "Br", "I")
SALTS = [Gene.parse(f"225 {anion}:b {cation}:a") for cation in ALKALI for anion in HALIDES]
SETTINGS = KernelSettings(dict.fromkeys(groups(), 3.0), 1.0, 0.05)
COLUMNS = describe(SALTS)
ROWS = Scaling.of(COLUMNS)(COLUMNS)
VALUES = np.array(
    [
        ALKALI.index(gene.elements[0]) if gene.elements[0] in ALKALI else ALKALI.index(gene.elements[1])
        for gene in SALTS
    ],
    dtype=float,
)


def test_known_rows_are_certain_and_far_ones_are_not() -> None:
    process = Kernel(SETTINGS, ROWS[:10], VALUES[:10])
    mean, std = process.predict(ROWS[:10])
    assert np.abs(mean - VALUES[:10]).max() < 0.15
    far = Scaling.of(COLUMNS)(describe([Gene.parse("227 Al:d Mg:a O:e")]))
    far_mean, far_std = process.predict(far)
    assert far_std[0] > 2 * std.max()
    assert abs(far_mean[0] - VALUES[:10].mean()) < 1.0  # back to the mean of what is known
    assert process.mean(far) == pytest.approx(far_mean)


def test_left_out_answers_are_those_of_a_fit_without_the_row() -> None:
    process = Kernel(SETTINGS, ROWS, VALUES)
    for row in (0, 7):
        others = np.arange(len(ROWS)) != row
        inverse = np.linalg.inv(process._covariance(process._rows)[np.ix_(others, others)] + 0.05**2 * np.eye(19))
        values = (VALUES - process._centre) / process._spread
        weights = process._covariance(process._rows)[row, others] @ inverse
        assert process.left_out[row] == pytest.approx(process._centre + process._spread * weights @ values[others])
    assert 0.3 < process.error_scale < 3


def test_values_below_the_limit_are_filled_in_by_their_neighbours() -> None:
    shifted = VALUES - 1.5  # lithium and sodium salts are below zero
    is_below = shifted < 0
    process = Kernel.censored(SETTINGS, ROWS, np.where(is_below, 0.0, shifted), is_below)
    mean = process.mean(ROWS)
    assert (mean[is_below] < 0.2).all()
    assert (mean[~is_below] > 0).all()


def test_rare_columns_are_held_in_bounds() -> None:
    scaling = Scaling.of(COLUMNS)
    outlier = COLUMNS[:1].copy()
    outlier[0, groups()["charges"]] += 1e6
    assert np.abs(scaling(outlier)[0, groups()["charges"]]).max() <= 5.0


def test_one_row_is_too_few() -> None:
    with pytest.raises(ModelError, match="1 labelled rows; expected at least two"):
        Kernel(SETTINGS, ROWS[:1], VALUES[:1])
