"""Campaigns and rounds: state, requests, and idempotent records of the steps done, fenced where a lease is held."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from wyloop.models.errors import CampaignError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, checked_update, now
from wyloop.stores.documents.campaigns import CAMPAIGN_STATES, CampaignDocument, RoundDocument
from wyloop.stores.failures import translated
from wyloop.stores.leases import fenced
from wyloop.stores.records import JSON, digest, to_json


@dataclass(frozen=True)
class CampaignRecord:
    """A target, how to look for it, and how many rounds are asked for and done."""

    campaign_id: str
    name: str
    target: tuple[str, ...]
    settings: dict[str, JSON]
    state: str
    rounds_requested: int
    rounds_closed: int
    created_at: datetime
    last_updated: datetime
    code_version: str
    lease_owner: str | None = None
    fencing_token: int = 0
    lease_run_id: str | None = None
    lease_expires_at: datetime | None = None
    definition: dict[str, JSON] = field(default_factory=dict)
    reason: str = ""
    started_at: datetime | None = None
    next_advance_at: datetime | None = None


@dataclass(frozen=True)
class RoundRecord:
    """One turn of a campaign."""

    round_id: str
    campaign_id: str
    number: int
    seed: int
    state: str
    steps: dict[str, dict[str, JSON]]
    model_id: str | None
    snapshot_hash: str | None
    funnel: list[dict[str, JSON]]
    summary: dict[str, JSON]
    created_at: datetime
    last_updated: datetime
    code_version: str


def campaign_id(target: tuple[str, ...] | list[str], name: str | None = None) -> str:
    """Return the identity of a campaign: the same target under the same name is the same campaign."""
    return "campaign-" + digest([sorted(target), name], 12)


@translated
def create_campaign(
    store: Store,
    target: tuple[str, ...] | list[str],
    settings: dict[str, Any],
    name: str | None = None,
    *,
    definition: Mapping[str, Any] | None = None,
) -> CampaignRecord:
    """Make a campaign, or return the one that exists; the settings of an existing one are replaced by these.

    Args:
        store: The database.
        target: Conditions as text, in their canonical form.
        settings: The policy, plain JSON.
        name: Tells campaigns of the same target apart.
        definition: As a file gave it, plain JSON; such a campaign waits to be started.
    """
    identity = campaign_id(target, name)
    fields = checked(
        CampaignDocument,
        {
            "campaign_id": identity,
            "name": name or " and ".join(target),
            "target": list(target),
            "settings": to_json(settings),
            "definition": to_json(definition or {}),
            "state": "active" if definition is None else "created",
            "rounds_requested": 0,
            "rounds_closed": 0,
            "created_at": now(),
        },
    )
    replaced = {key: fields.pop(key) for key in ("settings", "last_updated", "code_version") if key in fields}
    replaced.setdefault("settings", {})
    update = {"$setOnInsert": fields, "$set": replaced}
    try:
        store.database["campaigns"].update_one({"campaign_id": identity}, update, upsert=True)
    except DuplicateKeyError:  # another process inserted it in between
        store.database["campaigns"].update_one({"campaign_id": identity}, update, upsert=True)
    return campaign(store, identity)


@translated
def campaign(store: Store, identity: str) -> CampaignRecord:
    """Return one campaign.

    Raises:
        CampaignError: No campaign has this id.
    """
    found = store.database["campaigns"].find_one({"campaign_id": {"$eq": identity}})
    if found is None:
        raise CampaignError(f"no campaign {identity!r}; expected an id that 'wyloop campaign list' shows")
    return _campaign(found)


@translated
def campaigns(store: Store) -> list[CampaignRecord]:
    """Return all campaigns, oldest first."""
    return [_campaign(found) for found in store.database["campaigns"].find().sort([("created_at", 1), ("_id", 1)])]


@translated
def request_rounds(store: Store, identity: str, n: int) -> CampaignRecord:
    """Ask for n more rounds; while an earlier request is not met, nothing changes (an interrupted command)."""
    if n < 0:
        raise CampaignError(f"{n} rounds requested; expected 0 or more")
    campaign(store, identity)
    store.database["campaigns"].update_one(
        {"campaign_id": identity, "$expr": {"$gte": ["$rounds_closed", "$rounds_requested"]}},
        [
            {
                "$set": {
                    "rounds_requested": {"$add": ["$rounds_closed", n]},
                    # what had reached its end goes on; what a person stopped or paused does not
                    "state": {"$cond": [{"$eq": ["$state", "finished"]}, "active", "$state"]},
                    "last_updated": "$$NOW",
                }
            }
        ],
    )
    return campaign(store, identity)


@translated
def set_campaign_state(
    store: Store, identity: str, state: str, *, reason: str = "", only_from: tuple[str, ...] | None = None
) -> CampaignRecord:
    """Set a campaign's state; one that becomes active for the first time starts then.

    Args:
        store: The database.
        identity: The campaign.
        state: created, active, paused, stopped or finished.
        reason: Why, for people.
        only_from: States that it may have now.

    Raises:
        CampaignError: Another state, no such campaign, or one in another state than those allowed.
    """
    if state not in CAMPAIGN_STATES:
        raise CampaignError(f"campaign state {state!r}; expected one of {', '.join(CAMPAIGN_STATES)}")
    fields: dict[str, Any] = checked_update(CampaignDocument, {"state": state, "reason": reason})
    values: dict[str, Any] = {key: {"$literal": value} for key, value in fields.items()}
    if state == "active":
        values["started_at"] = {"$ifNull": ["$started_at", "$$NOW"]}
    query = {"campaign_id": identity, "state": {"$in": list(only_from or CAMPAIGN_STATES)}}
    outcome = store.database["campaigns"].update_one(query, [{"$set": values}])
    found = campaign(store, identity)
    if outcome.matched_count == 0:
        raise CampaignError(f"{identity} is {found.state}; expected it {' or '.join(only_from or ())}")
    return found


@translated
def finish_campaign(store: Store, identity: str, token: int, reason: str) -> None:
    """Let an active campaign end, by who advances it.

    Raises:
        LeaseLostError: Another process advances it since.
    """
    fields = checked_update(CampaignDocument, {"state": "finished", "reason": reason})

    def write(session: ClientSession) -> None:
        store.database["campaigns"].update_one(
            {"campaign_id": identity, "state": "active"}, {"$set": fields}, session=session
        )

    fenced(store, identity, token, write)


@translated
def set_definition(store: Store, identity: str, definition: Mapping[str, Any], *, rounds: int) -> None:
    """Replace a campaign's definition; rounds that it wants more or less count from now on, those closed stay."""
    fields = checked_update(CampaignDocument, {"definition": to_json(definition)})
    values: dict[str, Any] = {key: {"$literal": value} for key, value in fields.items()}
    values["rounds_requested"] = {"$cond": [{"$eq": ["$state", "created"]}, "$rounds_requested", rounds]}
    store.database["campaigns"].update_one({"campaign_id": identity}, [{"$set": values}])


