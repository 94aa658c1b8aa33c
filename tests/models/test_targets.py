import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wyloop.models.errors import TargetError
from wyloop.models.targets import (
    ELEMENTS,
    NUMERIC_FIELDS,
    Condition,
    ElementCondition,
    Exclusion,
    Target,
    TextCondition,
)

GALLIUM_ARSENIDE: dict[str, object] = {
    "band_gap": 0.19,
    "formation_energy_per_atom": -0.42,
    "energy_above_hull": 0.0,
    "space_group_number": 216,
    "nelements": 2,
    "nsites": 2,
    "crystal_system": "cubic",
    "formula_pretty": "GaAs",
    "chemsys": "As-Ga",
    "elements": ("As", "Ga"),
}


@pytest.mark.parametrize(
    "text",
    [
        "band_gap > 0",
        "0.1 < band_gap < 2.0",
        "2.0 >= band_gap > 0.1",
        "formation_energy_per_atom < -.4",
        "energy_above_hull <= 0",
        "energy_above_hull = 0",
        "space_group_number >= 143 and nelements = 2",
        "nelements != 3",
        "crystal_system = Cubic",
        "crystal_system != hexagonal",
        "formula_pretty = AsGa",
        'formula_pretty = "As2Ga2"',
        "chemsys = Ga-As",
        "elements has Ga",
        "elements has Ga, As AND elements without Pb",
        "elements in Ga,As,N",
        "band_gap ≥ 0.19 and 143 ≤ space_group_number",
    ],
)
def test_gallium_arsenide_matches(text: str) -> None:
    assert Target.parse([text]).matches(GALLIUM_ARSENIDE)


@pytest.mark.parametrize(
    "text",
    [
        "band_gap > 0.19",
        "0.5 < band_gap < 2.0",
        "nelements = 3",
        "nelements != 2",
        "crystal_system != cubic",
        "formula_pretty = GaN",
        "chemsys = As-Ga-N",
        "elements has N",
        "elements without As",
        "elements in Ga, N",
        "volume_per_atom > 1",  # not among the values
        "volume_per_atom != 1",
    ],
)
def test_gallium_arsenide_does_not_match(text: str) -> None:
    assert not Target.parse([text]).matches(GALLIUM_ARSENIDE)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "1", True, [1.0]])
def test_a_value_that_is_no_finite_number_matches_nothing(value: object) -> None:
    assert not Target.parse(["band_gap >= 0"]).matches({"band_gap": value})
    assert not Target.parse(["band_gap != 7"]).matches({"band_gap": value})


@pytest.mark.parametrize("value", [None, "GaAs", 3, ()])
def test_elements_that_are_no_collection_of_symbols_match_nothing(value: object) -> None:
    assert not Target.parse(["elements without Pb"]).matches({"elements": value})


def test_numpy_numbers_match() -> None:
    target = Target.parse(["1 < band_gap < 2", "nelements = 2"])
    assert target.matches({"band_gap": np.float32(1.5), "nelements": np.int64(2)})


def test_conditions_on_one_field_become_one_range() -> None:
    target = Target.parse(["band_gap > 0.5", "band_gap < 3 and band_gap <= 2", "band_gap >= 0.5"])
    assert target.conditions == (Condition("band_gap", 0.5, 2.0, low_inclusive=False, high_inclusive=True),)
    assert target.range("band_gap") == (0.5, 2.0)
    assert target.texts() == ["0.5 < band_gap <= 2"]


def test_an_open_end_is_infinite_and_a_free_field_has_no_range() -> None:
    target = Target.parse(["formation_energy_per_atom < -1.0"])
    assert target.range("formation_energy_per_atom") == (-math.inf, -1.0)
    assert target.range("band_gap") is None


