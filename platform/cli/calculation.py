"""`wyloop calculation`: results of jobs, and the review of those that are implausible."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_facts, print_json, print_rows

if TYPE_CHECKING:
    from wyloop.stores.calculations import CalculationRecord

app = typer.Typer(no_args_is_help=True, help="Calculations: results, and the review of implausible ones.")
review = typer.Typer(no_args_is_help=True, help="Review implausible results: list, show, accept, reject, again.")
app.add_typer(review, name="review")
COLUMNS = {
    "calculation_id": "calculation",
    "kind": "kind",
    "subject": "gene",
    "protocol": "protocol",
    "review": "review",
    "reasons": "reasons",
}
BULKY = ("frequencies",)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the calculation.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the calculation.")]


@app.callback()
def calculation() -> None:
    """Calculations: results, and the review of implausible ones."""


@review.callback()
def reviewing() -> None:
    """Review implausible results: a quarantined one makes no material, hull or training row until it is accepted."""


@review.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the results that wait for a second calculation or a person."""
    from wyloop.platform.session import connected
    from wyloop.stores.quarantine import reviewed, waiting

    with connected(current_settings()) as store:
        found = reviewed(store) if every else waiting(store)
    rows = [_row(record) for record in found]
    print_rows(rows, COLUMNS, as_json=as_json, empty="nothing waits for review")


@review.command("show")
def show(calculation_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show a result with what speaks against it, and the other calculations of its gene."""
    from wyloop.platform.session import connected
    from wyloop.stores import calculations

    with connected(current_settings()) as store:
        found = calculations.calculation(store, calculation_id)
        known = calculations.of_subjects(store, [found.subject])
    others = [one for one in known if one.calculation_id != calculation_id]
    told = _row(found) | {"result": {name: value for name, value in found.result.items() if name not in BULKY}}
    told |= {"status": found.status, "note": found.review_note, "reviewed_at": found.reviewed_at}
    if as_json:
        print_json(told | {"others": [_row(one) for one in others]})
        return
    print_facts({name.replace("_", " "): value for name, value in told.items() if name != "result"})
    print_facts({f"  {name}": value for name, value in told["result"].items()})
    typer.echo("\nOther calculations of this gene")
    print_rows([_row(one) for one in others], COLUMNS, as_json=False, empty="none")


@review.command("accept")
def accept(calculation_id: IdArgument, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Let a quarantined result count: its material and hull are built, and its candidate gets its end."""
    _decide(calculation_id, reason, is_accepted=True, as_json=as_json)


@review.command("reject")
def reject(calculation_id: IdArgument, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Let a result never count; a material that was made of it goes, and its candidate has failed."""
    _decide(calculation_id, reason, is_accepted=False, as_json=as_json)


@review.command("again")
def again(calculation_id: IdArgument, as_json: JsonOption = False) -> None:
    """Compute a relaxation that is not believed a second time, from other starts and further.

    If it agrees, both count from the campaign's next look on; if not, they wait for a person.
    """
    from wyloop.flows.launchpad import launchpad
    from wyloop.flows.review import compute_again
    from wyloop.platform.session import connected

    settings = current_settings()
    with connected(settings) as store:
        lpad = launchpad(store.uri, settings.flows.launchpad_database)
        try:
            second = compute_again(store, lpad, calculation_id)
        finally:
            lpad.connection.close()
    print_json({"calculation_id": second}) if as_json else typer.echo(f"{second} is submitted")


def _decide(calculation_id: str, reason: str, *, is_accepted: bool, as_json: bool) -> None:
    from wyloop.flows.review import decide
    from wyloop.platform.session import connected

    with connected(current_settings()) as store:
        done = decide(store, calculation_id, reason, is_accepted=is_accepted)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(done.text)


def _row(record: "CalculationRecord") -> dict[str, Any]:
    names = ("calculation_id", "candidate_id", "kind", "subject", "protocol", "review")
    return {name: getattr(record, name) for name in names} | {"reasons": list(record.review_reasons or record.problems)}
