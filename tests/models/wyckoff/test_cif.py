from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.io.cif import CifWriter

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.cif import parse_cif, write_cif

RUTILE = """\
data_rutile
_cell_length_a 4.5937(2)
_cell_length_b 4.5937(2)
_cell_length_c 2.9587
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ti1 Ti4+ 0 0 0 1
O1 O2- 0.3047 0.3047 0 {occupancy}
"""
NAMED = "_symmetry_space_group_name_H-M 'P 42/m n m'"
OPERATIONS = "loop_\n_space_group_symop_operation_xyz\n" + "\n".join(
    f"'{operation.triplet()}'" for operation in gemmi.find_spacegroup_by_number(136).operations()
)


def rutile(symmetry: str = NAMED, occupancy: str = "1") -> str:
    return RUTILE.format(symmetry=symmetry, occupancy=occupancy)


@pytest.mark.parametrize(
    "symmetry",
    [NAMED, OPERATIONS, "_space_group_IT_number 136", "_space_group_name_Hall '-P 4n 2n'"],
)
def test_symmetric_file_gives_the_whole_cell(symmetry: str) -> None:
    crystal = parse_cif(rutile(symmetry))
    assert crystal.amounts == {"O": 4, "Ti": 2}
    assert crystal.volume == pytest.approx(4.5937**2 * 2.9587)
    titanium, oxygen = crystal.species.index("Ti"), crystal.species.index("O")
    bond = (crystal.frac_coords[oxygen] - crystal.frac_coords[titanium]) @ crystal.lattice
    assert np.linalg.norm(bond) == pytest.approx(0.3047 * 4.5937 * 2**0.5)


def test_rounded_special_positions_are_one_atom() -> None:
    text = rutile("_space_group_IT_number 194").replace(
        "4.5937(2)\n_cell_length_b 4.5937(2)", "3.2\n_cell_length_b 3.2"
    )
    text = text.replace("gamma 90", "gamma 120").replace("0.3047 0.3047 0 ", "0.3333 0.6667 0.25 ")
    assert parse_cif(text).amounts == {"O": 2, "Ti": 2}  # 2c and 2a of P6_3/mmc, not 2c twelve times


def test_first_block_with_atoms_is_taken() -> None:
    assert parse_cif("data_global\n_journal_year 2020\n" + rutile()).nsites == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no _atom_site_fract_x"),
        ("data_x\n_cell_length_a 3\n", "no _atom_site_fract_x"),
        ("material,cif", "not a CIF"),
        (rutile(occupancy="0.5"), r"site O1 \(O\): occupancy 0.5"),
        (rutile().replace("0.3047 0.3047", "nan 0.3047"), "site O1: coordinates nan"),
        (rutile().replace("0.3047 0.3047", "? 0.3047"), r"site O1: coordinates \?"),
        (rutile().replace("O1 O2-", "O1 Xx"), "site O1: no element in 'Xx'"),
        (rutile().replace("O1 O2-", "O1 4"), "site O1: no element in '4'"),
        (rutile().replace("_cell_length_c 2.9587", ""), "_cell_length_c is None"),
        (rutile().replace("2.9587", "-2.9587"), "_cell_length_c is -2.9587"),
        (rutile().replace("alpha 90", "alpha 10").replace("beta 90", "beta 160"), "closes no volume|flat"),
        (rutile().replace("0.3047 0.3047", "0.0500 0.0500"), r"sites (O1|Ti1) and (O1|Ti1) are 0\.3"),
        (rutile("_symmetry_space_group_name_H-M 'Q 7'"), "'Q 7'; expected a known space group"),
        (rutile("_space_group_IT_number 231"), "'231'; expected a known space group"),
        (rutile("_space_group_name_Hall 'nonsense'"), "nonsense"),
        (rutile("loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, w'"), "_symmetry_equiv_pos_as_xyz"),
        (rutile().replace("_atom_site_fract_z", "_atom_site_height"), "expected _atom_site_fract_x, _y and _z"),
    ],
)
def test_bad_files_are_named(text: str, message: str) -> None:
    with pytest.raises(StructureError, match=message) as caught:
        parse_cif(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "magnetic",
    [
        "_space_group_magn.number_BNS 136.495",
        "loop_\n_space_group_symop_magn_operation.xyz\n'x,y,z,+1'\n'-x,-y,z,-1'",
    ],
)
def test_a_file_with_magnetic_symmetry_only_names_its_sites(magnetic: str) -> None:
    with pytest.raises(StructureError, match="site Ti1 and the others: images only by magnetic symmetry"):
        parse_cif(rutile(magnetic))
    assert parse_cif(rutile(f"{NAMED}\n{magnetic}")).nsites == 6  # moments do not matter where the sites are all known


def test_labels_and_deuterium_give_elements() -> None:
    text = rutile().replace("_atom_site_type_symbol\n", "").replace("Ti1 Ti4+", "TI1").replace("O1 O2-", "D1")
    assert parse_cif(text).amounts == {"H": 4, "Ti": 2}


def test_write_and_read_back() -> None:
    lattice = Lattice.from_parameters(3.1, 4.2, 5.3, 81, 97, 112)
    crystal = Crystal(lattice.matrix, ("Ga", "N", "N"), np.array([[0.1, 0.2, 0.3], [0.6, 0.5, 0.45], [-0.2, 0.9, 0.7]]))
    back = parse_cif(write_cif(crystal))
    assert back.species == crystal.species
    np.testing.assert_allclose(back.lattice @ back.lattice.T, crystal.lattice @ crystal.lattice.T, atol=1e-6)
    np.testing.assert_allclose(back.frac_coords, crystal.frac_coords % 1.0, atol=1e-7)


def test_pymatgen_reads_what_we_write() -> None:
    crystal = parse_cif(rutile())
    structure = Structure.from_str(write_cif(crystal), fmt="cif")
    assert structure.matches(crystal.to_pymatgen())


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # pymatgen calling spglib
def test_reads_what_pymatgen_writes_with_symmetry() -> None:
    structure = parse_cif(rutile()).to_pymatgen()
    crystal = parse_cif(str(CifWriter(structure, symprec=0.01)))
    assert crystal.to_pymatgen().matches(structure)


def test_data_rows_have_the_stated_composition(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "perov5.csv.gz", nrows=200)
    for row in rows.itertuples():
        crystal = parse_cif(str(row.cif))
        assert (
            crystal.to_pymatgen().composition.reduced_formula
            == Structure.from_str(str(row.cif), fmt="cif").composition.reduced_formula
        )
