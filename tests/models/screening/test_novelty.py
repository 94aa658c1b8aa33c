import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from wyloop.models.crystal import Crystal
from wyloop.models.screening.novelty import distinct, is_same_crystal, novelty, novelty_of_structure
from wyloop.models.wyckoff.descriptions import noisy, random_supercell, rotated, supercell
from wyloop.models.wyckoff.gene import Gene

ROCK_SALT = Gene.parse("225 Cl:a Na:b").fingerprint
SHIFTED = Gene.parse("225 Cl:b Na:a").fingerprint
CESIUM_CHLORIDE_TYPE = Gene.parse("221 Cl:a Na:b").fingerprint


def test_a_known_gene_is_not_novel_whatever_its_origin() -> None:
    verdict = novelty(SHIFTED, {ROCK_SALT})
    assert not verdict.passed
    assert verdict.value == 0.0
    assert ROCK_SALT in verdict.reason


def test_a_new_gene_of_a_known_formula_is_a_polymorph() -> None:
    verdict = novelty(CESIUM_CHLORIDE_TYPE, {ROCK_SALT}, formula_pretty="NaCl", known_formulas={"NaCl"})
    assert verdict.passed
    assert verdict.value == 0.5
    assert "NaCl" in verdict.reason


def test_a_new_gene_of_a_new_formula() -> None:
    verdict = novelty(CESIUM_CHLORIDE_TYPE, {ROCK_SALT}, formula_pretty="NaCl", known_formulas={"KCl"})
    assert verdict.passed
    assert verdict.value == 1.0


def test_distinct_marks_first_appearances() -> None:
    assert distinct([ROCK_SALT, CESIUM_CHLORIDE_TYPE, SHIFTED, ROCK_SALT]) == [True, True, False, False]


def sodium_chloride(symbol: str, length: float) -> Crystal:
    lattice = Lattice.cubic(length)
    return Crystal.from_pymatgen(Structure.from_spacegroup(symbol, lattice, ["Na", "Cl"], [(0, 0, 0), (0.5,) * 3]))


def test_a_relaxed_crystal_that_is_known_under_another_description() -> None:
    rng = np.random.default_rng(0)
    known = {"rock salt": sodium_chloride("Fm-3m", 5.64), "CsCl type": sodium_chloride("Pm-3m", 3.4)}
    relaxed = noisy(rotated(supercell(sodium_chloride("Fm-3m", 5.70), random_supercell(rng)), rng), rng, 0.02)
    verdict = novelty_of_structure(relaxed, known)
    assert not verdict.passed
    assert verdict.value is not None
    assert 0.0 < verdict.value < 0.02
    assert "rock salt" in verdict.reason


def test_a_relaxed_crystal_that_nobody_knows() -> None:
    others = {"CsCl type": sodium_chloride("Pm-3m", 3.4), "KCl": potassium_chloride()}
    verdict = novelty_of_structure(sodium_chloride("Fm-3m", 5.64), others)
    assert verdict.passed
    assert verdict.value == 1.0
    assert "none of 1 known crystals" in verdict.reason


def potassium_chloride() -> Crystal:
    rock_salt = sodium_chloride("Fm-3m", 6.3)
    return Crystal(rock_salt.lattice, tuple(s.replace("Na", "K") for s in rock_salt.species), rock_salt.frac_coords)


def test_same_crystals_have_one_formula() -> None:
    rock_salt = sodium_chloride("Fm-3m", 5.64)
    assert is_same_crystal(rock_salt, sodium_chloride("Fm-3m", 5.5))
    assert not is_same_crystal(rock_salt, potassium_chloride())
    assert not is_same_crystal(rock_salt, sodium_chloride("Pm-3m", 3.4))
