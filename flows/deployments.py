"""The scheduled flows: every minute, each campaign that wants rounds and is due is advanced as far as it can go."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.types.entrypoint import EntrypointType

from wyloop.flows import reconcile, runs
from wyloop.flows.campaign import advance_campaign
from wyloop.flows.definition import schedule_of
from wyloop.flows.session import launchpad, store
from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.documents.base import now

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

DEPLOYMENT = "every-minute"
INTERVAL = 60  # s
RECONCILE_INTERVAL = 600  # s
ZOMBIES = "wyloop: flow runs without a heartbeat have crashed"
HEARTBEAT_WINDOW = timedelta(seconds=600)
"""Prefect's heartbeat comes every 180 s at the most: three of them and some."""


@flow(name="advance-campaigns")
def advance_campaigns() -> dict[str, str]:
    """Advance every active campaign that has rounds to do and is due by its own schedule.

    Returns:
        What came of each campaign.

    Raises:
        CampaignError: At least one campaign could not be advanced; the others were, first.
    """
    runs.mark()
    outcomes: dict[str, str] = {}
    failures: list[str] = []
    for campaign in campaigns.campaigns(store()):
        if _is_due(campaign):
            # As a state, since whatever stops one campaign must not stop those after it.
            state = advance_campaign(campaign.campaign_id, return_state=True)
            if state.is_completed():
                outcomes[campaign.campaign_id] = str(state.result(raise_on_failure=False))
            else:
                failures.append(f"{campaign.campaign_id}: {state.message}")
    if failures:
        raise CampaignError(f"{len(failures)} campaigns not advanced, {len(outcomes)} were; {'; '.join(failures)}")
    return outcomes


def _is_due(campaign: CampaignRecord) -> bool:
    if campaign.state != "active" or campaign.rounds_closed >= campaign.rounds_requested:
        return False
    if campaign.next_advance_at is not None and now() < campaign.next_advance_at:
        return False
    following = schedule_of(campaign).next_after(now())
    if following is not None:
        campaigns.set_next_advance(store(), campaign.campaign_id, following)
    return True


@flow(name="reconcile")
def reconcile_all() -> dict[str, list[str]]:
    """Mend what crashes left between campaigns, LaunchPad and Prefect.

    Returns:
        Kind of damage to what had it.

    Raises:
        CampaignError: Something could not be mended; the rest was.
    """
    runs.mark()
    repairs = reconcile.reconcile(store(), launchpad())
    if repairs.failed:
        told = "; ".join(f"{subject}: {why}" for subject, why in repairs.failed.items())
        raise CampaignError(f"{len(repairs.failed)} not mended, {repairs.n_done} were; {told}")
    return repairs.done


def serve_flows() -> None:
    """Register the scheduled flows with the Prefect server and run them in this process until SIGTERM."""
    from prefect import serve
    from prefect.deployments.runner import RunnerDeployment

    make_automation()
    deployments = [
        RunnerDeployment.from_flow(
            scheduled,
            name=DEPLOYMENT,
            interval=interval,
            tags=[runs.TAG],
            concurrency_limit=_one_at_a_time(),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for scheduled, interval in ((advance_campaigns, INTERVAL), (reconcile_all, RECONCILE_INTERVAL))
    ]
    serve(*deployments, print_starting_message=False)


def deploy_campaign(record: CampaignRecord) -> None:
    """Show a campaign in Prefect as a deployment of its own, from which people can run it at once.

    Its schedule stays with the campaign: the flow that runs every minute advances it when it is due. So no outage lets
    runs pile up, and none is doubled when a campaign is started again.
    """
    from prefect.deployments.runner import RunnerDeployment

    deployment = RunnerDeployment.from_flow(
        advance_campaign,
        name=record.campaign_id,
        parameters={"campaign_id": record.campaign_id},
        tags=[runs.TAG, f"{runs.CAMPAIGN}{record.campaign_id}"],
        description=f"{record.name}: {' and '.join(record.target)}",
        concurrency_limit=_one_at_a_time(),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    with ThreadPoolExecutor(1) as pool:  # where a loop runs, `apply` would give a coroutine back
        pool.submit(copy_context().run, deployment.apply).result()


def make_automation() -> None:
    """Let Prefect mark runs as Crashed whose heartbeat is missing, once; without it they stay Running for ever."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(ZOMBIES):
            client.create_automation(_zombie_automation())


def _zombie_automation() -> "AutomationCore":
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=ZOMBIES,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=HEARTBEAT_WINDOW,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message="no heartbeat for ten minutes", force=True
            )
        ],
    )


def _one_at_a_time() -> ConcurrencyLimitConfig:
    """One run at a time, and none in waiting: a late run has nothing to do that the next one would not."""
    return ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
