"""The training step of a round: snapshot of the database, fine-tuning of the shipped model, registration."""

import logging

from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress, show_table
from wyloop.models.mpvae.checkpoint import SHIPPED, load_shipped
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.train import train
from wyloop.models.physics.calculators import one_thread
from wyloop.stores import registry
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.training import training_snapshot

logger = logging.getLogger(__name__)


def train_model(store: Store, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Fine-tune the shipped MPVAE on everything in the database and register the result.

    Each round starts from the shipped weights, not from the last round's: what the database holds decides, and errors
    of one round do not add up over the next.

    Returns:
        `model_id`, `snapshot_hash` and the number of training rows, for the round's record.

    Raises:
        ModelError: The database holds no row to train on.
    """
    snapshot = training_snapshot(store)
    shipped = load_shipped()
    shipped_id = registry.save_model(
        store,
        SHIPPED.read_bytes(),
        parent_id=None,
        card=dict(shipped.card),
        snapshot=None,
        campaign_id=None,
        round_number=None,
    )
    counts: dict[str, object] = {"snapshot_hash": snapshot.hash, "n_rows": len(snapshot.rows)}
    before = (shipped_id, record.campaign_id, record.number, snapshot.hash)
    for known in registry.models(store):  # interrupted after this, the step has done its work
        if (known.parent_id, known.campaign_id, known.round_number, known.snapshot_hash) == before:
            return {"model_id": known.model_id, **counts}
    config = TrainingConfig.fine_tune(n_rows=len(snapshot.rows), seed=policy.seed + record.number)
    with progress("fine-tuning the MPVAE") as report, one_thread():  # on more threads, no two runs give the same sums
        checkpoint = train(
            snapshot.rows, config, initial=shipped, on_epoch=lambda metrics: report(metrics.epoch, metrics.n_epochs)
        )
    model_id = registry.save_model(
        store,
        checkpoint.to_bytes(),
        parent_id=shipped_id,
        card=dict(checkpoint.card),
        snapshot=snapshot,
        campaign_id=record.campaign_id,
        round_number=record.number,
    )
    show_table(
        f"training-{record.round_id.lower()}",
        checkpoint.card["history"],
        f"Training of {model_id}: mean losses of each epoch; score is what early stopping watches",
    )
    logger.info("round %d: fine-tuned %s on %d rows", record.number, model_id, len(snapshot.rows))
    return {"model_id": model_id, **counts}
