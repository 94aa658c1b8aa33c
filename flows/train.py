"""The training step of a round: snapshot of the database, fine-tuning of the model in use, registration."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress, show_table
from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import SHIPPED, Checkpoint
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.train import train
from wyloop.models.physics.calculators import one_thread
from wyloop.models.screening.outcomes import fit_outcome_head
from wyloop.stores import promotions, registry
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.outcomes import outcomes
from wyloop.stores.registry import ModelRecord
from wyloop.stores.training import training_snapshot

logger = logging.getLogger(__name__)

OUTCOME_HEAD = "outcome_head"
"""Where a model's card keeps what was learned of failures."""


def train_model(store: Store, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Fine-tune the model that the campaign starts from on everything in the database, and register the result.

    That is the promoted model when the campaign first trains, or the shipped one. Each later round starts from it
    again, not from the last round's: what the database holds decides, and errors of one round do not add up over the
    next.

    Returns:
        `model_id`, `snapshot_hash` and the number of training rows, for the round's record.

    Raises:
        ModelError: The database holds no row to train on.
    """
    known = registry.models(store)
    start_id, start = _start_of(store, record, known)
    snapshot = training_snapshot(store, properties=start.config.extra_properties)
    counts: dict[str, object] = {"snapshot_hash": snapshot.hash, "n_rows": len(snapshot.rows)}
    before = (start_id, record.campaign_id, record.number, snapshot.hash)
    for one in known:  # interrupted after this, the step has done its work
        if (one.parent_id, one.campaign_id, one.round_number, one.snapshot_hash) == before:
            return {"model_id": one.model_id, **counts}
    config = TrainingConfig.fine_tune(n_rows=len(snapshot.rows), seed=policy.seed + record.number)
    with progress("fine-tuning the MPVAE") as report, one_thread():  # on more threads, no two runs give the same sums
        checkpoint = train(
            snapshot.rows, config, initial=start, on_epoch=lambda metrics: report(metrics.epoch, metrics.n_epochs)
        )
    head = fit_outcome_head(outcomes(store))
    if head is not None:  # what was computed so far, and how well it tells what will hold
        checkpoint = replace(checkpoint, card={**checkpoint.card, OUTCOME_HEAD: head.to_json()})
    model_id = registry.save_model(
        store,
        checkpoint.to_bytes(),
        parent_id=start_id,
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


def _start_of(store: Store, record: RoundRecord, known: Sequence[ModelRecord]) -> tuple[str, Checkpoint]:
    """Return the model that a campaign's training starts from: what its first one did, else the one in use."""
    parents = [one.parent_id for one in known if one.campaign_id == record.campaign_id and one.parent_id is not None]
    for name in (*parents[:1], promotions.IN_USE):
        try:
            model_id, checkpoint = promotions.named_checkpoint(store, name)
        except ModelError as error:  # its weights were dropped since
            if name == promotions.IN_USE:
                raise
            logger.warning("%s starts from the model in use: %s", record.campaign_id, error)
            continue
        break
    if model_id is not None:
        return model_id, checkpoint
    shipped_id = registry.save_model(
        store,
        SHIPPED.read_bytes(),
        parent_id=None,
        card=dict(checkpoint.card),
        snapshot=None,
        campaign_id=None,
        round_number=None,
    )
    return shipped_id, checkpoint


def start_model(store: Store, record: RoundRecord) -> str:
    """Return the model that a campaign starts from, for a round that trains none of its own."""
    return _start_of(store, record, registry.models(store))[0]
