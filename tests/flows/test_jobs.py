from collections.abc import Sequence

import pytest

from tests.flows.rounds import CSCL, NACL, open_round, starter
from wyloop.flows.dispatch import ask_for
from wyloop.flows.jobs.calculation import CalculationJob, run_calculation
from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.realize import realize
from wyloop.stores import calculations
from wyloop.stores.connection import Store

SILICON = canonical(Gene.parse("227 Si:a"))


def ask(store: Store, kind: str, subject: str, inputs: Sequence[Crystal] = (), protocol: str = "mlip-screen/1") -> str:
    return ask_for(store, kind, subject, protocol, open_round(store)[1], inputs=inputs)


def test_relaxation_and_phonons_of_rock_salt(database: Store) -> None:
    relaxation = ask(database, "relaxation", str(NACL), realize(NACL, 24.0, seed=1, n_starts=1))
    phonon = ask(database, "phonon", str(NACL), protocol="mlip-gamma/1")
    assert run_calculation(database, relaxation)
    assert run_calculation(database, phonon)

    relaxed = calculations.calculation(database, relaxation)
    assert (relaxed.status, relaxed.problems, relaxed.error) == ("completed", (), None)
    assert relaxed.crystal is not None
    assert encode(relaxed.crystal) == NACL
    assert (4 * relaxed.crystal.volume) ** (1 / 3) == pytest.approx(5.64, rel=0.02)  # Å, measured at 293 K
    # The starter set was made by the same method from the same elements.
    expected = starter("NaCl-225").formation_energy_per_atom
    assert relaxed.result["formation_energy_per_atom"] == pytest.approx(expected, abs=0.002)
    assert relaxed.result["fingerprint"] == str(NACL)
    assert relaxed.core_seconds is not None
    assert relaxed.core_seconds > 0
    assert relaxed.host is not None

    phonons = calculations.calculation(database, phonon).result
    assert phonons["is_stable"] is True
    assert phonons["is_prescreen"] is True
    # Measured: 4.9 THz (transverse optical, doi:10.1103/PhysRev.178.1496); the force field is known to be too soft.
    assert 2.0 < float(str(phonons["lowest_optical_frequency"])) < 5.5

    assert run_calculation(database, relaxation)  # completed: nothing is computed or written again
    again = calculations.calculation(database, relaxation)
    assert (again.started_at, again.last_updated) == (relaxed.started_at, relaxed.last_updated)


def test_phonons_of_an_element_with_one_atom_have_no_optical_branch(database: Store) -> None:
    copper = canonical(Gene.parse("225 Cu:a"))
    relaxation = ask(database, "relaxation", str(copper), realize(copper, 12.0, seed=1, n_starts=1))
    phonon = ask(database, "phonon", str(copper), protocol="mlip-gamma/1")
    assert run_calculation(database, relaxation)
    assert run_calculation(database, phonon)
    found = calculations.calculation(database, phonon).result
    assert "lowest_optical_frequency" not in found
    assert found["frequencies"] == pytest.approx([0.0, 0.0, 0.0], abs=0.3)


def test_an_element_that_the_calculator_does_not_know(database: Store) -> None:
    gene = canonical(Gene.parse("225 Cl:b Fr:a"))
    identity = ask(database, "relaxation", str(gene), realize(gene, 30.0, seed=1, n_starts=1))
    assert not run_calculation(database, identity)
    found = calculations.calculation(database, identity)
    assert found.status == "failed"
    assert found.error is not None
    assert "Fr" in found.error
    assert "\n" not in found.error
    assert found.log_tail == ""
    assert not run_calculation(database, identity)  # a failed one is tried again when its job runs again


def test_a_failed_job_takes_those_behind_it_off_the_list(in_process: Store) -> None:
    identity = ask(in_process, "phonon", str(NACL), protocol="mlip-gamma/1")
    action = CalculationJob(calculation_id=identity).run_task({})
    assert action.defuse_children
    assert action.stored_data == {"is_good": False}
    found = calculations.calculation(in_process, identity)
    assert found.error == f"{NACL} is not relaxed; expected its relaxation to be completed first"


def test_a_result_that_is_another_crystal_is_completed_with_a_problem(database: Store) -> None:
    identity = ask(database, "relaxation", str(NACL), [starter("CsCl-221").crystal])
    assert not run_calculation(database, identity)
    found = calculations.calculation(database, identity)
    assert found.status == "completed"
    assert found.problems == (f"relaxed into another gene: {CSCL}",)
    assert not run_calculation(database, identity)


def test_a_start_that_collapses_is_completed_with_a_problem(database: Store) -> None:
    small = starter("NaCl-225").crystal
    large = Crystal(1.4 * small.lattice, small.species, small.frac_coords)
    identity = ask(database, "relaxation", str(NACL), [large])
    assert not run_calculation(database, identity)
    found = calculations.calculation(database, identity)
    assert found.status == "completed"
    assert found.problems == ("volume changed by a factor of 0.37; expected 0.4 to 2.5",)
    assert "formation_energy_per_atom" not in found.result


def test_without_a_start_it_fails_in_one_line(database: Store) -> None:
    identity = ask(database, "relaxation", str(NACL))
    assert not run_calculation(database, identity)
    assert calculations.calculation(database, identity).error == "no start to relax; expected at least one crystal"
    identity = ask(database, "dft", str(NACL), protocol="gpaw-pbe/1")
    assert not run_calculation(database, identity)
    error = calculations.calculation(database, identity).error
    assert error == f"{NACL} came without a structure; expected the relaxed one"


def test_an_unexpected_error_is_recorded_with_the_end_of_its_traceback(database: Store) -> None:
    # A protocol of phonons has settings that no relaxation knows.
    identity = ask(database, "relaxation", str(NACL), [starter("NaCl-225").crystal], protocol="mlip-gamma/1")
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        run_calculation(database, identity)
    found = calculations.calculation(database, identity)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith("TypeError: RelaxationSettings.__init__() got an unexpected keyword argument")
    assert found.log_tail is not None
    assert "compute.py" in found.log_tail


def test_a_calculation_that_nobody_asked_for(database: Store) -> None:
    with pytest.raises(DatabaseError, match="no calculation 'calc-0'"):
        run_calculation(database, "calc-0")


@pytest.mark.dft
@pytest.mark.slow
def test_real_dft_of_silicon_and_its_reference(database: Store) -> None:
    silicon = realize(SILICON, 20.0, seed=1, n_starts=1)[0]
    dft = ask(database, "dft", str(SILICON), [silicon], protocol="gpaw-pbe/1")
    reference = ask(database, "reference", "Si", protocol="gpaw-pbe/1")
    assert run_calculation(database, dft)
    assert run_calculation(database, reference)
    found = calculations.calculation(database, dft)
    assert found.problems == ()
    assert found.crystal is not None
    assert encode(found.crystal) == SILICON
    assert found.result["is_metal"] is False
    assert found.result["is_direct"] is False
    assert 0.5 < float(str(found.result["band_gap"])) < 0.9  # eV, PBE: 0.61; the mesh may miss the minimum
    of_element = calculations.calculation(database, reference).result["energy_per_atom"]
    # The element's own crystal against its reference, from two starts.
    assert found.result["energy_per_atom"] == pytest.approx(of_element, abs=0.001)
