from pathlib import Path

import numpy as np
import pytest

from wyloop.models.errors import ModelError
from wyloop.models.mpvae import opinion
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.make_opinion import fit, judged, labels
from wyloop.models.mpvae.opinion import Trees, composition_features, opinion_of, second_opinion
from wyloop.models.wyckoff.gene import Gene

ROCK_SALT, CAESIUM_CHLORIDE = Gene.of(225, [("Cl", "a"), ("Na", "b")]), Gene.of(221, [("Cl", "a"), ("Na", "b")])


@pytest.fixture(scope="module")
def labelled(rows: list[TrainingRow]) -> list[TrainingRow]:
    return [row for row in rows if "band_gap" in row.labels]


@pytest.fixture(scope="module")
def trees(labelled: list[TrainingRow]) -> Trees:
    return fit(labelled, n_trees={"formation_energy": 40, "metal": 20, "gap": 40})


def test_trees_written_as_arrays_say_what_scikit_learn_says(labelled: list[TrainingRow]) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    from wyloop.models.mpvae.make_opinion import SETTINGS

    genes = [row.gene for row in labelled]
    inputs = composition_features(genes)
    model = HistGradientBoostingRegressor(**SETTINGS, max_iter=40).fit(inputs, labels(labelled)[0])
    found = opinion_of(fit(labelled, n_trees={"formation_energy": 40, "metal": 5, "gap": 5}), genes)
    np.testing.assert_allclose(found.formation_energy, model.predict(inputs), atol=1e-5)


def test_trees_learn_the_rows(trees: Trees, labelled: list[TrainingRow]) -> None:
    errors = judged(trees, labelled)
    energies = labels(labelled)[0]
    assert errors["formation_energy_mae"] < 0.3 * np.abs(energies - energies.mean()).mean()
    metals = opinion_of(trees, [Gene.of(221, [("Al", "a"), ("Ni", "b")]), ROCK_SALT]).metal_probability
    assert metals[0] > 0.5 > metals[1]


def test_features_see_composition_and_space_group_only() -> None:
    one, other = (Gene.of(62, [("Ca", "c"), ("O", letter), ("Ti", "c")]) for letter in "cd")
    same, swapped = composition_features([ROCK_SALT, Gene.of(225, [("Cl", "b"), ("Na", "a")])])
    np.testing.assert_array_equal(same, swapped)
    assert not np.array_equal(*composition_features([ROCK_SALT, CAESIUM_CHLORIDE]))
    assert not np.array_equal(*composition_features([one, other]))  # twice the oxygen
    assert np.isfinite(composition_features([one, other, Gene.of(225, [("He", "a")])])).all()


def test_shipped_trees_know_salts_and_metals() -> None:
    """PBE: NaCl -2.1 eV/atom and 5.0 eV, NiAl a metal."""
    found = second_opinion([ROCK_SALT, Gene.of(221, [("Al", "a"), ("Ni", "b")])])
    assert found.formation_energy[0] == pytest.approx(-2.0, abs=0.3)
    assert found.gap_size[0] == pytest.approx(5.0, abs=0.8)
    assert found.metal_probability[0] < 0.2
    assert found.metal_probability[1] > 0.8
    assert len(second_opinion([]).gap_size) == 0


def test_a_missing_file_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinion, "WEIGHTS", tmp_path / "opinion.safetensors")
    with pytest.raises(ModelError, match="can't read opinion.safetensors"):
        second_opinion([ROCK_SALT])
