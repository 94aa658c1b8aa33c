from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.acquisition.salts import salts
from wyloop.models.acquisition.batch import Diversity
from wyloop.models.acquisition.figures import draw_discovery
from wyloop.models.acquisition.simulation import Crystals, Discovery, Plan, on_target, simulate
from wyloop.models.errors import CampaignError, TargetError
from wyloop.models.targets import Target

CRYSTALS = salts()
TARGET = Target.parse(["1 <= band_gap <= 2", "formation_energy_per_atom < -1", "space_group_number >= 200"])
PLAN = Plan(n_known=100, n_requests=40, batch_size=20)


def test_the_surrogate_finds_far_more_than_chance() -> None:
    lots = simulate(CRYSTALS, TARGET, replace(PLAN, policy="random", model="surrogate"), 0)
    ours = simulate(CRYSTALS, TARGET, PLAN, 0)
    assert ours.n_hidden == lots.n_hidden == 890
    assert ours.n_on_target == lots.n_on_target > 20
    assert len(ours.found) == 40
    assert ours.acceleration_factor > 2.2 > lots.acceleration_factor
    assert ours.n_found == max(ours.found) <= ours.n_on_target
    assert lots.area < ours.area <= 1
    assert ours == simulate(CRYSTALS, TARGET, PLAN, 0)


def test_exploration_and_diversity_change_the_choice_and_the_budget_is_kept() -> None:
    plan = replace(PLAN, n_requests=30, exploration=0.25, diversity=Diversity(max_per_chemsys=1, max_per_prototype=9))
    varied = simulate(CRYSTALS, TARGET, plan, 0)
    assert len(varied.found) == 30
    assert varied.found != simulate(CRYSTALS, TARGET, replace(PLAN, n_requests=30), 0).found


def test_the_oracle_is_asked_once_for_a_gene_and_known_ones_do_not_count() -> None:
    doubled = Crystals([*CRYSTALS.genes, *CRYSTALS.genes], [*CRYSTALS.labels, *CRYSTALS.labels])
    n_distinct = int(on_target(CRYSTALS, TARGET).sum())
    result = simulate(doubled, TARGET, replace(PLAN, n_requests=60, batch_size=60), 1)
    assert result.n_on_target <= n_distinct
    assert result.n_found <= result.n_on_target
    order = np.random.default_rng(1).permutation(len(doubled))
    known = {str(doubled.genes[row]) for row in order[:100]}
    marks = on_target(doubled, TARGET)
    assert result.n_on_target == len({str(doubled.genes[row]) for row in order[100:] if marks[row]} - known)


def test_hidden_crystals_that_can_not_match_are_not_asked_for() -> None:
    narrow = Target.parse(["1 <= band_gap <= 2", "elements has Na"])
    result = simulate(CRYSTALS, narrow, replace(PLAN, n_requests=200, batch_size=100), 0)
    assert len(result.found) < 60  # 55 crystals hold sodium
    assert result.n_found == result.n_on_target


def test_figures_of_merit_follow_from_the_curve() -> None:
    one = Discovery(seed=0, n_hidden=1000, n_on_target=20, found=(1, 1, 2, 3, 3, 4, 5, 6, 6, 6))
    assert one.base_rate == 0.02
    assert one.acceleration_factor == pytest.approx(6 / (10 * 0.02))
    assert one.ceiling == pytest.approx(50)
    assert one.enrichment == pytest.approx(30)  # 1 % of 1000 are the ten
    assert one.area == pytest.approx(37 / 55)
    nothing = Discovery(0, 1000, 0, (0, 0))
    assert nothing.acceleration_factor == nothing.area == nothing.ceiling == 0


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, n_known=990), "990 known crystals of 990; expected 2 to 989"),
        (replace(PLAN, batch_size=0), "40 requests in batches of 0"),
        (replace(PLAN, model="oracle"), "no model 'oracle'; expected one of surrogate, boosting"),
        (replace(PLAN, policy="best"), "no acquisition 'best'"),
        (replace(PLAN, exploration=-1), "exploration share -1"),
    ],
)
def test_plans_that_can_not_be_played(plan: Plan, message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        simulate(CRYSTALS, TARGET, plan, 0)


def test_targets_that_no_oracle_can_judge() -> None:
    with pytest.raises(TargetError, match="can't tell energy_above_hull; expected conditions on some of"):
        simulate(CRYSTALS, Target.parse("energy_above_hull < 0.1"), PLAN, 0)
    unlabelled = Crystals(CRYSTALS.genes, [{"formation_energy_per_atom": -1.0}] * len(CRYSTALS))
    with pytest.raises(CampaignError, match="no row of the data has band_gap"):
        simulate(unlabelled, TARGET, PLAN, 0)


def test_curves_are_drawn_the_same_every_time(tmp_path: Path) -> None:
    runs = {
        "ours": [Discovery(0, 100, 5, (1, 2, 3)), Discovery(1, 100, 6, (0, 1))],
        "plain": [Discovery(0, 100, 5, (0,))],
    }
    for name in ("a.svg", "b.svg", "c.png"):
        draw_discovery(runs, tmp_path / name, title="band_gap >= 1")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").stat().st_size > 5000
    with pytest.raises(CampaignError, match=r"figure d\.txt; expected a name that ends in \.png"):
        draw_discovery(runs, tmp_path / "d.txt", title="")
    with pytest.raises(CampaignError, match="no request was made"):
        draw_discovery({"none": [Discovery(0, 100, 0, ())]}, tmp_path / "e.png", title="")
