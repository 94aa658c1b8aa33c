"""Budgets: what a campaign may spend, reserved before a job is submitted and settled when it has ended.

A calculation has one reservation, whoever asks for it; each of these functions may be repeated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pymongo import ReplaceOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from wyloop.models.errors import BudgetError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, checked_update, code_version, now
from wyloop.stores.documents.budgets import ALL_PROTOCOLS, BudgetDocument, ReservationDocument
from wyloop.stores.failures import translated
from wyloop.stores.leases import check_token

OPEN = ("reserved", "dispatched")
"""States of a reservation whose job is still to end."""
_CHUNK = 200  # reservations in one transaction
_ROUNDING = 1e-6  # s
_RETRIES = 5
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """The most that may be spent; None is no limit."""

    jobs: int | None = None
    core_seconds: float | None = None
    """s"""
    deadline: datetime | None = None


@dataclass(frozen=True)
class Claim:
    """One job that wants to be paid for."""

    calculation_id: str
    protocol: str
    core_seconds: float
    """Most that it may cost, s."""


@dataclass(frozen=True)
class BudgetRow:
    """A campaign's budget for one protocol, or for `all`; core-seconds in s."""

    protocol: str
    jobs_limit: int | None
    jobs_reserved: int
    jobs_settled: int
    core_seconds_limit: float | None
    core_seconds_reserved: float
    core_seconds_spent: float
    deadline: datetime | None = None


@dataclass(frozen=True)
class Reservation:
    """What a calculation is charged with, and to whom."""

    calculation_id: str
    campaign_id: str
    round_id: str | None
    protocol: str
    state: str
    core_seconds: float
    core_seconds_spent: float | None
    last_updated: datetime


@translated
def set_limits(store: Store, campaign_id: str, limits: Mapping[str, Limits]) -> None:
    """Set the limits of a campaign, by protocol or for `all`; what is spent already counts."""
    operations = [
        UpdateOne(
            {"campaign_id": campaign_id, "protocol": protocol},
            {
                "$set": checked_update(
                    BudgetDocument,
                    {
                        "jobs_limit": limit.jobs,
                        "core_seconds_limit": limit.core_seconds,
                        "deadline": limit.deadline,
                    },
                ),
                "$setOnInsert": _empty(campaign_id, protocol),
            },
            upsert=True,
        )
        for protocol, limit in limits.items()
    ]
    if operations:
        store.database["budgets"].bulk_write(operations)


@translated
def budget(store: Store, campaign_id: str) -> list[BudgetRow]:
    """Return a campaign's budget: the row of all protocols first, then each that has a limit or a job."""
    rows = [_row(found) for found in store.database["budgets"].find({"campaign_id": {"$eq": campaign_id}})]
    return sorted(rows, key=lambda row: (row.protocol != ALL_PROTOCOLS, row.protocol))


@translated
def reservations(
    store: Store, *, campaign_id: str | None = None, states: Sequence[str] = OPEN, ids: Sequence[str] | None = None
) -> list[Reservation]:
    """Return reservations in certain states, by calculation."""
    query: dict[str, Any] = {"state": {"$in": list(states)}}
    if campaign_id is not None:
        query["campaign_id"] = {"$eq": campaign_id}
    if ids is not None:
        query["calculation_id"] = {"$in": list(ids)}
    return [_reservation(found) for found in store.database["reservations"].find(query).sort("calculation_id")]


@translated
def states_of_round(store: Store, round_id: str) -> dict[str, int]:
    """Count the reservations of a round by state."""
    stages: list[dict[str, Any]] = [
        {"$match": {"round_id": {"$eq": round_id}}},
        {"$group": {"_id": "$state", "n": {"$sum": 1}}},
    ]
    return {row["_id"]: row["n"] for row in store.database["reservations"].aggregate(stages)}


