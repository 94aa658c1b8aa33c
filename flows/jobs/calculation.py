"""The Firetasks: one runs a stored calculation, one makes a candidate's material when its calculations have ended."""

import logging
import os
import resource
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireworks import FiretaskBase, FWAction, explicit_serialize

from wyloop.flows.launchpad import worker_name
from wyloop.flows.session import settings as open_settings
from wyloop.flows.session import store as open_store
from wyloop.flows.worker import StopRequested, is_stopping
from wyloop.models.errors import DatabaseError, WyloopError
from wyloop.stores import calculation_files, calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from wyloop.flows.jobs.compute import Outcome

logger = logging.getLogger(__name__)

LOG_TAIL = 2000  # characters of a failure kept with the calculation


@explicit_serialize
class CalculationJob(FiretaskBase):  # type: ignore[misc]  # fireworks has no types
    """Run one calculation. The spec holds its id and, in a candidate's workflow, the workflow's name."""

    required_params = ("calculation_id",)

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Run it for FireWorks; a failed one takes the jobs that wait for it off the list, if it is in a campaign.

        In a workflow by name the jobs after it start and see for themselves whether they may, so that the last one
        always settles the candidate.
        """
        store, workflow = open_store(), fw_spec.get("workflow")
        if workflow is not None:
            from wyloop.flows.by_name import hold_back

            reason = hold_back(store, self["calculation_id"], workflow)
            if reason is not None:
                calculations.fail(store, self["calculation_id"], error=reason, failure="bad input")
                return FWAction(stored_data={"is_good": False})
        is_good = run_calculation(store, self["calculation_id"])
        return FWAction(stored_data={"is_good": is_good}, defuse_children=not is_good and workflow is None)


@explicit_serialize
class SettleJob(FiretaskBase):  # type: ignore[misc]  # fireworks has no types
    """Make a candidate's material of what was calculated, and give the candidate its end."""

    required_params = ("candidate_id",)

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Run it for FireWorks; repeated, it changes nothing."""
        from wyloop.flows.by_name import settle

        status = settle(open_store(), self["candidate_id"])
        return FWAction(stored_data={"status": status})


def run_calculation(store: Store, calculation_id: str) -> bool:
    """Run a calculation once and store its result; a completed one is not run again.

    What fails in a way that a change may mend is tried again here, at most `failures.MAX_ATTEMPTS` times in all.

    Returns:
        Whether it completed without a problem, so that what builds on it may run.

    Raises:
        Exception: Whatever unexpected went wrong, after it was recorded with the calculation.
    """
    record = calculations.calculation(store, calculation_id)
    if record.status == "completed":
        calculation_files.drop_unnamed(store, calculation_id)  # of an attempt that was killed right after it
        return not record.is_withheld
    calculations.begin(store, calculation_id, host=worker_name())
    attempts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="wyloop-job-") as folder, _Clock() as clock:
        log = Path(folder) / "calculator.txt"
        try:
            outcome = _until_it_works(store, record, log, attempts)
            _complete(store, calculation_id, outcome, attempts, log, clock())
        except DatabaseError:
            raise  # the database is what a failure would be recorded in; the job runs again
        except WyloopError as error:
            _raise_if_stopping(error)
            _fail(store, calculation_id, error, attempts, str(getattr(error, "log_tail", "")), clock())
            logger.warning("calculation %s failed: %s", calculation_id, error)
            return False
        except Exception as error:
            _raise_if_stopping(error)
            _fail(store, calculation_id, error, attempts, traceback.format_exc()[-LOG_TAIL:], clock())
            raise
    return not outcome.problems


class _Clock:
    """Core-seconds of this process and the processes it ran."""

    def __enter__(self) -> Callable[[], float]:
        started = sum(os.times()[:4])
        return lambda: sum(os.times()[:4]) - started

    def __exit__(self, *_: object) -> None:
        pass


def _until_it_works(store: Store, record: CalculationRecord, log: Path, attempts: list[dict[str, Any]]) -> "Outcome":
    """Compute, and try again with what a person would change; notes every attempt that failed before another."""
    # the force field: seconds, and who submits a job does not need it
    from wyloop.flows.jobs.compute import compute
    from wyloop.models.physics.failures import Solver, classify, second_attempt
    from wyloop.models.physics.protocols import PROTOCOLS

    known = PROTOCOLS.get(record.protocol)
    own_limit = float(known.settings.get("time_limit", 0.0)) if known is not None else 0.0
    most = open_settings().wall_time
    solver = Solver(wall_time=min(most, own_limit) if most is not None and own_limit else None)
    while True:
        try:
            return compute(store, record, solver, log)
        except DatabaseError:
            raise
        except Exception as error:
            _raise_if_stopping(error)
            failure = classify(error)
            limit = solver if solver.wall_time else Solver(**{**vars(solver), "wall_time": own_limit or None})
            following = second_attempt(failure, limit, len(attempts) + 1, most)
            if following is None or not isinstance(error, WyloopError):
                raise
            changes = {key: value for key, value in following.changes().items() if value != own_limit}
            attempts.append(
                {
                    "failure": str(failure),
                    "error": str(error),
                    "changes": [f"{key} = {value}" for key, value in changes.items()] or ["nothing"],
                }
            )
            logger.warning("calculation %s: %s; trying again with %s", record.calculation_id, error, changes)
            solver = following


def _complete(
    store: Store,
    calculation_id: str,
    outcome: "Outcome",
    attempts: list[dict[str, Any]],
    log: Path,
    core_seconds: float,
) -> None:
    raw = log.read_text(errors="replace") if log.is_file() and open_settings().raw_files == "keep" else ""
    files = calculation_files.put_files(store, calculation_id, arrays=outcome.arrays, picture=outcome.picture, raw=raw)
    used = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    calculations.complete(
        store,
        calculation_id,
        result=outcome.result,
        crystal=outcome.crystal,
        core_seconds=core_seconds,
        peak_memory_mb=max(used),
        problems=outcome.problems,
        attempts=attempts,
        files=files,
    )
    calculation_files.drop_unnamed(store, calculation_id)


def _fail(
    store: Store,
    calculation_id: str,
    error: Exception,
    attempts: list[dict[str, Any]],
    log_tail: str,
    core_seconds: float,
) -> None:
    from wyloop.models.physics.failures import classify

    message = str(error) if isinstance(error, WyloopError) else f"{type(error).__name__}: {error}"
    calculations.fail(
        store,
        calculation_id,
        error=message,
        failure=str(classify(error)),
        attempts=attempts,
        log_tail=log_tail,
        core_seconds=core_seconds,
    )


def _raise_if_stopping(error: Exception) -> None:
    """Let a stop be a stop: compiled code, such as moyopy's, may have turned it into an error of its own."""
    if is_stopping():
        raise StopRequested from error
