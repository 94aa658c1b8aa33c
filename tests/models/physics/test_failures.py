import pytest

from wyloop.models.errors import CalculatorError, StructureError
from wyloop.models.physics.calculators import UnsupportedElementsError
from wyloop.models.physics.failures import (
    MAX_ATTEMPTS,
    CalculationFailedError,
    Failure,
    Solver,
    classify,
    classify_report,
    second_attempt,
)


@pytest.mark.parametrize(
    ("kind", "text", "failure"),
    [
        ("KohnShamConvergenceError", "Did not converge! See text output for help.", Failure.NOT_CONVERGED),
        ("PoissonConvergenceError", "", Failure.NOT_CONVERGED),
        ("MemoryError", "Unable to allocate 3.2 GiB", Failure.OUT_OF_MEMORY),
        ("RuntimeError", "std::bad_alloc", Failure.OUT_OF_MEMORY),
        ("TimeLimitError", "", Failure.WALL_TIME),
        ("FileNotFoundError", 'Could not find required PAW dataset file "U.PBE" among setups', Failure.BAD_INPUT),
        ("OSError", "No space left on device", Failure.MACHINE),
        ("ValueError", "the cell is singular", Failure.BAD_INPUT),
    ],
)
def test_what_gpaw_reports_has_a_class(kind: str, text: str, failure: Failure) -> None:
    assert classify_report(kind, text) is failure


def test_exceptions_have_a_class() -> None:
    assert classify(CalculationFailedError("x", Failure.WALL_TIME)) is Failure.WALL_TIME
    assert classify(UnsupportedElementsError("x")) is Failure.BAD_INPUT
    assert classify(StructureError("x")) is Failure.BAD_INPUT
    assert classify(CalculatorError("x")) is Failure.BAD_INPUT
    assert classify(MemoryError()) is Failure.OUT_OF_MEMORY
    assert classify(ZeroDivisionError()) is Failure.MACHINE


def test_each_attempt_changes_what_a_person_would() -> None:
    first = second_attempt(Failure.NOT_CONVERGED, Solver(), 1)
    assert first is not None
    assert first.changes() == {"mixing": 0.02, "max_iterations": 666, "max_step": 0.04}
    second = second_attempt(Failure.NOT_CONVERGED, first, 2)
    assert second is not None
    assert second.changes()["smearing_factor"] == 2.0
    assert second_attempt(Failure.NOT_CONVERGED, second, MAX_ATTEMPTS) is None
    frugal = second_attempt(Failure.OUT_OF_MEMORY, Solver(), 1)
    assert frugal == Solver(is_frugal=True)
    assert second_attempt(Failure.OUT_OF_MEMORY, Solver(is_frugal=True), 2) is None
    assert second_attempt(Failure.MACHINE, Solver(), 1) == Solver()
    assert second_attempt(Failure.MACHINE, Solver(), 2) is None
    assert second_attempt(Failure.BAD_INPUT, Solver(), 1) is None


def test_more_time_is_given_only_where_the_worker_has_it() -> None:
    spent = Solver(wall_time=240.0)
    assert second_attempt(Failure.WALL_TIME, spent, 1) is None
    assert second_attempt(Failure.WALL_TIME, spent, 1, max_wall_time=240.0) is None
    assert second_attempt(Failure.WALL_TIME, spent, 1, max_wall_time=900.0) == Solver(wall_time=900.0)
