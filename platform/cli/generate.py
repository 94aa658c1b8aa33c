"""`wyloop generate`: genes for a target, from the shipped model without a database, or from one of the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wyloop.platform.cli.output import (
    JsonOption,
    TargetOption,
    check_place,
    current_settings,
    print_json,
    progress,
    write_lines,
)

if TYPE_CHECKING:
    from wyloop.models.mpvae.checkpoint import Checkpoint


def generate(
    targets: TargetOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON-lines file to write, one gene a line.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Genes wanted.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same genes.")] = 0,
    max_atoms: Annotated[int, typer.Option(min=1, help="Most atoms in the primitive cell.")] = 24,
    exclude: Annotated[
        Path | None, typer.Option(help="CSV file (.csv or .csv.gz) of known crystals that must not come again.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Model file (safetensors); default the shipped one.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model of the database: its id, or 'promoted' for the one in use.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate and screen genes for a target, best first.

    Every gene comes with its predictions, the probability that it meets the target, and every screen's verdict. Needs
    no database unless --model names a model of it.
    """
    from wyloop.models.targets import Target

    check_place(out)
    if weights is not None and model is not None:
        raise typer.BadParameter("--weights and --model exclude each other")
    target = Target.parse(targets)  # before the heavy imports: a typing error shows at once
    from wyloop.models.mpvae.checkpoint import Checkpoint, load_shipped
    from wyloop.platform.generation import propose

    of_file = Checkpoint.load(weights) if weights else None
    checkpoint = of_file or (_of_database(model) if model is not None else load_shipped())
    known = _genes_of_file(exclude) if exclude else frozenset()
    with progress("generating") as report:
        proposals = list(
            propose(checkpoint, target, n, seed=seed, max_atoms=max_atoms, exclude=known, on_progress=report)
        )
    n_accepted = sum(proposal.is_accepted for proposal in proposals)
    n_written = write_lines(out, (proposal.to_json() for proposal in proposals))
    if as_json:
        print_json({"n_genes": n_written, "n_accepted": n_accepted, "target": target.texts(), "out": str(out)})
    else:
        typer.echo(f"wrote {n_written} genes to {out}; {n_accepted} pass every binding screen")
    if not n_written:
        raise typer.Exit(1)


def _of_database(name: str) -> "Checkpoint":
    from wyloop.platform.session import connected
    from wyloop.stores.promotions import named_checkpoint

    with connected(current_settings()) as store:
        return named_checkpoint(store, name)[1]


def _genes_of_file(path: Path) -> frozenset[str]:
    from wyloop.platform.rows import Refused, read_rows

    with progress("reading") as report:
        return frozenset(str(row.gene) for row in read_rows(path, Refused(), report))
