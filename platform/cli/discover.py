"""`wyloop discover`: the main job, from an empty machine to validated crystals, with progress in the terminal."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from wyloop.platform.services import RunningServices
    from wyloop.platform.settings import AllSettings
    from wyloop.stores.campaigns import CampaignRecord
    from wyloop.stores.connection import Store
    from wyloop.stores.ingest.report import IngestReport

POLL = 1.0  # s between two looks at jobs under way
LOOK_INTERVAL = 60.0  # s after which the flow looks itself, and gives back the jobs of workers that are gone


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    target: tuple[str, ...]
    rounds: int
    data: tuple[Path, ...]
    has_starter: bool
    policy: dict[str, Any]
    out: Path
    is_json: bool
    is_detached: bool


def discover(
    target: Annotated[
        list[str],
        typer.Option("--target", help="Condition such as '0.5 < band_gap < 2.0'; give several, all must hold."),
    ],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to do now; an interrupted command is finished first.")] = 1,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="CSV file to ingest first (structures as CIF in a column).")
    ] = None,
    starter: Annotated[bool, typer.Option(help="Fill an empty database with the built-in starter set.")] = True,
    dft: Annotated[int, typer.Option("--dft", min=0, help="Candidates a round that go on to DFT with GPAW.")] = 0,
    n_candidates: Annotated[int, typer.Option("-n", "--n-candidates", min=1, help="Genes generated a round.")] = 2500,
    n_relax: Annotated[int, typer.Option("--n-relax", min=1, help="Candidates relaxed a round.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the CIF files of what was found.")] = Path("wyloop-results"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running at the end.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the rounds to the scheduled flow of 'wyloop up', which is started.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Discover crystals for a target: generate, screen, compute, learn, round after round."""
    # Everything below costs seconds to import: `wyloop --help` must not.
    from wyloop.flows.worker import pin_threads

    pin_threads()  # before torch is imported; the cores are the workers'
    from wyloop.flows.policy import Policy
    from wyloop.models.targets import Target
    from wyloop.platform.cli.output import console, current_settings

    for path in data or []:
        if not path.is_file():
            raise typer.BadParameter(f"no file {path}; expected a CSV file such as data.csv or data.csv.gz")
    policy = Policy(n_candidates=n_candidates, n_relaxations=n_relax, n_dft=dft, seed=seed)
    wish = Wish(
        target=tuple(Target.parse(target).texts()),
        rounds=rounds,
        data=tuple(data or ()),
        has_starter=starter,
        policy=policy.model_dump(mode="json"),
        out=out,
        is_json=as_json,
        is_detached=detach,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"can't make the folder {out} ({error.strerror}); choose another") from error
    run(current_settings(), wish, console(stderr=as_json), keep=keep)


def run(settings: "AllSettings", wish: Wish, console: "Console", *, keep: bool) -> None:
    """Do what the user asked for, on services that are configured, running, or started for it.

    Raises:
        WyloopError: A service, the database, the data or a step failed; what is stored so far stays.
    """
    from wyloop.platform import services
    from wyloop.platform.session import borrowed, keep_services
    from wyloop.stores.connection import connect

    began = time.monotonic()
    console.print("[bold]Wyloop[/bold]: starting MongoDB, Prefect and FireWorks workers (what runs already is used)")
    with borrowed(settings, with_prefect=True) as running:
        # Tasks in this process and the services' own processes find everything in the environment, never in parameters.
        os.environ.update(running.environment)
        console.print(f"  database   {_shown(running.uri)}\n  Prefect UI {running.prefect_ui_url}")
        store = connect(settings.with_uri(running.uri).stores)
        try:
            _fill(store, wish, console)
            campaign = _campaign(store, wish)
            first = campaign.rounds_closed + 1
            console.print(
                f"Campaign [bold]{campaign.campaign_id}[/bold]: {' and '.join(campaign.target)}; "
                f"rounds {first} to {campaign.rounds_requested}"
            )
            if wish.is_detached:
                services.up(settings, with_flow_server=True)
                keep_services(settings)
                console.print(f"It runs by itself; see it at {running.prefect_ui_url}, stop it with 'wyloop down'.")
                return
            _advance_until_done(store, campaign.campaign_id, console)
            _show_results(store, campaign.campaign_id, first, wish, console, running)
        finally:
            store.close()
        if keep:
            keep_services(settings)
    minutes = (time.monotonic() - began) / 60
    state = "left running; stop them with 'wyloop down'" if keep else "stopped; 'wyloop up' starts them again"
    console.print(f"Done in {minutes:.1f} min. Services: {state}.")


def _fill(store: "Store", wish: Wish, console: "Console") -> None:
    """Ingest the starter set into a database that is still empty, and what the user gave."""
    from wyloop.stores.ingest.csv import ingest_csv
    from wyloop.stores.ingest.starter import ingest_starter, wants_starter

    reports: list[tuple[str, IngestReport]] = []
    if wish.has_starter and wants_starter(store):
        reports.append(("starter set", ingest_starter(store)))
    for path in wish.data:
        with _bar(console, f"reading {path.name}") as update:
            reports.append((path.name, ingest_csv(store, path, on_progress=update)))
    for name, report in reports:
        console.print(
            f"  {name}: {report.n_rows} rows, {report.n_added} new, {report.n_unchanged} known, "
            f"{len(report.refused)} refused"
        )
        for refusal in report.refused[:5]:
            console.print(f"    row {refusal.row}: {refusal.field} = {refusal.value}; expected {refusal.expected}")


