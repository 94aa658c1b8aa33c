"""Implausible results: what speaks against them, and that they count only once accepted."""

import pytest

from tests.stores.crystals import NACL
from wyloop.models.errors import DatabaseError
from wyloop.models.mpvae.predict import Prediction
from wyloop.stores import calculations, quarantine
from wyloop.stores.builders.materials import build_materials, new_genes
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import materials
from wyloop.stores.quarantine import reasons_to_quarantine

GENE = "225 Cl:b Na:a"
PREDICTION = Prediction(-2.0, 0.12, 5.0, 0.3, 0.0, 22.0)


def finished(
    store: Store, identity: str, *problems: str, energy: float | None = -2.0, protocol: str = "mlip-screen/1"
) -> CalculationRecord:
    """Put a completed relaxation into the database, formation energy in eV/atom."""
    asked = CalculationRecord(identity, None, None, "relaxation", GENE, protocol, protocol[:11])
    calculations.request_calculation(store, asked)
    result = {"converged": not problems, "n_steps": 250, "fingerprint": GENE}
    result |= {} if energy is None else {"formation_energy_per_atom": energy, "energy_per_atom": energy - 1.5}
    calculations.complete(store, identity, result=result, crystal=NACL, problems=problems)
    return calculations.calculation(store, identity)


def test_what_speaks_against_a_result(database: Store) -> None:
    plain = finished(database, "calc-1")
    assert reasons_to_quarantine(plain, PREDICTION) == ()
    assert reasons_to_quarantine(finished(database, "calc-2", energy=-1.4), PREDICTION) == ()  # 4.6 sigma
    (far,) = reasons_to_quarantine(finished(database, "calc-3", energy=-1.3), PREDICTION)
    assert far == "formation energy -1.300 eV/atom is 5.4 sigma from the predicted -2.000 eV/atom; up to 5 agree"
    assert reasons_to_quarantine(finished(database, "calc-4", energy=-1.3), PREDICTION, 6.0) == ()
    assert reasons_to_quarantine(finished(database, "calc-5", energy=3.0)) == ()  # no prediction to hold it against
    guarded = finished(database, "calc-6", "forces above 0.05 eV/Å after 250 steps", energy=None)
    assert reasons_to_quarantine(guarded, PREDICTION) == ("forces above 0.05 eV/Å after 250 steps",)
    another = finished(database, "calc-7", "relaxed into another gene: 221 Cl:b Na:a")
    assert reasons_to_quarantine(another, PREDICTION) == ()  # no doubt about that one


def test_a_quarantined_result_makes_no_material_until_it_is_accepted(database: Store) -> None:
    finished(database, "calc-1", energy=-1.0)
    assert quarantine.quarantine(database, "calc-1", ["far off"])
    assert not quarantine.quarantine(database, "calc-1", ["far off again"])
    (waiting,) = quarantine.waiting(database)
    assert (waiting.calculation_id, waiting.review_reasons, waiting.is_withheld) == ("calc-1", ("far off",), True)
    assert quarantine.waiting(database, candidate_ids=["c-1"]) == []
    build_materials(database, [GENE])
    assert materials(database) == []
    assert new_genes(database) == set()

    assert quarantine.accept(database, "calc-1", "I looked at it")
    assert not quarantine.accept(database, "calc-1", "I looked at it")
    accepted = calculations.calculation(database, "calc-1")
    assert (accepted.review, accepted.review_note, accepted.is_withheld) == ("accepted", "I looked at it", False)
    assert accepted.reviewed_at is not None
    assert new_genes(database) == {GENE}
    build_materials(database)
    assert [one.formation_energy_per_atom for one in materials(database)] == [-1.0]

    assert quarantine.reject(database, "calc-1", "on second thoughts")
    build_materials(database, [GENE])
    assert materials(database) == []
    assert [one.review for one in quarantine.reviewed(database)] == ["rejected"]
    assert quarantine.waiting(database) == []


def test_what_can_not_be_decided_is_refused(database: Store) -> None:
    asked = CalculationRecord("calc-0", None, None, "relaxation", GENE, "mlip-screen/1", "h")
    calculations.request_calculation(database, asked)
    with pytest.raises(DatabaseError, match="calc-0 is requested; expected it completed"):
        quarantine.reject(database, "calc-0", "x")
    finished(database, "calc-1")
    with pytest.raises(DatabaseError, match="not under review"):
        quarantine.accept(database, "calc-1", "x")
    with pytest.raises(DatabaseError, match="no reason given for calc-1"):
        quarantine.reject(database, "calc-1", " ")
    with pytest.raises(DatabaseError, match="no reason to quarantine"):
        quarantine.quarantine(database, "calc-1", [])
    finished(database, "calc-2", "atoms collapsed onto each other", energy=None)
    quarantine.quarantine(database, "calc-2", ["atoms collapsed onto each other"])
    with pytest.raises(DatabaseError, match="no energy and crystal to count"):
        quarantine.accept(database, "calc-2", "x")
    with pytest.raises(DatabaseError, match="no calculation 'calc-9'"):
        quarantine.accept(database, "calc-9", "x")


def test_a_second_calculation_confirms(database: Store) -> None:
    finished(database, "calc-1", energy=-1.0)
    quarantine.quarantine(database, "calc-1", ["far off"])
    assert quarantine.confirmed(database, quarantine.waiting(database)) == {}
    finished(database, "calc-2", energy=-1.2, protocol="mlip-check/1")  # another energy
    assert quarantine.confirmed(database, quarantine.waiting(database)) == {}
    finished(database, "calc-3", "forces above 0.02 eV/Å", energy=-1.0, protocol="mlip-third/1")  # itself in doubt
    assert quarantine.confirmed(database, quarantine.waiting(database)) == {}
    finished(database, "calc-4", energy=-1.03, protocol="mlip-fourth/1")
    assert quarantine.confirmed(database, quarantine.waiting(database)) == {
        "calc-1": "calc-4 by mlip-fourth/1 agrees within 0.05 eV/atom"
    }
