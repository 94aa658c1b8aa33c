import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import UnsupportedElementsError
from wyloop.models.physics.phonons import BornCharges, PhononSettings, gamma_phonons
from wyloop.models.physics.relax import relax


def test_silicon_is_stable() -> None:
    phonons = gamma_phonons(relax(Crystal.from_ase(bulk("Si", a=5.43))).crystal)
    assert phonons.is_stable
    assert phonons.is_prescreen
    assert phonons.supercell == (3, 3, 3)
    assert phonons.n_displacements == 1
    assert phonons.frequencies.shape == (6,)
    assert np.abs(phonons.frequencies[:3]).max() < 1e-3  # acoustic sum rule
    # Cubic symmetry: one threefold optical mode. CHGNet is too soft: PBE has 15.2 THz.
    assert np.ptp(phonons.frequencies[3:]) < 1e-3
    assert 10.0 < phonons.lowest_optical_frequency < 16.0


def test_the_cell_does_not_matter() -> None:
    settings = PhononSettings(min_supercell_length=6.0)
    primitive, conventional = (
        Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.69, cubic=cubic)) for cubic in (False, True)
    )
    frequencies = gamma_phonons(conventional, settings).frequencies
    np.testing.assert_allclose(frequencies, gamma_phonons(primitive, settings).frequencies, atol=0.02)


def test_a_maximum_of_the_energy_is_unstable_beyond_the_tolerance() -> None:
    """An atom of a stretched Lennard-Jones crystal is pushed away from its site, not back."""
    crystal = Crystal.from_ase(bulk("NaCl", "rocksalt", a=3.4))
    calc = LennardJones(sigma=1.0, epsilon=0.1, rc=3.0)
    settings = PhononSettings(min_supercell_length=7.0)
    phonons = gamma_phonons(crystal, settings, calc)
    assert not phonons.is_prescreen
    assert phonons.lowest_optical_frequency < -phonons.tolerance
    assert not phonons.is_stable
    tolerant = PhononSettings(min_supercell_length=7.0, tolerance=-phonons.lowest_frequency + 0.1)
    assert gamma_phonons(crystal, tolerant, calc).is_stable


def test_one_atom_has_no_optical_mode() -> None:
    phonons = gamma_phonons(Crystal.from_ase(bulk("Cu", a=3.62)))
    assert np.isnan(phonons.lowest_optical_frequency)
    assert phonons.is_stable


def test_supercell_stays_below_its_limit_and_keeps_the_symmetry() -> None:
    perovskite = Crystal(
        3.94 * np.eye(3),
        ("Sr", "Ti", "O", "O", "O"),
        np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
    )
    assert gamma_phonons(perovskite, PhononSettings(max_atoms=128)).supercell == (2, 2, 2)  # 3x3x3 has 135 atoms


def test_failures_are_calculator_errors() -> None:
    with pytest.raises(UnsupportedElementsError, match="Po"):
        gamma_phonons(Crystal(3.35 * np.eye(3), ("Po",), np.zeros((1, 3))))
    with pytest.raises(CalculatorError, match="isolated atom"):
        gamma_phonons(Crystal(15.0 * np.eye(3), ("Cu",), np.zeros((1, 3))))


@pytest.mark.parametrize("width", [0.0, 8.0])
def test_born_charges_lift_the_longitudinal_mode(width: float) -> None:
    """Sodium chloride: what the macroscopic field adds to the square of the frequency follows from the charges alone.

    Source: Born and Huang, Dynamical Theory of Crystal Lattices (1954), section 7.
    """
    crystal = relax(Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.69))).crystal
    signs = [1.0 if element == "Na" else -1.0 for element in crystal.species]
    charge, dielectric = 1.1, 2.35  # elementary charges; measured: Lowndes and Martin, doi:10.1098/rspa.1969.0027
    born = BornCharges(np.array([sign * charge * np.eye(3) for sign in signs]), dielectric * np.eye(3))
    phonons = gamma_phonons(crystal, PhononSettings(min_supercell_length=width), born=born)
    assert phonons.longitudinal_frequencies is not None
    *transverse, longitudinal = phonons.longitudinal_frequencies[3:]
    assert transverse == pytest.approx(phonons.frequencies[3:5], abs=1e-3)
    reduced_mass = np.prod(masses := crystal.to_ase().get_masses()) / masses.sum() * 1.66053907e-27  # kg
    added = (charge * 1.602176634e-19) ** 2 / (8.8541878e-12 * dielectric * crystal.volume * 1e-30 * reduced_mass)
    expected = np.sqrt(transverse[0] ** 2 + added / (2 * np.pi * 1e12) ** 2)
    assert longitudinal == pytest.approx(expected, rel=1e-3)
    # Lyddane, Sachs and Teller: measured 5.9 / 2.35; the force field's transverse mode is too soft
    assert 1.5 < (longitudinal / transverse[0]) ** 2 < 8.0
