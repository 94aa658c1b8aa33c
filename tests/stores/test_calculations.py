import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.stores import calculations
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.connection import Store

ROCK_SALT = Crystal(
    np.array([[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]]), ("Na", "Cl"), np.array([[0.0] * 3, [0.5] * 3])
)
RELAXED = {"energy_per_atom": -3.4, "formation_energy_per_atom": -2.0, "max_force": 0.01, "converged": True}


def record(kind: str = "relaxation", subject: str = "c-1") -> CalculationRecord:
    identity = calculation_id(subject, "mlip-screen/1", "abc")
    return CalculationRecord(
        identity, subject, "r-1", kind, f"gene of {subject}", "mlip-screen/1", "abc", inputs=(ROCK_SALT, ROCK_SALT)
    )


def test_a_calculation_is_requested_once_and_completed_once(database: Store) -> None:
    asked = record()
    assert calculations.request_calculation(database, asked)
    assert not calculations.request_calculation(database, asked)
    assert calculations.set_firework(database, asked.calculation_id, 3)
    asked_for = calculations.calculation(database, asked.calculation_id)
    assert [start.species for start in asked_for.inputs] == [("Na", "Cl"), ("Na", "Cl")]
    assert asked_for.crystal is None
    assert calculations.begin(database, asked.calculation_id, host="here", fw_id=3)
    assert calculations.complete(
        database, asked.calculation_id, result=RELAXED, crystal=ROCK_SALT, core_seconds=1.5, peak_memory_mb=200.0
    )
    done = calculations.calculation(database, asked.calculation_id)
    assert done.status == "completed"
    assert done.result == RELAXED
    assert (done.host, done.fw_id, done.core_seconds) == ("here", 3, 1.5)
    assert done.crystal is not None
    assert np.array_equal(done.crystal.lattice, ROCK_SALT.lattice)
    assert done.crystal.species == ROCK_SALT.species
    other = {**RELAXED, "energy_per_atom": 0.0}
    assert not calculations.complete(database, asked.calculation_id, result=other)
    assert not calculations.fail(database, asked.calculation_id, error="late")
    assert not calculations.begin(database, asked.calculation_id)
    again = calculations.calculation(database, asked.calculation_id)
    assert (again.result, again.last_updated) == (done.result, done.last_updated)
    assert [row.calculation_id for row in calculations.of_ids(database, [asked.calculation_id, "calc-0"])] == [
        asked.calculation_id
    ]
    assert [row.result for row in calculations.of_subjects(database, ["gene of c-1"])] == [RELAXED]
    assert [row.calculation_id for row in calculations.of_candidates(database, ["c-1", "c-2"])] == [done.calculation_id]


def test_a_failed_calculation_can_be_repeated(database: Store) -> None:
    asked = record()
    calculations.request_calculation(database, asked)
    assert calculations.fail(database, asked.calculation_id, error="no convergence", log_tail="x" * 10_000)
    failed = calculations.calculation(database, asked.calculation_id)
    assert (failed.status, failed.error, len(failed.log_tail or "")) == ("failed", "no convergence", 4000)
    assert calculations.begin(database, asked.calculation_id)
    assert calculations.complete(database, asked.calculation_id, result=RELAXED, problems=["far"])
    done = calculations.calculation(database, asked.calculation_id)
    assert (done.status, done.error, done.problems) == ("completed", None, ("far",))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"energy_per_atom": float("inf"), "converged": True}, "not a finite number"),
        ({"energy_per_atom": -3.0}, "converged"),
        ({**RELAXED, "colour": 1.0}, "colour"),
    ],
)
def test_a_result_that_breaks_the_schema_is_refused(database: Store, result: dict[str, object], message: str) -> None:
    asked = record()
    calculations.request_calculation(database, asked)
    with pytest.raises(DatabaseError, match=message):
        calculations.complete(database, asked.calculation_id, result=result)
    assert calculations.calculation(database, asked.calculation_id).status == "requested"


def test_each_kind_stores_its_own_result(database: Store) -> None:
    results = {
        "phonon": {"lowest_optical_frequency": 2.0, "tolerance": 0.1, "is_stable": True, "is_prescreen": True},
        "dft": {"energy_per_atom": -4.0, "band_gap": 1.1, "is_direct": True, "is_metal": False, "n_kpoints": 10},
        "reference": {"energy_per_atom": -1.3},
    }
    for kind, result in results.items():
        asked = record(kind, subject=f"c-{kind}")
        calculations.request_calculation(database, asked)
        calculations.complete(database, asked.calculation_id, result=result)
    found = calculations.of_round(database, "r-1", statuses=["completed"])
    assert {row.kind: row.result for row in found} == results
    with pytest.raises(DatabaseError, match="kind 'magic'; expected one of relax"):
        calculations.request_calculation(database, record("magic"))
    with pytest.raises(DatabaseError, match="no calculation 'calc-0'"):
        calculations.begin(database, "calc-0")
