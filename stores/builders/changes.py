"""What was written to structures and materials since the last build of the OPTIMADE view, read from a change stream.

Times of change would not tell: a hull can change what is said of a material whose own inputs are years old, and what is
deleted has no time. MongoDB's own record of writes tells all of it, at a cost that grows with the writes alone. Where
the record does not reach back far enough, the builder compares everything.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pymongo.errors import OperationFailure

from wyloop.stores.connection import Store
from wyloop.stores.documents.base import SCHEMA_VERSION, code_version

logger = logging.getLogger(__name__)

MAX_CHANGES = 50_000
"""Changed documents up to which looking each of them up is faster than comparing everything."""
MAX_WAIT = 30.0  # s, for the stream to come up to the present
_STATE, _MARK = "optimade-view", "optimade-mark"
_IDENTITY = {"structures": "structure_id", "materials": "material_id"}


@dataclass
class Changes:
    """Documents that were written or deleted; the ids of those that exist, the `_id` of materials that do not."""

    written: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _IDENTITY})
    updated: dict[str, set[Any]] = field(default_factory=lambda: {name: set() for name in _IDENTITY})
    """By `_id`: what an update tells."""
    deleted: dict[str, set[Any]] = field(default_factory=lambda: {name: set() for name in _IDENTITY})
    """By `_id`."""

    def __len__(self) -> int:
        return sum(len(ids) for kind in (self.written, self.updated, self.deleted) for ids in kind.values())

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take an event in; false if it is none that can be followed document by document."""
        name, kind = event.get("ns", {}).get("coll"), event["operationType"]
        if kind in ("insert", "replace"):
            self.written[name].add(event["fullDocument"][_IDENTITY[name]])
        elif kind in ("update", "delete"):
            (self.updated if kind == "update" else self.deleted)[name].add(event["documentKey"]["_id"])
        return kind in ("insert", "replace", "update", "delete")


def changes_since_last(store: Store, version: int, n_entries: int) -> tuple[Changes | None, Mapping[str, Any] | None]:
    """Return what changed since the state that `remember` wrote, and the place from which the next build goes on.

    Args:
        store: The database.
        version: Of the view: entries of another one are all to be made again.
        n_entries: Entries that the view has now: another number than was remembered was made by somebody else.

    Returns:
        No changes where everything is to be compared; no place where the server gives none.
    """
    state = store.database["locks"].find_one({"_id": _STATE}) or {}
    is_known = state.get("stamp") == _stamp(version) and state.get("n_entries") == n_entries
    try:
        if is_known:
            changes, place = _read(store, state["place"])
            if changes is not None:
                return changes, place
        with store.database.watch(_pipeline()) as stream:
            return None, stream.resume_token
    except OperationFailure as error:  # the record does not reach back, or the user may not watch
        logger.info("the OPTIMADE view is compared as a whole: %s", str(error).split(", full error")[0])
    try:
        with store.database.watch(_pipeline()) as stream:
            return None, stream.resume_token
    except OperationFailure:
        return None, None


def remember(store: Store, version: int, n_entries: int, place: Mapping[str, Any] | None) -> None:
    """Keep for the next build where this one has read up to; without a place it compares everything."""
    if place is None:
        store.database["locks"].delete_one({"_id": _STATE})
        return
    state = {"_id": _STATE, "place": dict(place), "stamp": _stamp(version), "n_entries": n_entries}
    store.database["locks"].replace_one({"_id": _STATE}, state, upsert=True)


def _read(store: Store, place: Mapping[str, Any]) -> tuple[Changes | None, Mapping[str, Any] | None]:
    """Read the stream up to a mark made now: then nothing written before is missing."""
    changes, mark = Changes(), uuid4().hex
    deadline = time.monotonic() + MAX_WAIT
    with store.database.watch(_pipeline(), resume_after=place, max_await_time_ms=200) as stream:
        store.database["locks"].replace_one({"_id": _MARK}, {"_id": _MARK, "mark": mark}, upsert=True)
        while time.monotonic() < deadline and len(changes) <= MAX_CHANGES:
            event = stream.try_next()
            if event is None:
                continue
            if event.get("documentKey", {}).get("_id") == _MARK:
                if event.get("fullDocument", {}).get("mark") == mark:
                    return changes, stream.resume_token
            elif not changes.add(event):
                return None, None
    return None, None


def _pipeline() -> list[dict[str, Any]]:
    watched = [{"ns.coll": {"$in": list(_IDENTITY)}}, {"ns.coll": "locks", "documentKey._id": _MARK}]
    wanted = ("operationType", "ns", "documentKey", "fullDocument.mark")
    fields = dict.fromkeys((*wanted, *(f"fullDocument.{name}" for name in _IDENTITY.values())), 1)
    return [{"$match": {"$or": watched}}, {"$project": fields}]


def _stamp(version: int) -> list[Any]:
    return [version, SCHEMA_VERSION, code_version()]
