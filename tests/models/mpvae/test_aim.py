import math

import pytest

from wyloop.models.mpvae.aim import probability_of_target
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target


def prediction(energy: float = -2.0, gap: float = 1.5, metal: float = 0.1) -> Prediction:
    """Laplace errors of 0.1 eV/atom and 0.3 eV about a mixture with metals, as `property_arrays` writes it."""
    size_std = 0.3
    gap_std = math.sqrt((1 - metal) * (size_std**2 + metal * gap**2))
    return Prediction(energy, 0.1, gap, gap_std, metal, 20.0)


def probability(text: str, given: Prediction) -> float:
    return probability_of_target(Target.parse([text]), given)


def test_formation_energy_follows_the_laplace_distribution() -> None:
    scale = 0.1 / math.sqrt(2)
    assert probability("formation_energy_per_atom < -2.0", prediction()) == pytest.approx(0.5)
    assert probability("formation_energy_per_atom < -1.9", prediction()) == pytest.approx(
        1 - 0.5 * math.exp(-0.1 / scale)
    )
    assert probability("formation_energy_per_atom > -1.9", prediction()) == pytest.approx(0.5 * math.exp(-0.1 / scale))


def test_gap_counts_metals_then_the_size() -> None:
    """The stored spread holds metals too; the spread of the size alone comes back from it."""
    inside = 1 - math.exp(-0.5 / (0.3 / math.sqrt(2)))
    assert probability("1.0 <= band_gap <= 2.0", prediction()) == pytest.approx(0.9 * inside, rel=1e-6)
    assert probability("band_gap >= 0", prediction()) == pytest.approx(1.0)
    assert probability("band_gap = 0", prediction(gap=0.0, metal=0.8)) == pytest.approx(0.8, abs=0.01)
    assert probability("band_gap > 0.5", prediction(metal=0.6)) < probability("band_gap > 0.5", prediction(metal=0.2))


def test_conditions_multiply_and_others_count_as_met() -> None:
    both = probability("band_gap > 1.5 and formation_energy_per_atom < -2.0", prediction())
    assert both == pytest.approx(0.9 * 0.5 * 0.5, rel=1e-6)
    assert probability("energy_above_hull < 0.1 and space_group_number >= 195", prediction()) == 1.0
    assert probability("volume_per_atom < 20", prediction()) == pytest.approx(0.5)


def test_a_metal_keeps_some_chance_of_a_gap() -> None:
    """Where a metal is likelier the model says 0 eV and keeps the size in the spread."""
    metal = Prediction(-2.0, 0.1, 0.0, math.sqrt(0.4 * (0.75**2 + 0.6 * 1.5**2)), 0.6, 20.0)
    assert probability("1.0 <= band_gap <= 2.0", metal) == pytest.approx(
        0.4 * (1 - math.exp(-0.5 / (0.75 / 2**0.5))), rel=0.01
    )
