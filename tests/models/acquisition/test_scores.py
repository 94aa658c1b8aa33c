import numpy as np
import pytest

from wyloop.models.acquisition import scores
from wyloop.models.errors import CampaignError
from wyloop.models.mpvae.aim import Belief, probabilities_of_target
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

TARGET = Target.parse(["0.5 <= band_gap <= 2", "formation_energy_per_atom < -1"])
# In the middle of the target; just off it and sure; just off it and unsure; a metal.
BELIEF = Belief(
    formation_energy=np.array([-2.0, -0.9, -0.9, -2.0]),
    formation_energy_std=np.array([0.2, 0.02, 0.5, 0.2]),
    gap_size=np.array([1.2, 1.2, 1.2, 1.2]),
    gap_size_std=np.array([0.2, 0.2, 0.2, 0.2]),
    metal_probability=np.array([0.02, 0.02, 0.02, 0.97]),
    volume_per_atom=np.full(4, 20.0),
)
RNG = np.random.default_rng(0)


def test_every_policy_puts_a_sure_hit_before_a_sure_metal_but_lots() -> None:
    assert set(scores.POLICIES) == {"probability", "improvement", "greedy", "random"}
    for name in ("probability", "improvement", "greedy"):
        found = scores.policy(name)(TARGET, BELIEF, RNG)
        assert found.shape == (4,)
        assert found[0] > found[3], name
    drawn = scores.random(TARGET, BELIEF, np.random.default_rng(1))
    assert (drawn == scores.random(TARGET, BELIEF, np.random.default_rng(1))).all()
    assert len(set(drawn)) == 4


def test_probability_is_that_of_the_samplers_and_greedy_is_blind_to_errors() -> None:
    found = scores.probability(TARGET, BELIEF, RNG)
    assert (found == probabilities_of_target(TARGET, BELIEF)).all()
    assert found[2] > 10 * found[1]  # the same expectation, but it may well be on target
    blind = scores.greedy(TARGET, BELIEF, RNG)
    assert blind[1] == blind[2] == pytest.approx(-0.2)  # 0.1 eV/atom off, in units of 0.5
    assert blind[0] == 0


def test_improvement_counts_near_misses() -> None:
    found = scores.improvement(TARGET, BELIEF, RNG)
    assert found[0] == pytest.approx(1.0, abs=0.05)
    assert found[1] == pytest.approx(0.8, abs=0.05)  # misses by 0.2 of 1, surely
    assert 0.0 <= found[3] < 0.1


def test_exploring_prefers_what_is_uncertain() -> None:
    spread = scores.exploration(BELIEF)
    assert spread.argmax() == 2
    assert [scores.n_exploring(32, share) for share in (0.0, 0.25, 1.0)] == [0, 8, 32]
    with pytest.raises(CampaignError, match=r"exploration share 1\.5; expected a number from 0 to 1"):
        scores.n_exploring(32, 1.5)


def test_large_cells_and_free_parameters_cost() -> None:
    nacl, spinel, anatase = (Gene.parse(text) for text in ("225 Cl:b Na:a", "227 Al:d Mg:a O:e", "141 O:e Ti:a"))
    assert scores.chance_found(nacl) == 1.0
    assert scores.relative_cost(nacl) == pytest.approx(1.2)
    weights = scores.cost_weights([nacl, anatase, spinel])
    assert weights[0] == scores.cost_weight(nacl) == pytest.approx(1 / 1.2)
    assert weights[0] > weights[1] > weights[2]


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(CampaignError, match="no acquisition 'best'; expected one of probability"):
        scores.policy("best")
