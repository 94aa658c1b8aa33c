"""`wyloop job` and `wyloop worker`: FireWorks jobs, and a process that runs them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_rows

app = typer.Typer(no_args_is_help=True, help="FireWorks jobs.")
COLUMNS = {
    "fw_id": "job",
    "name": "name",
    "state": "state",
    "category": "category",
    "calculation_id": "calculation",
    "updated_on": "updated",
}


@app.callback()
def job() -> None:
    """FireWorks jobs."""


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state, such as COMPLETED.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List jobs with their state, newest first."""
    from wyloop.flows.launchpad import list_jobs
    from wyloop.platform.session import connected

    settings = current_settings()
    with connected(settings) as store:  # checks the address before FireWorks meets it
        rows = list_jobs(store.uri, settings.flows.launchpad_database, state=state, limit=limit)
    print_rows([asdict(row) for row in rows], COLUMNS, as_json=as_json, empty="no jobs")


def worker(
    categories: Annotated[str, typer.Option(help="Categories of jobs to run, comma between; all if empty.")] = "",
    is_once: Annotated[bool, typer.Option("--once", help="End when no job is ready.")] = False,
    n_jobs: Annotated[int | None, typer.Option("-n", min=1, help="End after this many jobs.")] = None,
    run_folder: Annotated[Path | None, typer.Option(help="Folder of scratch files.")] = None,
) -> None:
    """Run FireWorks jobs until stopped.

    A job that the stop interrupts is given back and runs again.
    """
    from wyloop.flows.worker import run_worker
    from wyloop.platform.session import connected

    settings = current_settings()
    names = [name.strip() for name in categories.split(",") if name.strip()]
    remaining = [n_jobs]

    def is_wanted() -> bool:  # asked once before each job
        if remaining[0] is None:
            return True
        remaining[0] -= 1
        return remaining[0] >= 0

    with connected(settings) as store:
        n_run = run_worker(
            store.uri,
            settings.flows.launchpad_database,
            categories=names,
            run_folder=run_folder or settings.flows.run_folder,
            once=is_once,
            is_wanted=is_wanted,
        )
    typer.echo(f"ran {n_run} jobs")
