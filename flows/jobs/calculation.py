"""The one Firetask: load a calculation by its id, call the plain function of its kind, store the result."""

import logging
import resource
import time
import traceback
from typing import Any

from fireworks import FiretaskBase, FWAction, explicit_serialize

from wyloop.flows.launchpad import worker_name
from wyloop.flows.session import store as open_store
from wyloop.flows.worker import StopRequested, is_stopping
from wyloop.models.errors import DatabaseError, WyloopError
from wyloop.stores import calculations
from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

LOG_TAIL = 2000  # characters of a failure kept with the calculation


@explicit_serialize
class CalculationJob(FiretaskBase):  # type: ignore[misc]  # fireworks has no types
    """Run one calculation. The spec holds its id and nothing else."""

    required_params = ("calculation_id",)

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Run it for FireWorks; a failed one takes the jobs that wait for it off the list."""
        is_good = run_calculation(open_store(), self["calculation_id"])
        return FWAction(stored_data={"is_good": is_good}, defuse_children=not is_good)


def run_calculation(store: Store, calculation_id: str) -> bool:
    """Run a calculation once and store its result; a completed one is not run again.

    Returns:
        Whether it completed without a problem, so that what builds on it may run.

    Raises:
        Exception: Whatever unexpected went wrong, after it was recorded with the calculation.
    """
    from wyloop.flows.jobs.compute import compute  # the force field: seconds, and who submits a job does not need it

    record = calculations.calculation(store, calculation_id)
    if record.status == "completed":
        return not record.problems
    calculations.begin(store, calculation_id, host=worker_name())
    started = time.process_time()
    try:
        outcome = compute(store, record)
        calculations.complete(
            store,
            calculation_id,
            result=outcome.result,
            crystal=outcome.crystal,
            core_seconds=time.process_time() - started,
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            problems=outcome.problems,
        )
    except DatabaseError:
        raise  # the database is what a failure would be recorded in; the job runs again
    except WyloopError as error:
        _raise_if_stopping(error)
        calculations.fail(store, calculation_id, error=str(error), core_seconds=time.process_time() - started)
        logger.warning("calculation %s failed: %s", calculation_id, error)
        return False
    except Exception as error:
        _raise_if_stopping(error)
        message, log_tail = f"{type(error).__name__}: {error}", traceback.format_exc()[-LOG_TAIL:]
        spent = time.process_time() - started
        calculations.fail(store, calculation_id, error=message, log_tail=log_tail, core_seconds=spent)
        raise
    return not outcome.problems


def _raise_if_stopping(error: Exception) -> None:
    """Let a stop be a stop: compiled code, such as moyopy's, may have turned it into an error of its own."""
    if is_stopping():
        raise StopRequested from error
