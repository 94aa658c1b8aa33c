import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure
from pyxtal.symmetry import Group

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.models.wyckoff.gene import Gene, canonical

Site = tuple[str, tuple[float, float, float]]


def crystal(symbol: str, lattice: Lattice, sites: list[Site]) -> Crystal:
    species, coords = [site[0] for site in sites], [site[1] for site in sites]
    return Crystal.from_pymatgen(Structure.from_spacegroup(symbol, lattice, species, coords))


KNOWN = {
    "136 O:f Ti:a": crystal(  # rutile
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), [("Ti", (0, 0, 0)), ("O", (0.305, 0.305, 0))]
    ),
    "186 O:b Zn:b": crystal(  # wurtzite
        "P6_3mc", Lattice.hexagonal(3.25, 5.207), [("Zn", (1 / 3, 2 / 3, 0)), ("O", (1 / 3, 2 / 3, 0.382))]
    ),
    "221 O:c Sr:a Ti:b": crystal(  # perovskite, strontium at the body centre here
        "Pm-3m", Lattice.cubic(3.905), [("Sr", (0.5, 0.5, 0.5)), ("Ti", (0, 0, 0)), ("O", (0.5, 0, 0))]
    ),
    "227 Al:c Mg:b O:e": crystal(  # spinel in origin choice 1; the same as Al:d Mg:a O:e in 2
        "Fd-3m", Lattice.cubic(8.08), [("Mg", (0, 0, 0)), ("Al", (0.625,) * 3), ("O", (0.387,) * 3)]
    ),
    "216 As:a Ga:c": crystal("F-43m", Lattice.cubic(5.65), [("Ga", (0, 0, 0)), ("As", (0.25, 0.25, 0.25))]),
    "225 Cl:a Na:b": crystal("Fm-3m", Lattice.cubic(5.64), [("Na", (0, 0, 0)), ("Cl", (0.5, 0.5, 0.5))]),
    "166 Bi:c Te:a Te:c": crystal(
        "R-3m", Lattice.hexagonal(4.386, 30.497), [("Bi", (0, 0, 0.4)), ("Te", (0, 0, 0)), ("Te", (0, 0, 0.2097))]
    ),
    "62 O:c O:d Sr:c Zr:a": crystal(  # distorted perovskite, four formula units
        "Pnma",
        Lattice.orthorhombic(5.818, 8.204, 5.797),
        [("Sr", (0.524, 0.25, 0.004)), ("Zr", (0, 0, 0)), ("O", (0.987, 0.25, 0.929)), ("O", (0.284, 0.036, 0.215))],
    ),
    "14 O:e O:e Zr:e": crystal(  # baddeleyite
        "P2_1/c",
        Lattice.monoclinic(5.15, 5.21, 5.32, 99.2),
        [("Zr", (0.275, 0.04, 0.208)), ("O", (0.07, 0.332, 0.345)), ("O", (0.45, 0.757, 0.479))],
    ),
}
KNOWN_GENES = sorted(KNOWN)


@pytest.mark.parametrize("text", KNOWN_GENES)
def test_known_crystals(text: str) -> None:
    gene = encode(KNOWN[text])
    assert str(gene) == text
    ratios = {KNOWN[text].amounts[element] / amount for element, amount in gene.amounts.items()}
    assert ratios == {1.0}


@pytest.mark.parametrize("text", KNOWN_GENES)
def test_standard_cell_is_primitive_and_has_the_same_gene(text: str) -> None:
    standard = standardize(KNOWN[text])
    gene = encode(standard)
    assert str(gene) == text
    assert standard.nsites == gene.nsites
    per_site = standard.volume / standard.nsites
    assert per_site == pytest.approx(KNOWN[text].volume / KNOWN[text].nsites, rel=1e-6)
    assert standard.to_pymatgen().matches(KNOWN[text].to_pymatgen())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KNOWN_GENES), st.integers(0, 2**32 - 1))
def test_gene_does_not_depend_on_the_description(text: str, seed: int) -> None:
    """Another origin, order of sites, orientation, handedness, basis and supercell, and noise far below symprec."""
    rng = np.random.default_rng(seed)
    start = KNOWN[text]
    repeats = rng.permutation([1, 1, 2])
    cells = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 1, 3)
    coords = ((start.frac_coords + cells) / repeats).reshape(-1, 3)
    lattice = start.lattice * repeats[:, None]
    shear = np.eye(3)
    first, second = rng.choice(3, 2, replace=False)
    shear[first, second] = rng.choice([-1, 1])
    lattice, coords = shear @ lattice, coords @ np.linalg.inv(shear)
    noise = rng.normal(scale=2e-4, size=coords.shape) @ np.linalg.inv(lattice)
    order = rng.permutation(len(coords))
    species = np.array(start.species * len(cells))[order]
    orthogonal = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    changed = Crystal(lattice @ orthogonal, tuple(species.tolist()), (coords + noise + rng.random(3))[order])
    assert str(encode(changed)) == text


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
def test_genes_agree_with_spglib(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "mp20_biternary_train.csv.gz", usecols=["cif"]).sample(120, random_state=7)
    n_compared = 0
    for text in rows["cif"]:
        found = parse_cif(text)
        gene, theirs = encode(found), spglib_gene(standardize(found))
        if theirs.space_group_number == gene.space_group_number:
            assert theirs == gene
            n_compared += 1
    assert n_compared >= 117


