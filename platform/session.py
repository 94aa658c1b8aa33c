"""Services for the length of one command: what is configured or runs is used, what had to be started is stopped after.

Commands that run at the same time share what the first one started; the last one to end stops it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from wyloop.models.errors import ServiceError
from wyloop.platform import processes, services
from wyloop.platform.services import RunningServices
from wyloop.platform.settings import AllSettings
from wyloop.stores.connection import Store, connect

USERS = "users"  # lock: shared by every command that uses the services, exclusive for the one that stops them
LOCK_LIMIT = 120.0  # s, longer than a start or a stop


@contextlib.contextmanager
def borrowed(
    settings: AllSettings,
    *,
    with_prefect: bool = True,
    n_workers: int | None = None,
    categories: Sequence[Sequence[str]] = (),
) -> Iterator[RunningServices]:
    """Use the services; when the last borrower ends, those that borrowers started are stopped.

    With `settings.platform.keep` what this command started stays.

    Args:
        settings: Settings of all layers.
        with_prefect: Whether a Prefect server is wanted.
        n_workers: FireWorks workers; None takes the settings' number.
        categories: Category list of each worker in turn; empty lets every worker run every job.

    Raises:
        ServiceError: A service that can't be found, started or reached.
        DatabaseError: The configured database is unreachable, read-only or of a newer schema.
    """
    folder = settings.data_folder
    try:
        with processes.locked(folder, USERS, LOCK_LIMIT, is_shared=True):
            running = services.up(settings, with_prefect=with_prefect, n_workers=n_workers, categories=categories)
            if not settings.platform.keep:
                _mark(folder, running.started)
            yield running
    finally:
        # who still uses the services will stop them
        with contextlib.suppress(ServiceError), processes.locked(folder, USERS, 0):
            marks = list((folder / "services").glob("*.borrowed"))
            if marks:
                services.down(settings, only_started=[mark.stem for mark in marks])
            for mark in marks:
                mark.unlink(missing_ok=True)


def keep_services(settings: AllSettings) -> None:
    """Let services that a command started for itself live on after it, as `wyloop up` does."""
    for mark in (settings.data_folder / "services").glob("*.borrowed"):
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def database_uri(settings: AllSettings) -> Iterator[str]:
    """Give the address of a running database, the configured one or the embedded one.

    Raises:
        ServiceError: The embedded database can't be started.
    """
    if settings.stores.uri is not None:
        yield settings.stores.uri.get_secret_value()
        return
    with borrowed(settings, with_prefect=False, n_workers=0) as running:
        yield running.uri


@contextlib.contextmanager
def connected(settings: AllSettings, *, is_checked: bool = True) -> Iterator[Store]:
    """Open the database; with nothing running, MongoDB runs as long as the command.

    Args:
        settings: Settings of all layers.
        is_checked: Whether schema and indexes must be right, as for everything but what looks at them or mends them.

    Raises:
        ServiceError: The embedded database can't be started.
        DatabaseError: The database is unreachable, read-only or of a newer schema.
    """
    with database_uri(settings) as uri:
        store = connect(settings.with_uri(uri).stores, is_checked=is_checked)
        try:
            yield store
        finally:
            store.close()


def _mark(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (processes.state_folder(folder) / f"{name}.borrowed").touch()
