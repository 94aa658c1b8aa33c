"""`wyloop reconcile`: find and mend what crashes left between campaigns, jobs and Prefect."""

import os
from dataclasses import asdict

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_json, print_rows

COLUMNS = {"kind": "mended", "n": "how many", "which": "which"}
N_SHOWN = 5


def reconcile(as_json: JsonOption = False) -> None:
    """Find and mend what crashes left between campaigns, jobs and Prefect.

    It may be run at any time, also while everything works; a second run does nothing.
    """
    from wyloop.flows.launchpad import launchpad
    from wyloop.flows.reconcile import reconcile as mend
    from wyloop.platform.prefect_server import prefect_environment, running_prefect
    from wyloop.platform.session import connected

    settings = current_settings()
    handle = running_prefect(settings.data_folder)
    if handle is not None:
        os.environ.update(prefect_environment(settings.data_folder) | {"PREFECT_API_URL": handle.api_url})
    with connected(settings) as store:
        lpad = launchpad(store.uri, settings.flows.launchpad_database)
        try:
            repairs = mend(store, lpad, with_prefect="PREFECT_API_URL" in os.environ)
        finally:
            lpad.connection.close()
    if as_json:
        print_json(asdict(repairs))
    else:
        rows = [
            {"kind": kind.replace("_", " "), "n": len(found), "which": found[:N_SHOWN]}
            for kind, found in repairs.done.items()
        ]
        print_rows(rows, COLUMNS, as_json=False, empty="nothing to mend")
        for subject, why in repairs.failed.items():
            typer.echo(f"not mended: {subject}: {why}", err=True)
    if repairs.failed:
        raise typer.Exit(1)
