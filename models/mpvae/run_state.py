"""The state of a training run after a whole epoch, as one safetensors file that is replaced whole."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import read_metadata, write_whole

FILE_NAME = "training_state.safetensors"


@dataclass
class RunState:
    """What a run needs to go on; changed by each epoch."""

    identity: str
    """Data, settings and initial weights in one text."""
    epoch: int
    """Whole epochs done."""
    best_epoch: int
    """0 while the initial weights are the best."""
    best_score: float
    first: dict[str, float]
    """Validation metrics before the first epoch."""
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    """Running average of the weights."""
    best: dict[str, Tensor]
    """Average after the best epoch."""
    history: list[dict[str, Any]]


def save_state(folder: Path, state: RunState, optimiser: torch.optim.Optimizer) -> None:
    """Write state and optimiser."""
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "average", "best"):
        tensors |= {f"{kind}/{name}": tensor.clone() for name, tensor in getattr(state, kind).items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    numbers = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_score": state.best_score,
        "first": state.first,
        "history": state.history,
    }
    metadata = {"identity": _digest(state.identity), "numbers": json.dumps(numbers)}
    write_whole(folder / FILE_NAME, tensors_to_bytes(tensors, metadata))


def load_state(folder: Path, identity: str, optimiser: torch.optim.Optimizer) -> RunState | None:
    """Read the state, that of the optimiser into it; None where there is none yet.

    Raises:
        ModelError: The file belongs to another run or is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    data = path.read_bytes()
    metadata = read_metadata(data)
    if metadata.get("identity") != _digest(identity):
        raise ModelError(f"{folder} holds a run on other data or settings; choose another run folder or remove it")
    try:
        tensors, numbers = tensors_from_bytes(data), json.loads(metadata["numbers"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"damaged training state {path} ({error}); remove it to start again") from error
    kinds: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "best": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, name = key.split("/", 1)
        if kind == "optimiser":
            index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = tensor
        else:
            kinds[kind][name] = tensor
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    return RunState(
        identity,
        numbers["epoch"],
        numbers["best_epoch"],
        numbers["best_score"],
        numbers["first"],
        kinds["weights"],
        kinds["average"],
        kinds["best"],
        numbers["history"],
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
