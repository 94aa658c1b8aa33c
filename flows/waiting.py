"""Waiting for the jobs of a campaign's round, for commands that stay until it is over; no flow ever does."""

import time

from wyloop.flows.dispatch import n_unfinished
from wyloop.flows.session import launchpad
from wyloop.stores import budget
from wyloop.stores.connection import Store

POLL = 1.0  # s between two looks at jobs under way
LIMIT = 60.0  # s after which the campaign itself should have another look


def wait_for_jobs(store: Store, campaign_id: str, limit: float = LIMIT) -> None:
    """Wait until the jobs of the open round have ended, or the limit (s) is over."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        identities = [found.calculation_id for found in budget.reservations(store, campaign_id=campaign_id)]
        if not n_unfinished(store, launchpad(), identities):
            return
        time.sleep(POLL)
