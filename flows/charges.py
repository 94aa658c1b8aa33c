"""What jobs of a campaign cost: reserved before they are submitted, settled when they have ended."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wyloop.flows.authority import claim, current
from wyloop.stores import budget, calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

FINISHED = ("completed", "failed")
NEVER_RUNS = ("DEFUSED", "ARCHIVED")


def reserve_chains(store: Store, record: RoundRecord, chains: Sequence[Mapping[str, str]]) -> list[bool]:
    """Reserve for chains of jobs, each wholly or not at all; what has a result already costs nothing.

    Args:
        store: The database.
        record: The round that asks.
        chains: Calculation to its protocol, for each chain.

    Returns:
        For each chain whether the campaign may submit it.
    """
    acting = current()
    identities = [identity for chain in chains for identity in chain]
    done = {found.calculation_id for found in calculations.of_ids(store, identities) if found.status in FINISHED}
    groups = [[claim(*pair) for pair in chain.items() if pair[0] not in done] for chain in chains]
    token = acting.token if acting is not None else None
    return budget.reserve(store, record.campaign_id, groups, round_id=record.round_id, token=token)


def collect(store: Store, lpad: "LaunchPad", campaign_id: str | None = None) -> dict[str, int]:
    """Settle what the jobs that have ended cost, and release what jobs that will never run had reserved.

    Args:
        store: The database.
        lpad: The LaunchPad.
        campaign_id: Of one campaign, or of all.

    Returns:
        How many reservations were settled and released.
    """
    from wyloop.flows.launchpad import states

    open_ones = {found.calculation_id: found for found in budget.reservations(store, campaign_id=campaign_id)}
    records = {found.calculation_id: found for found in calculations.of_ids(store, list(open_ones))}
    spent = {key: cost for key, found in records.items() if (cost := _cost(found)) is not None}
    failed = [key for key, found in records.items() if found.status == "failed" and key not in spent]
    waiting = [key for key, found in records.items() if found.status not in FINISHED]
    taken_off = [key for key, state in states(lpad, waiting).items() if state in NEVER_RUNS]
    n_settled = budget.settle(store, spent)
    n_released = budget.release(store, failed, reason="failed before it ran")
    n_released += budget.release(store, taken_off, reason="taken off the list before it ran")
    return {"n_settled": n_settled, "n_released": n_released}


def _cost(found: CalculationRecord) -> float | None:
    """Return what a calculation that ended cost, s; None if it did not end, or never ran."""
    if found.status == "completed":
        return found.core_seconds or 0.0
    if found.status == "failed" and (found.core_seconds is not None or found.started_at is not None):
        return found.core_seconds or 0.0
    return None
