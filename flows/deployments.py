"""The scheduled flow: every minute, each campaign that wants rounds is advanced as far as it can go."""

from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.types.entrypoint import EntrypointType

from wyloop.flows.campaign import advance_campaign
from wyloop.flows.session import store
from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns

DEPLOYMENT = "every-minute"
INTERVAL = 60  # s


@flow(name="advance-campaigns")
def advance_campaigns() -> dict[str, str]:
    """Advance every active campaign that has rounds to do.

    Returns:
        What came of each campaign.

    Raises:
        CampaignError: At least one campaign could not be advanced; the others were, first.
    """
    outcomes: dict[str, str] = {}
    failures: list[str] = []
    for campaign in campaigns.campaigns(store()):
        if campaign.state == "active" and campaign.rounds_closed < campaign.rounds_requested:
            # As a state, since whatever stops one campaign must not stop those after it.
            state = advance_campaign(campaign.campaign_id, return_state=True)
            if state.is_completed():
                outcomes[campaign.campaign_id] = str(state.result(raise_on_failure=False))
            else:
                failures.append(f"{campaign.campaign_id}: {state.message}")
    if failures:
        raise CampaignError(f"{len(failures)} campaigns not advanced, {len(outcomes)} were; {'; '.join(failures)}")
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
