"""All builders in their order: structures -> encodings -> materials -> hulls -> OPTIMADE view."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.builders.run import OnProgress
from wyloop.stores.connection import Store

Derived = Literal["encodings", "materials", "hulls", "optimade"]
DERIVED: tuple[Derived, ...] = get_args(Derived)
"""What is built, each of those before it."""

_BUILDERS: Mapping[Derived, Callable[..., Any]] = {
    "encodings": build_encodings,
    "materials": build_materials,
    "hulls": build_hulls,
    "optimade": build_optimade,
}


def build(
    store: Store,
    derived: Derived,
    *,
    full: bool = False,
    n_processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, int]:
    """Bring one kind of derived documents up to date; what it is made of is to be so already.

    Args:
        store: The database.
        derived: What to build.
        full: Make all again from structures and calculations.
        n_processes: Processes of the builder; none: as many as pay.
        on_progress: Told how many are done.

    Returns:
        How many documents were written or removed (`n_done`), refused and left alone (`n_skipped`).
    """
    counts = _BUILDERS[derived](store, full=full, on_progress=on_progress, n_processes=n_processes)
    removed = getattr(counts, "n_removed", 0)
    refused = getattr(counts, "n_refused", 0)
    return {"n_done": counts.n_done + removed, "n_refused": refused, "n_skipped": counts.n_skipped}
