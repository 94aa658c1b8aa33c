"""`wyloop model`: train, list, show and judge models."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import (
    JsonOption,
    check_place,
    current_settings,
    print_facts,
    print_json,
    print_rows,
    progress,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wyloop.models.mpvae.checkpoint import Checkpoint
    from wyloop.models.mpvae.data import TrainingRow

app = typer.Typer(no_args_is_help=True, help="Models: train, list, show, evaluate.")
COLUMNS = {
    "model_id": "model",
    "parent_id": "fine-tuned from",
    "n_rows": "rows",
    "campaign_id": "campaign",
    "round_number": "round",
    "n_bytes": "bytes",
    "last_updated": "stored",
}
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Labelled CSV file (.csv or .csv.gz) instead of the database's rows.")
]


@app.callback()
def model() -> None:
    """Models: train, list, show, evaluate."""


@app.command("train")
def train(
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the model to this file.")] = None,
    n_epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the rows.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and rows give the same model.")] = 0,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Do not start from the shipped model.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on the database's rows and register it.

    With --data and --out no database is needed, and nothing is registered.
    """
    check_place(out)
    if data is not None:
        if out is None:
            raise typer.BadParameter("a model trained on a file is not registered; say where to write it")
        checkpoint = _train(_rows_of_file(data), n_epochs, seed, from_scratch=from_scratch)
        told: dict[str, Any] = {"model_id": None}
    else:
        checkpoint, told = _train_on_database(n_epochs, seed, from_scratch=from_scratch)
    if out is not None:
        checkpoint.save(out)
    told |= {"out": str(out) if out else None, "card": dict(checkpoint.card)}
    if as_json:
        print_json(told)
    else:
        print_facts({"model": told["model_id"], "written to": told["out"], **_metrics(told["card"])})


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the registered models, oldest first."""
    from wyloop.platform.session import connected
    from wyloop.stores.registry import models

    with connected(current_settings()) as store:
        rows = [asdict(record) for record in models(store)]
    print_rows(rows, COLUMNS, as_json=as_json, empty="no models; 'wyloop model train' makes one")


@app.command("show")
def show(
    model_id: Annotated[str, typer.Argument(help="Id of the model, or 'shipped'.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's card.

    Data, split, metrics, seed, code version, parent.
    """
    if model_id == "shipped":
        from wyloop.models.mpvae.checkpoint import load_shipped

        record: dict[str, Any] = {"model_id": "shipped", "card": dict(load_shipped().card)}
    else:
        from wyloop.platform.session import connected
        from wyloop.stores.registry import model as find

        with connected(current_settings()) as store:
            record = asdict(find(store, model_id))
    if as_json:
        print_json(record)
    else:
        print_facts({name.replace("_", " "): value for name, value in record.items() if name != "card"})
        print_facts(_flat(record["card"]))


@app.command("evaluate")
def evaluate(
    data: DataOption = None,
    model_id: Annotated[str, typer.Option("--model", help="Id of a registered model, or 'shipped'.")] = "shipped",
    weights: Annotated[Path | None, typer.Option(help="Model file (safetensors) instead of --model.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labelled rows.

    With --data and the shipped model or a file no database is needed.
    """
    from wyloop.models.mpvae import evaluate as judge
    from wyloop.models.mpvae.checkpoint import Checkpoint, load_shipped

    given = _rows_of_file(data, limit) if data is not None else None
    checkpoint: Checkpoint | None = None
    if weights is not None or model_id == "shipped":
        checkpoint = Checkpoint.load(weights) if weights else load_shipped()
    if given is None or checkpoint is None:
        from wyloop.platform.session import connected
        from wyloop.stores.registry import load_weights
        from wyloop.stores.training import training_snapshot

        with connected(current_settings()) as store:
            given = list(training_snapshot(store).rows[:limit]) if given is None else given
            checkpoint = checkpoint or Checkpoint.from_bytes(load_weights(store, model_id))
    rows: list[TrainingRow] = given
    metrics = judge.evaluate(checkpoint, rows)
    if as_json:
        print_json({"model": str(weights or model_id), "n_rows": len(rows), "metrics": metrics})
    else:
        print_facts({name.replace("_", " "): value for name, value in metrics.items()})


def _train_on_database(n_epochs: int | None, seed: int, *, from_scratch: bool) -> "tuple[Checkpoint, dict[str, Any]]":
    from wyloop.models.mpvae.checkpoint import load_shipped
    from wyloop.platform.session import connected
    from wyloop.stores.registry import save_model
    from wyloop.stores.training import training_snapshot

    where = {"campaign_id": None, "round_number": None}
    with connected(current_settings()) as store:
        snapshot = training_snapshot(store)
        parent_id = None
        if not from_scratch:
            shipped = load_shipped()
            parent_id = save_model(store, shipped.to_bytes(), parent_id=None, card=shipped.card, snapshot=None, **where)
        checkpoint = _train(snapshot.rows, n_epochs, seed, from_scratch=from_scratch)
        model_id = save_model(
            store, checkpoint.to_bytes(), parent_id=parent_id, card=checkpoint.card, snapshot=snapshot, **where
        )
    return checkpoint, {"model_id": model_id, "parent_id": parent_id, "snapshot_hash": snapshot.hash}


def _train(rows: "Sequence[TrainingRow]", n_epochs: int | None, seed: int, *, from_scratch: bool) -> "Checkpoint":
    import torch

    from wyloop.models.mpvae import train as trainer
    from wyloop.models.mpvae.checkpoint import load_shipped
    from wyloop.models.mpvae.config import TrainingConfig

    torch.set_num_threads(1)
    config = TrainingConfig(seed=seed) if from_scratch else TrainingConfig.fine_tune(n_rows=len(rows), seed=seed)
    if n_epochs is not None:
        config = config.model_copy(update={"n_epochs": n_epochs})
    initial = None if from_scratch else load_shipped()
    with progress("training") as move:
        return trainer.train(
            rows, config, initial=initial, on_epoch=lambda metrics: move(metrics.epoch, metrics.n_epochs)
        )


def _rows_of_file(path: Path, limit: int | None = None) -> "list[TrainingRow]":
    from itertools import islice

    from wyloop.platform.rows import Refused, read_rows, training_row

    refused = Refused()
    with progress("reading") as move:
        rows = [training_row(row) for row in islice(read_rows(path, refused, move), limit)]
    if refused.reasons:
        number, name, reason = refused.reasons[0]
        typer.echo(f"{len(refused.reasons)} rows left out, the first: row {number} ({name}): {reason}", err=True)
    return rows


def _metrics(card: dict[str, Any]) -> dict[str, object]:
    found = card.get("metrics")
    return {name.replace("_", " "): value for name, value in found.items()} if isinstance(found, dict) else {}


def _flat(card: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in card.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
