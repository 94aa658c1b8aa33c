"""Prefect's view of a campaign: tags by which its runs are found, which failures are worth another try, and zombies."""

import logging
from typing import TYPE_CHECKING, Any

from wyloop.flows.launchpad import is_alive, worker_name
from wyloop.models.errors import DatabaseError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

TAG = "wyloop"
OWNER = "owner:"
CAMPAIGN = "campaign:"
PAGE = 200


def run_id() -> str | None:
    """Return the id of the flow run of this process, if there is one."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    found = context.flow_run if context is not None else None
    return str(found.id) if found is not None else None


def mark(campaign_id: str | None = None) -> None:
    """Tag the flow run under way with its campaign and its process, so that others can tell whether it lives."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    tags = {*context.flow_run.tags, TAG, f"{OWNER}{worker_name()}"}
    if campaign_id is not None:
        tags.add(f"{CAMPAIGN}{campaign_id}")
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=sorted(tags))


def is_transient(_task: object, _run: object, state: Any) -> bool:  # noqa: ANN401 - Prefect's
    """Whether a failed step is worth another try: the database was away for a moment."""
    from pymongo.errors import AutoReconnect

    error = state.result(raise_on_failure=False)
    return isinstance(error, DatabaseError) and isinstance(error.__cause__, AutoReconnect)


def crash_zombies() -> list[str]:
    """Mark runs of ours as Crashed that Prefect still shows as running though their process on this host is gone.

    Runs of other hosts are left to the automation on missing heartbeats.

    Returns:
        Names of the runs.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    running = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    with get_client(sync_client=True) as client:
        gone = [run for run in client.read_flow_runs(flow_run_filter=running, limit=PAGE) if _is_gone(run)]
        for run in gone:
            client.set_flow_run_state(run.id, Crashed(message="its process is gone; found by reconcile"), force=True)
    if gone:
        logger.info("marked %d flow runs as crashed whose process is gone", len(gone))
    return [run.name for run in gone]


def _is_gone(run: "FlowRun") -> bool:
    owners = [tag.removeprefix(OWNER) for tag in run.tags if tag.startswith(OWNER)]
    return bool(owners) and not any(is_alive(owner) for owner in owners)


def has_server() -> bool:
    """Whether a Prefect server is configured and answers; a temporary one is never started for the question."""
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return False
    import httpx

    try:
        return httpx.get(f"{PREFECT_API_URL.value()}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
