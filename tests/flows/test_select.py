from dataclasses import replace

import pytest

from tests.flows.rounds import CSCL, NACL, POLICY, VERDICTS, contents, open_round, propose
from wyloop.flows.policy import DriftLimits, Policy
from wyloop.flows.ranking import acquisition
from wyloop.flows.select import _in_order, select_candidates
from wyloop.models.acquisition.batch import Batch, Diversity
from wyloop.models.acquisition.scores import POLICIES
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, candidates
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

NACL_WRONG, KBR = canonical(Gene.parse("221 Cl:b Na:a")), canonical(Gene.parse("225 Br:b K:a"))
NACL_ZINCBLENDE, SPINEL = canonical(Gene.parse("216 Cl:c Na:a")), canonical(Gene.parse("227 Al:d Mg:a O:e"))


@pytest.fixture
def record(database: Store) -> RoundRecord:
    return open_round(database)[1]


def with_merit(likeness: float) -> tuple[Verdict, ...]:
    return tuple(replace(v, value=likeness) if v.screen == "synthesizability" else v for v in VERDICTS)


def prediction(volume_per_atom: float) -> Prediction:
    return Prediction(-2.0, 0.1, 5.0, 0.3, 0.0, volume_per_atom)


def selected(store: Store, record: RoundRecord) -> list[CandidateRecord]:
    return candidates.of_round(store, record.round_id, statuses=("selected",))


def test_acquisition_prefers_merit_small_cells_and_fixed_positions(database: Store, record: RoundRecord) -> None:
    good = propose(database, record, NACL)
    assert acquisition(good) == pytest.approx(0.5 * 0.8 / 1.2)  # on target x likeness, 2 atoms at 0.1 each
    assert acquisition(good) > acquisition(replace(good, verdicts=with_merit(0.5)))
    assert acquisition(good) > acquisition(replace(good, gene=SPINEL))
    assert acquisition(replace(good, verdicts=())) == 0.0


def test_the_best_of_each_chemical_system_are_selected(database: Store, record: RoundRecord) -> None:
    for gene, likeness in ((NACL, 0.9), (NACL_WRONG, 0.8), (NACL_ZINCBLENDE, 0.7), (KBR, 0.6), (SPINEL, 1.0)):
        propose(database, record, gene, verdicts=with_merit(likeness), prediction=prediction(24.0))
    propose(database, record, CSCL, "rejected")
    assert select_candidates(database, record, POLICY) == {"n_selected": 3, "n_not_built": 0}
    # Two of Cl-Na at most; the spinel has 14 atoms, more than the 12 that are relaxed.
    assert [(found.gene, found.rank) for found in selected(database, record)] == [(NACL, 1), (NACL_WRONG, 2), (KBR, 3)]
    assert candidates.funnel(database, record.round_id)["passed"] == 2
    asked = {(found.subject, found.kind): found.inputs for found in calculations.of_round(database, record.round_id)}
    assert len(asked) == 6
    (start,) = asked[str(NACL), "relaxation"]
    assert encode(start) == NACL
    assert asked[str(NACL), "phonon"] == ()


def test_repeated_it_selects_nothing_more(database: Store, record: RoundRecord) -> None:
    for gene in (NACL, NACL_WRONG, NACL_ZINCBLENDE, KBR, CSCL):
        propose(database, record, gene, prediction=prediction(24.0))
    select_candidates(database, record, POLICY)
    before = contents(database, "candidates", "calculations")
    assert select_candidates(database, record, POLICY) == {"n_selected": 3, "n_not_built": 0}
    assert contents(database, "candidates", "calculations") == before


def test_interrupted_and_repeated_it_chooses_the_same(database: Store, record: RoundRecord) -> None:
    likely = ((NACL, 0.9), (NACL_WRONG, 0.8), (NACL_ZINCBLENDE, 0.7), (KBR, 0.6), (CSCL, 0.5))
    for gene, likeness in likely:
        propose(database, record, gene, verdicts=with_merit(likeness), prediction=prediction(24.0))
    # The interruption: two are selected, both Cl-Na, and the third of that system must stay out.
    select_candidates(database, record, POLICY.model_copy(update={"n_relaxations": 2}))
    assert [found.gene for found in selected(database, record)] == [NACL, NACL_WRONG]
    select_candidates(database, record, POLICY)
    assert [(found.gene, found.rank) for found in selected(database, record)] == [(NACL, 1), (NACL_WRONG, 2), (KBR, 3)]