def test_kinds_of_conditions() -> None:
    target = Target.parse(["crystal_system = cubic and nsites != 4 and elements has Ga and elements without Pb"])
    assert target.conditions == (
        Exclusion("nsites", 4.0),
        TextCondition("crystal_system", "cubic"),
        ElementCondition(must=("Ga",), must_not=("Pb",)),
    )
    assert target.fields == ("nsites", "crystal_system", "elements")


def test_space_groups_follow_number_and_crystal_system() -> None:
    assert Target.parse([]).space_group_numbers() == list(range(1, 231))
    assert Target.parse(["crystal_system = cubic"]).space_group_numbers() == list(range(195, 231))
    assert Target.parse(["space_group_number >= 143 and crystal_system = trigonal"]).space_group_numbers() == list(
        range(143, 168)
    )
    assert Target.parse(["214 < space_group_number < 218 and space_group_number != 216"]).space_group_numbers() == [
        215,
        217,
    ]


def test_elements_join_lists_chemical_system_and_formula() -> None:
    assert Target.parse(["formula_pretty = SrTiO3"]).elements == ElementCondition(("O", "Sr", "Ti"), ("O", "Sr", "Ti"))
    target = Target.parse(["elements in Ga, As, N", "elements in As, N, P", "elements has N", "elements without P"])
    assert target.elements == ElementCondition(("N",), ("As", "N"), ("P",))


def test_a_noble_gas_without_electronegativity_is_an_element_too() -> None:
    assert Target.parse(["formula_pretty = Ne2F2"]).elements.must == ("F", "Ne")


def test_an_empty_target_asks_nothing() -> None:
    assert Target.parse([]).matches({})
    assert Target.parse([]).texts() == []


def test_a_single_string_is_one_text() -> None:
    assert Target.parse("band_gap > 1") == Target.parse(["band_gap > 1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["ends too early", "for example"]),
        ("   ", ["ends too early"]),
        ("band_gp > 1", ["'band_gp'", "did you mean band_gap?", "formation_energy_per_atom"]),
        ("Band_Gap > 1", ["did you mean band_gap?"]),
        ("band_gap > 1 eV", ["'eV'", "no unit"]),
        ("band_gap > 1eV", ["'1eV'"]),
        ("band_gap > 1 or nelements = 2", ["'or'"]),
        ("band_gap > nan", ["'nan'", "finite number"]),
        ("band_gap > 1e999", ["'1e999'", "not finite"]),
        ("band_gap >", ["ends too early", "finite number"]),
        ("band_gap", ["ends too early", "<="]),
        ("> 3", ["'>'", "name of a field"]),
        ("1 < band_gap > 2", ["don't make a range"]),
        ("1 = band_gap = 2", ["don't make a range"]),
        ("1 < crystal_system", ["numeric field", "crystal_system"]),
        ("1 < band_gap < 2 < 3", ["'<'", "'and'"]),
        ("crystal_system < cubic", ["'<'", "crystal_system"]),
        ("crystal_system = round", ["'round'", "triclinic"]),
        ("elements Ga", ["'has'"]),
        ("elements has", ["ends too early", "chemical symbol"]),
        ("elements has Xx", ["'Xx'"]),
        ("elements has Ga,", ["ends too early"]),
        ("formula_pretty = ((((", ["'(((('"]),
        ("formula_pretty = Ga0", ["'Ga0'"]),
        ("formula_pretty = GaQq", ["'GaQq'"]),
        ("chemsys = As--Ga", ["'As--Ga'"]),
        ("band_gap $gt 1", ["'$gt'"]),
        ("{'$where': 'sleep(1)'}", ["$where"]),
        ("band_gap > 1\x00", ["\\x00"]),
        ("band_gap > ٣", ["٣"]),  # Arabic digits are no plain number
        ("2 < band_gap < 1", ["can't be met", "band_gap"]),
        ("band_gap > 1 and band_gap < 1", ["can't be met"]),
        ("band_gap = 1 and band_gap != 1", ["can't be met"]),
        ("band_gap < 0", ["can't be met", "band_gap >= 0 always"]),
        ("volume_per_atom <= 0", ["can't be met"]),
        ("3 < nelements < 4", ["can't be met"]),
        ("nelements = 2.5", ["can't be met"]),
        ("1 <= nelements <= 2 and nelements != 1 and nelements != 2", ["can't be met"]),
        ("space_group_number > 230", ["can't be met"]),
        ("crystal_system = cubic and space_group_number < 100", ["no space group"]),
        ("crystal_system = cubic and crystal_system = hexagonal", ["cubic and hexagonal"]),
        ("formula_pretty = GaAs and formula_pretty != GaAs", ["not be it"]),
        ("elements has Pb and elements without Pb", ["Pb both wanted and unwanted"]),
        ("elements in Ga and elements in As", ["no element is left"]),
        ("elements in Ga and elements without Ga", ["no element is left"]),
        ("elements has N and elements in Ga, As", ["N wanted"]),
        ("chemsys = As-Ga and elements has N", ["N wanted"]),
        ("formula_pretty = GaAs and nelements = 3", ["nelements"]),
        ("elements has Ga, As, N and nelements = 2", ["nelements"]),
        ("x" * 3000, ["3000 characters"]),
    ],
)
def test_a_bad_text_is_refused_in_one_line(text: str, words: list[str]) -> None:
    with pytest.raises(TargetError) as caught:
        Target.parse([text])
    message = str(caught.value)
    assert_one_line(caught.value)
    for word in words:
        assert word in message


