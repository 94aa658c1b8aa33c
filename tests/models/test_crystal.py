import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from wyloop.models.crystal import Crystal, check_physical
from wyloop.models.errors import StructureError

ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_pymatgen_round_trip() -> None:
    crystal = Crystal.from_pymatgen(ROCK_SALT)
    assert crystal.nsites == 8
    assert crystal.amounts == {"Cl": 4, "Na": 4}
    assert crystal.volume == pytest.approx(5.69**3)
    assert crystal.to_pymatgen() == ROCK_SALT


def test_ase_round_trip_wraps_coordinates() -> None:
    atoms = bulk("GaAs", "zincblende", a=5.65)
    atoms.positions -= atoms.cell[0]
    crystal = Crystal.from_ase(atoms)
    assert crystal.species == ("Ga", "As")
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0, 0], [0.25, 0.25, 0.25]], atol=1e-9)
    back = crystal.to_ase()
    assert all(back.pbc)
    assert back.get_distance(0, 1, mic=True) == pytest.approx(5.65 * 3**0.5 / 4)


def test_oxidation_states_are_dropped() -> None:
    charged = ROCK_SALT.copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    assert Crystal.from_pymatgen(charged).amounts == {"Cl": 4, "Na": 4}


def test_disordered_site_is_named() -> None:
    alloy = Structure(Lattice.cubic(3.6), ["Cu", {"Cu": 0.5, "Au": 0.5}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match=r"site 1 .*disordered"):
        Crystal.from_pymatgen(alloy)


def test_overlapping_atoms_are_named_across_the_boundary() -> None:
    crystal = Crystal(4.0 * np.eye(3), ("Na", "Cl", "Cl"), np.array([[0.5, 0.5, 0.5], [0.01, 0, 0], [0.99, 0, 0]]))
    with pytest.raises(StructureError, match=r"sites Cl1 and Cl2 are 0\.080 Å apart"):
        check_physical(crystal)


@pytest.mark.parametrize(
    ("lattice", "coords", "message"),
    [
        (np.diag([4.0, 4.0, 0.3]), [[0.0, 0.0, 0.0]], "flat"),
        (np.diag([4.0, 4.0, np.nan]), [[0.0, 0.0, 0.0]], "finite"),
        (np.eye(3) * 4, [[0.0, np.inf, 0.0]], "finite"),
    ],
)
def test_unphysical_cells(lattice: np.ndarray, coords: list[list[float]], message: str) -> None:
    with pytest.raises(StructureError, match=message):
        check_physical(Crystal(lattice, ("Na",), np.array(coords)))


@pytest.mark.parametrize("lattice", [np.zeros((3, 3)), np.array([[3.0, 0, 0], [0, 3, 0], [3, 3, 0]])])
def test_cells_without_volume(lattice: np.ndarray) -> None:
    with pytest.raises(StructureError, match=r"0 Å\^3 is flat"):
        check_physical(Crystal(lattice, ("Na",), np.zeros((1, 3))))


def test_skewed_cells_are_no_flat_ones() -> None:
    skewed = np.array([[4.0, 0, 0], [20, 4, 0], [20, 24, 4]])
    check_physical(Crystal(skewed, ("Na", "Cl"), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])))
    near = np.array([[0.0, 0, 0], [0.02, 0.0, 0.0]]) @ (4 * np.eye(3)) @ np.linalg.inv(skewed)
    with pytest.raises(StructureError, match=r"Na0 and Cl1 are 0\.080 Å apart"):
        check_physical(Crystal(skewed, ("Na", "Cl"), near))


def test_empty_cell() -> None:
    with pytest.raises(StructureError, match="without sites"):
        check_physical(Crystal(np.eye(3) * 4, (), np.zeros((0, 3))))
