"""A trained model as one value: weights, sizes and model card, as safetensors bytes. Never pickle."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.config import NetworkConfig
from wyloop.models.mpvae.network import MPVAE

Network = TypeVar("Network", bound=nn.Module)
FORMAT = "wyloop-mpvae"
FORMAT_VERSION = 2
SHIPPED = Path(__file__).parent / "weights" / "mpvae.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights with what is needed to use and to judge them. Neither weights nor card are to be changed."""

    weights: Mapping[str, Tensor]
    config: NetworkConfig
    card: Mapping[str, Any]
    """Plain JSON: data, split, metrics, seed, training config, code version, wall time."""

    @cached_property
    def network(self) -> MPVAE:
        """The network with these weights, in evaluation mode.

        Raises:
            ModelError: The weights do not fit the sizes.
        """
        return with_weights(new_network(self.config), self.weights)

    def to_bytes(self) -> bytes:
        """Write weights, config and card as safetensors; the same checkpoint gives the same bytes."""
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "config": self.config.model_dump_json(),
            "card": json.dumps(self.card, sort_keys=True),
        }
        raw = tensors_to_bytes({name: tensor.contiguous() for name, tensor in self.weights.items()}, metadata)
        return _with_sorted_metadata(raw)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint":
        """Read what `to_bytes` wrote.

        Raises:
            ModelError: Not such bytes, of another version, or damaged.
        """
        metadata = read_metadata(data)
        if metadata.get("format") != FORMAT:
            raise ModelError(f"not an MPVAE checkpoint (format {metadata.get('format')!r}); expected {FORMAT!r}")
        version = metadata.get("format_version")
        if version != str(FORMAT_VERSION):
            raise ModelError(
                f"MPVAE checkpoint of format version {version}; this code reads version {FORMAT_VERSION}: "
                "train the model again or install the matching version"
            )
        try:
            config = NetworkConfig.model_validate_json(metadata["config"])
            card = json.loads(metadata["card"])
            weights = tensors_from_bytes(data)
        except (KeyError, ValueError, ValidationError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"damaged MPVAE checkpoint ({reason}); fetch or train it again") from error
        checkpoint = cls(weights, config, card)
        _ = checkpoint.network  # weights that do not fit are refused here, not at first use
        return checkpoint

    def save(self, path: Path) -> None:
        """Write to a file, whole or not at all."""
        write_whole(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file.

        Raises:
            ModelError: The file can't be read, or holds no such checkpoint.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"can't read model {path}: {error.strerror}; expected a safetensors file") from error
        try:
            return cls.from_bytes(data)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _with_sorted_metadata(raw: bytes) -> bytes:
    """Rewrite the header of a safetensors file: the library orders its metadata differently each time."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start on a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def new_network(config: NetworkConfig, seed: int = 0) -> MPVAE:
    """Make a network with fresh weights; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MPVAE(config)


def with_weights(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """Give a network its weights, and return it in evaluation mode.

    Raises:
        ModelError: The weights do not fit the sizes.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"weights do not fit their config ({reason}); train the model again") from error
    return network.eval()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def read_metadata(data: bytes) -> dict[str, str]:
    """Read the metadata of safetensors bytes.

    Raises:
        ModelError: Not safetensors.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{len(data)} bytes that are no safetensors file with metadata; expected a checkpoint"
        ) from error
    return {str(key): str(value) for key, value in metadata.items()}


@cache
def load_shipped() -> Checkpoint:
    """Load the weights that come with the package; their card stands beside them as mpvae.json.

    Raises:
        ModelError: The file is missing or damaged.
    """
    return Checkpoint.load(SHIPPED)
