"""The LaunchPad: jobs submitted once each, listed, and given back when their worker died."""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wyloop.models.errors import CampaignError

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

ACTIVE_STATES = ("RESERVED", "RUNNING")
MAX_LAUNCHES = 3  # of a job that stops without a result
RESERVATION_GRACE = timedelta(seconds=30)


@dataclass(frozen=True)
class JobRow:
    """One FireWorks job as people see it."""

    fw_id: int
    name: str
    state: str
    category: str
    calculation_id: str
    updated_on: datetime | None


@dataclass(frozen=True)
class Job:
    """One calculation to run and the category of workers that may run it."""

    calculation_id: str
    name: str
    category: str
    priority: int = 0


def launchpad(uri: str, database: str) -> "LaunchPad":
    """Open the LaunchPad, made ready on first use; nothing that is in it is ever reset.

    Args:
        uri: MongoDB address, which may hold a password; it is not stored anywhere.
        database: Name of the FireWorks database.
    """
    from fireworks import LaunchPad

    lpad = LaunchPad(
        host=uri, name=database, uri_mode=True, strm_lvl="ERROR", mongoclient_kwargs={"serverSelectionTimeoutMS": 5000}
    )
    # `lpad reset` would do this and drop every job; a fixed _id makes two first users meet in one document.
    if lpad.fw_id_assigner.find_one() is None:
        lpad.fw_id_assigner.update_one(
            {"_id": "ids"}, {"$setOnInsert": {"next_fw_id": 1, "next_launch_id": 1}}, upsert=True
        )
        lpad.tuneup()
    lpad.fireworks.create_index("spec.calculation_id")
    return lpad


def submit(lpad: "LaunchPad", jobs: Sequence[Job], name: str) -> bool:
    """Submit a chain of jobs as one workflow, each after the one before, unless it is there already.

    Returns:
        Whether the workflow is new.
    """
    from fireworks import Firework, Workflow

    from wyloop.flows.jobs.calculation import CalculationJob

    ids = [job.calculation_id for job in jobs]
    present = list(lpad.fireworks.find({"spec.calculation_id": {"$in": ids}}, {"fw_id": 1}))
    if present:
        fw_ids = [document["fw_id"] for document in present]
        if lpad.workflows.find_one({"nodes": {"$in": fw_ids}}, {"_id": 1}) is not None:
            return False
        # A crash between the two inserts of `add_wf` left fireworks without a workflow: no worker could run them.
        lpad.fireworks.delete_many({"fw_id": {"$in": fw_ids}})
        logger.warning("removed %d orphaned fireworks of %s", len(fw_ids), name)
    fireworks: list[Any] = []
    for job in jobs:
        spec = {"calculation_id": job.calculation_id, "_category": job.category, "_priority": job.priority}
        parents = fireworks[-1:] or None
        fireworks.append(
            Firework([CalculationJob(calculation_id=job.calculation_id)], spec=spec, name=job.name, parents=parents)
        )
    lpad.add_wf(Workflow(fireworks, name=name))
    return True


def list_jobs(uri: str, database: str, *, state: str | None = None, limit: int = 100) -> list[JobRow]:
    """List jobs, newest first.

    Raises:
        CampaignError: The state is none of FireWorks' states.
    """
    from fireworks import Firework

    if state is not None and state.upper() not in Firework.STATE_RANKS:
        raise CampaignError(f"unknown job state {state!r}; expected one of {', '.join(Firework.STATE_RANKS)}")
    lpad = launchpad(uri, database)
    try:
        found = list(lpad.fireworks.find({"state": state.upper()} if state else {}).sort("fw_id", -1).limit(limit))
    finally:
        lpad.connection.close()
    return [
        JobRow(
            fw_id=document["fw_id"],
            name=document["name"],
            state=document["state"],
            category=str(document["spec"].get("_category", "")),
            calculation_id=str(document["spec"].get("calculation_id", "")),
            updated_on=_as_time(document.get("updated_on")),
        )
        for document in found
    ]


def _as_time(value: object) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return value if isinstance(value, datetime) else None


def worker_name() -> str:
    """Name this process for the LaunchPad so that others on the host can tell whether it lives."""
    return f"{socket.gethostname()}:{os.getpid()}"


def give_back_lost_jobs(lpad: "LaunchPad") -> list[int]:
    """Make ready again every job whose worker process on this host is gone.

    Jobs of other hosts are left to FireWorks' heartbeat (`lpad detect_lostruns`), which this host can't judge better.

    Returns:
        The fireworks given back.
    """
    given_back = []
    for firework in lpad.fireworks.find(
        {"state": {"$in": ACTIVE_STATES}}, {"fw_id": 1, "launches": 1, "updated_on": 1}
    ):
        launches = lpad.launches.find({"launch_id": {"$in": firework["launches"]}}).sort("launch_id", -1).limit(1)
        launch = next(iter(launches), None)
        if launch is None:
            # A live worker reserves first and writes its launch a moment later; a killed one never writes it.
            updated_on = _as_time(firework.get("updated_on"))
            if updated_on is not None and datetime.now(UTC) - updated_on.replace(tzinfo=UTC) < RESERVATION_GRACE:
                continue
        elif is_alive(str((launch.get("fworker") or {}).get("name", ""))):
            continue
        fw_id = firework["fw_id"]
        # The dead process may have held the workflow's lock, which has no owner and no lease.
        lpad.workflows.update_many({"nodes": fw_id, "locked": True}, {"$unset": {"locked": ""}})
        lpad.rerun_fw(fw_id)
        given_back.append(fw_id)
    if given_back:
        logger.info("gave back %d jobs of workers that are gone", len(given_back))
    return given_back


def is_alive(name: str) -> bool:
    """Whether the process of a worker name lives; one on another host is taken to."""
    host, _, pid = name.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def states(lpad: "LaunchPad", calculation_ids: Sequence[str]) -> dict[str, str]:
    """Look up the FireWorks state of each calculation that has a job."""
    found = lpad.fireworks.find(
        {"spec.calculation_id": {"$in": list(calculation_ids)}}, {"spec.calculation_id": 1, "state": 1}
    )
    return {document["spec"]["calculation_id"]: document["state"] for document in found}


def run_again(lpad: "LaunchPad", calculation_id: str) -> bool:
    """Make a job that FireWorks gave up ready again, unless it was launched often enough.

    Returns:
        Whether it will run again.
    """
    firework = lpad.fireworks.find_one({"spec.calculation_id": calculation_id}, {"fw_id": 1, "archived_launches": 1})
    if firework is None or len(firework.get("archived_launches", ())) + 1 >= MAX_LAUNCHES:
        return False
    lpad.rerun_fw(firework["fw_id"])
    logger.warning("calculation %s: its job stopped without a result; running it again", calculation_id)
    return True
