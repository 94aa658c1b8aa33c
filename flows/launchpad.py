"""The LaunchPad: jobs submitted once each, listed, and run again when they stopped without a result."""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wyloop.models.errors import CampaignError

if TYPE_CHECKING:
    from fireworks import Firework, LaunchPad
    from pymongo.client_session import ClientSession

logger = logging.getLogger(__name__)

ACTIVE_STATES = ("RESERVED", "RUNNING")
ENDED_STATES = ("COMPLETED", "FIZZLED", "DEFUSED", "ARCHIVED")
CHAINS_AT_ONCE = 50  # workflows in one transaction
ATTEMPTS = 5  # at a submission that others make at the same time
MAX_LAUNCHES = 3  # of a job that stops without a result


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
    lpad.workflows.create_index("locked", sparse=True)
    _let_each_calculation_have_one_job(lpad)
    return lpad


def _let_each_calculation_have_one_job(lpad: "LaunchPad") -> None:
    """Make the index that lets only one of two processes submit a calculation at the same time."""
    from pymongo.errors import OperationFailure

    try:
        lpad.fireworks.create_index(
            "spec.calculation_id",
            name="one_job_a_calculation",
            unique=True,
            partialFilterExpression={"spec.calculation_id": {"$type": "string"}},
        )
    except OperationFailure as error:  # a LaunchPad of an older version that holds a pair already
        logger.warning("the LaunchPad may hold two jobs of one calculation: %s", str(error).split(", full error")[0])


def submit(lpad: "LaunchPad", jobs: Sequence[Job], name: str) -> bool:
    """Submit a chain of jobs as one workflow, each after the one before, unless it is there already.

    Returns:
        Whether the workflow is new.
    """
    return submit_all(lpad, [(jobs, name)])[0]


def submit_all(lpad: "LaunchPad", chains: Sequence[tuple[Sequence[Job], str]]) -> list[bool]:
    """Submit chains of jobs under their names, each as one workflow, each wholly or not at all, each once.

    In a campaign's step a chain goes in with its reservations in one transaction, which fails if the lease is lost.

    Returns:
        For each chain whether its workflow is new.

    Raises:
        LeaseLostError: Another process advances the campaign since.
        BudgetError: The campaign's budget does not allow one of the jobs.
    """
    is_new: list[bool] = []
    for start in range(0, len(chains), CHAINS_AT_ONCE):
        is_new += _submit_some(lpad, chains[start : start + CHAINS_AT_ONCE])
    return is_new


def _submit_some(lpad: "LaunchPad", chains: Sequence[tuple[Sequence[Job], str]]) -> list[bool]:
    from pymongo.errors import BulkWriteError, DuplicateKeyError

    for _ in range(ATTEMPTS):
        present = _present(lpad, [job.calculation_id for jobs, _ in chains for job in jobs])
        rest = [_still_to_submit(jobs, present) for jobs, _ in chains]
        if not any(rest):
            return [False] * len(chains)
        try:
            _insert(lpad, [(jobs, name) for jobs, (_, name) in zip(rest, chains, strict=True) if jobs])
        except (BulkWriteError, DuplicateKeyError) as error:
            if "E11000" not in str(error):
                raise
            continue  # somebody else submitted one of them just now
        return [bool(jobs) for jobs in rest]
    raise CampaignError(f"other processes submit the same {len(chains)} chains of jobs; expected one; try again")


def _present(lpad: "LaunchPad", calculation_ids: Sequence[str]) -> dict[str, str]:
    """Return calculation to state of the jobs that are there; fireworks without a workflow are removed."""
    found = list(
        lpad.fireworks.find(
            {"spec.calculation_id": {"$in": list(calculation_ids)}}, {"fw_id": 1, "state": 1, "spec.calculation_id": 1}
        )
    )
    fw_ids = [document["fw_id"] for document in found]
    of_workflows = {
        fw_id for wf in lpad.workflows.find({"nodes": {"$in": fw_ids}}, {"nodes": 1}) for fw_id in wf["nodes"]
    }
    orphans = [fw_id for fw_id in fw_ids if fw_id not in of_workflows]
    if orphans:
        # `add_wf` inserts fireworks first: a crash before the workflow left what no worker could run
        lpad.fireworks.delete_many({"fw_id": {"$in": orphans}})
        logger.warning("removed %d orphaned fireworks", len(orphans))
    return {
        document["spec"]["calculation_id"]: document["state"] for document in found if document["fw_id"] in of_workflows
    }


