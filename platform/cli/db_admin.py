"""`wyloop db`, the part for who runs the database: check, repair, backup, restore, migrations, roles."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from wyloop.stores.findings import CheckReport, Finding
    from wyloop.stores.roles import Role

roles_app = typer.Typer(no_args_is_help=True, help="Users with the least rights: reader, writer, owner.")
FINDING_COLUMNS = {
    "level": "level",
    "kind": "kind",
    "n": "found",
    "collection": "collection",
    "identity": "first",
    "what": "what",
    "remedy": "remedy",
}
FIELD_COLUMNS = {
    "collection": "collection",
    "field": "field",
    "type": "type",
    "unit": "unit",
    "is_required": "required",
    "choices": "one of",
}
MIGRATION_COLUMNS = {"version": "schema", "name": "migration", "finished_at": "finished", "counts": "documents"}
ACCOUNT_COLUMNS = {"role": "role", "user": "user", "is_new": "new", "password": "password"}
PASSWORD_VARIABLE = "WYLOOP_{}_PASSWORD"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `wyloop db`."""
    app.command("check")(check)
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("migrate")(migrate)
    app.command("schema")(schema)
    app.add_typer(roles_app, name="roles")


@roles_app.callback()
def roles() -> None:
    """Users with the least rights: reader, writer, owner."""


