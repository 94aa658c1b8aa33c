import pytest

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import CHGNET_ELEMENTS
from wyloop.models.physics.references import elemental_crystal, formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import relax
from wyloop.models.wyckoff.encode import encode


def test_every_chgnet_element_has_an_energy_and_a_crystal() -> None:
    assert set(reference_energies()) == CHGNET_ELEMENTS
    for element in CHGNET_ELEMENTS:
        crystal = elemental_crystal(element)
        assert set(crystal.species) == {element}
        assert 4.0 < crystal.volume / crystal.nsites < 130.0  # Å^3; carbon and caesium are the ends


@pytest.mark.parametrize(
    ("element", "space_group_number", "nsites"),
    [("Fe", 229, 1), ("Cu", 225, 1), ("Mg", 194, 2), ("Si", 227, 2), ("Mn", 217, 29), ("Se", 152, 3), ("U", 63, 2)],
)
def test_ground_states(element: str, space_group_number: int, nsites: int) -> None:
    crystal = elemental_crystal(element)
    assert encode(crystal, symprec=0.01).space_group_number == space_group_number
    assert crystal.nsites == nsites


@pytest.mark.parametrize(("element", "bond"), [("H", 0.74), ("N", 1.10), ("O", 1.21), ("F", 1.41), ("I", 2.72)])
def test_molecular_solids_hold_molecules(element: str, bond: float) -> None:
    distances = elemental_crystal(element).to_ase().repeat(2).get_all_distances(mic=True)
    assert distances[distances > 0.1].min() == pytest.approx(bond, abs=0.02)


@pytest.mark.parametrize(
    # Uncorrected PBE energies of the elements in the Materials Project, eV/atom.
    ("element", "expected"),
    [("Si", -5.425), ("Fe", -8.47), ("O", -4.948), ("Cl", -1.85), ("N", -8.336), ("Cu", -4.10)],
)
def test_energies_are_on_the_materials_project_scale(element: str, expected: float) -> None:
    assert reference_energies()[element] == pytest.approx(expected, abs=0.1)


def test_formation_energy_of_sodium_chloride() -> None:
    relaxation = relax(elemental_crystal("Na"))
    assert relaxation.energy_per_atom == pytest.approx(reference_energies()["Na"], abs=0.1)
    # mp-22862: energy -3.68 eV/atom with its anion correction, formation energy -2.1 eV/atom.
    assert formation_energy_per_atom(-3.68, {"Na": 4, "Cl": 4}, reference_energies()) == pytest.approx(-2.1, abs=0.06)


def test_elements_have_no_formation_energy() -> None:
    assert formation_energy_per_atom(-5.4, {"Si": 2}, {"Si": -5.4}) == 0.0


def test_missing_reference_is_named() -> None:
    with pytest.raises(CalculatorError, match="no reference energy of Po"):
        formation_energy_per_atom(-1.0, {"Po": 1, "Na": 1}, reference_energies())
    with pytest.raises(CalculatorError, match="no reference crystal of 'Po'"):
        elemental_crystal("Po")
