"""Why calculations fail, in five classes, and what a second attempt changes: what a person would change.

A changed solver finds the same result another way; only a wider smearing moves energies, by what the result then says.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from wyloop.models.errors import CalculatorError, GeneError, RealizationError, StructureError
from wyloop.models.physics.calculators import UnsupportedElementsError

MAX_ATTEMPTS = 3
CAREFUL_MIXING = 0.02  # share of the new density; GPAW's own choice is 0.05
MORE_ITERATIONS = 666  # twice GPAW's 333
SMALLER_STEP = 0.04  # Å


class Failure(StrEnum):
    """The classes of failure."""

    NOT_CONVERGED = "not converged"
    OUT_OF_MEMORY = "out of memory"
    WALL_TIME = "wall time"
    BAD_INPUT = "bad input"
    MACHINE = "machine"


REMEDIES = {
    Failure.NOT_CONVERGED: "try another start or another protocol",
    Failure.OUT_OF_MEMORY: "run it by a worker with more memory",
    Failure.WALL_TIME: "give workers more with WYLOOP_FLOWS_WALL_TIME (s), then run it again",
    Failure.BAD_INPUT: "correct the input or leave the candidate out",
    Failure.MACHINE: "see the log's tail; 'wyloop doctor' checks the machine",
}


class CalculationFailedError(CalculatorError):
    """A calculation that failed, with its class and the end of the calculator's log."""

    def __init__(self, message: str, failure: Failure, log_tail: str = "") -> None:
        super().__init__(message)
        self.failure = failure
        self.log_tail = log_tail


@dataclass(frozen=True)
class Solver:
    """How a DFT calculation goes about it; None leaves the calculator's own choice."""

    mixing: float | None = None
    """Share of the new density in the next step."""
    max_iterations: int | None = None
    smearing_factor: float = 1.0
    """Times the protocol's smearing."""
    max_step: float = 0.1
    """Longest step of the relaxation, Å."""
    is_frugal: bool = False
    """Whether the bands are found one at a time, in less memory."""
    wall_time: float | None = None
    """s; None is the protocol's time limit."""

    def changes(self) -> dict[str, float | bool]:
        """Return what differs from the calculator's own choices, by name."""
        default = asdict(Solver())
        return {key: value for key, value in asdict(self).items() if value != default[key]}


def classify(error: BaseException) -> Failure:
    """Return the class of whatever ended a calculation."""
    if isinstance(error, CalculationFailedError):
        return error.failure
    if isinstance(error, MemoryError):
        return Failure.OUT_OF_MEMORY
    if isinstance(error, UnsupportedElementsError | StructureError | GeneError | RealizationError | CalculatorError):
        return Failure.BAD_INPUT
    return Failure.MACHINE


def classify_report(kind: str, text: str) -> Failure:
    """Return the class of a failure that another process, or GPAW itself, reports.

    Args:
        kind: Name of the exception.
        text: Its message.
    """
    if kind == "TimeLimitError":
        return Failure.WALL_TIME
    if kind == "MemoryError" or "Unable to allocate" in text or "bad_alloc" in text:
        return Failure.OUT_OF_MEMORY
    if "Convergence" in kind or "did not converge" in text.lower():
        return Failure.NOT_CONVERGED
    if kind in ("OSError", "PermissionError", "ImportError", "ModuleNotFoundError", "FileNotFoundError"):
        return Failure.BAD_INPUT if "setup" in text.lower() else Failure.MACHINE
    return Failure.BAD_INPUT


def second_attempt(failure: Failure, solver: Solver, attempt: int, max_wall_time: float | None = None) -> Solver | None:
    """Return how to try again, or None if a further attempt makes no sense.

    Args:
        failure: How the last attempt failed.
        solver: What it used.
        attempt: Its number, from 1.
        max_wall_time: Most that the worker allows a calculation, s; None is no more than the protocol does.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    if failure is Failure.NOT_CONVERGED and solver.mixing is None:
        return replace(solver, mixing=CAREFUL_MIXING, max_iterations=MORE_ITERATIONS, max_step=SMALLER_STEP)
    if failure is Failure.NOT_CONVERGED:
        return replace(solver, smearing_factor=2 * solver.smearing_factor)
    if failure is Failure.OUT_OF_MEMORY and not solver.is_frugal:
        return replace(solver, is_frugal=True)
    if failure is Failure.WALL_TIME and max_wall_time is not None and max_wall_time > (solver.wall_time or 0.0):
        return replace(solver, wall_time=max_wall_time)
    if failure is Failure.MACHINE and attempt == 1:
        return solver
    return None
