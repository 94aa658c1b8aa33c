import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.matching import matching_groups


def layered(c_over_a: float, z: float) -> Crystal:
    """CdI2's structure type: the height of the anions is free."""
    lattice = 4.2 * np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(0.75), 0.0], [0.0, 0.0, c_over_a]])
    return Crystal(lattice, ("Cd", "I", "I"), np.array([[0, 0, 0], [1 / 3, 2 / 3, z], [2 / 3, 1 / 3, -z]]))


def supercell(crystal: Crystal) -> Crystal:
    structure = crystal.to_pymatgen()
    structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    structure.translate_sites(range(len(structure)), [0.1, 0.2, 0.3])
    return Crystal.from_pymatgen(structure)


def test_cells_origins_and_volumes_do_not_matter() -> None:
    crystal = layered(1.6, 0.25)
    swollen = Crystal(crystal.lattice * 1.1, crystal.species, crystal.frac_coords)
    assert matching_groups([crystal, supercell(crystal), swollen]) == [[0, 1, 2]]


def test_another_free_parameter_is_another_crystal_and_order_decides_the_groups() -> None:
    near, far = layered(1.6, 0.25), layered(3.2, 0.05)
    assert matching_groups([near, far, supercell(far), layered(1.62, 0.24)]) == [[0, 3], [1, 2]]
    assert matching_groups([far, near]) == [[0], [1]]
    assert matching_groups([near]) == [[0]]