def _campaign(store: "Store", wish: Wish) -> "CampaignRecord":
    from wyloop.stores import campaigns

    campaign = campaigns.create_campaign(store, wish.target, wish.policy)
    going = ("created", "active", "paused", "finished")  # to run it again is to let it go on
    campaigns.set_campaign_state(store, campaign.campaign_id, "active", only_from=going)
    return campaigns.request_rounds(store, campaign.campaign_id, wish.rounds)


def _advance_until_done(store: "Store", campaign_id: str, console: "Console") -> None:
    """Run the campaign's flow, and again whenever its jobs have finished, until all rounds asked for are closed."""
    from wyloop.flows.campaign import BUSY, WAITING, advance_campaign
    from wyloop.flows.progress import listening

    with _bars(console) as bars, listening(bars):
        while True:
            if advance_campaign(campaign_id) not in (WAITING, BUSY):
                return
            _wait_for_jobs(store, campaign_id, bars)


def _wait_for_jobs(store: "Store", campaign_id: str, bars: "Bars") -> None:
    """Watch the jobs of the open round, with a progress bar, until all have finished or another look may help them."""
    from wyloop.flows.dispatch import n_unfinished
    from wyloop.flows.session import launchpad
    from wyloop.stores import calculations, campaigns

    record = campaigns.open_round(store, campaign_id)
    if record is None:
        return
    began = time.monotonic()
    while time.monotonic() - began < LOOK_INTERVAL:
        identities = [found.calculation_id for found in calculations.of_round(store, record.round_id)]
        unfinished = n_unfinished(store, launchpad(), identities)
        bars.update(f"round {record.number}: jobs", len(identities) - unfinished, len(identities))
        if not unfinished:
            return
        time.sleep(POLL)


class Bars:
    """Progress bars of the steps under way; a `Listener` of the flows."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}

    def update(self, step: str, done: int, total: int) -> None:
        """Move the bar of a step; without a terminal, print a line when it ends."""
        if step not in self._tasks:
            self._tasks[step] = self.progress.add_task(step, total=total)
            self._began[step] = time.monotonic()
        self.progress.update(self._tasks[step], completed=done, total=total)
        if done >= total:
            self.progress.stop_task(self._tasks.pop(step))
            if not self._console.is_terminal:
                self._console.print(f"  {step}: {total} in {time.monotonic() - self._began[step]:.1f} s")


@contextmanager
def _bars(console: "Console") -> Iterator[Bars]:
    bars = Bars(console)
    with bars.progress:
        yield bars


@contextmanager
def _bar(console: "Console", step: str) -> "Iterator[Any]":
    with _bars(console) as bars:
        yield lambda done, total: bars.update(step, done, total)


def _show_results(
    store: "Store", campaign_id: str, first: int, wish: Wish, console: "Console", running: "RunningServices"
) -> None:
    """Print the funnel of each new round and the best materials, write their CIFs, and say where to look next."""
    from rich.table import Table

    from wyloop.flows import report
    from wyloop.models.targets import Target
    from wyloop.models.wyckoff.cif import write_cif
    from wyloop.stores import campaigns
    from wyloop.stores.verdicts import unmet_conditions

    campaign = campaigns.campaign(store, campaign_id)
    wanted = Target.parse(campaign.target)
    new_rounds = [record for record in campaigns.rounds(store, campaign_id) if record.number >= first]
    best = report.best_materials(store, campaign)
    rows = [report.material_row(store, material) for material in best]
    folder = wish.out / campaign_id
    folder.mkdir(parents=True, exist_ok=True)
    for material in best:
        name = f"{material.formula_pretty}_{material.space_group_number}_{material.material_id}.cif"
        (folder / name).write_text(write_cif(material.crystal), encoding="utf-8")
    if wish.is_json:
        keys = {"campaign_id": campaign_id, "prefect_ui": running.prefect_ui_url, "cif_folder": str(folder)}
        materials = [
            {**row, "material_id": m.material_id, "candidate_id": m.candidate_id, "meets_target": m.meets_target}
            for row, m in zip(rows, best, strict=True)
        ]
        typer.echo(
            json.dumps(keys | {"rounds": [r.summary for r in new_rounds], "best_materials": materials}, indent=2)
        )
        return
    funnel = Table("stage", *(f"round {record.number}" for record in new_rounds), "note", title="Funnel")
    for stages in zip(*(record.summary["funnel"] for record in new_rounds), strict=True):
        funnel.add_row(stages[0]["stage"], *(str(stage["n"]) for stage in stages), stages[-1]["note"])
    console.print(funnel)
    table = Table(
        *report.MATERIAL_COLUMNS, "target", "candidate", title="Best materials (energies in eV/atom, gaps in eV)"
    )
    for row, material in zip(rows, best, strict=True):
        mark = "met" if material.meets_target else "missed" if unmet_conditions(material, wanted) else "so far"
        table.add_row(*row.values(), mark, material.candidate_id or "-")
    console.print(table)
    for record in new_rounds:
        dft = record.steps.get("dft", {}).get("counts", {})
        if isinstance(dft, dict) and "reason" in dft:
            console.print(f"Round {record.number}: no DFT: {dft['reason']}")
    console.print(
        f"Where to look next:\n  Prefect UI     {running.prefect_ui_url}\n  database       {_shown(running.uri)}\n"
        f"  CIF files      {folder}\n  one candidate  wyloop candidate show {best[0].candidate_id if best else 'ID'}"
    )


def _shown(uri: str) -> str:
    from wyloop.platform.services import without_password

    return without_password(uri)
