"""`wyloop model`: train, list, show and judge models."""

from dataclasses import asdict, dataclass
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
    from wyloop.models.mpvae.config import TrainingConfig
    from wyloop.models.mpvae.data import TrainingRow

app = typer.Typer(no_args_is_help=True, help="Models: train, list, show, evaluate, promote, roll back, drop weights.")
COLUMNS = {
    "model_id": "model",
    "parent_id": "fine-tuned from",
    "n_rows": "rows",
    "campaign_id": "campaign",
    "round_number": "round",
    "n_bytes": "bytes",
    "last_updated": "stored",
    "in_use": "in use",
    "weights_dropped_at": "weights dropped",
}
MAX_SHOWN = 100  # values of a list in a card
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Labelled CSV file (.csv or .csv.gz) instead of the database's rows.")
]


@app.callback()
def model() -> None:
    """Models: train, list, show, evaluate, promote, roll back, drop weights."""


@app.command("train")
def train(
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the model to this file.")] = None,
    n_epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the rows.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and rows give the same model.")] = 0,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Do not start from a trained model.")] = False,
    start: Annotated[
        Path | None, typer.Option("--from", help="Start from this model file instead of the shipped model.")
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", help="Learn this numeric field of materials too; only with --from-scratch."),
    ] = None,
    augment: Annotated[bool, typer.Option(help="Show normalizer images of the genes.")] = True,
    run_folder: Annotated[
        Path | None, typer.Option("--run-folder", help="Keep the state of the run here: a killed run goes on.")
    ] = None,
    n_processes: Annotated[int, typer.Option("--processes", min=1, help="Share each batch out over processes.")] = 1,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train a model on the database's rows and register it.

    With --data and --out no database is needed, and nothing is registered.
    """
    check_place(out)
    if from_scratch and start is not None:
        raise typer.BadParameter("--from-scratch and --from exclude each other")
    if properties and not from_scratch:
        raise typer.BadParameter("a trained model has its properties; learn others with --from-scratch")
    if properties and data is not None:
        raise typer.BadParameter("--property names a field of the database's materials; leave --data out")
    plan = _Plan(
        n_epochs, seed, augment, from_scratch, start, tuple(properties or ()), run_folder, n_processes, accelerator
    )
    if data is not None:
        if out is None:
            raise typer.BadParameter("a model trained on a file is not registered; say where to write it")
        checkpoint = _train(_rows_of_file(data), plan)
        told: dict[str, Any] = {"model_id": None}
    else:
        checkpoint, told = _train_on_database(plan)
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
    from wyloop.stores.promotions import promoted
    from wyloop.stores.registry import models

    with connected(current_settings()) as store:
        in_use = promoted(store)
        rows = [asdict(record) | {"in_use": record.model_id == in_use} for record in models(store)]
    print_rows(rows, COLUMNS, as_json=as_json, empty="no models; 'wyloop model train' makes one")


@app.command("show")
def show(
    model_id: Annotated[str, typer.Argument(help="Id of the model, 'promoted' for the one in use, or 'shipped'.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's card and what came of the model.

    Data, split, metrics, seed, code version, parent; campaigns, candidates, calculations, materials.
    """
    if model_id == "shipped":
        from wyloop.models.mpvae.checkpoint import load_shipped

        record: dict[str, Any] = {"model_id": "shipped", "card": dict(load_shipped().card)}
    else:
        from wyloop.platform.session import connected
        from wyloop.stores.model_outcome import came_of
        from wyloop.stores.promotions import promoted
        from wyloop.stores.registry import model as find

        with connected(current_settings()) as store:
            in_use = promoted(store)
            found = (in_use or "promoted") if model_id == "promoted" else model_id
            record = asdict(find(store, found)) | {"in_use": in_use == found, "came_of_it": came_of(store, found)}
    if as_json:
        print_json(record)
    else:
        print_facts({name.replace("_", " "): value for name, value in record.items() if not isinstance(value, dict)})
        print_facts(_flat(record["card"]))
        print_facts(_flat(record.get("came_of_it", {})))


