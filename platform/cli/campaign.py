"""`wyloop campaign`: campaigns, their rounds and funnels."""

from dataclasses import asdict
from typing import Annotated

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_facts, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="Campaigns: a target, its rounds, what came of them.")
COLUMNS = {
    "campaign_id": "campaign",
    "state": "state",
    "rounds_closed": "rounds done",
    "rounds_requested": "asked for",
    "target": "target",
    "created_at": "created",
}
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
    print_rows(rows, COLUMNS, as_json=as_json, empty="no campaigns; 'wyloop discover' starts one")


@app.command("show")
def show(
    campaign_id: Annotated[str, typer.Argument(help="Id, as 'wyloop campaign list' shows it.")],
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
    hidden = ("settings", "lease_owner", "fencing_token")
    print_facts({name: value for name, value in asdict(record).items() if name not in hidden})
    typer.echo()
    print_rows([asdict(item) for item in rounds], ROUND_COLUMNS, as_json=False, empty="no rounds yet")
    for item in rounds:
        counts = {name: count for name, count in statuses[item.round_id].items() if count}
        typer.echo(
            f"\nround {item.number} candidates: {', '.join(f'{n} {name}' for name, n in counts.items()) or 'none'}"
        )
        if item.funnel:
            print_rows(item.funnel, {name: name.replace("_", " ") for name in item.funnel[0]}, as_json=False)
