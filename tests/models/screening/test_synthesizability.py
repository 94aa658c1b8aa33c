from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wyloop.models.errors import ModelError
from wyloop.models.screening.features import N_FEATURES
from wyloop.models.screening.synthesizability import WEIGHTS, _trees, likeness, model_card, synthesizability, vote
from wyloop.models.wyckoff.gene import Gene, canonical, images

KNOWN = [
    canonical(Gene.parse(text))
    for text in (
        "225 Na:a Cl:b",
        "221 O:c Sr:a Ti:b",
        "216 Ga:a As:c",
        "186 O:b Zn:b",
        "225 Ca:a F:c",
        "136 O:f Ti:a",
        "227 Al:d Mg:a O:e",
        "221 Cs:a Cl:b",
    )
]
ABSURD = [
    canonical(Gene.parse(text))
    for text in (
        "225 F:a Cl:b",
        "221 Cs:c Kr:a O:b",
        "216 Na:a K:c",
        "136 Cs:f F:a",
        "225 O:a Cs:c",
        "227 Ba:e Cl:d F:a",
        "221 Na:a Xe:b",
        "186 Cl:b O:b",
    )
]


def test_famous_crystals_pass_and_absurd_ones_do_not() -> None:
    known = synthesizability(KNOWN)
    absurd = synthesizability(ABSURD)
    assert [verdict.passed for verdict in known] == [True] * len(KNOWN)
    assert sum(verdict.passed for verdict in absurd) <= 1
    assert known[0].unit == "1"
    assert "at least 0.4" in known[0].reason
    assert "below 0.4" in min(absurd, key=lambda verdict: verdict.value or 0.0).reason


def test_the_threshold_decides() -> None:
    for verdict in synthesizability(KNOWN, threshold=0.0) + synthesizability(ABSURD, threshold=0.0):
        assert verdict.passed
    for verdict in synthesizability(KNOWN, threshold=1.0):
        assert not verdict.passed
        assert verdict.value is not None
        assert 0.0 < verdict.value < 1.0


def test_equivalent_genes_and_batches_score_alike() -> None:
    perovskites = list(images(KNOWN[1]))
    assert len(perovskites) > 1
    np.testing.assert_allclose(likeness(perovskites), likeness(KNOWN)[1], rtol=1e-9)
    assert likeness([]).shape == (0,)


def test_a_vote_of_two_stumps_by_hand() -> None:
    leaf = np.arange(3, dtype=np.int16)
    trees = {
        "feature": np.array([[[1, 0, 0]], [[0, 0, 0]]], dtype=np.int16),
        "threshold": np.array([[[0.5, 0, 0]], [[2.0, 0, 0]]], dtype=np.float32),
        "left": np.array([[[1, 1, 2]], [[1, 1, 2]]], dtype=np.int16),
        "right": np.array([[[2, 1, 2]], [[2, 1, 2]]], dtype=np.int16),
        "value": np.array([[[9, -1, 1]], [[9, -2, 2]]], dtype=np.float32),
        "baseline": np.array([0.0, 0.5], dtype=np.float32),
    }
    assert (trees["left"][0, 0][1:] == leaf[1:]).all()
    rows = np.array([[1.0, 0.5], [3.0, 0.6]], dtype=np.float32)  # at most the threshold goes left
    logistic = 1 / (1 + np.exp(-np.array([[-1.0, -1.5], [1.0, 2.5]])))
    np.testing.assert_allclose(vote(trees, rows), logistic.mean(axis=1))


def test_the_card_tells_the_time_split_and_beats_chance() -> None:
    card = model_card()
    metrics = card["time_split"]["metrics"]
    assert card["time_split"]["trained_up_to"] == 2004
    assert card["settings"]["n_features"] == N_FEATURES
    assert metrics["auc"] > 0.8
    assert metrics["recall_at_threshold"] > 2 * metrics["unlabelled_accepted_at_threshold"]


def test_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000


def test_missing_broken_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        _trees(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ModelError, match="reinstall"):
        _trees(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(WEIGHTS) | {"n_features": np.array([7])}, foreign)
    with pytest.raises(ModelError, match="takes 7 features"):
        _trees(foreign)
