"""Jobs that FireWorks lost: found in the LaunchPad, whatever a killed process left there, and made ready again."""

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wyloop.flows.launchpad import ACTIVE_STATES, is_alive

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

LOST_AFTER = 4 * 3600.0  # s; FireWorks' heartbeat comes every hour
ORPHAN_GRACE = timedelta(seconds=60)
"""A firework younger than this without a workflow may be one that somebody inserts right now."""
LOOKS = 4  # at a lock that nobody seems to hold
PAUSE, SHORT_PAUSE = 0.3, 0.03  # s between two of them
UNFINISHED = ["READY", "WAITING", "RESERVED", "RUNNING", "FIZZLED", "DEFUSED", "PAUSED"]
_LAUNCH = {"launch_id": 1, "fw_id": 1, "state": 1, "fworker.name": 1, "state_history": 1}


def remove_orphans(lpad: "LaunchPad", calculation_ids: Sequence[str] | None = None) -> list[str]:
    """Remove fireworks of ours without a workflow, which would make the next worker fail; their calculations stay.

    Returns:
        Their calculations.
    """
    stages: list[dict[str, Any]] = [
        {"$match": _of(calculation_ids) | {"state": {"$nin": ["COMPLETED", "ARCHIVED"]}}},
        {"$project": {"fw_id": 1, "created_on": 1, "spec.calculation_id": 1}},
        {
            "$lookup": {
                "from": "workflows",
                "localField": "fw_id",
                "foreignField": "nodes",
                "pipeline": [{"$project": {"_id": 1}}, {"$limit": 1}],
                "as": "workflow",
            }
        },
        {"$match": {"workflow": []}},
    ]
    found = [row for row in lpad.fireworks.aggregate(stages) if _age(row.get("created_on")) > ORPHAN_GRACE]
    if found:
        lpad.fireworks.delete_many({"_id": {"$in": [row["_id"] for row in found]}})
    return [str(row["spec"]["calculation_id"]) for row in found]


def remove_hollow_workflows(lpad: "LaunchPad", calculation_ids: Sequence[str] | None = None) -> list[str]:
    """Remove workflows of which fireworks are missing: no worker can run them. What is left of them becomes orphans."""
    stages: list[dict[str, Any]] = [
        {"$match": _containing(lpad, calculation_ids) | {"state": {"$nin": ["COMPLETED", "ARCHIVED"]}}},
        {"$project": {"nodes": 1, "name": 1}},
        {
            "$lookup": {
                "from": "fireworks",
                "localField": "nodes",
                "foreignField": "fw_id",
                "pipeline": [{"$project": {"_id": 1}}],
                "as": "found",
            }
        },
        {"$match": {"$expr": {"$lt": [{"$size": "$found"}, {"$size": "$nodes"}]}}},
    ]
    found = list(lpad.workflows.aggregate(stages))
    for row in found:
        lpad.fireworks.delete_many({"fw_id": {"$in": row["nodes"]}, "state": {"$in": ["WAITING", "READY"]}})
        lpad.workflows.delete_one({"_id": row["_id"]})
    return [str(row.get("name") or row["nodes"]) for row in found]


def free_locks(lpad: "LaunchPad") -> list[str]:
    """Free locks of workflows that nobody holds any more: a live process holds one for some milliseconds.

    Returns:
        The workflows' names.
    """
    locked = {row["_id"]: row for row in lpad.workflows.find({"locked": True}, {"name": 1, "nodes": 1})}
    # A worker that is gone is the likely holder; without one, more patience.
    pause = SHORT_PAUSE if all(_has_dead_worker(lpad, row["nodes"]) for row in locked.values()) else PAUSE
    for _ in range(LOOKS):
        if not locked:
            return []
        time.sleep(pause)
        still = {row["_id"] for row in lpad.workflows.find({"_id": {"$in": list(locked)}, "locked": True}, {"_id": 1})}
        locked = {key: row for key, row in locked.items() if key in still}
    for key in locked:
        lpad.workflows.update_one({"_id": key}, {"$unset": {"locked": ""}})
    return [str(row.get("name") or row["nodes"]) for row in locked.values()]


def _has_dead_worker(lpad: "LaunchPad", nodes: Sequence[int]) -> bool:
    launches = lpad.launches.find({"fw_id": {"$in": list(nodes)}}, {"fworker.name": 1})
    return any(not is_alive(_owner(launch)) for launch in launches)


def give_back(
    lpad: "LaunchPad", reservation_seconds: float, lost_after_seconds: float = LOST_AFTER
) -> dict[str, list[str]]:
    """Make ready again the jobs whose reservation never became a launch, or whose worker is gone or silent.

    Args:
        lpad: The LaunchPad.
        reservation_seconds: Age of a reservation without a launch after which it is lost, s.
        lost_after_seconds: Silence of a worker, such as one on another host, after which its job is lost, s.

    Returns:
        Kind of loss to the calculations or fireworks that had it.
    """
    given_back: dict[str, list[str]] = {}
    fields = {"fw_id": 1, "launches": 1, "updated_on": 1, "spec.calculation_id": 1}
    for firework in list(lpad.fireworks.find({"state": {"$in": list(ACTIVE_STATES)}}, fields)):
        kind = _loss(lpad, firework, timedelta(seconds=reservation_seconds), timedelta(seconds=lost_after_seconds))
        if kind is None:
            continue
        # The dead process may have held the workflow's lock, which has no owner and no lease.
        lpad.workflows.update_many({"nodes": firework["fw_id"], "locked": True}, {"$unset": {"locked": ""}})
        lpad.rerun_fw(firework["fw_id"])
        given_back.setdefault(kind, []).append(_name(firework))
    return given_back


