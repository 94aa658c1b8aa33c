"""`wyloop db build`: what is derived from structures and calculations."""

from enum import StrEnum
from typing import Annotated

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_json, print_rows, progress

COLUMNS = {"what": "built", "n_done": "written or removed", "n_refused": "refused", "n_skipped": "left alone"}


class What(StrEnum):
    """What to build."""

    ENCODINGS = "encodings"
    MATERIALS = "materials"
    HULLS = "hulls"
    OPTIMADE = "optimade"


def register(app: typer.Typer) -> None:
    """Add the command to `wyloop db`."""
    app.command("build")(build)


def build(
    wanted: Annotated[
        list[What] | None, typer.Argument(metavar="[WHAT]...", help="Default all, in this order.")
    ] = None,
    is_full: Annotated[bool, typer.Option("--full", help="Make all again, not only where something is new.")] = False,
    n_processes: Annotated[int | None, typer.Option("--processes", min=1, help="Default: as many as pay.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring genes, materials, hulls and the OPTIMADE view up to date: encodings, materials, hulls, optimade.

    It can be stopped at any moment and run again: what was done stays done.
    """
    from wyloop.platform.session import connected
    from wyloop.stores.builders import chain

    chosen = [name for name in chain.DERIVED if not wanted or name in [one.value for one in wanted]]
    counts: dict[str, dict[str, int]] = {}
    with connected(current_settings()) as store:
        for name in chosen:
            with progress(f"building {name}") as move:
                counts[name] = chain.build(store, name, full=is_full, n_processes=n_processes, on_progress=move)
    if as_json:
        print_json(counts)
    else:
        print_rows([{"what": name} | one for name, one in counts.items()], COLUMNS, as_json=False)
