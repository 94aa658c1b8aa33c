"""Model registry: checkpoints by the hash of their weights, with card, parent and the snapshot they were trained on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from gridfs.errors import CorruptGridFile, NoFile
from pymongo.errors import DuplicateKeyError

from wyloop.models.errors import ModelError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.model_versions import ModelVersionDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json
from wyloop.stores.training import TrainingSnapshot

if TYPE_CHECKING:
    from wyloop.models.mpvae.checkpoint import Checkpoint  # torch: three seconds


@dataclass(frozen=True)
class ModelRecord:
    """One model version; its weights are loaded apart."""

    model_id: str
    parent_id: str | None
    card: dict[str, JSON]
    weights_hash: str
    n_bytes: int
    snapshot_hash: str | None
    n_rows: int | None
    campaign_id: str | None
    round_number: int | None
    code_version: str
    last_updated: datetime
    weights_dropped_at: datetime | None = None


@translated
def save_model(
    store: Store,
    checkpoint_bytes: bytes,
    *,
    parent_id: str | None,
    card: Mapping[str, Any],
    snapshot: TrainingSnapshot | None,
    campaign_id: str | None,
    round_number: int | None,
) -> str:
    """Store a checkpoint, once: the same bytes are the same model, and the first record of it stays.

    Returns:
        The model's id, made of the hash of the bytes.

    Raises:
        ModelError: The bytes are no safetensors file; pickles are never stored nor loaded.
    """
    weights_hash = hashlib.sha256(checkpoint_bytes).hexdigest()
    model_id = f"model-{weights_hash[:12]}"
    collection = store.database["model_versions"]
    found = collection.find_one({"model_id": model_id}, {"weights_file": 1})
    if found is not None:
        if "weights_file" not in found:
            _bring_back(store, model_id, checkpoint_bytes)
        return model_id
    _refuse_other_formats(checkpoint_bytes)
    files = {"weights_file": _put(store, f"{model_id}.safetensors", checkpoint_bytes)}
    if snapshot is not None:
        name = f"{model_id}.{snapshot.hash}.snapshot.json.gz"
        files["snapshot_file"] = _put(store, name, snapshot.to_bytes())
    fields = checked(
        ModelVersionDocument,
        {
            "model_id": model_id,
            "parent_id": parent_id,
            "card": to_json(dict(card)),
            "weights_hash": weights_hash,
            "n_bytes": len(checkpoint_bytes),
            "snapshot_hash": None if snapshot is None else snapshot.hash,
            "n_rows": None if snapshot is None else len(snapshot.rows),
            "campaign_id": campaign_id,
            "round_number": round_number,
            **files,
        },
    )
    try:
        collection.insert_one(fields)
    except DuplicateKeyError:  # another process stored the same model in between
        _drop_unnamed(store, model_id, files.values())
    return model_id


@translated
def load_weights(store: Store, model_id: str) -> bytes:
    """Return the bytes of a checkpoint, verified by their hash.

    Raises:
        ModelError: No such model, or its weights are missing or damaged.
    """
    found = _find(store, model_id)
    if "weights_file" not in found:
        dropped = found.get("weights_dropped_at")
        when = f"on {dropped:%Y-%m-%d}" if dropped else "without a record of it"
        raise ModelError(
            f"the weights of {model_id} were dropped {when}; expected a model whose weights are kept; "
            "train again on its snapshot, which is kept"
        )
    data = _read(store, model_id, found["weights_file"])
    if hashlib.sha256(data).hexdigest() != found["weights_hash"]:
        raise ModelError(
            f"the weights of {model_id} are damaged; expected SHA-256 {found['weights_hash']}; train again"
        )
    return data


@translated
def load_checkpoint(store: Store, model_id: str) -> "Checkpoint":
    """Return a model ready for use.

    Raises:
        ModelError: No such model, weights that are missing, damaged or dropped, or of a format that this code does not
            read; the code version that wrote it is named.
    """
    from wyloop.models.mpvae.checkpoint import Checkpoint  # torch: three seconds

    data = load_weights(store, model_id)
    try:
        return Checkpoint.from_bytes(data)
    except ModelError as error:
        written_by = _find(store, model_id)["code_version"]
        raise ModelError(f"{model_id}, written by Wyloop {written_by}: {error}") from error


@translated
def load_snapshot(store: Store, model_id: str) -> TrainingSnapshot | None:
    """Return the rows that a model was trained on; None for one that came from elsewhere.

    Raises:
        ModelError: No such model, or its snapshot is missing or damaged.
    """
    found = _find(store, model_id)
    if "snapshot_file" not in found:
        return None
    snapshot = TrainingSnapshot.from_bytes(_read(store, model_id, found["snapshot_file"]))
    if snapshot.hash != found["snapshot_hash"]:
        raise ModelError(f"the snapshot of {model_id} is damaged; expected hash {found['snapshot_hash']}; train again")
    return snapshot


@translated
def models(store: Store) -> list[ModelRecord]:
    """Return all models, oldest first."""
    return [_record(found) for found in store.database["model_versions"].find().sort("_id", 1)]


@translated
def model(store: Store, model_id: str) -> ModelRecord:
    """Return one model.

    Raises:
        ModelError: No model has this id.
    """
    return _record(_find(store, model_id))


def _put(store: Store, name: str, content: bytes) -> ObjectId:
    """Store a file, or take the one that an interrupted attempt left: GridFS writes its document last, so it is whole.

    Names hold the hash of what is in the file.
    """
    found = store.database["fs.files"].find_one({"filename": name, "length": len(content)}, {"_id": 1})
    file: ObjectId = store.gridfs.put(content, filename=name) if found is None else found["_id"]
    return file


def _drop_unnamed(store: Store, model_id: str, files: Iterable[ObjectId]) -> None:
    """Delete files that a model's record, which another process wrote, does not name."""
    found = _find(store, model_id)
    for file in set(files) - {found.get("weights_file"), found.get("snapshot_file")}:
        store.gridfs.delete(file)


