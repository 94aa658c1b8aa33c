"""`wyloop db ingest`: bring crystals into the database from files, folders, OPTIMADE servers, the Materials Project."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from wyloop.models.errors import IngestError
from wyloop.platform.cli.output import JsonOption, current_settings, print_json, print_rows, progress

if TYPE_CHECKING:
    from wyloop.stores.connection import Store
    from wyloop.stores.ingest.report import IngestReport

    Ingest = Callable[..., IngestReport]

MAX_SHOWN = 20
REFUSAL_COLUMNS = {
    "row": "row",
    "identity": "id",
    "field": "field",
    "value": "value",
    "expected": "expected",
    "remedy": "remedy",
}
DEFAULT = "files"


class KindOrPaths(TyperGroup):
    """A group whose first word may be left out: `wyloop db ingest PATH` is `wyloop db ingest files PATH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own context
        """Put the default command before words that are neither a command nor a call for help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    cls=KindOrPaths,
    no_args_is_help=True,
    help="Bring crystals into the database: wyloop db ingest PATH..., or with a kind or server first.",
)
PathsArgument = Annotated[list[Path], typer.Argument(help="Files, or folders of them.")]
SourceOption = Annotated[str | None, typer.Option("--source", help="Name of the source; by default the kind or file.")]
EnergyOption = Annotated[
    str, typer.Option("--energy-method", help="Method of formation energies whose names do not tell it.")
]
GapOption = Annotated[str, typer.Option("--gap-method", help="Method of band gaps whose names do not tell it.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write every refused row with its reason to a CSV file.")
]


@app.command(DEFAULT)
def ingest_any(
    paths: PathsArgument,
    source: SourceOption = None,
    energy_method: EnergyOption = "mp-pbe",
    gap_method: GapOption = "pbe",
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest files and folders of any kind: CSV, CIF, POSCAR, extxyz, JSON, ASE, VASP and GPAW runs.

    Bad rows are reported, good rows kept; a second time changes nothing.
    """
    _ingest_files(paths, None, source, energy_method, gap_method, report, as_json=as_json)


@app.command("csv")
def ingest_csv(
    path: Annotated[Path, typer.Argument(help="CSV file (.csv or .csv.gz) with columns material_id and cif.")],
    source: SourceOption = None,
    energy_method: EnergyOption = "mp-pbe",
    gap_method: GapOption = "pbe",
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest a CSV file and encode its crystals.

    Bad rows are reported, good rows kept; a second time changes nothing.
    """
    from wyloop.stores.ingest.csv import ingest_csv as ingest

    def run(store: "Store", **told: Any) -> "IngestReport":  # noqa: ANN401 - callbacks
        return ingest(
            store,
            path,
            source=source,
            energy_method=energy_method,
            gap_method=gap_method,
            is_encoding=True,
            **told,
        )

    _run(run, report, as_json=as_json)


def _add_command(kind: str, text: str, *, has_labels: bool) -> None:
    """Add the command for files of one kind; only some kinds hold labels whose method can be told."""

    def with_labels(
        paths: PathsArgument,
        source: SourceOption = None,
        energy_method: EnergyOption = "mp-pbe",
        gap_method: GapOption = "pbe",
        report: ReportOption = None,
        as_json: JsonOption = False,
    ) -> None:
        _ingest_files(paths, kind, source, energy_method, gap_method, report, as_json=as_json)

    def plain(
        paths: PathsArgument, source: SourceOption = None, report: ReportOption = None, as_json: JsonOption = False
    ) -> None:
        _ingest_files(paths, kind, source, "", "", report, as_json=as_json)

    app.command(kind, help=text)(with_labels if has_labels else plain)


_add_command("cif", "Ingest CIF files and encode their crystals.", has_labels=False)
_add_command("poscar", "Ingest POSCAR and CONTCAR files.", has_labels=False)
_add_command("extxyz", "Ingest extended XYZ files, every frame; labels are in its comment line.", has_labels=True)
_add_command("json", "Ingest JSON of pymatgen, ASE, JARVIS, matbench or OPTIMADE.", has_labels=True)
_add_command("ase", "Ingest SQLite databases of ASE (.db).", has_labels=True)
_add_command(
    "vasp", "Ingest finished VASP folders by their vasprun.xml; unconverged ones are refused.", has_labels=False
)
_add_command(
    "gpaw", "Ingest finished GPAW calculations: .gpw files, or text logs where there is none.", has_labels=False
)


@app.command("optimade")
def ingest_optimade(
    url: Annotated[str, typer.Argument(help="Base address, such as https://oqmd.org/optimade.")],
    conditions: Annotated[
        str, typer.Option("--filter", help="Filter in OPTIMADE's language, such as 'elements HAS \"Ga\"'.")
    ] = "",
    provider: Annotated[
        str, typer.Option(help="Whose fields hold the labels: auto, mp, oqmd, alexandria, jarvis or wyloop.")
    ] = "auto",
    source: SourceOption = None,
    page: Annotated[int, typer.Option(min=1, max=1000, help="Structures of a page.")] = 100,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many structures in this run.")] = None,
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds between two pages.")] = 0.2,
    is_restart: Annotated[bool, typer.Option("--restart", help="Start anew, not where a run was stopped.")] = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest structures of an OPTIMADE server; a stopped run goes on where it was."""
    from wyloop.stores.ingest.optimade import ingest_optimade as ingest
    from wyloop.stores.ingest.optimade_pages import Politeness

    def run(store: "Store", **told: Any) -> "IngestReport":  # noqa: ANN401 - callbacks
        return ingest(
            store,
            url,
            conditions=conditions,
            provider=provider,
            source=source,
            page_limit=page,
            max_rows=limit,
            is_restart=is_restart,
            politeness=Politeness(delay=delay),
            **told,
        )

    _run(run, report, as_json=as_json)


@app.command("mp")
def ingest_mp(
    elements: Annotated[str, typer.Option(help="Elements that are all in the crystal, such as Ga,As.")] = "",
    chemsys: Annotated[str, typer.Option(help="Chemical systems, such as Ga-As,In-As.")] = "",
    formula: Annotated[str, typer.Option(help="Formulas, such as GaAs,ABO3.")] = "",
    material_ids: Annotated[str, typer.Option("--ids", help="Material ids, such as mp-2534,mp-149.")] = "",
    key_from: Annotated[
        tuple[str, str], typer.Option("--api-key-from", help="Where the key is: env NAME, or file PATH.")
    ] = ("env", "MP_API_KEY"),
    source: SourceOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest materials of the Materials Project through mp-api (pip install wyloop[mp]); needs a key."""
    from wyloop.stores.ingest.materials_project import SOURCE, Search, ingest_materials_project

    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(",") if word.strip())

    search = Search(words(elements), words(chemsys), words(formula), words(material_ids))
    key = _key(*key_from)

    def run(store: "Store", **told: Any) -> "IngestReport":  # noqa: ANN401 - callbacks
        return ingest_materials_project(store, search, key, source=source or SOURCE, **told)

    _run(run, report, as_json=as_json)


def _key(place: str, name: str) -> str:
    if place == "env":
        key = os.environ.get(name, "").strip()
        if not key:
            raise IngestError(
                f"no key of the Materials Project in the environment variable {name}; expected one; make it on "
                f"https://materialsproject.org/api and set {name}"
            )
        return key
    if place == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise IngestError(
                f"can't read the key from {name} ({type(error).__name__}); expected a text file"
            ) from error
    raise typer.BadParameter(f"--api-key-from {place}; expected env NAME or file PATH")


def _ingest_files(
    paths: list[Path],
    kind: str | None,
    source: str | None,
    energy_method: str,
    gap_method: str,
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    from wyloop.stores.ingest.files import ingest_files

    def run(store: "Store", **told: Any) -> "IngestReport":  # noqa: ANN401 - callbacks
        return ingest_files(
            store,
            paths,
            kind=kind,
            source=source,
            energy_method=energy_method,
            gap_method=gap_method,
            is_encoding=True,
            **told,
        )

    _run(run, report, as_json=as_json)


def _run(ingest: "Ingest", report_path: Path | None, *, as_json: bool) -> None:
    from wyloop.platform.session import connected
    from wyloop.stores.builders.encodings import build_encodings
    from wyloop.stores.ingest.report import refusals_to

    with connected(current_settings()) as store, refusals_to(report_path) as on_refusal:
        with progress("ingesting") as move:
            report = ingest(store, on_progress=move, on_refusal=on_refusal)
        with progress("encoding") as move:
            built = build_encodings(store, on_progress=move)  # what was changed, or left by others
    n_encoded = report.n_encoded + built.n_done
    if as_json:
        n_without = report.n_not_encodable + built.n_refused
        counts = {"n_encoded": n_encoded, "n_not_encodable": n_without, "n_refused": report.n_refused}
        print_json(asdict(report) | counts)
    else:
        typer.echo(
            f"{report.n_rows} rows: {report.n_added} added, {report.n_updated} updated, "
            f"{report.n_unchanged} unchanged, {report.n_refused} refused; {n_encoded} encoded"
        )
        for note in report.notes:
            typer.echo(note)
        shown = [asdict(refusal) for refusal in report.refused[:MAX_SHOWN]]
        print_rows(shown, REFUSAL_COLUMNS, as_json=False, empty="no row refused")
        if report.n_refused > MAX_SHOWN:
            where = f"{report_path} has all" if report_path else "--report FILE writes all"
            typer.echo(f"... and {report.n_refused - MAX_SHOWN} more; {where}")
    if report.n_refused == report.n_rows:  # an empty file too: nothing could be done
        raise typer.Exit(1)