def _loss(lpad: "LaunchPad", firework: Mapping[str, Any], grace: timedelta, lost_after: timedelta) -> str | None:
    newest = lpad.launches.find({"launch_id": {"$in": firework["launches"]}}, _LAUNCH).sort("launch_id", -1).limit(1)
    launch = next(iter(newest), None)
    if launch is None:
        # A live worker reserves first and writes its launch a moment later; a killed one never writes it,
        # or writes it and not the firework that names it.
        unnamed = lpad.launches.find({"fw_id": firework["fw_id"]}, _LAUNCH).sort("launch_id", -1).limit(1)
        launch = next((one for one in unnamed if one["state"] in ACTIVE_STATES), None)
        is_old = _age(firework.get("updated_on")) > grace
        is_dead = launch is not None and not is_alive(_owner(launch))
        return "reservation_without_launch" if is_old or is_dead else None
    if launch["state"] not in ACTIVE_STATES:
        return None  # it ended, and the workflow is behind
    if not is_alive(_owner(launch)):
        return "job_of_a_dead_worker"
    return "job_of_a_silent_worker" if _silence(launch) > lost_after else None


def refresh_fireworks(lpad: "LaunchPad", grace_seconds: float) -> list[str]:
    """Bring fireworks up to their launches that ended while the workflow was locked, or whose process was killed.

    Args:
        lpad: The LaunchPad.
        grace_seconds: How long a live worker may take to do it itself, s.

    Returns:
        The calculations or fireworks that were behind.
    """
    refreshed = []
    fields = {"fw_id": 1, "launches": 1, "spec.calculation_id": 1}
    for firework in list(lpad.fireworks.find({"state": {"$in": list(ACTIVE_STATES)}}, fields)):
        query = {"launch_id": {"$in": firework["launches"]}}
        newest = next(iter(lpad.launches.find(query, _LAUNCH).sort("launch_id", -1).limit(1)), None)
        if newest is None or newest["state"] not in ("COMPLETED", "FIZZLED"):
            continue
        # A live worker may be about to do it itself; one that met a lock has given up.
        if not is_alive(_owner(newest)) or _silence(newest) > timedelta(seconds=grace_seconds):
            lpad._refresh_wf(firework["fw_id"])
            refreshed.append(_name(firework))
    return refreshed


def refresh_workflows(lpad: "LaunchPad", calculation_ids: Sequence[str] | None = None) -> list[str]:
    """Write workflows anew that do not know the states of their fireworks.

    Returns:
        Their names.
    """
    stages: list[dict[str, Any]] = [
        {"$match": _containing(lpad, calculation_ids) | {"state": {"$in": UNFINISHED}, "locked": {"$exists": False}}},
        {"$project": {"name": 1, "nodes": 1, "fw_states": 1}},
        {
            "$lookup": {
                "from": "fireworks",
                "localField": "nodes",
                "foreignField": "fw_id",
                "pipeline": [{"$project": {"_id": 0, "fw_id": 1, "state": 1}}],
                "as": "found",
            }
        },
    ]
    written = []
    for row in list(lpad.workflows.aggregate(stages)):
        told = row.get("fw_states") or {}
        if all(told.get(str(one["fw_id"])) == one["state"] for one in row["found"]) or not row["found"]:
            continue
        workflow = lpad.get_wf_by_fw_id(row["nodes"][0])
        query = {"_id": row["_id"], "locked": {"$exists": False}}
        if lpad.workflows.find_one_and_replace(query, workflow.to_db_dict()) is not None:
            written.append(str(row.get("name") or row["nodes"]))
    return written


def _of(calculation_ids: Sequence[str] | None) -> dict[str, Any]:
    return {"spec.calculation_id": {"$type": "string"} if calculation_ids is None else {"$in": list(calculation_ids)}}


def _containing(lpad: "LaunchPad", calculation_ids: Sequence[str] | None) -> dict[str, Any]:
    if calculation_ids is None:
        return {}
    found = lpad.fireworks.find(_of(calculation_ids), {"_id": 0, "fw_id": 1})
    return {"nodes": {"$in": [row["fw_id"] for row in found]}}


def _owner(launch: Mapping[str, Any]) -> str:
    return str((launch.get("fworker") or {}).get("name", ""))


def _silence(launch: Mapping[str, Any]) -> timedelta:
    """Return how long ago a launch gave its last sign of life."""
    history = launch.get("state_history") or [{}]
    return min(_age(entry.get("updated_on") or entry.get("created_on")) for entry in history)


def _name(firework: Mapping[str, Any]) -> str:
    return str((firework.get("spec") or {}).get("calculation_id") or f"firework {firework['fw_id']}")


def _age(value: object) -> timedelta:
    """Return how long ago a time of FireWorks was; for ever if there is none."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return timedelta.max
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return datetime.now(UTC) - aware
