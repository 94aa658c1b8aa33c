"""The funnel of a round: how many candidates came how far, screen by screen, and why the rest did not."""

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wyloop.models.errors import CampaignError
from wyloop.models.screening.funnel import ScreeningPolicy, funnel_counts
from wyloop.models.screening.verdict import Verdict
from wyloop.platform.dashboard.tables import PAST_SCREENING
from wyloop.stores import campaigns, candidates
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

MAX_KEPT = 200  # rounds
SO_FAR = "so far"
ENDED = ("rejected", "passed", "failed", "quarantined", "unstable", "off_target")
"""Statuses that say why a candidate went no further."""
Reasons = dict[str, tuple[tuple[str, int, str], ...]]
Row = tuple[str, int, str]
_lock = threading.Lock()
_reasons_of: "OrderedDict[tuple[str, str], Reasons]" = OrderedDict()
_screens_of: "OrderedDict[tuple[str, str], list[Row]]" = OrderedDict()


@dataclass(frozen=True)
class Stage:
    """One line of the funnel."""

    name: str
    n: int
    note: str
    reasons: tuple[tuple[str, int, str], ...] = ()
    """Why candidates did not go further from here: in words, how many, an example."""


@translated
def funnel(store: Store, record: RoundRecord) -> list[Stage]:
    """Return a round's funnel with the reasons of those that did not pass, of an open round as far as it is."""
    reasons = _reasons(store, record)
    rows = record.summary.get("funnel")
    if isinstance(rows, list) and rows:
        told = [row for row in rows if isinstance(row, dict)]
        shown = [(str(row["stage"]), _whole(row["n"]), str(row.get("note", ""))) for row in told]
    else:
        shown = _so_far(store, record)
    return [Stage(name, n, note, reasons.get(_plain(name), ())) for name, n, note in shown]


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _so_far(store: Store, record: RoundRecord) -> list[Row]:
    """Return the lines of an open round: its screens once they have spoken, and where its candidates stand."""
    counts = candidates.funnel(store, record.round_id)
    screens = _screens(store, record) if "screen" in record.steps else []
    told = [status for status, n in counts.items() if n and (not screens or status in PAST_SCREENING)]
    return [("generated", sum(counts.values()), SO_FAR), *screens, *((one, counts[one], SO_FAR) for one in told)]


def _screens(store: Store, record: RoundRecord) -> list[Row]:
    """Return how many candidates of a screened round pass each screen; counted once, since verdicts stay."""
    key = (store.alias, record.round_id)
    with _lock:
        if key in _screens_of:
            return _screens_of[key]
    found = store.database["candidates"].find(
        {"round_id": {"$eq": record.round_id}}, {"_id": 0, "verdicts.screen": 1, "verdicts.passed": 1}
    )
    verdicts = [
        [Verdict(one["screen"], one["passed"], None, "", "") for one in row.get("verdicts") or ()]
        for row in found.max_time_ms(3000)
    ]
    rows = [
        (name, step.n_left, f"{step.n_passed} pass this screen alone")
        if step.is_binding
        else (f"({name})", step.n_left, f"recorded only; {step.n_passed} would pass")
        for step in funnel_counts(verdicts, _policy(store, record.campaign_id))
        if (name := step.screen.replace("_", " "))
    ]
    _keep(_screens_of, key, rows)
    return rows


def _policy(store: Store, campaign_id: str) -> ScreeningPolicy:
    try:
        return ScreeningPolicy.model_validate(campaigns.campaign(store, campaign_id).settings.get("screening") or {})
    except (ValidationError, CampaignError):  # of another version: the campaign itself says so
        return ScreeningPolicy()


def _plain(stage: str) -> str:
    """Return the stage or status that a line of the funnel is about, as reasons name it."""
    ends = {"relaxed": "failed", "near the hull": "unstable", "on target, all calculated": "off_target"}
    return ends.get(stage, stage.strip("()").replace(" ", "_"))


def _reasons(store: Store, record: RoundRecord) -> Reasons:
    """Return for each stage why candidates ended there; of closed rounds it is counted once."""
    key = (f"{store.alias} {record.round_id}", record.last_updated.isoformat())
    with _lock:
        if key in _reasons_of:
            return _reasons_of[key]
    head = {"$arrayElemAt": [{"$split": [{"$ifNull": ["$reason", ""]}, ":"]}, 0]}
    stages: list[dict[str, Any]] = [
        {"$match": {"round_id": {"$eq": record.round_id}, "status": {"$in": list(ENDED)}}},
        {"$group": {"_id": {"status": "$status", "head": head}, "n": {"$sum": 1}, "example": {"$first": "$reason"}}},
        {"$sort": {"n": -1}},
        {"$limit": 500},
    ]
    grouped: dict[str, list[tuple[str, int, str]]] = {}
    n_alike: Counter[str] = Counter()
    for row in store.database["candidates"].aggregate(stages, maxTimeMS=2000, allowDiskUse=True):
        status, head_text = row["_id"]["status"], str(row["_id"].get("head") or "")
        example = str(row.get("example") or "")
        stage = head_text if status == "rejected" else status
        words = "stopped by this screen" if status == "rejected" else _words(status, example)
        n_alike[stage] += 1
        if n_alike[stage] <= 3 or status == "rejected":
            grouped.setdefault(stage, []).append((words, int(row["n"]), example))
    found = {stage: tuple(rows) for stage, rows in grouped.items()}
    if record.state == "closed":
        _keep(_reasons_of, key, found)
    return found


def _keep(kept: "OrderedDict[tuple[str, str], Any]", key: tuple[str, str], value: object) -> None:
    with _lock:
        kept[key] = value
        while len(kept) > MAX_KEPT:
            kept.popitem(last=False)


def _words(status: str, example: str) -> str:
    return {"unstable": "too far above the hull", "off_target": "calculated values off target"}.get(
        status, example[:80] or status
    )