def test_contradicting_texts_are_refused() -> None:
    with pytest.raises(TargetError, match="can't be met"):
        Target.parse(["band_gap > 2", "band_gap < 1"])


def test_something_else_than_text_is_refused() -> None:
    with pytest.raises(TargetError, match="expected a text"):
        Target.parse([{"$where": "1"}])  # type: ignore[list-item]  # what a careless caller may pass


def assert_one_line(error: TargetError) -> None:
    assert len(str(error).splitlines()) == 1


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        target = Target.parse([text])
    except TargetError as error:
        assert_one_line(error)
    else:
        assert Target.parse(target.texts()) == target


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SYMBOLS = st.sets(st.sampled_from(sorted(ELEMENTS)), min_size=1, max_size=4).map(sorted)


@st.composite
def texts(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["compare", "chain", "elements", "text"]))
    field = draw(st.sampled_from(sorted(NUMERIC_FIELDS)))
    if kind == "compare":
        return f"{field} {draw(st.sampled_from(['<', '<=', '>', '>=', '=', '!=']))} {draw(FINITE)!r}"
    if kind == "chain":
        less = st.sampled_from(["<", "<="])
        return f"{draw(FINITE)!r} {draw(less)} {field} {draw(less)} {draw(FINITE)!r}"
    if kind == "elements":
        return f"elements {draw(st.sampled_from(['has', 'in', 'without']))} {', '.join(draw(SYMBOLS))}"
    return f"chemsys {draw(st.sampled_from(['=', '!=']))} {'-'.join(draw(SYMBOLS))}"


@given(st.lists(texts(), min_size=1, max_size=4))
def test_canonical_texts_parse_to_the_same_target_in_any_order(written: list[str]) -> None:
    try:
        target = Target.parse(written)
    except TargetError:
        with pytest.raises(TargetError):
            Target.parse(written[::-1])
        return
    assert Target.parse(target.texts()) == target
    assert Target.parse([str(target)]) == target
    assert Target.parse(written[::-1]) == target


@given(low=FINITE, high=FINITE, value=FINITE)
def test_a_chain_means_both_comparisons(low: float, high: float, value: float) -> None:
    try:
        target = Target.parse([f"{low!r} < lowest_optical_frequency <= {high!r}"])
    except TargetError:
        assert low >= high
    else:
        assert target.matches({"lowest_optical_frequency": value}) == (low < value <= high)