def test_what_cannot_be_built_fails_and_the_next_best_takes_its_place(database: Store, record: RoundRecord) -> None:
    crowded = propose(database, record, CSCL, verdicts=with_merit(1.0), prediction=prediction(2.0))
    for gene in (NACL, NACL_WRONG, KBR):
        propose(database, record, gene, verdicts=with_merit(0.9), prediction=prediction(24.0))
    assert select_candidates(database, record, POLICY) == {"n_selected": 3, "n_not_built": 1}
    found = candidates.candidate(database, crowded.candidate_id)
    assert (found.status, found.rank) == ("failed", None)
    assert found.reason.startswith(f"no crystal of {CSCL} at 2.0 Å^3/atom")
    assert calculations.of_subjects(database, [str(CSCL)]) == []


def test_without_a_prediction_a_usual_volume_is_tried(database: Store, record: RoundRecord) -> None:
    propose(database, record, NACL)
    assert select_candidates(database, record, POLICY)["n_selected"] == 1
    relaxation = next(found for found in calculations.of_round(database, record.round_id) if found.kind == "relaxation")
    assert relaxation.inputs[0].volume / 2 == pytest.approx(20.0, rel=0.3)


def test_a_round_in_which_nothing_passed(database: Store, record: RoundRecord) -> None:
    propose(database, record, NACL, "rejected")
    assert select_candidates(database, record, POLICY) == {"n_selected": 0, "n_not_built": 0}


def test_the_policy_says_what_ranks_them(database: Store, record: RoundRecord) -> None:
    """By merit NaCl is first; by probability KBr, whose prediction is surely on target; to explore CsCl."""
    likely = {NACL: Prediction(-0.4, 0.1, 5.0, 0.3, 0.0, 24.0), KBR: Prediction(-2.0, 0.1, 4.0, 0.3, 0.0, 36.0)}
    predictions = likely | {CSCL: Prediction(-0.3, 2.0, 5.0, 0.3, 0.0, 35.0), NACL_WRONG: None}
    for gene, found in predictions.items():
        propose(database, record, gene, verdicts=with_merit(0.9 if gene == NACL else 0.5), prediction=found)

    def first_of(policy: Policy) -> list[Gene]:
        passed = candidates.of_round(database, record.round_id, statuses=("passed",))
        n_exploiting = policy.n_relaxations - round(policy.n_relaxations * policy.exploration)
        return [one.gene for one in _in_order(database, record, policy, passed, n_exploiting, Batch(Diversity()))]

    policies = {name: POLICY.model_copy(update={"acquisition": name}) for name in ("merit", *POLICIES)}
    assert first_of(policies["merit"])[0] == NACL
    for name in ("probability", "improvement", "greedy"):
        order = first_of(policies[name])
        assert order[0] == KBR
        assert order[-1] == NACL_WRONG  # nothing is predicted of it
    assert first_of(policies["random"]) == first_of(policies["random"])
    assert first_of(POLICY.model_copy(update={"exploration": 1.0}))[0] == CSCL


def test_elements_and_prototypes_keep_their_shares(database: Store, record: RoundRecord) -> None:
    for gene, likeness in ((NACL, 0.9), (NACL_WRONG, 0.8), (KBR, 0.7), (CSCL, 0.6)):
        propose(database, record, gene, verdicts=with_merit(likeness), prediction=prediction(24.0))
    drift = DriftLimits(max_element_share=0.4, max_prototype_share=0.7)  # of three: one of an element, two of a kind
    select_candidates(database, record, POLICY.model_copy(update={"drift": drift}))
    assert [found.gene for found in selected(database, record)] == [NACL, KBR]
