"""`wyloop up`, `down`, `status`, `doctor`, `serve-flows`: the services of this machine."""

from dataclasses import asdict
from typing import Annotated

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_facts, print_json, print_rows

STATUS_COLUMNS = {"name": "service", "state": "state", "address": "address", "pid": "pid", "memory_mb": "memory, MB"}
MARKS = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}


def up(
    n_workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="FireWorks workers; default from the settings.")
    ] = None,
    with_prefect: Annotated[bool, typer.Option("--prefect/--no-prefect", help="Start a Prefect server.")] = True,
    with_api: Annotated[bool, typer.Option("--api/--no-api", help="Start the web server: dashboard, OPTIMADE.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Start the services of this machine.

    MongoDB, a Prefect server, the scheduled flows and FireWorks workers; what is configured or runs already is used.
    """
    from wyloop.platform import services, session

    settings = current_settings()
    running = services.up(
        settings, with_prefect=with_prefect, with_flow_server=with_prefect, with_api=with_api, n_workers=n_workers
    )
    session.keep_services(settings)
    facts = {
        "database": services.without_password(running.uri),
        "prefect": running.prefect_ui_url,
        "web": running.api_url,
        "started": running.started or "nothing, all was running",
        "data": str(settings.data_folder),
    }
    if as_json:
        print_json(facts | {"prefect_api_url": running.prefect_api_url, "started": running.started})
    else:
        print_facts(facts)


def down(as_json: JsonOption = False) -> None:
    """Stop the services of this machine.

    Workers first, the database last; nothing stored is lost.
    """
    from wyloop.platform import services

    stopped = services.down(current_settings())
    if as_json:
        print_json({"stopped": stopped})
    else:
        typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(
    with_figures: Annotated[
        bool, typer.Option("--figures", help="Also queues, ages, failures and latency: what /metrics serves.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the services and whether they answer."""
    from wyloop.platform import services

    settings = current_settings()
    found = [asdict(row) for row in services.status(settings)]
    if not with_figures:
        print_rows(found, STATUS_COLUMNS, as_json=as_json)
        return
    uri = services.embedded_uri(settings)
    rows: list[tuple[str, float]] = []
    if uri is not None:
        from wyloop.platform.metrics import figures
        from wyloop.stores.connection import connect

        store = connect(settings.with_uri(uri).stores)
        rows = figures(store, settings.flows.launchpad_database).rows()
        store.close()
    if as_json:
        print_json({"services": found, "figures": dict(rows)})
        return
    print_rows(found, STATUS_COLUMNS, as_json=False)
    print_rows(
        [{"name": name, "value": value} for name, value in rows], {"name": "figure", "value": "value"}, as_json=False
    )


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine, with a remedy for each fault.

    Fails if something vital is missing; a missing GPAW is a warning.
    """
    from wyloop.platform.doctor import examine

    checks = examine(current_settings())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        from rich.markup import escape

        from wyloop.platform.cli.output import console

        shown = console()
        for check in checks:
            remedy = f"; {check.remedy}" if check.remedy else ""
            # the mark's markup does not count as width
            padding = " " * (5 - len(check.status))
            shown.print(
                f"{MARKS[check.status]}{padding}{check.name:<12}{escape(check.detail + remedy)}", soft_wrap=True
            )
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def serve_flows() -> None:
    """Serve the scheduled flows until stopped.

    The Prefect server is the one of PREFECT_API_URL; `wyloop up` starts this command for its own server.
    """
    from wyloop.flows.deployments import serve_flows as serve

    serve()
