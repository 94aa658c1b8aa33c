import pytest

from tests.flows.rounds import fill, open_round, propose
from wyloop.flows import ranking
from wyloop.flows.policy import Policy
from wyloop.flows.ranking import acquisition, labelled, scores
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.connection import Store
from wyloop.stores.training import training_snapshot

KCL, NICU = canonical(Gene.parse("225 Cl:b K:a")), canonical(Gene.parse("221 Cu:b Ni:a"))
TARGET = ("formation_energy_per_atom < -1.5",)


def test_the_surrogate_learns_from_the_database_what_the_model_does_not_know(
    database: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model expects the same of a salt and of an alloy; 60 labelled crystals tell them apart."""
    fill(database)
    policy = Policy.model_validate({"acquisition": "surrogate"})
    _, record = open_round(database, policy, TARGET)
    found = [
        propose(database, record, gene, prediction=Prediction(-1.5, 0.5, 0.0, 0.3, 0.5, 20.0)) for gene in (NICU, KCL)
    ]
    target = Target.parse(list(TARGET))
    by_merit = [acquisition(candidate) for candidate in found]
    assert by_merit[0] == by_merit[1]
    n_labelled = len(labelled(training_snapshot(database).rows, target, ["formation_energy_per_atom"]))
    assert 40 < n_labelled < ranking.MIN_LABELLED
    assert scores(database, policy.acquisition, found, target, record) == by_merit  # too few labels: the screens' own
    monkeypatch.setattr(ranking, "MIN_LABELLED", 40)
    alloy, salt = scores(database, "surrogate", found, target, record)
    assert salt > 5 * alloy
    assert scores(database, "surrogate", [], target, record) == []
    of_symmetry = Target.parse(["space_group_number >= 195"])  # asks for nothing that is to be predicted
    assert scores(database, "surrogate", found, of_symmetry, record) == by_merit


def test_of_many_labels_those_that_the_target_could_be_are_kept(
    database: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    rows = training_snapshot(database).rows
    target = Target.parse(["formation_energy_per_atom < -1.5", "space_group_number >= 195"])
    cubic = {place for place in range(len(rows)) if rows[place].gene.space_group_number >= 195}
    monkeypatch.setattr(ranking, "MAX_ROWS", len(cubic) + 3)
    kept = labelled(rows, target, ["formation_energy_per_atom"])
    assert len(kept) == len(cubic) + 3 < len(rows)
    assert cubic < set(kept)
    assert kept == labelled(rows, target, ["formation_energy_per_atom"])
