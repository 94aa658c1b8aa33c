"""`wyloop job` and `wyloop worker`: FireWorks jobs, and a process that runs them."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wyloop.models.errors import ServiceError
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
    queue: Annotated[str, typer.Option(help="slurm or pbs: submit batch jobs that run the jobs instead.")] = "",
    max_in_queue: Annotated[int, typer.Option(min=1, help="Most batch jobs in the queue at once.")] = 10,
) -> None:
    """Run FireWorks jobs until stopped.

    A job that the stop interrupts is given back and runs again. With --queue the run folder holds queue.yaml, the
    settings of the batch jobs: written there first, yours to edit.
    """
    if queue:
        _submit_to_queue(queue, categories, run_folder, max_in_queue=max_in_queue, is_once=is_once)
        return
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
        for name, value in settings.with_uri(store.uri).environment().items():
            if not name.startswith("WYLOOP_PLATFORM_"):
                os.environ.setdefault(name, value)  # jobs find their database there
        n_run = run_worker(
            store.uri,
            settings.flows.launchpad_database,
            categories=names,
            run_folder=run_folder or settings.flows.run_folder,
            once=is_once,
            is_wanted=is_wanted,
        )
    typer.echo(f"ran {n_run} jobs")


def _submit_to_queue(kind: str, categories: str, run_folder: Path | None, *, max_in_queue: int, is_once: bool) -> None:
    from wyloop.flows.launchpad import launchpad
    from wyloop.flows.queue import SUBMIT, queue_adapter, run_queue
    from wyloop.platform.session import connected

    if kind not in ("slurm", "pbs"):
        raise ServiceError(f"no queue {kind!r}; expected one of {', '.join(SUBMIT)}")
    settings = current_settings()
    names = [name.strip() for name in categories.split(",") if name.strip()]
    folder = run_folder or settings.flows.run_folder or settings.data_folder / "queue"
    adapter = queue_adapter("slurm" if kind == "slurm" else "pbs", folder, categories=names)
    with connected(settings) as store:
        lpad = launchpad(store.uri, settings.flows.launchpad_database)
        try:
            n = run_queue(lpad, adapter, folder, categories=names, max_in_queue=max_in_queue, once=is_once)
        finally:
            lpad.connection.close()
    typer.echo(f"submitted {n} batch jobs; their settings are in {folder / 'queue.yaml'}")
