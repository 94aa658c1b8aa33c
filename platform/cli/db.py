"""`wyloop db`: bring crystals into the database, ask it, take them out."""

from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_json, print_rows, progress

if TYPE_CHECKING:
    from wyloop.stores.connection import Store
    from wyloop.stores.ingest.report import IngestReport

app = typer.Typer(no_args_is_help=True, help="The database: ingest, query, export.")
ingest_app = typer.Typer(no_args_is_help=True, help="Bring crystals into the database.")
app.add_typer(ingest_app, name="ingest")
MAX_SHOWN = 20
REFUSAL_COLUMNS = {
    "row": "row",
    "identity": "id",
    "field": "field",
    "value": "value",
    "expected": "expected",
    "remedy": "remedy",
}
COLUMNS = {
    "formula_pretty": "formula",
    "space_group_number": "space group",
    "nsites": "atoms",
    "formation_energy_per_atom": "formation energy, eV/atom",
    "energy_above_hull": "above hull, eV/atom",
    "band_gap": "band gap, eV",
    "collection": "collection",
    "id": "id",
}


class Collection(StrEnum):
    """Where to look."""

    ALL = "all"
    STRUCTURES = "structures"
    MATERIALS = "materials"
    CANDIDATES = "candidates"


class Format(StrEnum):
    """Format of an export."""

    CSV = "csv"
    CIF = "cif"
    JSONL = "jsonl"


CollectionOption = Annotated[Collection, typer.Option("--collection", "-c", help="Where to look.")]
FilterArgument = Annotated[
    str, typer.Argument(metavar="FILTER", help='Such as "band_gap > 1 and nelements = 3"; "" takes everything.')
]


@app.callback()
def db() -> None:
    """The database: ingest, query, export."""


@ingest_app.command("csv")
def ingest_csv(
    path: Annotated[Path, typer.Argument(help="CSV file (.csv or .csv.gz) with columns material_id and cif.")],
    source: Annotated[str | None, typer.Option(help="Name of the source; default the file's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest a CSV file and encode its crystals.

    Bad rows are reported, good rows kept; a second time changes nothing.
    """
    from wyloop.stores.ingest.csv import ingest_csv as ingest

    _ingest(lambda store, report: ingest(store, path, source=source, on_progress=report), as_json=as_json)


@ingest_app.command("cif")
def ingest_cif(
    paths: Annotated[list[Path], typer.Argument(help="CIF files, or folders of them.")],
    as_json: JsonOption = False,
) -> None:
    """Ingest CIF files and encode their crystals.

    Bad files are reported, good ones kept; a second time changes nothing.
    """
    from wyloop.stores.ingest.cif import ingest_cif as ingest

    _ingest(lambda store, report: ingest(store, paths, on_progress=report), as_json=as_json)


@app.command("query")
def query(
    conditions: FilterArgument = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 20,
    sort: Annotated[str | None, typer.Option(help="Field to sort by; -FIELD for descending.")] = None,
    collection: CollectionOption = Collection.ALL,
    as_json: JsonOption = False,
) -> None:
    """Show what meets the conditions."""
    from wyloop.models.targets import Target
    from wyloop.platform.session import connected
    from wyloop.stores.queries import query as find

    target = Target.parse([conditions] if conditions.strip() else [])
    with connected(current_settings()) as store:
        rows = find(store, target, collection=collection.value, limit=limit, sort=sort)
    print_rows(rows, _present(rows), as_json=as_json)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; for cif a folder.")],
    conditions: FilterArgument = "",
    form: Annotated[Format, typer.Option("--format", "-f", help="Format of the file.")] = Format.CSV,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows.")] = None,
    collection: CollectionOption = Collection.ALL,
    as_json: JsonOption = False,
) -> None:
    """Write what meets the conditions to a file."""
    from wyloop.models.targets import Target
    from wyloop.platform.session import connected
    from wyloop.stores.export import export as write
    from wyloop.stores.queries import query as find

    target = Target.parse([conditions] if conditions.strip() else [])
    with connected(current_settings()) as store:
        rows = find(store, target, collection=collection.value, limit=limit)
        n_written = write(store, rows, form.value, out)
    if as_json:
        print_json({"n_written": n_written, "out": str(out)})
    else:
        typer.echo(f"wrote {n_written} rows to {out}")


def _ingest(
    ingest: "Callable[[Store, Callable[[int, int], None]], IngestReport]",
    *,
    as_json: bool,
) -> None:
    from wyloop.platform.session import connected
    from wyloop.stores.builders.encodings import build_encodings

    with connected(current_settings()) as store:
        with progress("ingesting") as move:
            report = ingest(store, move)
        with progress("encoding") as move:
            encoded = build_encodings(store, on_progress=move)
    if as_json:
        print_json(asdict(report) | {"n_encoded": encoded.n_done, "n_not_encodable": encoded.n_refused})
    else:
        typer.echo(
            f"{report.n_rows} rows: {report.n_added} added, {report.n_updated} updated, "
            f"{report.n_unchanged} unchanged, {len(report.refused)} refused; {encoded.n_done} encoded"
        )
        for note in report.notes:
            typer.echo(note)
        shown = [asdict(refusal) for refusal in report.refused[:MAX_SHOWN]]
        print_rows(shown, REFUSAL_COLUMNS, as_json=False, empty="no row refused")
        if len(report.refused) > MAX_SHOWN:
            typer.echo(f"... and {len(report.refused) - MAX_SHOWN} more; --json shows all")
    if len(report.refused) == report.n_rows:  # an empty file too: nothing could be done
        raise typer.Exit(1)


def _present(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {name: heading for name, heading in COLUMNS.items() if any(row.get(name) is not None for row in rows)}