@translated
def reserve(
    store: Store, campaign_id: str, groups: Sequence[Sequence[Claim]], *, round_id: str, token: int | None = None
) -> list[bool]:
    """Reserve for groups of jobs, in order, each group wholly or not at all.

    What is reserved already, by whatever campaign, counts as granted and is not charged again.

    Args:
        store: The database.
        campaign_id: Who pays.
        groups: Jobs that only make sense together, such as a relaxation and the phonons after it.
        round_id: For which round.
        token: Fencing token; with it, the campaign must be active as well.

    Returns:
        For each group whether it may be submitted.

    Raises:
        LeaseLostError: Another process advances the campaign since.
        CampaignError: The campaign is not active.
    """
    granted: list[bool] = []
    for start in range(0, len(groups), _CHUNK):
        chunk = groups[start : start + _CHUNK]

        def write(session: ClientSession, chunk: Sequence[Sequence[Claim]] = chunk) -> list[bool]:
            if token is not None:
                check_token(store.database, session, campaign_id, token, is_spending=True)
            return reserve_within(store.database, session, campaign_id, chunk, round_id=round_id)

        granted += _in_transaction(store, write)
    return granted


def reserve_within(
    database: "Database[dict[str, Any]]",
    session: ClientSession,
    campaign_id: str,
    groups: Sequence[Sequence[Claim]],
    *,
    round_id: str,
) -> list[bool]:
    """Do what `reserve` does within a transaction under way; two at once conflict, and one of them starts again."""
    ids = [claim.calculation_id for group in groups for claim in group]
    found = database["reservations"].find({"calculation_id": {"$in": ids}}, session=session)
    known = {row["calculation_id"]: row for row in found}
    rows = {row["protocol"]: row for row in database["budgets"].find({"campaign_id": campaign_id}, session=session)}
    added: dict[str, tuple[int, float]] = {}
    new: dict[str, Claim] = {}
    granted = []
    for group in groups:
        wanted = {
            claim.calculation_id: claim
            for claim in group
            if known.get(claim.calculation_id, {"state": "released"})["state"] == "released"
            and claim.calculation_id not in new
        }
        after = _added(added, wanted.values())
        is_granted = not wanted or all(_fits(rows.get(protocol), *sums) for protocol, sums in after.items())
        granted.append(is_granted)
        if is_granted:
            added, new = after, new | wanted
    if new:
        _charge(database, session, campaign_id, added)
        fields = {"campaign_id": campaign_id, "round_id": round_id}
        operations = [_reservation_of(claim, fields, known.get(claim.calculation_id)) for claim in new.values()]
        database["reservations"].bulk_write(operations, session=session)
    return granted


def dispatch_within(
    database: "Database[dict[str, Any]]", session: ClientSession, calculation_ids: Sequence[str]
) -> None:
    """Note, within the transaction that submits them, that these reserved jobs are submitted.

    Raises:
        BudgetError: One of them has no reservation.
    """
    query = {"calculation_id": {"$in": list(calculation_ids)}, "state": {"$ne": "released"}}
    rows = list(database["reservations"].find(query, {"calculation_id": 1}, session=session))
    missing = set(calculation_ids) - {row["calculation_id"] for row in rows}
    if missing:
        raise BudgetError(f"nothing is reserved for {min(missing)}; expected a reservation before its job is submitted")
    fields = checked_update(ReservationDocument, {"state": "dispatched"})
    database["reservations"].update_many(query | {"state": "reserved"}, {"$set": fields}, session=session)


@translated
def settle(store: Store, spent: Mapping[str, float]) -> int:
    """Charge jobs that have ended with what they cost.

    Args:
        store: The database.
        spent: Calculation to its core-seconds, s.

    Returns:
        How many reservations were open.
    """
    return _close(store, {identity: ("settled", cost) for identity, cost in spent.items()})


@translated
def release(store: Store, calculation_ids: Iterable[str], *, reason: str) -> int:
    """Free what is reserved for jobs that will not run.

    Returns:
        How many reservations were open.
    """
    return _close(store, dict.fromkeys(calculation_ids, ("released", None)), reason=reason)


