"""`wyloop encode`: crystals of a CSV file to genes, without a database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import JsonOption, check_place, print_json, progress, write_lines

if TYPE_CHECKING:
    from wyloop.models.wyckoff.gene import Gene
    from wyloop.platform.rows import EncodedRow

MAX_SHOWN = 10


def encode(
    path: Annotated[Path, typer.Argument(help="CSV file (.csv or .csv.gz) with a column 'cif'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON-lines file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Encode the crystals of a CSV file to genes.

    One JSON line each; rows without a gene are reported. Needs no database.
    """
    from wyloop.platform.rows import Refused, read_rows

    check_place(out)
    refused = Refused()
    with progress("encoding") as report:
        n_encoded = write_lines(out, (_line(row) for row in read_rows(path, refused, report)))
    reasons = [{"row": number, "material_id": name, "reason": why} for number, name, why in refused.reasons]
    if as_json:
        print_json({"n_encoded": n_encoded, "n_refused": len(reasons), "refused": reasons, "out": str(out)})
    else:
        typer.echo(f"encoded {n_encoded} crystals to {out}, refused {len(reasons)}")
        for reason in reasons[:MAX_SHOWN]:
            typer.echo(f"row {reason['row']}, {reason['material_id']}: {reason['reason']}", err=True)
        if len(reasons) > MAX_SHOWN:
            typer.echo(f"... and {len(reasons) - MAX_SHOWN} more; --json shows all", err=True)
    if not n_encoded:
        raise typer.Exit(1)


def gene_fields(gene: "Gene") -> dict[str, Any]:
    """Return a gene as the fields of a JSON line."""
    return {
        "formula_pretty": gene.formula_pretty,
        "space_group_number": gene.space_group_number,
        "protostructure": gene.protostructure,
        "wyckoff_sequence": gene.wyckoff_sequence,
        "nsites": gene.nsites,
        "fingerprint": gene.fingerprint,
    }


def _line(row: "EncodedRow") -> dict[str, Any]:
    fields = {"row": row.number, "material_id": row.identity, **gene_fields(row.gene)}
    return fields | row.labels
