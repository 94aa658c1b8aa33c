"""How our maggma builders run: on the store's own client, in bulk, without touching logging or closing connections."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from maggma.core import Builder
from maggma.stores import MongoStore

from wyloop.stores.connection import Store

T = TypeVar("T")
logger = logging.getLogger(__name__)

PARALLEL_FROM = 1500
"""Items from which starting more processes (two to three seconds) pays."""

OnProgress = Callable[[int, int], None]
"""Called with the number of documents done and their total."""


@dataclass(frozen=True)
class BuildCounts:
    """What a builder did: documents built, refused with a reason, and left alone because their input is the same."""

    n_done: int
    n_refused: int
    n_skipped: int


def maggma_store(store: Store, collection: str, key: str) -> MongoStore:
    """Return maggma's view of a collection, on our client; it holds no address, so it can't show a password."""
    view: MongoStore = MongoStore.from_collection(store.database[collection])  # type: ignore[no-untyped-call]  # maggma's
    view.key = key
    return view


def run(
    builder: Builder,
    *,
    on_progress: OnProgress | None = None,
    process: Callable[[Any], Any] | None = None,
    n_processes: int | None = None,
    parallel_from: int = PARALLEL_FROM,
    chunks: Iterable[list[Any]] | None = None,
) -> None:
    """Run a builder to its end.

    maggma's own `run` sets the root logger to DEBUG, adds a handler each time and closes the shared client; this
    does the same work in the same order without that.

    Args:
        builder: The builder.
        on_progress: Told how many items are done.
        process: What `process_item` does as a function of a module, so that other processes can do it.
        n_processes: How many; none: all cores where the builder has at least `parallel_from` items, else this one.
        parallel_from: Items from which starting more processes pays.
        chunks: The builder's items in the lists in which they have to be done; none: of the builder's chunk size.
    """
    builder.connect()  # type: ignore[no-untyped-call]  # maggma's
    rest = iter(batches(builder.get_items(), builder.chunk_size) if chunks is None else chunks)
    chunk = next(rest, [])
    if n_processes is None:
        n_processes = n_cores() if (builder.total or 0) >= parallel_from else 1
    n_done = 0
    with _mapper(process or builder.process_item, n_processes if process is not None else 1) as mapped:
        while chunk:
            builder.update_targets([built for built in mapped(chunk) if built is not None])
            n_done += len(chunk)
            if on_progress is not None:
                on_progress(n_done, max(n_done, builder.total or 0))
            chunk = next(rest, [])
    logger.info("%s: %d documents", type(builder).__name__, n_done)


def batches(items: Iterable[T], size: int = 2000) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def n_cores() -> int:
    """Return how many cores this process may use, at most 8."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 8)


@contextmanager
def _mapper(process: Callable[[Any], Any], n_processes: int) -> Iterator[Callable[[list[Any]], list[Any]]]:
    if n_processes <= 1:
        yield lambda chunk: [process(item) for item in chunk]
        return
    # spawn: a forked child would hold the parent's connections and threads
    with ProcessPoolExecutor(n_processes, get_context("spawn"), initializer=leave_interrupts) as pool:
        yield lambda chunk: list(pool.map(process, chunk, chunksize=max(1, len(chunk) // (4 * n_processes))))


def leave_interrupts() -> None:
    """Let Ctrl-C be the parent's affair: a child would only print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
