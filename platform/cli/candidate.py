"""`wyloop candidate`: the whole story of one proposed gene, and candidates that other generators wrote."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.candidate_add import add
from wyloop.platform.cli.output import (
    JsonOption,
    cell,
    current_settings,
    print_facts,
    print_json,
    print_rows,
    progress,
)

if TYPE_CHECKING:
    from wyloop.stores.connection import Store

app = typer.Typer(no_args_is_help=True, help="Candidates: proposed genes and what became of them.")
app.command("add")(add)
UNITS = {
    "formation_energy_per_atom": "eV/atom",
    "dft_formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "volume_per_atom": "Å^3",
    "lowest_optical_frequency": "THz",
    "max_force": "eV/Å",
    "max_stress": "GPa",
    "wall_time": "s",
}
HEAD = ("formula_pretty", "space_group_number", "wyckoff_sequence", "nsites", "status", "reason", "rank")
VERDICT_COLUMNS = {"screen": "screen", "passed": "passed", "value": "value", "unit": "unit", "reason": "reason"}
MATERIAL_FIELDS = (
    "material_id",
    "formula_pretty",
    "space_group_number",
    "formation_energy_per_atom",
    "energy_method",
    "energy_above_hull",
    "hull_id",
    "band_gap",
    "band_gap_method",
    "dft_formation_energy_per_atom",
    "lowest_optical_frequency",
    "phonon_verdict",
    "is_validated",
    "meets_target",
)
BULKY = ("frequencies", "fingerprint")
MAX_SHOWN = 20


@app.callback()
def candidate() -> None:
    """Candidates: proposed genes and what became of them."""


@app.command("show")
def show(
    candidate_id: Annotated[str, typer.Argument(help="Id of the candidate.")],
    as_json: JsonOption = False,
) -> None:
    """Tell a candidate's whole story.

    Model, predictions, each screen's verdict, jobs and result.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.stories import story

    settings = current_settings()
    with connected(settings) as store:
        told: dict[str, Any] = dict(story(store, candidate_id))
        told["jobs"] = _jobs(store.uri, settings.flows.launchpad_database, told.get("calculations") or [])
    if as_json:
        print_json(told)
    else:
        _print_story(told)


@app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV, extxyz, CIF, POSCAR, JSON, a zip of CIFs, or a folder of these."),
    ],
    generator: Annotated[str, typer.Option("--generator", "-g", help="Who proposed them, such as mattergen.")],
    campaign: Annotated[
        str | None, typer.Option("--campaign", help="Campaign that takes them; may be left out if there is only one.")
    ] = None,
    symprec: Annotated[
        float, typer.Option(min=1e-4, max=1.0, help="Distance within which atoms are equivalent, Å.")
    ] = 0.1,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write every refused row to a CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let crystals that another generator wrote take part in a campaign.

    They get the same screens, jobs and budget as all candidates, from the campaign's next round on. Their own 3D
    structures are what relaxations start from. A second time changes nothing.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.import_crystals import import_crystals
    from wyloop.stores.ingest.report import refusals_to

    with connected(current_settings()) as store, refusals_to(report) as on_refusal, progress("importing") as move:
        chosen = campaign or _only_campaign(store)
        done = import_crystals(store, path, generator, chosen, symprec=symprec, on_progress=move, on_refusal=on_refusal)
    if as_json:
        print_json({"generator": generator, "campaign_id": chosen, **asdict(done)})
    else:
        typer.echo(
            f"{done.n_rows} rows of {generator} for {chosen}: {done.n_added} new genes, {done.n_repeated} repeated, "
            f"{done.n_refused} refused"
        )
        for one in done.refused[:MAX_SHOWN]:
            typer.echo(f"  {one}")
        if done.n_refused > MAX_SHOWN:
            typer.echo(f"  and {done.n_refused - MAX_SHOWN} more; --report FILE writes all")
    if not done.n_added + done.n_repeated:
        raise typer.Exit(1)


def _only_campaign(store: "Store") -> str:
    from wyloop.models.errors import CampaignError
    from wyloop.stores.campaigns import campaigns

    known = [record.campaign_id for record in campaigns(store) if record.state not in ("stopped", "finished")]
    if len(known) != 1:
        shown = ", ".join(known[:10]) or "none"
        raise CampaignError(f"{len(known)} campaigns to import into ({shown}); expected one; name it with --campaign")
    return known[0]


def _jobs(uri: str, database: str, calculations: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not calculations:
        return []
    from wyloop.flows.launchpad import launchpad, states

    lpad = launchpad(uri, database)
    found = states(lpad, [str(item["calculation_id"]) for item in calculations])
    lpad.connection.close()
    return [{"calculation_id": key, "state": state} for key, state in found.items()]


def _print_story(told: Mapping[str, Any]) -> None:
    typer.secho(f"Candidate {told['candidate_id']}", bold=True)
    print_facts({name.replace("_", " "): told.get(name) for name in HEAD})
    _section("Where it came from")
    campaign, model = told.get("campaign") or {}, told.get("model") or {}
    print_facts(
        {
            "campaign": f"{told['campaign_id']}, target {cell(campaign.get('target'))}",
            "round": f"{told.get('round_number')}, seed {told.get('seed')}",
            "generator": told.get("sampler"),
            "from": told.get("origin"),
            "model": told.get("model_id"),
            "trained on": _snapshot(model),
            "code version": told.get("code_version"),
        }
    )
    if told.get("prediction"):
        _section("What the model predicted")
        print_facts(_predictions(told["prediction"]))
    _section("What the screens said")
    print_rows(told.get("verdicts") or [], VERDICT_COLUMNS, as_json=False, empty="not screened yet")
    _section("What was calculated")
    states = {job["calculation_id"]: job["state"] for job in told.get("jobs") or []}
    for calculation in told.get("calculations") or []:
        _print_calculation(calculation, states.get(calculation["calculation_id"], "not submitted"))
    if not told.get("calculations"):
        typer.echo("no calculations")
    _section("What it became")
    if told.get("material"):
        print_facts({_with_unit(name): told["material"].get(name) for name in MATERIAL_FIELDS})
        typer.echo(f"calculations: {', '.join(told['material'].get('calculation_ids') or [])}")
    else:
        typer.echo("no material")


def _section(title: str) -> None:
    typer.secho(f"\n{title}", bold=True)


def _snapshot(model: Mapping[str, Any]) -> str | None:
    if not model.get("snapshot_hash"):
        return None
    return f"{model.get('n_rows')} rows, snapshot {model['snapshot_hash'][:12]}"


def _predictions(prediction: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for name, value in prediction.items():
        if name.endswith("_std"):
            continue
        spread = prediction.get(f"{name}_std")
        facts[_with_unit(name)] = cell(value) + (f" ± {spread:.2g}" if isinstance(spread, float) else "")
    return facts


def _print_calculation(calculation: Mapping[str, Any], job_state: str) -> None:
    typer.echo(
        f"{calculation['kind']} by {calculation['protocol']}: {calculation['status']}, job {job_state}, "
        f"{calculation['calculation_id']}"
    )
    result = calculation.get("result") or {}
    print_facts({f"  {_with_unit(name)}": value for name, value in result.items() if name not in BULKY})
    for name in ("error", "problems", "review", "review_reasons", "review_note"):
        if calculation.get(name):
            typer.echo(f"  {name}: {cell(calculation[name])}")


def _with_unit(name: str) -> str:
    unit = UNITS.get(name)
    return name.replace("_", " ") + (f", {unit}" if unit else "")