@app.command("promote")
def promote(
    model_id: Annotated[str, typer.Argument(help="Id of the model.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put a model to use, once it is seen to load here; 'promoted' then names it."""
    from wyloop.platform.session import connected
    from wyloop.stores.promotions import promote as put_to_use

    with connected(current_settings()) as store:
        done = put_to_use(store, model_id, reason)
    print_json(done) if as_json else typer.echo(f"{done.model_id} is in use, change number {done.number}")


@app.command("rollback")
def rollback(reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Put the model back to use that was promoted before the present one."""
    from wyloop.platform.session import connected
    from wyloop.stores.promotions import roll_back

    with connected(current_settings()) as store:
        done = roll_back(store, reason)
    print_json(done) if as_json else typer.echo(f"{done.model_id or 'the shipped model'} is in use again")


@app.command("gc")
def gc(
    is_meant: Annotated[bool, typer.Option("--yes", help="Drop the weights; without it they are only listed.")] = False,
    keep_newest: Annotated[int, typer.Option(min=0, help="Keep the weights of this many newest models.")] = 5,
    min_days: Annotated[float, typer.Option(min=0, help="Keep those of models younger than this, in days.")] = 7.0,
    with_referenced: Annotated[
        bool, typer.Option("--with-referenced", help="Also of models that candidates or materials name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List, and with --yes drop, the weights of old models that nobody uses.

    Cards and snapshots stay, so every lineage stays whole. Kept are promoted models and those they can be rolled back
    to, models of open rounds, and those that candidates or materials name.
    """
    from datetime import timedelta

    from wyloop.platform.session import connected
    from wyloop.stores.promotions import drop_weights, garbage

    with connected(current_settings()) as store:
        found = garbage(
            store, keep_newest=keep_newest, min_age=timedelta(days=min_days), with_referenced=with_referenced
        )
        n_bytes = drop_weights(store, found) if is_meant else 0
    if as_json:
        print_json({"models": [asdict(one) for one in found], "is_dropped": is_meant, "n_bytes_freed": n_bytes})
        return
    shown = {"model_id": "model", "n_bytes": "bytes", "last_updated": "stored", "is_referenced": "named by candidates"}
    print_rows([asdict(one) for one in found], shown, as_json=False, empty="no weights to drop")
    if found:
        typer.echo(f"dropped {n_bytes} bytes of weights" if is_meant else "nothing is dropped yet; --yes drops these")


@app.command("evaluate")
def evaluate(
    data: DataOption = None,
    model_id: Annotated[
        str, typer.Option("--model", help="Id of a registered model, 'promoted' for the one in use, or 'shipped'.")
    ] = "shipped",
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
        from wyloop.stores.promotions import named_checkpoint
        from wyloop.stores.training import training_snapshot

        with connected(current_settings()) as store:
            given = list(training_snapshot(store).rows[:limit]) if given is None else given
            if checkpoint is None:
                found, checkpoint = named_checkpoint(store, model_id)
                model_id = found or model_id
    rows: list[TrainingRow] = given
    metrics = judge.evaluate(checkpoint, rows)
    if as_json:
        print_json({"model": str(weights or model_id), "n_rows": len(rows), "metrics": metrics})
    else:
        print_facts({name.replace("_", " "): value for name, value in metrics.items()})


@app.command("figures")
def figures(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures.")],
    data: DataOption = None,
    weights: Annotated[Path | None, typer.Option(help="Model file (safetensors); default the shipped one.")] = None,
    n: Annotated[int, typer.Option("-n", min=10, help="Genes of each condition, and unconditional ones.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw the latent map and the densities of generated genes.

    Figures 2 a-i of the WyCryst+ paper from this model, as PNG and SVG. With --data no database is needed.
    """
    import torch

    from wyloop.models.mpvae.checkpoint import Checkpoint, load_shipped
    from wyloop.models.mpvae.figures import draw_figures

    torch.set_num_threads(1)
    rows = _rows_of_file(data) if data is not None else _rows_of_database()
    checkpoint = Checkpoint.load(weights) if weights else load_shipped()
    with progress("drawing") as move:
        written = draw_figures(checkpoint, rows, out, n=n, seed=seed, on_progress=move)
    if as_json:
        print_json({"files": [str(path) for path in written], "n_rows": len(rows)})
    else:
        typer.echo("\n".join(f"wrote {path}" for path in written))


def _rows_of_database() -> "list[TrainingRow]":
    from wyloop.platform.session import connected
    from wyloop.stores.training import training_snapshot

    with connected(current_settings()) as store:
        return list(training_snapshot(store).rows)


@dataclass(frozen=True)
class _Plan:
    """How to train, as the options say."""

    n_epochs: int | None
    seed: int
    augment: bool
    from_scratch: bool
    start: Path | None
    properties: tuple[str, ...]
    run_folder: Path | None
    n_processes: int
    accelerator: str

    def initial(self) -> "Checkpoint | None":
        """The model to start from."""
        from wyloop.models.mpvae.checkpoint import Checkpoint, load_shipped

        if self.from_scratch:
            return None
        return load_shipped() if self.start is None else Checkpoint.load(self.start)

    def config(self, n_rows: int) -> "TrainingConfig":
        """The settings of the training run."""
        from wyloop.models.mpvae.config import NetworkConfig, TrainingConfig

        if self.from_scratch:
            config = TrainingConfig(network=NetworkConfig(extra_properties=self.properties), seed=self.seed)
        else:
            config = TrainingConfig.fine_tune(n_rows=n_rows, seed=self.seed)
        given = {"n_epochs": self.n_epochs} if self.n_epochs is not None else {}
        return config.model_copy(update=given | {"augment": self.augment})


def _train_on_database(plan: _Plan) -> "tuple[Checkpoint, dict[str, Any]]":
    from wyloop.platform.session import connected
    from wyloop.stores.registry import save_model
    from wyloop.stores.training import training_snapshot

    where = {"campaign_id": None, "round_number": None}
    with connected(current_settings()) as store:
        snapshot = training_snapshot(store, properties=plan.properties)
        parent_id, initial = None, plan.initial()
        if initial is not None:
            parent_id = save_model(store, initial.to_bytes(), parent_id=None, card=initial.card, snapshot=None, **where)
        checkpoint = _train(snapshot.rows, plan)
        model_id = save_model(
            store, checkpoint.to_bytes(), parent_id=parent_id, card=checkpoint.card, snapshot=snapshot, **where
        )
    return checkpoint, {"model_id": model_id, "parent_id": parent_id, "snapshot_hash": snapshot.hash}


def _train(rows: "Sequence[TrainingRow]", plan: _Plan) -> "Checkpoint":
    import torch

    from wyloop.models.mpvae.launch import train_in_processes
    from wyloop.models.mpvae.train import train

    torch.set_num_threads(1)
    config, initial = plan.config(len(rows)), plan.initial()
    if plan.n_processes > 1 or plan.accelerator != "cpu":
        return train_in_processes(
            rows,
            config,
            n_processes=plan.n_processes,
            accelerator=plan.accelerator,
            initial=initial,
            run_folder=plan.run_folder,
        )
    with progress("training") as move:
        return train(
            rows,
            config,
            initial=initial,
            run_folder=plan.run_folder,
            on_epoch=lambda metrics: move(metrics.epoch, metrics.n_epochs),
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
        if isinstance(value, list) and len(value) > MAX_SHOWN:
            flat[f"{prefix}{name}"] = f"{len(value)} values"
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
