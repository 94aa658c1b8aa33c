import itertools
import time
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from wyloop.models.screening.funnel import (
    SCREENS,
    FunnelStep,
    ScreeningPolicy,
    funnel_counts,
    gene_values,
    is_accepted,
    merit,
    predicted_properties,
    screen,
    validity,
)
from wyloop.models.screening.hull import Entry
from wyloop.models.screening.verdict import Verdict
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical, images


@dataclass(frozen=True)
class Guess:
    formation_energy_per_atom: float = -0.4
    band_gap: float = 1.0
    formation_energy_per_atom_std: float = 0.1
    band_gap_std: float = 0.2
    volume_per_atom: float = 20.0


ZINC_BLENDE = canonical(Gene.parse("216 Ga:a As:c"))
ROCK_SALT = canonical(Gene.parse("225 Ga:a As:b"))
SPINEL = canonical(Gene.parse("227 Al:d Mg:a O:e"))
POLICY = ScreeningPolicy()
ENTRIES = [Entry({"Ga": 1, "As": 1}, -0.42, "GaAs")]


def by_screen(verdicts: tuple[Verdict, ...]) -> dict[str, Verdict]:
    return {verdict.screen: verdict for verdict in verdicts}


def test_every_screen_leaves_a_verdict_even_for_a_hopeless_candidate() -> None:
    alloy = canonical(Gene.parse("221 Ni:a Al:b"))
    target = Target.parse(["band_gap > 5 and space_group_number > 225"])
    (verdicts,) = screen([alloy], [Guess(1.0, 0.0)], target, {alloy.fingerprint}, [], ScreeningPolicy(max_nsites=1))
    assert tuple(verdict.screen for verdict in verdicts) == SCREENS
    found = by_screen(verdicts)
    assert not any(found[name].passed for name in SCREENS if name != "synthesizability")
    assert all(verdict.reason and verdict.unit for verdict in verdicts)
    assert found["validity"].value == 2
    assert found["predicted_stability"].value == pytest.approx(1.0)


def test_a_good_candidate_is_accepted_and_a_polymorph_marked() -> None:
    target = Target.parse(["0.5 < band_gap < 2", "elements has Ga", "crystal_system = cubic"])
    (verdicts,) = screen(
        [ZINC_BLENDE], [Guess()], target, {ROCK_SALT.fingerprint}, ENTRIES, POLICY, known_formulas={"GaAs"}
    )
    found = by_screen(verdicts)
    assert is_accepted(verdicts, POLICY)
    assert found["novelty"].value == 0.5
    assert found["charge_neutrality"].reason == "Ga3+ As3-"
    assert found["anion_family"].reason == "anions: As (pnictide)"
    assert found["predicted_stability"].value == pytest.approx(0.02)
    assert found["predicted_properties"].value == pytest.approx(0.9938, abs=1e-4)  # 2.5 sigma to one end


def test_the_second_of_two_equal_candidates_is_not_novel() -> None:
    first, second = screen([ZINC_BLENDE] * 2, [Guess()] * 2, Target(), set(), [], POLICY)
    assert by_screen(first)["novelty"].passed
    assert not by_screen(second)["novelty"].passed


def test_genes_and_predictions_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        screen([ZINC_BLENDE], [], Target(), set(), [], POLICY)


def test_validity_tells_size_form_and_broken_rules() -> None:
    assert validity(SPINEL, max_nsites=14).passed
    large = validity(SPINEL, max_nsites=13)
    assert (large.passed, large.value) == (False, 14)
    other = next(image for image in images(SPINEL) if image != SPINEL)
    assert "canonical" in validity(other, max_nsites=24).reason
    broken = validity(Gene(225, (("Na", "a"), ("Cl", "a"))), max_nsites=24)
    assert (broken.passed, broken.value) == (False, None)
    assert "used 2 times" in broken.reason


def test_values_of_a_gene_serve_every_field_that_it_decides() -> None:
    target = Target.parse(
        ["space_group_number = 227 and nelements = 3 and nsites = 14 and crystal_system = cubic"]
        + ["formula_pretty = Al2MgO4", "chemsys = Al-Mg-O", "elements in Al, Mg, O"]
    )
    assert target.matches(gene_values(SPINEL))