def check(
    is_repairing: Annotated[
        bool, typer.Option("--repair", help="Mend what loses nothing: indexes, orphans, what builders make.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look over the whole database: schemas, indexes, references, derived documents.

    Ends with status 1 if anything but a note is found (left, with --repair).
    """
    from wyloop.platform.session import connected
    from wyloop.stores.check import check as look
    from wyloop.stores.repair import repair

    with connected(current_settings(), is_checked=False) as store:
        done: dict[str, int] = {}
        if is_repairing:
            with progress("repairing") as move:
                mended = repair(store, on_progress=move)
            done, report = mended.done, mended.left
        else:
            with progress("checking") as move:
                report = look(store, on_progress=move)
    if as_json:
        print_json(asdict(report) | {"is_clean": report.is_clean, "repaired": done})
    else:
        for what, n in done.items():
            typer.echo(f"{n} {what}")
        _print_findings(report)
    if not report.is_clean:
        raise typer.Exit(1)


def _print_findings(report: "CheckReport") -> None:
    first: dict[str, Finding] = {}
    for finding in report.findings:
        first.setdefault(finding.kind, finding)
    rows = [asdict(finding) | {"n": report.counts[kind]} for kind, finding in first.items()]
    print_rows(rows, FINDING_COLUMNS, as_json=False, empty="nothing found")
    typer.echo(
        f"{report.n_documents} documents in {report.seconds:.2f} s: {'clean' if report.is_clean else 'not clean'}"
    )


def backup(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as wyloop.zip.")],
    without_jobs: Annotated[bool, typer.Option("--without-jobs", help="Leave out the FireWorks database.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write everything to one file, as it is at one moment, while others go on writing."""
    from wyloop.platform.session import connected
    from wyloop.stores.backup import backup as write

    check_place(path)
    settings = current_settings()
    jobs = None if without_jobs else settings.flows.launchpad_database
    with connected(settings, is_checked=False) as store, progress("backing up") as move:
        manifest = write(store, path, jobs=jobs, on_progress=move)
    n_bytes = path.stat().st_size
    if as_json:
        print_json(asdict(manifest) | {"file": str(path), "n_bytes": n_bytes})
    else:
        n_jobs = sum(content.n for content in manifest.jobs.values())
        n_own = manifest.n_documents - n_jobs
        typer.echo(f"wrote {n_own} documents and {n_jobs} of FireWorks to {path}, {n_bytes} bytes")


def restore(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Backup to read.")],
    into: Annotated[str | None, typer.Option(metavar="DATABASE", help="Name of a new database.")] = None,
    without_jobs: Annotated[bool, typer.Option("--without-jobs", help="Leave out the FireWorks database.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back into an empty database, verified by counts and hashes.

    With --into NAME the jobs go to NAME_fireworks. A database that holds something is never written over.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.backup import read_manifest
    from wyloop.stores.documents.base import SCHEMA_VERSION
    from wyloop.stores.restore import restore as bring_back

    settings = current_settings()
    jobs = settings.flows.launchpad_database if into is None else f"{into}_fireworks"
    has_jobs = bool(read_manifest(path).jobs) and not without_jobs
    if into is not None:
        settings = settings.with_database(into)
    with connected(settings, is_checked=False) as store, progress("restoring") as move:
        manifest = bring_back(store, path, jobs=jobs if has_jobs else None, on_progress=move)
        name = store.name
    told = asdict(manifest) | {"into": name, "jobs_into": jobs if has_jobs else None}
    if as_json:
        print_json(told)
        return
    typer.echo(f"restored {manifest.n_documents} documents of {manifest.created_at} into {name}, all verified")
    if has_jobs and into is not None:
        typer.echo(f"use them: WYLOOP_STORES_DATABASE={name} WYLOOP_FLOWS_LAUNCHPAD_DATABASE={jobs}")
    if manifest.schema_version < SCHEMA_VERSION:
        typer.echo(f"its schema version is {manifest.schema_version}: run 'wyloop db migrate'")


def migrate(
    out: Annotated[
        Path | None, typer.Option("--backup", help="File for the backup made before; default in the data folder.")
    ] = None,
    without_backup: Annotated[bool, typer.Option("--without-backup", help="Make no backup before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a database of an older schema to the present one; stop the workers before.

    A backup is made first, derived documents are built again after.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.backup import backup as write
    from wyloop.stores.documents.base import SCHEMA_VERSION
    from wyloop.stores.migrate import migrate as run
    from wyloop.stores.migrate import schema_version
    from wyloop.stores.repair import repair

    check_place(out)
    settings = current_settings()
    written: Path | None = None
    with connected(settings, is_checked=False) as store:
        version = schema_version(store)
        if version < SCHEMA_VERSION and not without_backup:
            folder = settings.data_folder / "backups"
            folder.mkdir(parents=True, exist_ok=True)
            written = out or _unused(folder, f"{store.name}-schema-{version}")
            with progress("backing up") as move:
                write(store, written, on_progress=move)
        applied = run(store)
        if applied:
            with progress("building") as move:
                repair(store, on_progress=move)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "applied": applied, "backup": str(written) if written else None})
        return
    if written is not None:
        typer.echo(f"backup: {written}")
    rows = [asdict(one) for one in applied]
    print_rows(rows, MIGRATION_COLUMNS, as_json=False, empty=f"schema version {SCHEMA_VERSION}: nothing to do")


def schema(
    collection: Annotated[str | None, typer.Argument(help="One collection; default all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the fields of the documents with their types and units."""
    from wyloop.stores.documents.reference import fields_of

    rows = [asdict(one) for one in fields_of(collection)]
    print_rows(rows, FIELD_COLUMNS, as_json=as_json)


def _unused(folder: Path, name: str) -> Path:
    numbers = range(1, 10_000)
    return next(path for n in numbers if not (path := folder / f"{name}-{n}.zip").exists())


@roles_app.command("create")
def create(
    wanted: Annotated[
        list[str] | None, typer.Option("--role", help="reader, writer or owner; repeat it; default all three.")
    ] = None,
    is_prompting: Annotated[bool, typer.Option("--prompt", help="Ask for the passwords.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the roles and a user for each; run it as an administrator of the server.

    A password comes from WYLOOP_READER_PASSWORD (WRITER, OWNER), or is asked for, or is made and shown once, here. Who
    has one already keeps it; a role that exists is brought up to date.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.roles import Role, create_roles

    known = {role.value: role for role in Role}
    for name in wanted or ():
        if name not in known:
            raise typer.BadParameter(f"no role {name!r}; expected one of {', '.join(known)}", param_hint="--role")
    settings = current_settings()
    passwords = {known[name]: _password(known[name], is_prompting=is_prompting) for name in wanted or known}
    with connected(settings, is_checked=False) as store:
        accounts = create_roles(store, settings.flows.launchpad_database, passwords)
    rows = [asdict(account) for account in accounts]
    if as_json:
        print_json(rows)
        return
    print_rows(rows, ACCOUNT_COLUMNS, as_json=False)
    if any(account.password for account in accounts):
        typer.echo("keep these passwords now: they are stored nowhere and shown never again")


@roles_app.command("show")
def show(as_json: JsonOption = False) -> None:
    """Show what each role may do."""
    from wyloop.stores.roles import Role, privileges, role_name

    settings = current_settings()
    database, jobs = settings.stores.database, settings.flows.launchpad_database
    told = {role_name(database, role): privileges(database, jobs, role) for role in Role}
    if as_json:
        print_json(told)
        return
    for name, allowed in told.items():
        typer.echo(name)
        for one in allowed:
            place = ".".join(part for part in one["resource"].values() if part)
            print_facts({f"  {place}": one["actions"]})


def _password(role: "Role", *, is_prompting: bool) -> str | None:
    given = os.environ.get(PASSWORD_VARIABLE.format(role.value.upper()))
    if given is None and is_prompting:
        return str(typer.prompt(f"password of the {role.value}", hide_input=True, confirmation_prompt=True, err=True))
    return given
