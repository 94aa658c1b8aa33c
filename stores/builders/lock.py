"""One builder of a kind at a time, in the whole database: a lock that ends with its process."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now

LEASE = timedelta(seconds=60)
"""How long a lock holds without a sign of life; a process on this machine that has ended loses it at once."""
MAX_WAIT = 900.0  # s
_PAUSE = 0.1  # s


@contextmanager
def building(store: Store, name: str) -> Iterator[Callable[[], None]]:
    """Be the only builder of this name while the block runs; another one is waited for.

    Yields:
        What to call now and then as a sign of life.

    Raises:
        DatabaseError: Another builder went on for too long.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
    deadline = time.monotonic() + MAX_WAIT
    while not _take(store, name, owner):
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"another process has built {name} for {MAX_WAIT:g} s; expected it to end; see 'wyloop db check'"
            )
        time.sleep(_PAUSE)
    locks = store.database["locks"]

    def is_alive() -> None:
        locks.update_one({"_id": name, "owner": owner}, {"$set": {"expires_at": now() + LEASE}})

    try:
        yield is_alive
    finally:
        locks.delete_one({"_id": name, "owner": owner})


def with_sign_of_life(
    is_alive: Callable[[], None], on_progress: Callable[[int, int], None] | None
) -> Callable[[int, int], None]:
    """Return what a builder reports its progress to: the lock, and whoever else wants to know."""

    def report(n_done: int, n_total: int) -> None:
        is_alive()
        if on_progress is not None:
            on_progress(n_done, n_total)

    return report


def _take(store: Store, name: str, owner: str) -> bool:
    locks = store.database["locks"]
    held = locks.find_one({"_id": name})
    free = {"_id": name, "expires_at": {"$lt": now()}}
    if held is not None and _is_gone(held["owner"]):
        free = {"_id": name, "owner": held["owner"]}
    try:
        locks.replace_one(free, {"_id": name, "owner": owner, "expires_at": now() + LEASE}, upsert=True)
    except DuplicateKeyError:
        return False
    return True


def _is_gone(owner: str) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
