"""The training step of a round: snapshot of the database, fine-tuning of the shipped model, registration."""

import logging
from dataclasses import replace

from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.models.mpvae.checkpoint import Checkpoint, load_shipped
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.train import train
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
        shipped.to_bytes(),
        parent_id=None,
        card=dict(shipped.card),
        snapshot=None,
        campaign_id=None,
        round_number=None,
    )
    config = TrainingConfig.fine_tune(n_rows=len(snapshot.rows), seed=policy.seed + record.number)
    with progress("fine-tuning the MPVAE") as report:
        checkpoint: Checkpoint = train(
            snapshot.rows, config, initial=shipped, on_epoch=lambda metrics: report(metrics.epoch, metrics.n_epochs)
        )
    # Trained again after an interruption, it must be the same model to the byte: its wall time stays out of the card.
    card = {key: value for key, value in checkpoint.card.items() if key != "wall_time_s"}
    model_id = registry.save_model(
        store,
        replace(checkpoint, card=card).to_bytes(),
        parent_id=shipped_id,
        card=card,
        snapshot=snapshot,
        campaign_id=record.campaign_id,
        round_number=record.number,
    )
    logger.info("round %d: fine-tuned %s on %d rows", record.number, model_id, len(snapshot.rows))
    return {"model_id": model_id, "snapshot_hash": snapshot.hash, "n_rows": len(snapshot.rows)}
