"""`wyloop candidate add`: a gene given by hand goes through the jobs of a protocol."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wyloop.models.errors import CalculatorError
from wyloop.platform.cli.output import JsonOption, current_settings, print_facts, print_json

POLL = 1.0  # s between two looks


def add(
    gene: Annotated[
        str, typer.Argument(help="Gene or protostructure, '225 Mg:a O:b' or 'AB_cF8_225_a_b:Mg-O', or a CIF file.")
    ],
    protocol: Annotated[
        str, typer.Option(help="mlip-screen/1, mlip-gamma/1, gpaw-pbe/1, gpaw-gamma/1, gpaw-bands/1 or mp-vasp/1.")
    ] = "gpaw-gamma/1",
    seed: Annotated[int, typer.Option(help="Seed of the start structures.")] = 0,
    priority: Annotated[int, typer.Option(help="Jobs with a higher one go first.")] = 500,
    is_forced: Annotated[bool, typer.Option("--force", help="Run again what has a result.")] = False,
    campaign: Annotated[
        str | None,
        typer.Option(help="Active campaign that has the gene as a candidate, and pays."),
    ] = None,
    is_waited_for: Annotated[bool, typer.Option("--wait", help="Wait until workers have ended it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a candidate by hand and submit its jobs.

    What was computed before by the same protocol is not run again. Workers (`wyloop worker`) do the rest.
    """
    from wyloop.flows.by_name import add_candidate
    from wyloop.flows.launchpad import launchpad
    from wyloop.models.wyckoff.cif import parse_cif
    from wyloop.models.wyckoff.encode import encode
    from wyloop.models.wyckoff.labels import read_gene
    from wyloop.platform.session import connected

    path = Path(gene)
    starts = [parse_cif(path.read_text(encoding="utf-8"))] if gene.endswith(".cif") else []
    read = encode(starts[0]) if starts else read_gene(gene)
    settings = current_settings()
    with connected(settings) as store:
        lpad = launchpad(store.uri, settings.flows.launchpad_database)
        try:
            added = add_candidate(
                store,
                lpad,
                read,
                protocol,
                starts=starts,
                seed=seed,
                priority=priority,
                is_forced=is_forced,
                campaign_id=campaign,
            )
            told: dict[str, Any] = {
                "candidate": added.candidate.candidate_id,
                "gene": str(read),
                "protocol": protocol,
                "jobs": ", ".join(added.calculation_ids),
                "new jobs": added.n_new_jobs,
            }
            if is_waited_for:
                told["status"], told["reason"] = _wait(store, lpad, added.candidate.candidate_id)
        finally:
            lpad.connection.close()
    if as_json:
        print_json(told)
    else:
        print_facts(told)
        typer.echo(f"its story: wyloop candidate show {told['candidate']}")


def _wait(store: Any, lpad: Any, candidate_id: str) -> tuple[str, str]:  # noqa: ANN401  # heavy to import for a type
    import time

    from wyloop.stores.candidates import candidate

    while True:
        name = {"spec.candidate_id": candidate_id}
        job = lpad.fireworks.find_one(name, {"state": 1}, sort=[("fw_id", -1)])
        if job is None or job["state"] == "COMPLETED":
            found = candidate(store, candidate_id)
            return found.status, found.reason
        if job["state"] == "FIZZLED":
            raise CalculatorError(f"the last job of {candidate_id} failed; see 'wyloop job list --state fizzled'")
        time.sleep(POLL)