def _still_to_submit(jobs: Sequence[Job], present: Mapping[str, str]) -> list[Job]:
    """Return the jobs of a chain that are to be submitted: those after one that another chain still runs wait."""
    if any(present.get(job.calculation_id, "COMPLETED") not in ENDED_STATES for job in jobs):
        return []
    return [job for job in jobs if job.calculation_id not in present]


def _insert(lpad: "LaunchPad", chains: Sequence[tuple[Sequence[Job], str]]) -> None:
    """Insert fireworks and workflows in one transaction, with what permits them in it."""
    from wyloop.flows.authority import permit

    ids = [job.calculation_id for jobs, _ in chains for job in jobs]
    next_id = int(lpad.get_new_fw_id(quantity=len(ids)))
    fireworks: list[dict[str, Any]] = []
    workflows: list[dict[str, Any]] = []
    for jobs, name in chains:
        made, workflow = _workflow(jobs, name, next_id)
        next_id += len(jobs)
        fireworks += made
        workflows.append(workflow)

    def write(session: "ClientSession") -> None:
        permit(session, ids)
        lpad.fireworks.insert_many(fireworks, session=session)
        lpad.workflows.insert_many(workflows, session=session)

    with lpad.connection.start_session() as session:
        session.with_transaction(write)


def _workflow(jobs: Sequence[Job], name: str, first_id: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make the documents of a chain."""
    from fireworks import Firework

    from wyloop.flows.jobs.calculation import CalculationJob

    fireworks: list[Any] = []
    for job in jobs:
        spec = {"calculation_id": job.calculation_id, "_category": job.category, "_priority": job.priority}
        parents = fireworks[-1:] or None
        fireworks.append(
            Firework([CalculationJob(calculation_id=job.calculation_id)], spec=spec, name=job.name, parents=parents)
        )
    return _documents(fireworks, name, first_id)


def insert_workflow(
    lpad: "LaunchPad", fireworks: "Sequence[Firework]", name: str, within: "Callable[[ClientSession], None]"
) -> None:
    """Insert fireworks, parents first, and their workflow in one transaction, wholly or not at all.

    Args:
        lpad: The LaunchPad.
        fireworks: New ones.
        name: The workflow's.
        within: What else the transaction does, such as to reserve; it may run more than once.

    Raises:
        BulkWriteError: There is a job of one of their calculations already.
    """
    documents, workflow = _documents(fireworks, name, int(lpad.get_new_fw_id(quantity=len(fireworks))))

    def write(session: "ClientSession") -> None:
        within(session)
        lpad.fireworks.insert_many(documents, session=session)
        lpad.workflows.insert_one(workflow, session=session)

    with lpad.connection.start_session() as session:
        session.with_transaction(write)


def _documents(
    fireworks: "Sequence[Firework]", name: str, first_id: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make the documents of a workflow as `LaunchPad.add_wf` does."""
    from fireworks import Workflow

    workflow = Workflow(fireworks, name=name)
    for root in workflow.root_fw_ids:
        workflow.id_fw[root].state = "READY"
        workflow.fw_states[root] = "READY"
    old_new = {}
    # As in FireWorks what comes last has the lowest id: it writes in the order of ids, so that a worker killed while it
    # ends a job has readied or defused what follows before the job itself is seen as ended.
    for new_id, firework in enumerate(reversed(fireworks), start=first_id):
        old_new[firework.fw_id] = new_id
        firework.fw_id = new_id
    workflow._reassign_ids(old_new)
    return [firework.to_db_dict() for firework in fireworks], dict(workflow.to_db_dict())


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
