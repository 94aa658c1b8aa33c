"""A worker: takes jobs of its categories from the LaunchPad, one at a time, until told to stop."""

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, chdir, closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wyloop.flows.launchpad import ACTIVE_STATES, launchpad, worker_name

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

IDLE_SLEEP = 0.5  # s between two looks at an empty LaunchPad


# Two threads a job make a busy machine 20 times slower; what is set here counts for libraries not loaded yet.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
_STOP = threading.Event()  # one a process, as its signal handlers are


def is_stopping() -> bool:
    """Whether this process was asked to stop: what fails now fails because of that."""
    return _STOP.is_set()


class StopRequested(BaseException):
    """The process was asked to stop; not an Exception, so that a job does not take it for a failure of its own."""


def run_worker(
    uri: str,
    database: str,
    *,
    categories: Sequence[str] = (),
    run_folder: Path | None = None,
    once: bool = False,
    is_wanted: Callable[[], bool] = lambda: True,
) -> int:
    """Run jobs until SIGTERM or SIGINT; the job under way is then given back and runs again elsewhere.

    Args:
        uri: MongoDB address.
        database: Name of the FireWorks database.
        categories: Categories of jobs to take; all if empty.
        run_folder: Where FireWorks writes its scratch files; a temporary folder if not given.
        once: Stop when no job is ready instead of waiting for the next.
        is_wanted: Asked between jobs; the worker ends when it says no.

    Returns:
        How many jobs it ran.

    Raises:
        DatabaseError: MongoDB is unreachable.
    """
    pin_threads()
    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    lpad = launchpad(uri, database)
    fworker = FWorker(name=worker_name(), category=list(categories) or "")
    n_run = 0
    with ExitStack() as stack:
        stack.enter_context(closing(lpad.connection))
        folder = run_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wyloop-worker-")))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(chdir(folder))  # FireWorks writes its files there; this process has no other use for it
        _raise_on_stop_signals()
        try:
            while is_wanted() and not is_stopping():
                if launch_rocket(lpad, fworker, strm_lvl="ERROR"):
                    n_run += 1
                elif once:
                    break
                else:
                    time.sleep(IDLE_SLEEP)
        except StopRequested:
            logger.info("stopping between two jobs")
        if is_stopping():
            _give_back_own_job(lpad)
    return n_run


def _raise_on_stop_signals() -> None:
    _STOP.clear()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not _STOP.is_set():  # a second signal must not disturb the giving back
            _STOP.set()
            raise StopRequested

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _give_back_own_job(lpad: "LaunchPad") -> None:
    """Make ready again the job that the stop interrupted: FireWorks marked it FIZZLED as it would a failure."""
    own = lpad.launches.find_one({"fworker.name": worker_name()}, sort=[("launch_id", -1)])
    if own is None:
        return
    # A job that failed by itself is FIZZLED too, and stays so.
    states = [*ACTIVE_STATES, "FIZZLED"] if StopRequested.__name__ in str(own.get("action")) else list(ACTIVE_STATES)
    if lpad.fireworks.find_one({"fw_id": own["fw_id"], "state": {"$in": states}}) is not None:
        lpad.rerun_fw(own["fw_id"])
        logger.info("gave back job %d", own["fw_id"])


def pin_threads() -> None:
    """Keep numerical libraries that are not loaded yet to one thread, unless the environment says otherwise."""
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
