import numpy as np
import pytest

from wyloop.models.screening.outcomes import (
    MIN_OF_EACH,
    SCREEN,
    Outcome,
    OutcomeHead,
    auc,
    fit_outcome_head,
    outcome_features,
)
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical

CATIONS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Fe", "Co", "Ni", "Mn", "Ti")
ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te")
PROTOTYPES = ("225 {}:a {}:b", "221 {}:a {}:b")


def outcomes(n: int = 256, *, seed: int = 0, rule: str = "chemistry") -> list[Outcome]:
    """Genes of which those with a halogen hold, whatever the predicted distance says, or by chance."""
    rng = np.random.default_rng(seed)
    made = []
    for cation in CATIONS:
        for anion in ANIONS:
            for prototype in PROTOTYPES:
                gene = canonical(Gene.parse(prototype.format(*sorted((cation, anion)))))
                chance = 0.9 if anion in ("F", "Cl", "Br", "I") else 0.1
                is_good = rng.random() < (chance if rule == "chemistry" else 0.5)
                verdict = Verdict("predicted_stability", True, float(rng.normal()), "eV/atom", "")
                made.append(Outcome(gene, (verdict,), bool(is_good)))
    return made[:n]


def test_it_learns_what_the_screens_did_not_see() -> None:
    head = fit_outcome_head(outcomes())
    assert head is not None
    assert head.n_successes + head.n_failures == 256
    assert head.auc > 0.75
    assert 0.4 < head.auc_of_predicted_stability < 0.6
    assert head.is_used
    genes = [canonical(Gene.parse(text)) for text in ("225 Cl:a Tl:b", "225 S:a Pb:b")]
    salt, sulphide = head.verdicts(genes, [(), ()])
    assert (salt.screen, salt.unit) == (SCREEN, "1")
    assert (salt.value or 0.0) > (sulphide.value or 1.0)
    assert salt.passed
    assert OutcomeHead.from_json(head.to_json()) == head


def test_chance_is_found_to_be_chance_and_is_not_used() -> None:
    head = fit_outcome_head(outcomes(rule="chance"))
    assert head is not None
    assert 0.35 < head.auc < 0.65
    noise = OutcomeHead.from_json(head.to_json() | {"auc": 0.49, "auc_of_predicted_stability": 0.3})
    assert not noise.is_used


def test_the_order_of_outcomes_is_no_matter() -> None:
    made = outcomes()
    assert fit_outcome_head(made) == fit_outcome_head(made[::-1])


def test_too_few_outcomes_of_a_kind_teach_nothing() -> None:
    failures = [one for one in outcomes() if not one.has_succeeded]
    few = [one for one in outcomes() if one.has_succeeded][: MIN_OF_EACH - 1]
    assert fit_outcome_head(failures + few) is None
    assert fit_outcome_head([]) is None


def test_missing_numbers_are_marked() -> None:
    gene = canonical(Gene.parse("225 Cl:a Na:b"))
    given = Verdict("synthesizability", True, 0.7, "1", "")
    features = outcome_features([gene, gene], [(given,), ()])
    assert features[0, 1] == pytest.approx(0.7)
    assert np.isnan(features[1, :3]).all()
    assert np.isfinite(features[:, 3:]).all()


def test_area_under_the_curve() -> None:
    labels = np.array([1.0, 1.0, 0.0, 0.0])
    assert auc(np.array([0.9, 0.8, 0.2, 0.1]), labels) == 1.0
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), labels) == 0.0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), labels) == 0.5
    assert auc(np.array([0.9, 0.2, 0.5, 0.1]), labels) == 0.75
    assert auc(np.array([0.9, 0.2]), np.ones(2)) == 0.5
