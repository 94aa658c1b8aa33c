"""Keep the OPTIMADE view up to date while the server runs, so that what a campaign writes is served."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wyloop.models.errors import DatabaseError
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

MAX_SHARE = 0.1  # of the time that may go into looking for changes: a large database is looked through less often
PATIENCE = 30.0  # s, for a build under way when the server ends


@contextmanager
def refreshing(store: Store, pause: float) -> Iterator[None]:
    """Build the view incrementally in a thread, again and again, as long as the context lasts.

    Args:
        store: The database.
        pause: Least time between two builds, seconds.
    """
    is_over = threading.Event()

    def refresh() -> None:
        while not is_over.is_set():
            started = time.monotonic()
            try:
                counts = build_optimade(store, n_processes=1)
                if counts.n_done or counts.n_removed:
                    logger.info("OPTIMADE view: %d entries built, %d removed", counts.n_done, counts.n_removed)
            except DatabaseError as error:  # a lost connection, or another process building: the next turn will do
                logger.warning("the OPTIMADE view could not be built: %s", error)
            is_over.wait(max(pause, (time.monotonic() - started) / MAX_SHARE))

    thread = threading.Thread(target=refresh, name="optimade-view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE)
