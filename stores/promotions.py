"""The model in use: promoted, rolled back, and the weights of those that nobody needs dropped; every change is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from wyloop.models.errors import ModelError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.promotions import PromotionDocument
from wyloop.stores.failures import translated
from wyloop.stores.latents import forget_latents
from wyloop.stores.registry import load_checkpoint

if TYPE_CHECKING:
    from wyloop.models.mpvae.checkpoint import Checkpoint  # torch: three seconds

IN_USE, SHIPPED = "promoted", "shipped"
"""Names of models besides their ids: the one in use, and the one that comes with the package."""
KEEP_NEWEST = 5
MIN_AGE = timedelta(days=7)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Promotion:
    """One change of the model in use."""

    number: int
    action: str
    model_id: str | None
    reason: str
    promoted_at: datetime


@dataclass(frozen=True)
class Garbage:
    """A model whose weights may be dropped; its card and snapshot stay."""

    model_id: str
    n_bytes: int
    last_updated: datetime
    is_referenced: bool
    """Whether candidates or materials name it: their lineage then still ends in its card."""


@translated
def promotions(store: Store) -> list[Promotion]:
    """Return all changes, oldest first."""
    return [
        Promotion(row["number"], row["action"], row.get("model_id"), row.get("reason") or "", row["promoted_at"])
        for row in store.database["promotions"].find().sort("number", 1)
    ]


def promoted(store: Store) -> str | None:
    """Return the id of the model in use; None: the shipped one."""
    stack = _stack(promotions(store))
    return stack[-1] if stack else None


@translated
def named_checkpoint(store: Store, name: str) -> "tuple[str | None, Checkpoint]":
    """Return a model by its name.

    Args:
        store: The database.
        name: An id; `promoted` for the model in use, the shipped one while nothing is promoted; or `shipped`.

    Returns:
        Its id, None for the shipped one, and the model ready for use.

    Raises:
        ModelError: No such model, or it does not load here.
    """
    from wyloop.models.mpvae.checkpoint import load_shipped  # torch: three seconds

    model_id = promoted(store) if name == IN_USE else None if name == SHIPPED else name
    return model_id, load_shipped() if model_id is None else load_checkpoint(store, model_id)


@translated
def promote(store: Store, model_id: str, reason: str = "") -> Promotion:
    """Put a model to use, once it is seen to load in this code.

    Raises:
        ModelError: No such model, weights that do not load here, or the model is in use already.
    """
    load_checkpoint(store, model_id)
    for _ in range(_ATTEMPTS):
        known = promotions(store)
        stack = _stack(known)
        if stack and stack[-1] == model_id:
            raise ModelError(f"{model_id} is in use already; expected another model")
        done = _append(store, known, "promote", model_id, reason)
        if done is not None:
            return done
    raise _too_busy()


@translated
def roll_back(store: Store, reason: str = "") -> Promotion:
    """Put the model back to use that was before the present one; before the first, that is the shipped one.

    Raises:
        ModelError: Nothing was promoted, or the model before does not load any more.
    """
    for _ in range(_ATTEMPTS):
        known = promotions(store)
        stack = _stack(known)
        if not stack:
            raise ModelError("no model was promoted, the shipped one is in use; expected a promotion to roll back")
        before = stack[-2] if len(stack) > 1 else None
        if before is not None:
            load_checkpoint(store, before)
        done = _append(store, known, "roll back", before, reason)
        if done is not None:
            return done
    raise _too_busy()


@translated
def garbage(
    store: Store, *, keep_newest: int = KEEP_NEWEST, min_age: timedelta = MIN_AGE, with_referenced: bool = False
) -> list[Garbage]:
    """Return the models whose weights can go, oldest first; nothing is changed.

    Kept are the weights of what was promoted and can be rolled back to, of the newest models, of young ones, of those
    that an open round uses and, unless `with_referenced`, of those that candidates or materials name.

    Args:
        store: The database.
        keep_newest: How many of the newest models to keep.
        min_age: Younger models are kept.
        with_referenced: Take referenced ones too.
    """
    rows = list(store.database["model_versions"].find({"weights_file": {"$type": "objectId"}}).sort("_id", -1))
    kept = set(_stack(promotions(store))) | {row["model_id"] for row in rows[:keep_newest]}
    kept |= set(store.database["rounds"].distinct("model_id", {"state": "open"}))
    found = []
    for row in reversed(rows):
        if row["model_id"] in kept or now() - row["last_updated"] < min_age:
            continue
        is_referenced = any(
            store.database[name].find_one({"model_id": row["model_id"]}, {"_id": 1}) is not None
            for name in ("candidates", "materials")
        )
        if with_referenced or not is_referenced:
            found.append(Garbage(row["model_id"], row["n_bytes"], row["last_updated"], is_referenced))
    return found


@translated
def drop_weights(store: Store, chosen: list[Garbage]) -> int:
    """Drop the weights of models that `garbage` named, and what was encoded with them; cards and snapshots stay.

    Returns:
        Bytes freed.
    """
    n_bytes = 0
    for one in chosen:
        file = _drop_file(store, one.model_id)
        if file is not None:
            store.gridfs.delete(file)  # its chunks: killed before, 'db check' finds and drops them
            n_bytes += one.n_bytes
        forget_latents(store, one.model_id)  # also when a process before was killed right here
    return n_bytes


def _drop_file(store: Store, model_id: str) -> ObjectId | None:
    """Take the weights off a model's record and their file's document with it; return the file, None if it had none.

    In one transaction, so that nobody who brings the weights back takes a file that is about to go.
    """

    def write(session: ClientSession) -> ObjectId | None:
        found = store.database["model_versions"].find_one_and_update(
            {"model_id": model_id, "weights_file": {"$type": "objectId"}},
            {"$unset": {"weights_file": ""}, "$set": {"weights_dropped_at": now()}},
            session=session,
        )
        if found is None:
            return None
        file: ObjectId = found["weights_file"]
        store.database["fs.files"].delete_one({"_id": file}, session=session)
        return file

    with store.client.start_session() as session:
        return session.with_transaction(write)


def _stack(known: list[Promotion]) -> list[str]:
    """Return what is in use, last, and what it can be rolled back to."""
    stack: list[str] = []
    for change in known:
        if change.action == "promote" and change.model_id is not None:
            stack.append(change.model_id)
        elif stack:
            stack.pop()
    return stack


def _append(store: Store, known: list[Promotion], action: str, model_id: str | None, reason: str) -> Promotion | None:
    """Record a change unless another process recorded one meanwhile: the number is an identity."""
    number = known[-1].number + 1 if known else 1
    done = Promotion(number, action, model_id, reason, now())
    fields = {"number": number, "action": action, "reason": reason, "promoted_at": done.promoted_at}
    try:
        store.database["promotions"].insert_one(checked(PromotionDocument, fields | {"model_id": model_id}))
    except DuplicateKeyError:
        return None
    return done


def _too_busy() -> ModelError:
    return ModelError("others promote models all the time; expected a quiet moment; run the command again")
