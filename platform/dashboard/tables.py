"""Pages of candidates and materials for people: filtered, sorted, one after the other by keys, within limits of time.

A page costs what it shows: every order has an index, the next page starts above the last row of this one, and a count
ends at a limit. What takes longer than the limit of time is refused with a remedy.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pymongo.errors import ExecutionTimeout

from wyloop.models.errors import TargetError
from wyloop.models.targets import Target
from wyloop.stores.conditions import mongo_filter
from wyloop.stores.connection import Store
from wyloop.stores.documents.candidates import CANDIDATE_STATUSES
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json

Kind = Literal["candidates", "materials"]
Query = dict[str, Any]

PAGE = 50
MAX_PAGE = 500
MAX_COUNTED = 10_000
COUNT_TIME_MS = 60
COUNT_LIFE = 5.0  # s
MAX_ROUNDS = 5000
COMPUTED = "computed"
"""Stands for every status past screening."""
PAST_SCREENING = ("selected", "dispatched", "failed", "quarantined", "unstable", "off_target", "validated")
STATUS_CHOICES = (COMPUTED, *CANDIDATE_STATUSES)
IDENTITY: Mapping[Kind, str] = {"candidates": "candidate_id", "materials": "material_id"}
SORTS: Mapping[Kind, Mapping[str, str]] = {
    "candidates": {
        "rank": "rank",
        "candidate_id": "candidate_id",
        "formation_energy_per_atom": "prediction.formation_energy_per_atom",
        "band_gap": "prediction.band_gap",
    },
    "materials": {
        "energy_above_hull": "energy_above_hull",
        "material_id": "material_id",
        "formation_energy_per_atom": "formation_energy_per_atom",
        "band_gap": "band_gap",
    },
}
"""Column to the field that it is sorted by; each has an index."""
_PREDICTED = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
_HIDDEN: Mapping[Kind, Mapping[str, int]] = {
    "candidates": {"_id": 0, "verdicts": 0, "elements": 0, "schema_version": 0, "code_version": 0},
    "materials": {
        "_id": 0, "crystal": 0, "elements": 0, "schema_version": 0, "code_version": 0, "input_hash": 0,
        "content_hash": 0, "energies": 0, "structure_ids": 0, "calculation_ids": 0,
    },
}  # fmt: skip
_OF_MATERIAL = (
    "material_id", "formation_energy_per_atom", "energy_above_hull", "hull_id", "band_gap", "band_gap_method",
    "lowest_optical_frequency", "is_validated", "meets_target",
)  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """What is asked of a table.

    Attributes:
        kind: Which table.
        filter: Conditions in the language of targets; of a candidate they look at what is predicted.
        campaign_id: Only of this campaign.
        round_number: Only of this round; needs a campaign.
        status: Only candidates of this status; `computed` stands for all past screening.
        sort: A column of `SORTS`, with a minus before it for falling order; rows without a value come last.
        after: Where the page before ended: what `TablePage.next_after` said.
        limit: Most rows.
    """

    kind: Kind
    filter: str = ""
    campaign_id: str = ""
    round_number: int | None = None
    status: str = ""
    sort: str = ""
    after: str = ""
    limit: int = PAGE


@dataclass(frozen=True)
class TablePage:
    """One page.

    Attributes:
        rows: Plain JSON; a candidate's row holds `prediction`, and under `material` what was calculated.
        next_after: Where the next page starts; None on the last page.
        n_matches: How many rows meet the conditions; None if counting took too long.
        is_more: Whether there are more than `n_matches`, where counting ended.
    """

    rows: list[dict[str, JSON]]
    next_after: str | None
    n_matches: int | None
    is_more: bool = False


class SlowQueryError(TargetError):
    """A question that takes longer than one request may."""


@translated
def page(store: Store, listing: Listing, *, time_ms: int = 3000) -> TablePage:
    """Return one page of a table.

    Args:
        store: The database.
        listing: What is asked.
        time_ms: Longest time that one query may take, ms.

    Raises:
        TargetError: A filter, sort, status or place that can't be read.
        SlowQueryError: The database took too long.
    """
    limit = max(1, min(listing.limit, MAX_PAGE))
    criteria = _criteria(store, listing)
    try:
        found = _found(store, listing, criteria, limit + 1, time_ms)
    except ExecutionTimeout as error:
        raise SlowQueryError(
            f"the answer takes longer than {time_ms} ms; expected a question with an index; "
            "narrow the filter, choose a campaign, or sort by another column"
        ) from error
    shown = found[:limit]
    n_matches, is_more = _count(store, listing.kind, criteria)
    rows = [_row(one) for one in shown]
    if listing.kind == "candidates":
        _add_materials(store, rows, time_ms)
    next_after = _place(listing, shown[-1]) if len(found) > limit else None
    return TablePage(rows, next_after, n_matches, is_more)


def all_rows(store: Store, listing: Listing, *, most: int, time_ms: int = 10_000) -> Iterator[dict[str, JSON]]:
    """Yield the rows of every page, at most so many, a page in memory."""
    n_left, asked = most, replace(listing, limit=MAX_PAGE, after="")
    while n_left > 0:
        found = page(store, asked, time_ms=time_ms)
        yield from found.rows[:n_left]
        n_left -= len(found.rows)
        if found.next_after is None:
            return
        asked = replace(asked, after=found.next_after)


def default_sort(kind: Kind) -> str:
    """Return the column that a table is sorted by unless asked otherwise."""
    return next(iter(SORTS[kind]))


def _criteria(store: Store, listing: Listing) -> Query:
    places = {name: f"prediction.{name}" for name in _PREDICTED} if listing.kind == "candidates" else {}
    parts: list[Query] = []
    if listing.filter.strip():
        parts.append(mongo_filter(Target.parse([listing.filter]), places))
    if listing.round_number is not None and not listing.campaign_id:
        raise TargetError(f"round {listing.round_number} without a campaign; expected both; choose a campaign")
    if listing.kind == "materials":
        if listing.campaign_id:
            parts.append({"campaign_id": {"$eq": listing.campaign_id}})
            if listing.round_number is not None:
                parts.append({"round_number": {"$eq": listing.round_number}})
    else:
        parts += _of_candidates(store, listing)
    parts = [part for part in parts if part]
    return parts[0] if len(parts) == 1 else {"$and": parts} if parts else {}


def _of_candidates(store: Store, listing: Listing) -> list[Query]:
    parts: list[Query] = []
    is_by_rank = _sort(listing)[0] == "rank"
    if listing.campaign_id or listing.status or is_by_rank:
        # rounds are few, and the index of status and rank begins with them
        asked: Query = {"campaign_id": {"$eq": listing.campaign_id}} if listing.campaign_id else {}
        if listing.round_number is not None:
            asked["number"] = {"$eq": listing.round_number}
        found = store.database["rounds"].find(asked, {"_id": 0, "round_id": 1}).sort("round_id", 1).limit(MAX_ROUNDS)
        parts.append({"round_id": {"$in": [row["round_id"] for row in found]}})
    if listing.status:
        if listing.status not in STATUS_CHOICES:
            raise TargetError(f"status {listing.status[:40]!r}; expected one of {', '.join(STATUS_CHOICES)}")
        wanted = PAST_SCREENING if listing.status == COMPUTED else (listing.status,)
        parts.append({"status": {"$in": list(wanted)}})
    elif is_by_rank:
        parts.append({"status": {"$in": list(CANDIDATE_STATUSES)}})
    return parts


def _sort(listing: Listing) -> tuple[str, str, bool]:
    """Return column, field and whether the order falls."""
    text = listing.sort or default_sort(listing.kind)
    name = text.removeprefix("-")
    if name not in SORTS[listing.kind]:
        known = ", ".join(SORTS[listing.kind])
        raise TargetError(f"can't sort {listing.kind} by {name[:40]!r}; expected one of {known}")
    return name, SORTS[listing.kind][name], text.startswith("-")


def _found(store: Store, listing: Listing, criteria: Query, limit: int, time_ms: int) -> list[dict[str, Any]]:
    """Read rows with a value in their order, then those without, from where the page before ended."""
    _, path, is_falling = _sort(listing)
    identity = IDENTITY[listing.kind]
    direction, beyond = (-1, "$lt") if is_falling else (1, "$gt")
    place = _read_place(listing)
    order = [(path, direction), (identity, direction)]
    passes: list[tuple[Query, list[tuple[str, int]]]] = []
    if path == identity:
        passes.append(({identity: {beyond: place[1]}} if place else {}, [(identity, direction)]))
    else:
        if place is None:
            passes.append(({path: {"$ne": None}}, order))
        elif place[0] is not None:
            passes.append(({path: {"$eq": place[0]}, identity: {beyond: place[1]}}, order))
            passes.append(({path: {beyond: place[0]}}, order))
        is_without = place is not None and place[0] is None
        without: Query = {path: None} | ({identity: {"$gt": place[1]}} if is_without and place else {})
        passes.append((without, [(identity, 1)]))
    rows: list[dict[str, Any]] = []
    for extra, keys in passes:
        query = {"$and": [part for part in (criteria, extra) if part]} if criteria or extra else {}
        found = store.database[listing.kind].find(query, dict(_HIDDEN[listing.kind]), max_time_ms=time_ms)
        rows += found.sort(keys).limit(limit - len(rows))
        if len(rows) >= limit:
            break
    return rows


def _place(listing: Listing, row: Mapping[str, Any]) -> str:
    """Write where a page ends, for an address."""
    value: Any = row
    for part in _sort(listing)[1].split("."):
        value = (value or {}).get(part)
    text = json.dumps([value, row[IDENTITY[listing.kind]]], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_place(listing: Listing) -> tuple[float | None, str] | None:
    if not listing.after:
        return None
    path, identity = _sort(listing)[1], IDENTITY[listing.kind]
    try:
        text = base64.b64decode(listing.after + "=" * (-len(listing.after) % 4), altchars=b"-_", validate=True)
        value, last = json.loads(text)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if not isinstance(last, str) or not (value is None or is_number or (path == identity and value == last)):
            raise ValueError(last)
    except (ValueError, TypeError, RecursionError):
        raise TargetError(
            f"page after {listing.after[:40]!r}; expected what the page before named; start at the first page"
        ) from None
    return (None if isinstance(value, str) else value), last


def _row(found: Mapping[str, Any]) -> dict[str, JSON]:
    row = to_json(found)
    assert isinstance(row, dict)  # noqa: S101 - a document is a mapping
    return row


def _add_materials(store: Store, rows: Sequence[dict[str, JSON]], time_ms: int) -> None:
    """Put what was calculated of candidates beside them."""
    wanted = [row["candidate_id"] for row in rows if row["status"] in PAST_SCREENING]
    of_candidate: dict[str, JSON] = {}
    if wanted:
        fields = {"_id": 0, "candidate_id": 1} | dict.fromkeys(_OF_MATERIAL, 1)
        found = store.database["materials"].find({"candidate_id": {"$in": wanted}}, fields, max_time_ms=time_ms)
        of_candidate = {one.pop("candidate_id"): to_json(one) for one in found}
    for row in rows:
        row["material"] = of_candidate.get(str(row["candidate_id"]))


_counted: dict[tuple[str, str, str], tuple[float, int | None, bool]] = {}
_counting = threading.Lock()


def _count(store: Store, kind: Kind, criteria: Query) -> tuple[int | None, bool]:
    """Count matches up to a limit, as they were a few seconds ago at most."""
    key = (store.alias, kind, repr(criteria))
    now = time.monotonic()
    with _counting:
        for old in [one for one, (when, *_) in _counted.items() if now > when + COUNT_LIFE]:
            del _counted[old]
        if key in _counted:
            return _counted[key][1:]
    collection = store.database[kind]
    n_matches: int | None
    try:
        if criteria:
            n_matches = collection.count_documents(criteria, limit=MAX_COUNTED + 1, maxTimeMS=COUNT_TIME_MS)
        else:
            n_matches = collection.estimated_document_count(maxTimeMS=COUNT_TIME_MS)
    except ExecutionTimeout:
        n_matches = None
    is_more = bool(criteria) and n_matches is not None and n_matches > MAX_COUNTED
    found = (MAX_COUNTED if is_more else n_matches, is_more)
    with _counting:
        _counted[key] = (now, *found)
    return found
