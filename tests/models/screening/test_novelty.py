from wyloop.models.screening.novelty import distinct, novelty
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