@translated
def set_next_advance(store: Store, identity: str, time: datetime) -> None:
    """Note when the schedule wants the campaign advanced again."""
    fields = checked_update(CampaignDocument, {"next_advance_at": time})
    store.database["campaigns"].update_one({"campaign_id": identity}, {"$set": fields})


def round_id(campaign: str, number: int) -> str:
    """Return the identity of a round."""
    return f"{campaign}-r{number}"


@translated
def open_round(store: Store, identity: str, *, token: int | None = None) -> RoundRecord | None:
    """Return the round in progress, or a new one if the campaign wants more rounds, else None.

    Raises:
        LeaseLostError: A new one is wanted, but another process advances the campaign since.
    """
    record = campaign(store, identity)
    collection = store.database["rounds"]
    found = collection.find_one({"campaign_id": identity, "state": "open"}, sort=[("number", 1)])
    if found is not None:
        return _round(found)
    if record.state != "active" or record.rounds_closed >= record.rounds_requested:
        return None
    number = record.rounds_closed + 1
    fields = checked(
        RoundDocument,
        {
            "round_id": round_id(identity, number),
            "campaign_id": identity,
            "number": number,
            "seed": int(digest([identity, number], 8), 16) % 2**31,
            "state": "open",
            "created_at": now(),
        },
    )

    def write(session: ClientSession) -> None:
        query = {"campaign_id": identity, "number": number}
        collection.update_one(query, {"$setOnInsert": fields}, upsert=True, session=session)

    with suppress(DuplicateKeyError):  # another process opened it in between
        fenced(store, identity, token, write)
    return round_record(store, round_id(identity, number))


@translated
def current_round(store: Store, identity: str) -> RoundRecord | None:
    """Return the round under way, if there is one."""
    found = store.database["rounds"].find_one({"campaign_id": {"$eq": identity}, "state": "open"}, sort=[("number", 1)])
    return None if found is None else _round(found)


