import numpy as np
import pytest

from tests.models.acquisition.salts import salts
from wyloop.models.acquisition.boosting import Boosting
from wyloop.models.acquisition.surrogate import MAX_ROWS, Surrogate
from wyloop.models.errors import ModelError

CRYSTALS = salts()
ORDER = np.random.default_rng(5).permutation(len(CRYSTALS))
KNOWN, OTHERS = ORDER[:150].tolist(), ORDER[150:400].tolist()
GENES, LABELS = [CRYSTALS.genes[row] for row in KNOWN], [CRYSTALS.labels[row] for row in KNOWN]
HIDDEN = [CRYSTALS.genes[row] for row in OTHERS]


def truth(name: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([CRYSTALS.labels[row][name] for row in OTHERS])


def test_it_learns_the_rules_and_knows_its_errors() -> None:
    belief = Surrogate.fit(GENES, LABELS).belief(HIDDEN)
    energy, gap = truth("formation_energy_per_atom"), truth("band_gap")
    errors = np.abs(belief.formation_energy - energy)
    assert errors.mean() < 0.1 * energy.std()
    assert 0.5 < np.mean(errors < 2 * belief.formation_energy_std) <= 1
    is_metal = gap == 0
    assert belief.metal_probability[is_metal].mean() > 0.7
    assert belief.metal_probability[~is_metal].mean() < 0.3
    guess = np.abs(gap[~is_metal] - gap[~is_metal].mean()).mean()
    assert np.abs(belief.gap_size - gap)[~is_metal].mean() < 0.5 * guess
    assert belief.volume_per_atom == pytest.approx(20.0, rel=0.01)


def test_boosting_learns_them_too() -> None:
    belief = Boosting(GENES, LABELS).belief(HIDDEN)
    gap = truth("band_gap")
    assert np.abs(belief.formation_energy - truth("formation_energy_per_atom")).mean() < 0.3
    assert belief.metal_probability[gap == 0].mean() > belief.metal_probability[gap > 0].mean() + 0.3
    assert np.ptp(belief.formation_energy_std) == 0


@pytest.mark.parametrize("model", [Surrogate, Boosting])
def test_what_no_label_told_is_not_a_number(model: type[Surrogate] | type[Boosting]) -> None:
    labels = [{"formation_energy_per_atom": row["formation_energy_per_atom"]} for row in LABELS]
    belief = model(GENES, labels).belief(HIDDEN[:3])
    assert np.isfinite(belief.formation_energy).all()
    assert np.isnan(belief.metal_probability).all()
    assert np.isnan(belief.volume_per_atom).all()


def test_where_all_are_metals_a_gap_is_unlikely() -> None:
    labels = [row | {"band_gap": 0.0} for row in LABELS]
    belief = Surrogate(GENES, labels).belief(HIDDEN[:3])
    assert belief.metal_probability == pytest.approx(151 / 152)
    assert belief.gap_size == pytest.approx(1.0)


def test_the_same_labels_give_the_same_belief_and_one_label_is_too_few() -> None:
    first, second = (Surrogate(GENES[:40], LABELS[:40]).belief(HIDDEN[:5]) for _ in range(2))
    assert (first.formation_energy == second.formation_energy).all()
    with pytest.raises(ModelError, match="1 labelled genes; expected at least two"):
        Surrogate(GENES[:1], LABELS[:1])


def test_many_rows_are_cut_to_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyloop.models.acquisition.surrogate.MAX_ROWS", 60)
    assert MAX_ROWS > 60
    belief = Surrogate(GENES, LABELS).belief(HIDDEN)
    assert np.abs(belief.formation_energy - truth("formation_energy_per_atom")).mean() < 0.3
