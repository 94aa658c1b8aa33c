import numpy as np
import pytest

from wyloop.models.acquisition.batch import Batch, Diversity, Kind, choose, first_times
from wyloop.models.errors import CampaignError
from wyloop.models.wyckoff.gene import Gene

SALT, OXIDE, ALLOY = Kind("Cl-Na", "rock salt"), Kind("Mg-O", "rock salt"), Kind("Al-Ni", "B2")
KINDS = [SALT, SALT, SALT, OXIDE, ALLOY]
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])


def test_without_limits_the_best_are_chosen() -> None:
    assert choose(SCORES, KINDS, 3) == [0, 1, 2]
    assert choose(SCORES[::-1].copy(), KINDS, 2) == [4, 3]
    assert choose(SCORES, KINDS, 9) == [0, 1, 2, 3, 4]
    assert choose(np.array([0.5, 0.5, 0.5]), KINDS[:3], 2) == [0, 1]  # ties by place


def test_quotas_hold_for_systems_prototypes_and_elements() -> None:
    assert choose(SCORES, KINDS, 4, Diversity(max_per_chemsys=2)) == [0, 1, 3, 4]
    assert choose(SCORES, KINDS, 4, Diversity(max_per_prototype=1)) == [0, 4]
    assert choose(SCORES, KINDS, 4, Diversity(max_per_element=1)) == [0, 3, 4]
    assert choose(SCORES, KINDS, 4, Diversity(max_per_chemsys=2), already=[SALT]) == [0, 3, 4]


def test_likeness_costs_score() -> None:
    # The second salt is worth 0.8 x 0.5 for the system x 0.5 for the prototype, the oxide 0.6 x 0.5.
    assert choose(SCORES, KINDS, 3, Diversity(penalty=0.5)) == [0, 4, 3]
    assert choose(SCORES, KINDS, 5, Diversity(penalty=1.0))[:2] == [0, 4]


def test_a_batch_counts_what_it_holds() -> None:
    batch = Batch(Diversity(max_per_chemsys=1))
    assert batch.has_room(SALT)
    batch.add(SALT)
    assert not batch.has_room(SALT)
    assert batch.has_room(OXIDE)
    assert len(batch) == 1


def test_kinds_of_genes() -> None:
    assert Kind.of(Gene.parse("225 Cl:b Na:a")) == Kind("Cl-Na", "AB_cF8_225_a_b")


def test_only_the_first_time_counts() -> None:
    assert first_times(["a", "b", "a", "c"], known={"c"}).tolist() == [True, True, False, False]


def test_nonsense_is_refused() -> None:
    with pytest.raises(CampaignError, match="2 scores for 1 candidates"):
        choose(np.ones(2), [SALT], 1)
    with pytest.raises(CampaignError, match="max_per_prototype 0; expected at least 1"):
        Diversity(max_per_prototype=0)
    with pytest.raises(CampaignError, match=r"penalty 2\.0; expected a number from 0 to 1"):
        Diversity(penalty=2.0)
