"""`wyloop campaign`: campaigns from their definition to their report."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_facts, print_json, print_rows
from wyloop.platform.cli.simulate import simulate

if TYPE_CHECKING:
    from wyloop.stores.campaigns import CampaignRecord
    from wyloop.stores.connection import Store

app = typer.Typer(no_args_is_help=True, help="Campaigns: a target, its rounds, what came of them.")
app.command("simulate")(simulate)
COLUMNS = {
    "campaign_id": "campaign",
    "state": "state",
    "rounds_closed": "rounds done",
    "rounds_requested": "asked for",
    "target": "target",
    "created_at": "created",
}
BUDGET_COLUMNS = {
    "protocol": "protocol",
    "jobs_limit": "jobs, limit",
    "jobs_reserved": "reserved",
    "jobs_settled": "done",
    "core_hours_limit": "core-hours, limit",
    "core_hours_reserved": "reserved",
    "core_hours_spent": "spent",
    "deadline": "until",
}
HIDDEN = ("settings", "definition", "lease_owner", "lease_run_id", "lease_expires_at", "fencing_token")
CampaignId = Annotated[str, typer.Argument(help="Id, as 'wyloop campaign list' shows it.")]
ROUND_COLUMNS = {"number": "round", "state": "state", "model_id": "model", "seed": "seed", "last_updated": "updated"}


@app.callback()
def campaign() -> None:
    """Campaigns: a target, its rounds, what came of them."""


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List campaigns, oldest first."""
    from wyloop.platform.session import connected
    from wyloop.stores.campaigns import campaigns

    with connected(current_settings()) as store:
        rows = [asdict(record) for record in campaigns(store)]
    print_rows(
        rows, COLUMNS, as_json=as_json, empty="no campaigns; 'wyloop campaign create' or 'wyloop discover' makes one"
    )


@app.command("show")
def show(
    campaign_id: CampaignId,
    as_json: JsonOption = False,
) -> None:
    """Show a campaign with its rounds and the funnel of each."""
    from wyloop.platform.session import connected
    from wyloop.stores import campaigns, candidates

    with connected(current_settings()) as store:
        record = campaigns.campaign(store, campaign_id)
        rounds = campaigns.rounds(store, campaign_id)
        statuses = {item.round_id: candidates.funnel(store, item.round_id) for item in rounds}
    if as_json:
        told = [asdict(item) | {"candidates": statuses[item.round_id]} for item in rounds]
        print_json(asdict(record) | {"rounds": told})
        return
    print_facts({name: value for name, value in asdict(record).items() if name not in HIDDEN and value != ""})
    typer.echo()
    print_rows([asdict(item) for item in rounds], ROUND_COLUMNS, as_json=False, empty="no rounds yet")
    for item in rounds:
        counts = {name: count for name, count in statuses[item.round_id].items() if count}
        typer.echo(
            f"\nround {item.number} candidates: {', '.join(f'{n} {name}' for name, n in counts.items()) or 'none'}"
        )
        if item.funnel:
            print_rows(item.funnel, {name: name.replace("_", " ") for name in item.funnel[0]}, as_json=False)


