"""A campaign's lease: one owner at a time, and a fencing token that every write that matters is checked against."""

from collections.abc import Callable
from typing import Any, TypeVar

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database

from wyloop.models.errors import CampaignError, LeaseLostError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.failures import translated

Result = TypeVar("Result")


@translated
def acquire_lease(store: Store, identity: str, owner: str, seconds: float, *, run_id: str | None = None) -> int | None:
    """Become the one who advances a campaign, or stay it; by the server's clock.

    Args:
        store: The database.
        identity: The campaign.
        owner: Name of this process, unique among all.
        seconds: How long the lease holds unless renewed.
        run_id: The flow run of this process, if it has one.

    Returns:
        The fencing token, which grows with every change of owner; None while another owner holds the lease.
    """
    is_expired = {"$lte": [{"$ifNull": ["$lease_expires_at", "$created_at"]}, "$$NOW"]}
    is_mine = {"$eq": ["$lease_owner", {"$literal": owner}]}
    stays = {"$and": [is_mine, {"$not": [is_expired]}]}
    found = store.database["campaigns"].find_one_and_update(
        {"campaign_id": identity, "$expr": {"$or": [is_expired, is_mine]}},
        [
            {
                "$set": {
                    "fencing_token": {"$cond": [stays, "$fencing_token", {"$add": ["$fencing_token", 1]}]},
                    "lease_owner": {"$literal": owner},
                    "lease_run_id": {"$literal": run_id},
                    "lease_expires_at": {"$add": ["$$NOW", int(seconds * 1000)]},
                    "last_updated": "$$NOW",
                }
            }
        ],
        return_document=ReturnDocument.AFTER,
    )
    return None if found is None else int(found["fencing_token"])


@translated
def renew_lease(store: Store, identity: str, token: int, seconds: float) -> None:
    """Hold the lease for longer, under the same token; also when it ran out but nobody else took it.

    Raises:
        LeaseLostError: Another owner has had it since.
    """
    outcome = store.database["campaigns"].update_one(
        {"campaign_id": identity, "fencing_token": token, "lease_owner": {"$type": "string"}},
        [{"$set": {"lease_expires_at": {"$add": ["$$NOW", int(seconds * 1000)]}, "last_updated": "$$NOW"}}],
    )
    if outcome.matched_count == 0:
        raise _lost(identity, token)


@translated
def release_lease(store: Store, identity: str, owner: str) -> None:
    """Give the lease back, if this owner holds it."""
    store.database["campaigns"].update_one(
        {"campaign_id": identity, "lease_owner": {"$eq": owner}},
        {
            "$unset": {"lease_owner": "", "lease_expires_at": "", "lease_run_id": ""},
            "$set": {"last_updated": now()},
        },
    )


def check_token(
    database: "Database[dict[str, Any]]",
    session: ClientSession,
    identity: str,
    token: int,
    *,
    is_spending: bool = False,
) -> None:
    """Within a transaction, make sure that it commits only if the lease of this token still holds at that moment.

    It writes the campaign's document: a process that takes the lease meanwhile makes the transaction start again.

    Args:
        database: The database, on the session's client.
        session: A session with a transaction under way.
        identity: The campaign.
        token: What `acquire_lease` gave.
        is_spending: Whether the campaign must be active as well.

    Raises:
        LeaseLostError: Another owner has had the lease since.
        CampaignError: The campaign is not active.
    """
    found = database["campaigns"].find_one_and_update(
        {"campaign_id": identity, "fencing_token": token}, {"$inc": {"rev": 1}}, {"state": 1}, session=session
    )
    if found is None:
        raise _lost(identity, token)
    if is_spending and found["state"] != "active":
        raise CampaignError(f"{identity} is {found['state']}; expected an active campaign to dispatch jobs for")


def fenced(store: Store, identity: str, token: int | None, write: Callable[[ClientSession], Result]) -> Result:
    """Run writes in one transaction that commits only while the lease of this token holds.

    Args:
        store: The database.
        identity: The campaign.
        token: What `acquire_lease` gave; none: a transaction without a lease, for what people and tests write.
        write: Does the writes with the session given; it may run more than once.

    Raises:
        LeaseLostError: Another owner has had the lease since; nothing was written.
    """

    def body(session: ClientSession) -> Result:
        if token is not None:
            check_token(store.database, session, identity, token)
        return write(session)

    with store.client.start_session() as session:
        return session.with_transaction(body)


def _lost(identity: str, token: int) -> LeaseLostError:
    return LeaseLostError(
        f"{identity} is advanced by another process since; expected to hold its lease (token {token})"
    )
