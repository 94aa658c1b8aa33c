"""Progress of long steps: to whoever listens in this process (the terminal) and to Prefect as an artifact."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Called with the number done and the total."""
ARTIFACT_INTERVAL = 2.0  # s between two updates of a progress artifact; each one is a request to the server


class Listener(Protocol):
    """Shows progress to a person."""

    def update(self, step: str, done: int, total: int) -> None:
        """Take the state of one step."""


_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of every step in this process to a listener."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def progress(step: str) -> Iterator[Report]:
    """Report the progress of a step while the block runs.

    Args:
        step: What is being done, for example `relaxing`; shown to people.
    """
    artifact = _ProgressArtifact(step)

    def report(done: int, total: int) -> None:
        for listener in _listeners:
            listener.update(step, done, total)
        artifact.update(done, total)

    yield report


def show_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """Show a table in Prefect's UI, as an artifact of the running task; nothing when no run is under way."""
    # Prefect costs 2.4 s to import: only flows that run on it pay.
    from prefect.artifacts import create_table_artifact
    from prefect.context import TaskRunContext

    if TaskRunContext.get() is not None:
        create_table_artifact([dict(row) for row in rows], key=key, description=description)


class _ProgressArtifact:
    """A Prefect progress artifact of the running task; nothing when no run is under way."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._identity: UUID | None = None
        self._last = 0.0

    def update(self, done: int, total: int) -> None:
        # Prefect costs 2.4 s to import: only flows that run on it pay.
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import TaskRunContext

        now = time.monotonic()
        if TaskRunContext.get() is None or (done < total and now - self._last < ARTIFACT_INTERVAL):
            return
        self._last = now
        percent = 100.0 * done / max(total, 1)
        if self._identity is None:
            identity = create_progress_artifact(percent, description=self._step)
            self._identity = identity if isinstance(identity, UUID) else None
        else:
            update_progress_artifact(self._identity, percent)
