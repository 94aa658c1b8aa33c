"""Training on a GPU or in several processes: Lightning Fabric starts them, `train` runs in each."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning_fabric import Fabric

from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import TrainingConfig
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.train import train


def train_in_processes(
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    *,
    n_processes: int = 1,
    accelerator: str = "cpu",
    initial: Checkpoint | None = None,
    run_folder: Path | None = None,
) -> Checkpoint:
    """Train as `train` does, with each batch shared out over processes (distributed data parallel).

    Args:
        rows: Training rows.
        config: Settings; the batch size is that of all processes together.
        n_processes: Processes on this machine; on GPUs, one each.
        accelerator: `cpu`, `cuda`, `mps` or `auto`, as Lightning Fabric names them.
        initial: Start from this checkpoint.
        run_folder: Where the state after each epoch is kept, by the first process.

    Raises:
        ModelError: As for `train`.
    """
    fabric = Fabric(accelerator=accelerator, devices=n_processes, strategy="ddp_spawn" if n_processes > 1 else "auto")
    start = initial.to_bytes() if initial is not None else None
    # In bytes and by a file: Fabric would look for tensors in every row, and its queue holds no checkpoint.
    with TemporaryDirectory() as folder:
        trained = Path(folder) / "trained.safetensors"
        task = pickle.dumps((list(rows), config, start, run_folder, trained))
        fabric.launch(_train_and_save, task)  # type: ignore[arg-type]  # it passes the task on
        return Checkpoint.load(trained)


def _train_and_save(fabric: Fabric, task: bytes) -> None:
    """Train in one of the processes; the first one writes the checkpoint."""
    rows, config, start, run_folder, out = pickle.loads(task)  # our own, of a moment ago
    if fabric.world_size > 1:
        torch.set_num_threads(1)  # the processes share the cores
    initial = Checkpoint.from_bytes(start) if start is not None else None
    checkpoint = train(rows, config, initial=initial, run_folder=run_folder, fabric=fabric)
    if fabric.is_global_zero:
        checkpoint.save(out)