def spglib_gene(primitive: Crystal) -> Gene:
    numbers = [Element(element).Z for element in primitive.species]
    cell = (primitive.lattice, primitive.frac_coords, numbers)
    number = spglib.get_symmetry_dataset(cell, symprec=0.1).number
    dataset = spglib.get_symmetry_dataset(cell, symprec=0.1, hall_number=Group(number).hall_number)
    sites = sorted(set(dataset.crystallographic_orbits.tolist()))
    return canonical(Gene.of(number, [(primitive.species[site], dataset.wyckoffs[site]) for site in sites]))


def test_training_rows_keep_their_composition_and_number(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "mp20_biternary_train.csv.gz", usecols=["cif", "spacegroup.number"])
    rows = rows.sample(1000, random_state=3)
    n_same = 0
    for text, number in zip(rows["cif"], rows["spacegroup.number"], strict=True):
        found = parse_cif(text)
        gene = encode(found)
        assert gene.elements == tuple(found.amounts)
        assert len({found.amounts[element] / amount for element, amount in gene.amounts.items()}) == 1
        n_same += gene.space_group_number == number
    assert n_same / len(rows) >= 0.99  # the numbers in the file were found by spglib


def test_tolerance_decides_the_space_group() -> None:
    strained = KNOWN["225 Cl:a Na:b"].lattice * np.array([[1.0], [1.0], [1.004]])  # 0.02 Å longer along c
    crystal = Crystal(strained, KNOWN["225 Cl:a Na:b"].species, KNOWN["225 Cl:a Na:b"].frac_coords)
    assert encode(crystal).space_group_number == 225
    assert encode(crystal, symprec=0.001).space_group_number == 139


def test_bad_crystals() -> None:
    with pytest.raises(StructureError, match="site X0: unknown element 'X'"):
        encode(Crystal(np.eye(3) * 4, ("X",), np.zeros((1, 3))))
    with pytest.raises(StructureError, match=r"sites Na0 and Na1 are 0\.400 Å apart"):
        encode(Crystal(np.eye(3) * 4, ("Na", "Na"), np.array([[0, 0, 0], [0.1, 0, 0]])))


def test_eight_elements_and_many_orbits_on_one_letter() -> None:
    elements = ["H", "Li", "C", "N", "O", "F", "Na", "Mg", "O", "O"]
    rng = np.random.default_rng(2)
    coords = (
        np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[: len(elements)] + rng.uniform(0, 0.4, (10, 3))
    ) / 3
    gene = encode(Crystal(np.diag([9.0, 10.1, 11.3]), tuple(elements), coords))
    assert gene.space_group_number == 1
    assert len(gene.elements) == 8
    assert gene.wyckoff_sequence.count("O:a") == 3


def test_letter_capital_a_of_group_47() -> None:
    sites: list[Site] = [("O", (0.21, 0.17, 0.31)), ("Ti", (0, 0, 0)), ("Sr", (0.5, 0, 0.27))]
    found = encode(crystal("Pmmm", Lattice.orthorhombic(8.1, 9.3, 10.7), sites))
    assert found.space_group_number == 47
    assert ("O", "A") in found.orbits
    assert "A" in found.protostructure.split(":")[0].split("_", 3)[3]


@pytest.mark.parametrize("symprec", [0.0, -0.1, float("nan")])
def test_tolerance_must_be_positive(symprec: float) -> None:
    with pytest.raises(StructureError, match="expected a positive number of Å"):
        encode(KNOWN["136 O:f Ti:a"], symprec=symprec)


def test_moyopy_is_quiet(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    known = KNOWN["227 Al:c Mg:b O:e"]
    doubled = Crystal(known.lattice * [[2], [1], [1]], known.species * 2, np.empty((0, 3)))
    halves = [known.frac_coords / [2, 1, 1] + [shift, 0, 0] for shift in (0, 0.5)]
    with caplog.at_level(logging.DEBUG, logger="moyo"):
        encode(Crystal(doubled.lattice, doubled.species, np.concatenate(halves)))
    assert not [record for record in caplog.records if "Omitted" in record.getMessage()]
    assert capsys.readouterr().err == ""
