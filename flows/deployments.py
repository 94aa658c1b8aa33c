"""The scheduled flow: every minute, each campaign that wants rounds is advanced as far as it can go."""

import logging

from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.types.entrypoint import EntrypointType

from wyloop.flows.campaign import advance_campaign
from wyloop.flows.session import store
from wyloop.models.errors import WyloopError
from wyloop.stores import campaigns

logger = logging.getLogger(__name__)

DEPLOYMENT = "every-minute"
INTERVAL = 60  # s


@flow(name="advance-campaigns")
def advance_campaigns() -> dict[str, str]:
    """Advance every active campaign that has rounds to do.

    Returns:
        What came of each campaign.

    Raises:
        WyloopError: At least one campaign could not be advanced; the others were, first.
    """
    outcomes: dict[str, str] = {}
    failures: list[WyloopError] = []
    for campaign in campaigns.campaigns(store()):
        if campaign.state == "active" and campaign.rounds_closed < campaign.rounds_requested:
            try:
                outcomes[campaign.campaign_id] = advance_campaign(campaign.campaign_id)
            except WyloopError as error:
                logger.error("campaign %s: %s", campaign.campaign_id, error)
                failures.append(error)
    if failures:
        raise failures[0]
    return outcomes


def serve_flows() -> None:
    """Register the scheduled flow with the Prefect server and run it in this process until SIGTERM."""
    # One run at a time, and none in waiting: a late run has nothing to do that the next one would not.
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    advance_campaigns.serve(
        name=DEPLOYMENT,
        interval=INTERVAL,
        tags=["wyloop"],
        global_limit=limit,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )
