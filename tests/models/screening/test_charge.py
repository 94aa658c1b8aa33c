import itertools
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyloop.models.screening.charge import _ions, anion_family, best_assignment, charge_neutrality


@pytest.mark.parametrize(
    ("amounts", "assignment"),
    [
        ({"Na": 1, "Cl": 1}, "Na1+ Cl1-"),
        ({"Ga": 4, "As": 4}, "Ga3+ As3-"),
        ({"Sr": 1, "Ti": 1, "O": 3}, "Sr2+ Ti4+ O2-"),
        ({"Ti": 2, "O": 4}, "Ti4+ O2-"),
        ({"La": 1, "Fe": 1, "O": 3}, "La3+ Fe3+ O2-"),
        ({"Ca": 1, "C": 1, "O": 3}, "Ca2+ C4+ O2-"),
        ({"Cu": 1, "In": 1, "Se": 2}, "In3+ Cu1+ Se2-"),
        ({"Cs": 2, "Ag": 1, "Bi": 1, "Br": 6}, "Cs1+ Bi3+ Ag1+ Br1-"),
        ({"Pm": 1, "Cl": 3}, "Pm3+ Cl1-"),
    ],
)
def test_published_compounds_are_neutral(amounts: dict[str, int], assignment: str) -> None:
    verdict = charge_neutrality(amounts)
    assert verdict.passed
    assert verdict.reason == assignment
    assert verdict.value is not None
    assert 0.5 < verdict.value <= 1.0
    assert verdict.unit == "1"


@pytest.mark.parametrize(
    ("amounts", "reason"),
    [
        ({"Na": 1, "Cl": 2}, "the nearest, Na1+ Cl1-, leaves -0.33 e/atom"),
        ({"Na": 2, "Cl": 1}, "leaves +0.33 e/atom"),
        ({"Ni": 1, "Al": 1}, "an alloy"),
        ({"Si": 2}, "an element"),
        ({"Lv": 1, "O": 1}, "no oxidation states reported for Lv"),
        ({"He": 1, "O": 2}, "no oxidation states reported for He"),
        ({"Na": 401, "Cl": 400}, "more than 400 atoms"),
    ],
)
def test_what_is_not_neutral_says_why(amounts: dict[str, int], reason: str) -> None:
    verdict = charge_neutrality(amounts)
    assert not verdict.passed
    assert verdict.value == 0.0
    assert reason in verdict.reason
    assert not anion_family(amounts).passed


@pytest.mark.parametrize(("amounts", "label"), [({"Fe": 3, "O": 4}, "Fe2+/Fe3+"), ({"Pb": 3, "O": 4}, "Pb2+/Pb4+")])
def test_mixed_valence_passes_at_a_lower_score_unless_forbidden(amounts: dict[str, int], label: str) -> None:
    verdict = charge_neutrality(amounts)
    assert verdict.passed
    assert label in verdict.reason
    assert verdict.value is not None
    assert 0.0 < verdict.value <= 0.5
    assert not charge_neutrality(amounts, allow_mixed_valence=False).passed


def test_a_more_electronegative_cation_is_refused() -> None:
    best = best_assignment({"Au": 1, "Te": 2})  # Au (2.54) above Te (2.10): Au+ Te- are no ions
    assert best is None or best.net_charge != 0


@pytest.mark.parametrize(
    ("amounts", "passed", "reason"),
    [
        ({"Ga": 1, "N": 1}, True, "anions: N (pnictide)"),
        ({"Ba": 1, "S": 1, "O": 4}, True, "anions: O (oxide)"),
        ({"Sr": 2, "N": 1, "Cl": 1}, False, "anions: Cl (halide), N (pnictide)"),
    ],
)
def test_anion_family(amounts: dict[str, int], passed: bool, reason: str) -> None:
    verdict = anion_family(amounts)
    assert verdict.passed is passed
    assert verdict.reason == reason
    assert verdict.value == reason.count("(")


def test_order_and_multiple_of_the_formula_do_not_matter() -> None:
    assert charge_neutrality({"O": 12, "Sr": 4, "Ti": 4}) == charge_neutrality({"Ti": 1, "Sr": 1, "O": 3})
    assert charge_neutrality({"Na": 1, "Cl": 1, "K": 0}) == charge_neutrality({"Na": 1, "Cl": 1})


def brute_force(amounts: dict[str, int]) -> float | None:
    """Try every product of states; the best score of those that are neutral and in electronegativity order."""
    ions = _ions()
    choices = [[*ions[element].cation.items(), *ions[element].anion.items()] for element in amounts]
    best = None
    for chosen in itertools.product(*choices):
        charges = {element: state for element, (state, _) in zip(amounts, chosen, strict=True)}
        if sum(amounts[element] * state for element, state in charges.items()):
            continue
        cations = [ions[element].electronegativity or 0.0 for element, state in charges.items() if state > 0]
        anions = [ions[element].electronegativity or 0.0 for element, state in charges.items() if state < 0]
        if max(cations) >= min(anions):
            continue
        cost = sum(n * share for n, (_, share) in zip(amounts.values(), chosen, strict=True))
        score = math.exp(cost / sum(amounts.values()))
        best = score if best is None else max(best, score)
    return best


COMMON = (
    "H",
    "Li",
    "B",
    "C",
    "N",
    "O",
    "Na",
    "Mg",
    "Al",
    "Si",
    "P",
    "S",
    "Cl",
    "Fe",
    "Cu",
    "Ga",
    "As",
    "Se",
    "Sn",
    "Au",
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(COMMON), st.integers(1, 6), min_size=2, max_size=3))
def test_finds_what_trying_everything_finds(amounts: dict[str, int]) -> None:
    divisor = math.gcd(*amounts.values())
    wanted = brute_force({element: n // divisor for element, n in amounts.items()})
    verdict = charge_neutrality(amounts, allow_mixed_valence=False)
    assert verdict.passed is (wanted is not None)
    assert verdict.value == pytest.approx(wanted or 0.0)


def test_a_large_formula_takes_bounded_time() -> None:
    many = ("Fe", "Mn", "V", "Cr", "P", "S", "N", "C", "Cl", "O")
    start = time.process_time()
    charge_neutrality(dict(zip(many, (37, 41, 29, 31, 23, 43, 19, 47, 53, 61), strict=True)))
    assert time.process_time() - start < 5.0