@translated
def contradictions(store: Store, session: ClientSession | None = None) -> list[str]:
    """Return where a budget's sums are not those of its reservations; none in a sound database."""
    stages: list[dict[str, Any]] = [
        {"$match": {"state": {"$ne": "released"}}},
        {
            "$group": {
                "_id": {"campaign_id": "$campaign_id", "protocol": "$protocol", "is_settled": _IS_SETTLED},
                "jobs": {"$sum": 1},
                "core_seconds": {"$sum": {"$cond": [_IS_SETTLED, "$core_seconds_spent", "$core_seconds"]}},
            }
        },
    ]
    sums: dict[tuple[str, str, bool], tuple[int, float]] = {}
    for row in store.database["reservations"].aggregate(stages, session=session):
        for protocol in (row["_id"]["protocol"], ALL_PROTOCOLS):
            key = (row["_id"]["campaign_id"], protocol, row["_id"]["is_settled"])
            jobs, seconds = sums.get(key, (0, 0.0))
            sums[key] = (jobs + row["jobs"], seconds + row["core_seconds"])
    wrong = []
    for found in store.database["budgets"].find(session=session):
        for is_settled, jobs_key, seconds_key in (
            (False, "jobs_reserved", "core_seconds_reserved"),
            (True, "jobs_settled", "core_seconds_spent"),
        ):
            jobs, seconds = sums.pop((found["campaign_id"], found["protocol"], is_settled), (0, 0.0))
            told = found[jobs_key], found[seconds_key]
            if told[0] != jobs or abs(told[1] - seconds) > max(1e-3, 1e-6 * abs(seconds)):
                where = f"{found['campaign_id']} {found['protocol']}"
                wrong.append(f"{where}: {jobs_key} {told[0]}, {seconds_key} {told[1]}; expected {jobs}, {seconds}")
    wrong += [f"{key[0]} {key[1]}: {jobs} reservations without a budget" for key, (jobs, _) in sums.items() if jobs]
    return wrong


_IS_SETTLED = {"$eq": ["$state", "settled"]}


def _close(store: Store, ends: Mapping[str, tuple[str, float | None]], *, reason: str = "") -> int:
    n_closed = 0
    ids = sorted(ends)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]

        def write(session: ClientSession, chunk: Sequence[str] = chunk) -> int:
            query = {"calculation_id": {"$in": list(chunk)}, "state": {"$in": list(OPEN)}}
            found = list(store.database["reservations"].find(query, session=session))
            freed: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
            operations = []
            for row in found:
                state, cost = ends[row["calculation_id"]]
                fields = {"state": state, "core_seconds_spent": cost, "reason": reason or None}
                update = {"$set": checked_update(ReservationDocument, fields)}
                operations.append(UpdateOne({"_id": row["_id"]}, update))
                for protocol in (row["protocol"], ALL_PROTOCOLS):
                    freed.setdefault((row["campaign_id"], protocol), []).append((row["core_seconds"], cost))
            if operations:
                store.database["reservations"].bulk_write(operations, session=session)
            for (campaign_id, protocol), costs in sorted(freed.items()):
                _free(store, session, campaign_id, protocol, costs)
            return len(found)

        if store.database["reservations"].find_one(
            {"calculation_id": {"$in": chunk}, "state": {"$in": list(OPEN)}}, {"_id": 1}
        ):
            n_closed += _in_transaction(store, write)
    return n_closed


def _free(
    store: Store, session: ClientSession, campaign_id: str, protocol: str, costs: Sequence[tuple[float, float | None]]
) -> None:
    settled = [cost for _, cost in costs if cost is not None]
    added = {
        "jobs_reserved": -len(costs),
        "jobs_settled": len(settled),
        "core_seconds_reserved": -sum(reserved for reserved, _ in costs),
        "core_seconds_spent": sum(settled),
    }
    store.database["budgets"].update_one(
        {"campaign_id": campaign_id, "protocol": protocol},
        {"$inc": added, "$set": {"last_updated": now()}},
        session=session,
    )