@translated
def round_record(store: Store, identity: str) -> RoundRecord:
    """Return one round.

    Raises:
        CampaignError: No round has this id.
    """
    found = store.database["rounds"].find_one({"round_id": {"$eq": identity}})
    if found is None:
        raise CampaignError(f"no round {identity!r}; expected an id that 'wyloop campaign show' prints")
    return _round(found)


@translated
def rounds(store: Store, campaign: str) -> list[RoundRecord]:
    """Return the rounds of a campaign in order."""
    return [_round(found) for found in store.database["rounds"].find({"campaign_id": {"$eq": campaign}}).sort("number")]


@translated
def record_step(
    store: Store, round_id: str, step: str, *, counts: dict[str, Any], token: int | None = None, **round_fields: object
) -> RoundRecord:
    """Record a step as done, once: a second call leaves the first record of the step as it is.

    Args:
        store: The database.
        round_id: The round.
        step: Name of the step, without dots.
        counts: What the step did, plain JSON.
        token: Fencing token of the lease under which it was done.
        round_fields: Fields of the round that the step found: model_id, snapshot_hash, funnel, summary.

    Raises:
        LeaseLostError: Another process advances the campaign since.
    """
    if not step.isidentifier():
        raise CampaignError(f"step {step!r}; expected a name of letters, digits and underscores")
    plain = {key: to_json(value) for key, value in round_fields.items()}
    fields = checked_update(RoundDocument, plain)
    fields[f"steps.{step}"] = {"finished_at": now(), "counts": to_json(counts)}

    def write(session: ClientSession) -> None:
        query = {"round_id": round_id, f"steps.{step}": {"$exists": False}}
        store.database["rounds"].update_one(query, {"$set": fields}, session=session)

    fenced(store, round_record(store, round_id).campaign_id, token, write)
    return round_record(store, round_id)


@translated
def close_round(
    store: Store, round_id: str, summary: dict[str, Any], *, step: str | None = None, token: int | None = None
) -> RoundRecord:
    """Close a round and count it in its campaign, both or neither; closing twice counts once.

    Args:
        store: The database.
        round_id: The round.
        summary: What it came to, plain JSON.
        step: Name of the step that closes it, recorded with it.
        token: Fencing token of the lease under which it is closed.

    Raises:
        LeaseLostError: Another process advances the campaign since.
    """
    fields = checked_update(RoundDocument, {"summary": to_json(summary), "state": "closed"})
    if step is not None:
        fields[f"steps.{step}"] = {"finished_at": now(), "counts": {}}

    def write(session: ClientSession) -> None:
        found = store.database["rounds"].find_one_and_update(
            {"round_id": round_id, "state": "open"}, {"$set": fields}, session=session
        )
        if found is not None:
            store.database["campaigns"].update_one(
                {"campaign_id": found["campaign_id"]},
                {"$max": {"rounds_closed": found["number"]}, "$set": {"last_updated": now()}},
                session=session,
            )

    fenced(store, round_record(store, round_id).campaign_id, token, write)
    return round_record(store, round_id)


def _campaign(found: dict[str, Any]) -> CampaignRecord:
    return CampaignRecord(
        campaign_id=found["campaign_id"],
        name=found["name"],
        target=tuple(found["target"]),
        settings=cast("dict[str, JSON]", found.get("settings", {})),
        state=found["state"],
        rounds_requested=found["rounds_requested"],
        rounds_closed=found["rounds_closed"],
        created_at=found["created_at"],
        last_updated=found["last_updated"],
        code_version=found["code_version"],
        lease_owner=found.get("lease_owner"),
        fencing_token=found.get("fencing_token", 0),
        lease_run_id=found.get("lease_run_id"),
        lease_expires_at=found.get("lease_expires_at"),
        definition=cast("dict[str, JSON]", to_json(found.get("definition", {}))),
        reason=found.get("reason") or "",
        started_at=found.get("started_at"),
        next_advance_at=found.get("next_advance_at"),
    )


def _round(found: dict[str, Any]) -> RoundRecord:
    return RoundRecord(
        round_id=found["round_id"],
        campaign_id=found["campaign_id"],
        number=found["number"],
        seed=found["seed"],
        state=found["state"],
        steps=cast("dict[str, dict[str, JSON]]", to_json(found.get("steps", {}))),
        model_id=found.get("model_id"),
        snapshot_hash=found.get("snapshot_hash"),
        funnel=found.get("funnel", []),
        summary=found.get("summary", {}),
        created_at=found["created_at"],
        last_updated=found["last_updated"],
        code_version=found["code_version"],
    )
