import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.flows.rounds import POLICY, contents, fill, open_round, propose
from tests.models.screening.test_outcomes import outcomes as outcome_genes
from wyloop.flows.progress import listening
from wyloop.flows.train import OUTCOME_HEAD, start_model, train_model
from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import SHIPPED, Checkpoint, load_shipped
from wyloop.stores import promotions, registry
from wyloop.stores.connection import Store
from wyloop.stores.training import training_snapshot


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Sums over two threads come out differently each time: nothing may depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def update(self, step: str, done: int, total: int) -> None:
        self.seen.append((step, done, total))


def test_the_model_is_registered_with_what_it_was_trained_on(database: Store, two_threads: None) -> None:
    fill(database, step=40)
    _, record = open_round(database)
    steps = Steps()
    with listening(steps):
        counts = train_model(database, record, POLICY)
    snapshot = training_snapshot(database)
    assert counts["snapshot_hash"] == snapshot.hash
    assert counts["n_rows"] == len(snapshot.rows) == 17
    shipped, tuned = registry.models(database)
    assert (tuned.model_id, tuned.parent_id) == (counts["model_id"], shipped.model_id)
    assert (tuned.campaign_id, tuned.round_number, tuned.n_rows) == (record.campaign_id, 1, 17)
    assert (shipped.parent_id, shipped.snapshot_hash, shipped.campaign_id) == (None, None, None)
    assert registry.load_snapshot(database, tuned.model_id) == snapshot
    assert registry.load_weights(database, shipped.model_id) == SHIPPED.read_bytes()
    assert Checkpoint.from_bytes(registry.load_weights(database, tuned.model_id)).card["seed"] == POLICY.seed + 1
    assert {step for step, _, _ in steps.seen} == {"fine-tuning the MPVAE"}
    assert steps.seen[-1][1] <= steps.seen[-1][2]

    # Interrupted before it was recorded, the step has its model already.
    before = contents(database, "model_versions", "fs.files")
    assert train_model(database, record, POLICY) == counts
    assert contents(database, "model_versions", "fs.files") == before

    # Interrupted before the model was registered, it trains again: the same weights, however many threads there are.
    weights = Checkpoint.from_bytes(registry.load_weights(database, tuned.model_id)).weights
    database.database["model_versions"].delete_one({"model_id": tuned.model_id})
    again = train_model(database, record, POLICY)
    trained = Checkpoint.from_bytes(registry.load_weights(database, str(again["model_id"]))).weights
    assert all(trained[name].equal(weights[name]) for name in weights)
    assert len(registry.models(database)) == 2


def test_a_campaign_starts_from_the_promoted_model_and_stays_with_it(database: Store) -> None:
    fill(database, step=80)
    _, first = open_round(database)
    shipped = load_shipped()
    marked = replace(shipped, card={**shipped.card, "mark": "mine"})
    mine = registry.save_model(
        database,
        marked.to_bytes(),
        parent_id=None,
        card=marked.card,
        snapshot=None,
        campaign_id=None,
        round_number=None,
    )
    promotions.promote(database, mine)
    assert start_model(database, first) == mine
    trained = registry.model(database, str(train_model(database, first, POLICY)["model_id"]))
    assert trained.parent_id == mine

    promotions.roll_back(database)  # another model is in use now: this campaign goes on as it began
    second = replace(first, round_id=first.round_id[:-1] + "2", number=2)
    assert start_model(database, second) == mine
    other = replace(first, campaign_id="another", round_id="another-r1")
    found = registry.model(database, start_model(database, other))
    assert found.weights_hash == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


@pytest.mark.expects_findings("candidate_validated_without_material")
def test_failures_are_learned_from_once_there_are_enough(database: Store) -> None:
    fill(database, step=80)
    _, record = open_round(database)
    good = [one for one in outcome_genes() if one.has_succeeded][:60]
    bad = [one for one in outcome_genes() if not one.has_succeeded]
    for place, one in enumerate((*good, *bad[:49])):
        propose(database, record, one.gene, "validated" if one.has_succeeded else "unstable", rank=place)
    card = registry.model(database, str(train_model(database, record, POLICY)["model_id"])).card
    assert OUTCOME_HEAD not in card
    propose(database, record, bad[49].gene, "failed", reason="relaxation rejected: collapsed")
    propose(database, record, bad[50].gene, "failed", reason="never relaxed")
    second = replace(record, round_id=record.round_id[:-1] + "2", number=2)
    card = registry.model(database, str(train_model(database, second, POLICY)["model_id"])).card
    found = card[OUTCOME_HEAD]
    assert isinstance(found, dict)
    assert (found["n_successes"], found["n_failures"]) == (60, 50)
    assert isinstance(found["auc"], float)
    assert found["auc"] > 0.7


def test_an_empty_database_has_nothing_to_train_on(database: Store) -> None:
    with pytest.raises(ModelError, match="0 training rows"):
        train_model(database, open_round(database)[1], POLICY)
