import pytest

from wyloop.models.mpvae.assess import drift, families, novelty_shares, prototype, stoichiometry, total_variation
from wyloop.models.wyckoff.gene import Gene, canonical

NACL, KCL, NI3AL = (
    canonical(Gene.of(number, orbits))
    for number, orbits in (
        (225, [("Na", "a"), ("Cl", "b")]),
        (225, [("K", "a"), ("Cl", "b")]),
        (221, [("Al", "a"), ("Ni", "c")]),
    )
)


def test_no_drift_from_itself() -> None:
    assert set(drift([NACL, NI3AL], [NI3AL, NACL]).values()) == {0.0}


def test_drift_counts_shares() -> None:
    """Half of the genes are Ni3Al, in 221 with 1:3; in the data all are rock salts."""
    found = drift([NACL, NI3AL], [NACL, KCL])
    assert found["space_group_chi_squared"] == pytest.approx(0.25)
    assert found["space_group_chi_squared_symmetric"] == pytest.approx(0.25 / 1.5 + 0.25 / 0.5)
    assert found["space_group_outside"] == 0.5
    assert found["stoichiometry_tv"] == 0.5
    assert found["crystal_system_tv"] == 0.0
    assert found["element_tv"] == pytest.approx(0.5)  # Na and Cl of both sides a quarter each
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1.0


def test_families_and_novelty() -> None:
    assert stoichiometry(NI3AL) == (1, 3)
    assert prototype(NACL) == prototype(KCL) == "AB_cF8_225_a_b"
    assert families([NACL, KCL, NI3AL]) == {"n_prototypes": 2, "n_chemical_systems": 3, "n_formulas": 3}
    assert novelty_shares([NACL, NACL, KCL, NI3AL], {str(NACL)}) == {"unique": 0.75, "novel": pytest.approx(2 / 3)}
    assert novelty_shares([], set()) == {"unique": 0.0, "novel": 0.0}
