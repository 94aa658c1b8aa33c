import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError, WyloopError
from wyloop.models.physics.calculators import UnsupportedElementsError
from wyloop.models.physics.relax import RelaxationSettings, relax
from wyloop.models.physics.relax_batched import relax_many
from wyloop.stores.starter.read import starter_set


def crystal(name: str) -> Crystal:
    return next(entry.crystal for entry in starter_set() if entry.structure_id == f"starter-{name}")


def test_batches_give_what_one_at_a_time_gives() -> None:
    starts = [Crystal(1.03 * c.lattice, c.species, c.frac_coords) for c in map(crystal, ("NaCl-225", "CsCl-221"))]
    francium = Crystal(starts[0].lattice, ("Fr", "Cl"), starts[0].frac_coords)
    first, unknown, second = relax_many([starts[0], francium, starts[1]], batch_size=2)
    assert isinstance(unknown, UnsupportedElementsError)
    for found, start in ((first, starts[0]), (second, starts[1])):
        assert not isinstance(found, WyloopError)
        alone = relax(start)
        assert found.problems == ()
        assert found.energy_per_atom == pytest.approx(alone.energy_per_atom, abs=1e-4)
        assert found.crystal.volume == pytest.approx(alone.crystal.volume, rel=1e-3)


def test_only_chgnet_has_batches() -> None:
    with pytest.raises(CalculatorError, match="calculator 'mace' has no batches; expected 'chgnet'"):
        relax_many([crystal("NaCl-225")], RelaxationSettings(calculator="mace"))
    assert relax_many([]) == []
