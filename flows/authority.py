"""For whom this process acts: a campaign's step holds a lease, and what it submits is charged to that campaign."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wyloop.models.errors import BudgetError
from wyloop.models.physics.protocols import PROTOCOLS
from wyloop.stores.budget import Claim, dispatch_within, reserve_within
from wyloop.stores.leases import check_token

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

DEFAULT_TIME_LIMIT = 300.0  # s, of a job whose protocol has none
STARTS = 4  # relaxations within one job, each with the protocol's time limit


@dataclass(frozen=True)
class Authority:
    """The campaign and round that this process works for, and the token of its lease."""

    database: str
    campaign_id: str
    round_id: str
    token: int


_CURRENT: ContextVar[Authority | None] = ContextVar("wyloop_authority", default=None)


@contextmanager
def acting_for(authority: Authority) -> Iterator[None]:
    """Submit jobs for a campaign while the block runs."""
    before = _CURRENT.set(authority)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def current() -> Authority | None:
    """Return for whom this process acts, if for a campaign."""
    return _CURRENT.get()


def claim(calculation_id: str, protocol_identifier: str) -> Claim:
    """Return what a job may cost at most: the time limit of its protocol for all that it runs."""
    known = PROTOCOLS.get(protocol_identifier)
    limit = float(known.settings.get("time_limit", DEFAULT_TIME_LIMIT)) if known is not None else DEFAULT_TIME_LIMIT
    n_runs = STARTS if known is not None and known.kind == "relaxation" else 1
    return Claim(calculation_id, protocol_identifier, limit * n_runs)


def permit(session: "ClientSession", calculation_ids: Sequence[str]) -> None:
    """Within the transaction that submits jobs, see that they may be, and note that they are.

    What is not reserved yet is reserved now; without a campaign there is nothing to see to.

    Raises:
        LeaseLostError: Another process advances the campaign since.
        CampaignError: The campaign is not active.
        BudgetError: Its budget does not allow them.
    """
    acting = current()
    if acting is None:
        return
    database = session.client[acting.database]
    check_token(database, session, acting.campaign_id, acting.token, is_spending=True)
    found = database["calculations"].find({"calculation_id": {"$in": list(calculation_ids)}}, session=session)
    claims = [claim(row["calculation_id"], row["protocol"]) for row in found]
    granted = reserve_within(database, session, acting.campaign_id, [claims], round_id=acting.round_id)
    if not all(granted):
        raise BudgetError(
            f"the budget of {acting.campaign_id} does not allow {len(claims)} jobs more; expected room for them; "
            f"see 'wyloop campaign budget {acting.campaign_id}'"
        )
    dispatch_within(database, session, [one.calculation_id for one in claims])
