import numpy as np
import pytest
from ase.build import bulk

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import UnsupportedElementsError
from wyloop.models.physics.relax import RelaxationSettings, relax, relax_best
from wyloop.models.wyckoff.encode import encode


def rocksalt(a: float) -> Crystal:
    return Crystal.from_ase(bulk("NaCl", "rocksalt", a=a))


def lattice_constant(cubic_fcc: Crystal) -> float:
    return float((4 * cubic_fcc.volume) ** (1 / 3))


@pytest.mark.parametrize(
    ("crystal", "expected"),
    # PBE, Haas, Tran and Blaha, doi:10.1103/PhysRevB.79.085104, table I: NaCl 5.698, Si 5.475 Å.
    [(rocksalt(6.1), 5.698), (Crystal.from_ase(bulk("Si", a=5.2)), 5.475)],
)
def test_lattice_constants(crystal: Crystal, expected: float) -> None:
    relaxation = relax(crystal)
    assert relaxation.problems == ()
    assert relaxation.is_usable
    assert relaxation.converged
    assert lattice_constant(relaxation.crystal) == pytest.approx(expected, rel=0.01)
    assert relaxation.max_force < 0.05
    assert relaxation.volume_ratio == pytest.approx(relaxation.crystal.volume / crystal.volume)
    assert encode(relaxation.crystal) == encode(crystal)


def test_free_parameters_relax_within_the_space_group() -> None:
    rutile = Crystal(
        np.diag([4.8, 4.8, 2.8]),
        ("Ti", "Ti", "O", "O", "O", "O"),
        np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.29, 0.29, 0], [0.71, 0.71, 0], [0.21, 0.79, 0.5], [0.79, 0.21, 0.5]]),
    )
    relaxation = relax(rutile)
    assert relaxation.problems == ()
    assert encode(relaxation.crystal).space_group_number == 136
    a, _, c = sorted(np.linalg.norm(relaxation.crystal.lattice, axis=1), reverse=True)
    assert (a, c) == (pytest.approx(4.65, rel=0.01), pytest.approx(2.97, rel=0.01))  # PBE, mp-2657


def test_the_same_whatever_the_cell() -> None:
    conventional = Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.5, cubic=True))
    assert relax(conventional).energy_per_atom == pytest.approx(relax(rocksalt(5.5)).energy_per_atom, abs=1e-4)


def test_unconverged_forces_are_a_problem() -> None:
    relaxation = relax(rocksalt(6.3), RelaxationSettings(max_steps=1))
    assert not relaxation.converged
    assert relaxation.problems == ("forces above 0.05 eV/Å after 1 steps",)


def test_time_limit_ends_the_relaxation() -> None:
    relaxation = relax(rocksalt(6.3), RelaxationSettings(time_limit=0.0))
    assert relaxation.n_steps <= 1
    assert not relaxation.converged


def test_volume_and_distance_guards() -> None:
    settings = RelaxationSettings(max_volume_ratio=0.9, min_distance_ratio=1.4, max_energy_per_atom=-5.0)
    volume, distance, energy = relax(rocksalt(5.7), settings).problems
    assert volume == "volume changed by a factor of 1.00; expected 0.4 to 0.9"
    assert distance.startswith("shortest distance is 1.06 of the covalent radii")
    assert energy.startswith("energy of -3.7 eV/atom")


def test_isolated_atoms_are_a_problem_not_a_crash() -> None:
    relaxation = relax(rocksalt(25.0))
    assert not relaxation.is_usable
    assert "isolated atom" in relaxation.problems[0]
    assert np.isnan(relaxation.energy_per_atom)


def test_change_of_symmetry_is_a_problem() -> None:
    # Tetragonal indium is not CHGNet's ground state: it becomes face-centred cubic.
    indium = Crystal.from_ase(bulk("In", "bct", a=3.25, c=4.95))
    assert relax(indium, RelaxationSettings(max_force=0.01)).problems == ("the gene changed from 139 In:a to 225 In:a",)


def test_best_of_several_starts() -> None:
    starts = [rocksalt(25.0), rocksalt(6.3), rocksalt(5.5)]
    assert relax_best(starts).is_usable
    with pytest.raises(CalculatorError, match="no start"):
        relax_best([])


def test_unsupported_element() -> None:
    polonium = Crystal(3.35 * np.eye(3), ("Po",), np.zeros((1, 3)))
    with pytest.raises(UnsupportedElementsError, match="Po"):
        relax(polonium)


def test_a_crystal_that_came_apart_is_not_believed() -> None:
    assert any(
        "came apart" in problem for problem in relax(rocksalt(10.8)).problems
    )  # neighbours 5.4 Å apart, no force
