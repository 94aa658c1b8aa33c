"""`wyloop db`: bring crystals into the database, ask it, take them out."""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wyloop.platform.cli import db_admin, db_build, ingest
from wyloop.platform.cli.output import JsonOption, current_settings, print_json, print_rows, progress

if TYPE_CHECKING:
    from wyloop.stores.connection import Store
    from wyloop.stores.nearest import Neighbour
    from wyloop.stores.saved_queries import SavedQuery

app = typer.Typer(no_args_is_help=True, help="The database: ingest, query, export.")
app.add_typer(ingest.app, name="ingest")
db_build.register(app)
db_admin.register(app)
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


DEFAULT_LIMIT = 20  # rows of a query
WHERE = "Where to look; all: materials, structures that are no part of one, candidates."
FilterArgument = Annotated[
    str, typer.Argument(metavar="FILTER", help='Such as "band_gap > 1 and nelements = 3"; "" takes everything.')
]


@app.callback()
def db() -> None:
    """The database: ingest, query, export."""


@app.command("query")
def query(
    conditions: FilterArgument = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows; default 20.")] = None,
    sort: Annotated[str | None, typer.Option(help="Field to sort by; -FIELD for descending.")] = None,
    collection: Annotated[Collection | None, typer.Option("--collection", "-c", help=WHERE)] = None,
    save: Annotated[str | None, typer.Option(metavar="NAME", help="Keep this question under a name.")] = None,
    saved: Annotated[str | None, typer.Option(metavar="NAME", help="Ask the question kept under a name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what meets the conditions.

    With --saved, --sort, --limit and --collection stand for those that were kept, and FILTER is not given.
    """
    from wyloop.models.errors import TargetError
    from wyloop.platform.session import connected
    from wyloop.stores.saved_queries import ask, save_query, saved_query

    if saved is not None and (conditions.strip() or save is not None):
        raise TargetError("--saved together with FILTER or --save; expected one of them; leave the others out")
    asked = _question(save or "unnamed", conditions)
    with connected(current_settings()) as store:
        if saved is not None:
            asked = saved_query(store, saved)
        asked = replace(
            asked,
            limit=asked.limit if limit is None else limit,
            sort=asked.sort if sort is None else sort,
            collection=asked.collection if collection is None else collection.value,
        )
        if save is not None:
            save_query(store, asked)
        rows = ask(store, asked if asked.limit is not None else replace(asked, limit=DEFAULT_LIMIT))
    print_rows(rows, _present(rows), as_json=as_json)


@app.command("saved")
def saved(
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Remove this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the questions kept with 'query --save'."""
    from wyloop.platform.session import connected
    from wyloop.stores.saved_queries import remove_query, saved_queries

    with connected(current_settings()) as store:
        if remove is not None:
            remove_query(store, remove)
        found = saved_queries(store)
    rows = [asdict(one) | {"conditions": str(one.target), "target": one.target.texts()} for one in found]
    columns = {name: name for name in ("name", "conditions", "collection", "sort", "limit")}
    print_rows(rows, columns, as_json=as_json, empty="no query is saved")


@app.command("nearest")
def nearest(
    subject: Annotated[str, typer.Argument(metavar="GENE|FORMULA", help="Such as '225 Cl:b Na:a', or 'NaCl'.")],
    n: Annotated[int, typer.Option("--number", "-n", min=1, max=1000, help="How many neighbours.")] = 10,
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="Compare in this model version's latent space.")
    ] = None,
    is_candidate: Annotated[bool, typer.Option("--candidates", help="Among candidates instead of materials.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the crystals nearest to a gene, or the compositions nearest to a formula.

    Distance of genes: 1 for another Wyckoff position of every atom, 0.1 for a place on the Mendeleev scale; of
    compositions: places on the Mendeleev scale; in the latent space: Euclidean, between means.
    """
    from wyloop.platform.session import connected

    with connected(current_settings()) as store:
        found = _neighbours(store, subject, n, model, "candidates" if is_candidate else "materials")
    rows: list[dict[str, Any]] = [asdict(one) for one in found]
    shown = [row | {"distance": f"{row['distance']:.3f}", "ids": ", ".join(row["ids"][:3])} for row in rows]
    columns = {"distance": "distance", "formula_pretty": "formula", "fingerprint": "gene", "ids": "ids"}
    print_rows(rows if as_json else shown, columns, as_json=as_json)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; for cif a folder.")],
    conditions: FilterArgument = "",
    form: Annotated[Format, typer.Option("--format", "-f", help="Format of the file.")] = Format.CSV,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows.")] = None,
    collection: Annotated[Collection, typer.Option("--collection", "-c", help=WHERE)] = Collection.ALL,
    as_json: JsonOption = False,
) -> None:
    """Write what meets the conditions to a file."""
    from wyloop.platform.session import connected
    from wyloop.stores.export import export as write
    from wyloop.stores.queries import rows

    target = _question("unnamed", conditions).target
    with connected(current_settings()) as store:
        n_written = write(store, rows(store, target, collection=collection.value, limit=limit), form.value, out)
    if as_json:
        print_json({"n_written": n_written, "out": str(out)})
    else:
        typer.echo(f"wrote {n_written} rows to {out}")


def _question(name: str, conditions: str) -> "SavedQuery":
    from wyloop.models.targets import Target
    from wyloop.stores.saved_queries import SavedQuery

    return SavedQuery(name, Target.parse([conditions] if conditions.strip() else []))


def _neighbours(
    store: "Store", subject: str, n: int, model: str | None, collection: 'Literal["materials", "candidates"]'
) -> "list[Neighbour]":
    from wyloop.models.targets import Target
    from wyloop.models.wyckoff.gene import Gene, canonical
    from wyloop.stores.latents import build_latents, nearest_latents
    from wyloop.stores.nearest import nearest_genes, similar_compositions

    if " " not in subject.strip() and model is None:
        from pymatgen.core.composition import Composition  # half a second

        target = Target.parse([f"formula_pretty = {subject.strip()}"])
        (condition,) = target.conditions
        amounts = Composition(str(getattr(condition, "value", ""))).get_el_amt_dict()
        return similar_compositions(store, dict(amounts), n=n, collection=collection)
    gene = canonical(Gene.parse(subject))
    if model is None:
        return nearest_genes(store, gene, n=n, collection=collection)
    with progress("encoding") as move:
        build_latents(store, model, on_progress=move)
    return nearest_latents(store, model, gene, n=n)


def _present(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {name: heading for name, heading in COLUMNS.items() if any(row.get(name) is not None for row in rows)}