@app.command("create")
def create(
    file: Annotated[Path | None, typer.Argument(help="YAML file with target, budget, policy and schedule.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Condition such as '0.5 < band_gap < 2.0'; repeat it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Tells campaigns of the same target apart.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds in all.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Most jobs in all.")] = None,
    core_hours: Annotated[float | None, typer.Option(help="Most core-hours in all.")] = None,
    wall_hours: Annotated[float | None, typer.Option(help="Hours from its start after which no round begins.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other entry, such as policy.n_dft=2; repeat it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Define a campaign.

    The definition is checked as a whole; nothing starts before 'wyloop campaign start'.
    """
    from wyloop.flows import definition
    from wyloop.platform.session import connected

    changes: dict[str, Any] = {
        "target": target or None,
        "name": name,
        "budget.rounds": rounds,
        "budget.jobs": jobs,
        "budget.core_hours": core_hours,
        "budget.wall_hours": wall_hours,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    changes |= dict(_entry(text) for text in settings or ())
    wanted = definition.define({}, changes) if file is None else definition.read_definition(file, changes)
    with connected(current_settings()) as store:
        record = definition.create(store, wanted)
    _print_campaign(record, as_json=as_json, hint=f"start it with 'wyloop campaign start {record.campaign_id}'")


@app.command("start")
def start(
    campaign_id: CampaignId,
    is_local: Annotated[
        bool, typer.Option("--local", help="Do its rounds in this process until it has ended, without Prefect.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a campaign.

    The scheduled flow of 'wyloop up' advances it, on its own schedule; or this process does.
    """
    from wyloop.flows import definition
    from wyloop.platform.session import connected

    if is_local:
        _run_here(campaign_id, as_json=as_json)
        return
    settings = current_settings()
    with connected(settings) as store:
        record = definition.start(store, campaign_id)
    is_scheduled = _deploy(record)
    hint = "the scheduled flow advances it" if is_scheduled else "no Prefect server answers: run 'wyloop up' for that"
    _print_campaign(record, as_json=as_json, hint=hint)


@app.command("pause")
def pause(campaign_id: CampaignId, as_json: JsonOption = False) -> None:
    """Pause a campaign: nothing more is dispatched; its policy says what becomes of submitted jobs."""
    from wyloop.flows import holding

    with _opened() as (store, lpad):
        record = holding.pause(store, lpad, campaign_id)
    _print_campaign(record, as_json=as_json, hint=f"go on with 'wyloop campaign resume {campaign_id}'")


@app.command("resume")
def resume(campaign_id: CampaignId, as_json: JsonOption = False) -> None:
    """Let a paused campaign go on."""
    from wyloop.flows import holding

    with _opened() as (store, lpad):
        record = holding.resume(store, lpad, campaign_id)
    _deploy(record)
    _print_campaign(record, as_json=as_json)


@app.command("stop")
def stop(campaign_id: CampaignId, as_json: JsonOption = False) -> None:
    """End a campaign for good; what was found stays, jobs that have not begun are taken off the list."""
    from wyloop.flows import holding

    with _opened() as (store, lpad):
        record = holding.stop(store, lpad, campaign_id)
    _print_campaign(record, as_json=as_json)


@app.command("budget")
def budget(
    campaign_id: CampaignId,
    rounds: Annotated[int | None, typer.Option(help="Rounds in all, from now on.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Most jobs in all, from now on.")] = None,
    core_hours: Annotated[float | None, typer.Option(help="Most core-hours in all, from now on.")] = None,
    wall_hours: Annotated[float | None, typer.Option(help="Hours from its start, from now on.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a campaign may spend and has, by protocol; or change its limits."""
    from wyloop.flows import definition
    from wyloop.platform.session import connected
    from wyloop.stores import budget as budgets

    given = {"rounds": rounds, "jobs": jobs, "core_hours": core_hours, "wall_hours": wall_hours}
    changes = {f"budget.{key}": value for key, value in given.items() if value is not None}
    with connected(current_settings()) as store:
        if changes:
            definition.change_budget(store, campaign_id, changes)
        rows = [_hours(asdict(row)) for row in budgets.budget(store, campaign_id)]
    print_rows(rows, BUDGET_COLUMNS, as_json=as_json, empty="nothing is reserved, and there is no limit")


def _hours(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("limit", "reserved", "spent"):
        seconds = row.pop(f"core_seconds_{name}")
        row[f"core_hours_{name}"] = None if seconds is None else seconds / 3600
    return row


def _entry(text: str) -> tuple[str, Any]:
    import yaml  # type: ignore[import-untyped]  # ships no types; not needed to show the help

    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"--set {text}: expected name=value such as policy.n_dft=2")
    return name.strip(), yaml.safe_load(value)


def _print_campaign(record: "CampaignRecord", *, as_json: bool, hint: str = "") -> None:
    if as_json:
        print_json(asdict(record))
        return
    print_facts({name: value for name, value in asdict(record).items() if name not in HIDDEN and value != ""})
    if hint:
        typer.echo(hint)


@contextmanager
def _opened() -> "Iterator[tuple[Store, Any]]":
    """Open the database and its LaunchPad."""
    from wyloop.flows.launchpad import launchpad
    from wyloop.platform.session import connected

    settings = current_settings()
    with connected(settings) as store:
        lpad = launchpad(store.uri, settings.flows.launchpad_database)
        try:
            yield store, lpad
        finally:
            lpad.connection.close()


def _deploy(record: "CampaignRecord") -> bool:
    """Put the campaign on its schedule, where a Prefect server answers."""
    import os

    from wyloop.platform.prefect_server import prefect_environment, running_prefect

    settings = current_settings()
    handle = running_prefect(settings.data_folder)
    if handle is not None:
        os.environ.update(prefect_environment(settings.data_folder) | {"PREFECT_API_URL": handle.api_url})
    if not os.environ.get("PREFECT_API_URL"):
        return False
    from wyloop.flows import runs
    from wyloop.flows.deployments import deploy_campaign  # Prefect: 2.4 s

    if not runs.has_server():
        return False
    deploy_campaign(record)
    return True


def _run_here(campaign_id: str, *, as_json: bool) -> None:
    """Do the rounds of a campaign in this process; the services that it needs run as long."""
    import os

    from wyloop.flows.worker import pin_threads

    pin_threads()  # before torch is imported; the cores are the workers'
    from wyloop.flows import definition
    from wyloop.flows.campaign import BUSY, WAITING, advance_locally
    from wyloop.flows.waiting import wait_for_jobs
    from wyloop.platform.session import borrowed
    from wyloop.stores import campaigns
    from wyloop.stores.connection import connect

    settings = current_settings()
    with borrowed(settings, with_prefect=False) as running:
        os.environ.update(running.environment)
        store = connect(settings.with_uri(running.uri).stores)
        try:
            definition.start(store, campaign_id)
            while (outcome := advance_locally(campaign_id)) in (WAITING, BUSY):
                wait_for_jobs(store, campaign_id)
            record = campaigns.campaign(store, campaign_id)
        finally:
            store.close()
    _print_campaign(record, as_json=as_json, hint=f"outcome: {outcome}; see 'wyloop campaign report {campaign_id}'")


@app.command("report")
def report(
    campaign_id: CampaignId,
    out: Annotated[Path | None, typer.Option(help="Folder; default: the campaign's id.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a campaign's report, as Markdown and as one HTML page, with its figures."""
    from wyloop.flows.campaign_report import write_report
    from wyloop.platform.session import connected

    with connected(current_settings()) as store:
        files = write_report(store, campaign_id, out or Path(campaign_id))
    if as_json:
        print_json({"files": [str(path) for path in files]})
    else:
        typer.echo("\n".join(str(path) for path in files))
