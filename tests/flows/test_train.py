from collections.abc import Iterator

import pytest
import torch

from tests.flows.rounds import POLICY, contents, fill, open_round
from wyloop.flows.progress import listening
from wyloop.flows.train import train_model
from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import SHIPPED, Checkpoint
from wyloop.stores import registry
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


def test_an_empty_database_has_nothing_to_train_on(database: Store) -> None:
    with pytest.raises(ModelError, match="0 training rows"):
        train_model(database, open_round(database)[1], POLICY)
