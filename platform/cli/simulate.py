"""`wyloop campaign simulate`: a campaign played back on known crystals, without a database."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import JsonOption, Progress, check_place, print_json, print_rows, progress

if TYPE_CHECKING:
    from wyloop.models.acquisition.simulation import Crystals, Discovery, Plan
    from wyloop.models.targets import Target

TARGET = ("0.5 <= band_gap <= 2.0", "formation_energy_per_atom < -1.0", "space_group_number >= 143")
PLAIN = "boosting"  # the loop that an acquisition has to beat
COLUMNS = {
    "strategy": "strategy",
    "seed": "seed",
    "n_on_target": "on target",
    "n_found": "found",
    "expected_of_random": "random finds",
    "acceleration_factor": "times random",
    "ceiling": "ceiling",
    "enrichment": "enrichment, first 1 %",
    "area": "area under curve",
}


def simulate(
    data: Annotated[Path, typer.Option("--data", help="CSV file (.csv or .csv.gz), or what 'wyloop encode' wrote.")],
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Condition; repeat it for more. Default: of the benchmark."),
    ] = None,
    known: Annotated[int, typer.Option(min=2, help="Crystals known at the start.")] = 714,
    requests: Annotated[int, typer.Option(min=1, help="Budget: one hidden crystal's properties each.")] = 320,
    batch: Annotated[int, typer.Option(min=1, help="Requests between two trainings.")] = 32,
    seeds: Annotated[int, typer.Option(min=1, help="Campaigns, each with other known crystals.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first campaign.")] = 0,
    model: Annotated[
        str, typer.Option(help="What learns: surrogate, or boosting for the plain loop alone.")
    ] = "surrogate",
    policy: Annotated[str, typer.Option(help="probability, improvement, greedy or random.")] = "probability",
    explore: Annotated[float, typer.Option(min=0, max=1, help="Share of each batch chosen for what it teaches.")] = 0.0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Play the plain loop of gradient boosting too.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="Figure to write: .png, .svg or .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Play campaigns on crystals whose properties are known.

    A part is known at the start and the rest hidden; a request for a hidden crystal's properties costs one unit of the
    budget. Everything that chooses learns from the known crystals and the answers alone, never from shipped weights.
    Reported against random requests (their expectation) and the plain loop. Needs no database.
    """
    from wyloop.models.targets import Target

    check_place(plot)
    target = Target.parse(targets or list(TARGET))  # before the heavy imports: a typing error shows at once
    from wyloop.models.acquisition.simulation import Plan

    plan = Plan(known, requests, batch, model=model, policy=policy, exploration=explore)
    crystals = _crystals(data)
    plan.check(len(crystals))
    plans = {model: plan}
    if controls and model != PLAIN:
        plans[PLAIN] = replace(plan, model=PLAIN, policy="probability", exploration=0.0)
    discoveries = _play(crystals, target, plans, range(first_seed, first_seed + seeds))
    if plot is not None:
        from wyloop.models.acquisition.figures import draw_discovery

        draw_discovery(discoveries, plot, title=str(target))
    rows = [_row(name, one) for name, found in discoveries.items() for one in found]
    if as_json:
        rules = {"target": target.texts(), "n_crystals": len(crystals), "n_known": known, "batch_size": batch}
        curves = {name: {one.seed: one.found for one in found} for name, found in discoveries.items()}
        told = {"runs": rows, "summary": _summaries(discoveries), "curves": curves}
        print_json(rules | {"policy": policy, "exploration": explore} | told)
        return
    print_rows(rows, COLUMNS, as_json=False)
    for line in _summaries(discoveries):
        typer.echo(
            f"{line['strategy']}: {line['acceleration_factor']:.1f} times random "
            f"(mean of {line['n_seeds']} seeds, {line['least']:.1f} to {line['greatest']:.1f})"
        )


def _play(
    crystals: "Crystals", target: "Target", plans: "dict[str, Plan]", seeds: range
) -> "dict[str, list[Discovery]]":
    from wyloop.models.acquisition.simulation import simulate as play

    found: dict[str, list[Discovery]] = {name: [] for name in plans}
    n_requests = next(iter(plans.values())).n_requests
    total = n_requests * len(seeds) * len(plans)
    with progress("requesting") as report:
        for seed in seeds:
            for name, plan in plans.items():
                before = n_requests * sum(len(done) for done in found.values())
                found[name].append(play(crystals, target, plan, seed, partial(_move, report, before, total)))
    return found


def _move(report: Progress, before: int, total: int, n_done: int, _: int) -> None:
    report(before + n_done, total)


def _row(strategy: str, one: "Discovery") -> dict[str, Any]:
    return {
        "strategy": strategy,
        "seed": one.seed,
        "n_hidden": one.n_hidden,
        "n_on_target": one.n_on_target,
        "n_requests": len(one.found),
        "n_found": one.n_found,
        "expected_of_random": len(one.found) * one.base_rate,
        "acceleration_factor": one.acceleration_factor,
        "ceiling": one.ceiling,
        "enrichment": one.enrichment,
        "area": one.area,
    }


def _summaries(discoveries: "dict[str, list[Discovery]]") -> list[dict[str, Any]]:
    """Mean over the seeds by strategy, and on how many seeds each found more than the plain loop."""
    lines = []
    for name, found in discoveries.items():
        factors = [one.acceleration_factor for one in found]
        line: dict[str, Any] = {
            "strategy": name,
            "n_seeds": len(found),
            "acceleration_factor": sum(factors) / len(factors),
            "least": min(factors),
            "greatest": max(factors),
            "enrichment": sum(one.enrichment for one in found) / len(found),
            "area": sum(one.area for one in found) / len(found),
        }
        plain = discoveries.get(PLAIN)
        if plain and name != PLAIN:
            pairs = zip(found, plain, strict=True)
            line["n_seeds_above_plain_loop"] = sum(one.n_found > other.n_found for one, other in pairs)
        lines.append(line)
    return lines


def _crystals(path: Path) -> "Crystals":
    from wyloop.models.acquisition.simulation import Crystals

    if path.suffix == ".jsonl":
        return _of_lines(path)
    from wyloop.platform.rows import Refused, read_rows

    refused = Refused()
    with progress("encoding") as report:
        rows = list(read_rows(path, refused, report))
    if refused.reasons:
        number, identity, reason = refused.reasons[0]
        first = f"the first is row {number}, {identity}: {reason}"
        typer.echo(f"{len(refused.reasons)} rows without a gene are left out; {first}", err=True)
    return Crystals([row.gene for row in rows], [row.labels for row in rows])


def _of_lines(path: Path) -> "Crystals":
    from wyloop.models.acquisition.simulation import Crystals
    from wyloop.models.errors import IngestError
    from wyloop.models.wyckoff.gene import Gene

    genes, labels = [], []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            genes.append(Gene.parse(line["fingerprint"]))
            labels.append(_labels(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f"line {number} of {path.name}: {error}; expected JSON with a fingerprint, as 'wyloop encode' writes"
            )
            raise IngestError(message) from error
    return Crystals(genes, labels)


def _labels(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if isinstance(value, float)}