@pytest.mark.parametrize(
    ("text", "passed", "probability"),
    [
        ("band_gap < 1.0", False, 0.5),
        ("band_gap <= 1.0", True, 0.5),
        ("band_gap < 1.2", True, 0.8413),  # one sigma
        ("0.8 < band_gap < 1.2", True, 0.6827),
        ("0 <= band_gap < 1.0", False, 0.5),  # a negative estimate counts as gapless
        ("formation_energy_per_atom < -0.3 and band_gap > 1.2", False, 0.8413 * 0.1587),
        ("energy_above_hull < 0.1", True, 0.8413),
        ("space_group_number = 225", False, 0.0),
        ("volume_per_atom > 30", False, 0.0),
        ("volume_per_atom < 30", True, 1.0),
        ("lowest_optical_frequency > 0", True, 1.0),  # nothing predicts it: left open
    ],
)
def test_probability_to_meet_the_target(text: str, passed: bool, probability: float) -> None:
    verdict = predicted_properties(ZINC_BLENDE, Guess(), Target.parse([text]), 0.0)
    assert verdict.passed is passed
    assert verdict.value == pytest.approx(probability, abs=1e-4)


def test_off_target_names_what_is_missed() -> None:
    verdict = predicted_properties(ZINC_BLENDE, Guess(), Target.parse(["band_gap > 2", "elements has N"]))
    assert verdict.reason == "off target: band_gap 1.00 eV, elements As-Ga"


def test_a_sure_prediction_is_all_or_nothing() -> None:
    sure = Guess(band_gap_std=0.0)
    assert predicted_properties(ZINC_BLENDE, sure, Target.parse(["band_gap > 0.9"])).value == 1.0
    assert predicted_properties(ZINC_BLENDE, sure, Target.parse(["band_gap > 1.1"])).value == 0.0


def test_merit_falls_with_the_distance_to_the_hull() -> None:
    near, far = (
        screen([ZINC_BLENDE], [Guess(energy)], Target(), set(), ENTRIES, POLICY)[0] for energy in (-0.42, -0.22)
    )
    assert 0 < merit(far) < merit(near) <= 1
    assert merit(far) == pytest.approx(merit(near) * 0.1353, rel=1e-3)  # exp(-2)
    assert merit(()) == 0.0


def test_counts_alone_and_after_the_binding_screens() -> None:
    def verdicts(*passed: str) -> list[Verdict]:
        return [Verdict(name, name in passed, None, "1", "") for name in SCREENS]

    policy = ScreeningPolicy(binding=("novelty", "anion_family"))
    batch = [verdicts("novelty", "anion_family"), verdicts("anion_family"), verdicts("novelty", "synthesizability")]
    steps = {step.screen: step for step in funnel_counts(batch, policy)}
    assert steps["validity"] == FunnelStep("validity", False, 0, 3)
    assert steps["novelty"] == FunnelStep("novelty", True, 2, 2)
    assert steps["anion_family"] == FunnelStep("anion_family", True, 2, 1)
    assert steps["synthesizability"] == FunnelStep("synthesizability", False, 1, 1)
    assert [is_accepted(one, policy) for one in batch] == [True, False, False]


def test_a_policy_refuses_unknown_screens_and_thresholds() -> None:
    with pytest.raises(ValidationError):
        ScreeningPolicy.model_validate({"binding": ["taste"]})
    with pytest.raises(ValidationError):
        ScreeningPolicy.model_validate({"synthesizability_threshold": 1.5})
    assert ScreeningPolicy.model_validate_json(POLICY.model_dump_json()) == POLICY


def test_a_thousand_candidates_take_less_than_five_seconds_of_one_core() -> None:
    cations = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Al", "Ga", "In", "Sc", "Y", "La", "Ti", "Zr", "Fe", "Co", "Zn")
    triples = itertools.product(cations, cations, ("O", "S", "Se", "F"))
    genes = [canonical(Gene.parse(f"221 {x}:c {a}:a {b}:b")) for a, b, x in triples if a != b]
    genes = genes[:1000]
    entries = [Entry({a: 1, x: 1}, -1.5, a + x) for a in cations for x in ("O", "S", "Se", "F")]
    start = time.process_time()
    found = screen(genes, [Guess()] * 1000, Target.parse(["band_gap > 0.5"]), set(), entries, POLICY)
    assert time.process_time() - start < 5.0
    assert len(found) == 1000