def _added(sums: Mapping[str, tuple[int, float]], claims: Iterable[Claim]) -> dict[str, tuple[int, float]]:
    after = dict(sums)
    for claim in claims:
        for protocol in (claim.protocol, ALL_PROTOCOLS):
            jobs, seconds = after.get(protocol, (0, 0.0))
            after[protocol] = (jobs + 1, seconds + claim.core_seconds)
    return after


def _fits(row: Mapping[str, Any] | None, jobs: int, core_seconds: float) -> bool:
    if row is None:
        return True
    if row.get("deadline") is not None and now().replace(tzinfo=None) >= row["deadline"].replace(tzinfo=None):
        return False
    n_jobs = row["jobs_reserved"] + row["jobs_settled"] + jobs
    seconds = row["core_seconds_reserved"] + row["core_seconds_spent"] + core_seconds
    jobs_limit, seconds_limit = row.get("jobs_limit"), row.get("core_seconds_limit")
    return (jobs_limit is None or n_jobs <= jobs_limit) and (
        seconds_limit is None or seconds <= seconds_limit + _ROUNDING
    )


def _charge(
    database: "Database[dict[str, Any]]",
    session: ClientSession,
    campaign_id: str,
    added: Mapping[str, tuple[int, float]],
) -> None:
    for protocol, (jobs, seconds) in sorted(added.items()):
        empty = _empty(campaign_id, protocol)
        for name in ("jobs_reserved", "core_seconds_reserved"):
            empty.pop(name)
        update = {
            "$inc": {"jobs_reserved": jobs, "core_seconds_reserved": seconds},
            "$set": {"last_updated": now(), "code_version": code_version()},
            "$setOnInsert": empty,
        }
        query = {"campaign_id": campaign_id, "protocol": protocol}
        database["budgets"].update_one(query, update, upsert=True, session=session)


def _empty(campaign_id: str, protocol: str) -> dict[str, Any]:
    fields = checked(BudgetDocument, {"campaign_id": campaign_id, "protocol": protocol})
    return {name: value for name, value in fields.items() if name not in ("code_version", "last_updated")}


def _reservation_of(
    claim: Claim, fields: Mapping[str, Any], known: Mapping[str, Any] | None
) -> "ReplaceOne[dict[str, Any]]":
    document = checked(
        ReservationDocument,
        {
            "calculation_id": claim.calculation_id,
            "protocol": claim.protocol,
            "core_seconds": float(claim.core_seconds),
            "state": "reserved",
            "created_at": now() if known is None else known["created_at"],
            **fields,
        },
    )
    return ReplaceOne({"calculation_id": claim.calculation_id}, document, upsert=True)


def _in_transaction(store: Store, write: Callable[[ClientSession], Result]) -> Result:
    for _ in range(_RETRIES):
        with suppress(DuplicateKeyError), store.client.start_session() as session:  # two made the same row first
            return session.with_transaction(write)
    with store.client.start_session() as session:
        return session.with_transaction(write)


def _row(found: Mapping[str, Any]) -> BudgetRow:
    return BudgetRow(
        protocol=found["protocol"],
        jobs_limit=found.get("jobs_limit"),
        jobs_reserved=found["jobs_reserved"],
        jobs_settled=found["jobs_settled"],
        core_seconds_limit=found.get("core_seconds_limit"),
        core_seconds_reserved=found["core_seconds_reserved"],
        core_seconds_spent=found["core_seconds_spent"],
        deadline=found.get("deadline"),
    )


def _reservation(found: Mapping[str, Any]) -> Reservation:
    return Reservation(
        calculation_id=found["calculation_id"],
        campaign_id=found["campaign_id"],
        round_id=found.get("round_id"),
        protocol=found["protocol"],
        state=found["state"],
        core_seconds=found["core_seconds"],
        core_seconds_spent=found.get("core_seconds_spent"),
        last_updated=found["last_updated"],
    )