def _bring_back(store: Store, model_id: str, checkpoint_bytes: bytes) -> None:
    """Store again the weights of a model that were dropped: its hash says that they are the same."""
    file = _put(store, f"{model_id}.safetensors", checkpoint_bytes)
    outcome = store.database["model_versions"].update_one(
        {"model_id": model_id, "weights_file": None},
        {"$set": {"weights_file": file}, "$unset": {"weights_dropped_at": ""}},
    )
    if outcome.modified_count == 0:  # another process was faster
        _drop_unnamed(store, model_id, [file])


def _refuse_other_formats(checkpoint_bytes: bytes) -> None:
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(checkpoint_bytes)  # type: ignore[no-untyped-call]  # safetensors'
    except SafetensorError as error:
        raise ModelError(
            f"{len(checkpoint_bytes)} bytes that are no safetensors file ({error}); expected one: models are stored in "
            "no other format; write it with Checkpoint.to_bytes"
        ) from error


def _find(store: Store, model_id: str) -> dict[str, Any]:
    found = store.database["model_versions"].find_one({"model_id": {"$eq": model_id}})
    if found is None:
        raise unknown(model_id)
    return found


def unknown(model_id: str) -> ModelError:
    """Return the error of a model that is not registered."""
    return ModelError(f"no model {model_id!r}; expected an id that 'wyloop model list' shows")


def _read(store: Store, model_id: str, file: ObjectId) -> bytes:
    try:
        return store.gridfs.get(file).read()
    except (NoFile, CorruptGridFile) as error:
        raise ModelError(f"a file of {model_id} is missing or damaged; expected it whole; train again") from error


def _record(found: dict[str, Any]) -> ModelRecord:
    card = to_json(found.get("card", {}))
    return ModelRecord(
        model_id=found["model_id"],
        parent_id=found.get("parent_id"),
        card=card if isinstance(card, dict) else {},
        weights_hash=found["weights_hash"],
        n_bytes=found["n_bytes"],
        snapshot_hash=found.get("snapshot_hash"),
        n_rows=found.get("n_rows"),
        campaign_id=found.get("campaign_id"),
        round_number=found.get("round_number"),
        code_version=found["code_version"],
        last_updated=found["last_updated"],
        weights_dropped_at=found.get("weights_dropped_at"),
    )
