from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fireworks import FWAction, FWorker

from tests.conftest import MongoServer
from tests.flows.rounds import NACL
from tests.flows.tiny import WORKFLOW, tiny_protocols
from wyloop.flows.by_name import add_candidate, hold_back
from wyloop.flows.launchpad import states
from wyloop.flows.worker import run_worker
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import UnsupportedElementsError
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, materials
from wyloop.stores.calculation_files import arrays_of, picture_of
from wyloop.stores.connection import Store
from wyloop.stores.materials import material_id

if TYPE_CHECKING:
    from fireworks import LaunchPad

SILICON = canonical(Gene.parse("227 Si:a"))


@pytest.fixture
def tiny() -> Iterator[None]:
    with tiny_protocols():
        yield


def test_a_gene_by_hand_becomes_a_material(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path
) -> None:
    added = add_candidate(in_process, lpad, NACL, "mlip-gamma/1")
    assert list(added.calculation_ids) == ["relaxation", "phonon"]
    assert (added.n_new_jobs, added.candidate.status) == (2, "dispatched")
    again = add_candidate(in_process, lpad, NACL, "mlip-gamma/1")
    assert (again.n_new_jobs, again.calculation_ids) == (0, added.calculation_ids)
    found = {row["name"]: row["spec"]["_category"] for row in lpad.fireworks.find({})}
    assert found == {"relaxation NaCl 225": "mlip", "phonon NaCl 225": "mlip", "settle NaCl 225": "light"}

    assert run_worker(mongod.uri, launchpad_name, run_folder=process_state, once=True) == 3
    done = add_candidate(in_process, lpad, NACL, "mlip-gamma/1")
    assert (done.n_new_jobs, done.candidate.status) == (0, "validated")
    material = materials.material(in_process, material_id(NACL.fingerprint))
    assert material.is_validated
    assert material.phonon_verdict == "stable (force-field pre-screen)"

    forced = add_candidate(in_process, lpad, NACL, "mlip-screen/1", is_forced=True)
    assert forced.n_new_jobs == 1
    assert forced.calculation_ids["relaxation"] == added.calculation_ids["relaxation"] + "-2"


def test_a_job_that_stopped_without_a_result_runs_again_when_asked_for_again(
    in_process: Store, lpad: "LaunchPad"
) -> None:
    added = add_candidate(in_process, lpad, NACL, "mlip-gamma/1")
    relaxation, phonon = added.calculation_ids.values()
    (fw_id,) = lpad.get_fw_ids({"spec.calculation_id": relaxation})
    _, launch_id = lpad.checkout_fw(FWorker(), "", fw_id=fw_id)
    lpad.complete_launch(launch_id, FWAction(), state="FIZZLED")
    assert states(lpad, [relaxation, phonon]) == {relaxation: "FIZZLED", phonon: "WAITING"}
    assert add_candidate(in_process, lpad, NACL, "mlip-gamma/1").n_new_jobs == 1
    assert states(lpad, [relaxation, phonon]) == {relaxation: "READY", phonon: "WAITING"}
    assert add_candidate(in_process, lpad, NACL, "mlip-gamma/1").n_new_jobs == 0


def test_what_no_worker_could_run_is_refused_before_anything_is_stored(in_process: Store, lpad: "LaunchPad") -> None:
    with pytest.raises(UnsupportedElementsError, match="GPAW has no PAW dataset of Tc"):
        add_candidate(in_process, lpad, canonical(Gene.parse("194 Tc:c")), "gpaw-pbe/1")
    with pytest.raises(UnsupportedElementsError, match="calculator 'chgnet' does not know Fr"):
        add_candidate(in_process, lpad, canonical(Gene.parse("225 Cl:b Fr:a")), "mlip-screen/1")
    with pytest.raises(CalculatorError, match=r"no workflow for protocol 'gpaw-static/1' \(a step of others\)"):
        add_candidate(in_process, lpad, NACL, "gpaw-static/1")
    assert in_process.database["candidates"].count_documents({}) == 0
    assert lpad.fireworks.count_documents({}) == 0


def test_what_is_not_promoted_is_not_computed_but_settled(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path, tiny: None
) -> None:
    added = add_candidate(in_process, lpad, NACL, WORKFLOW.identifier)
    relaxation = added.calculation_ids["relaxation"]
    calculations.fail(in_process, relaxation, error="it broke", failure="bad input")
    reason = hold_back(in_process, added.calculation_ids["dft"], WORKFLOW.identifier)
    assert reason == "not started: mlip-screen/1 did not promote it: it broke"
    result = {"converged": True, "n_steps": 1, "formation_energy_per_atom": -2.0}
    calculations.complete(in_process, relaxation, result=result, problems=["it is odd"])
    reason = hold_back(in_process, added.calculation_ids["dft"], WORKFLOW.identifier)
    assert reason == "not started: mlip-screen/1 did not promote it: it is odd"


@pytest.mark.dft
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_silicon_through_every_job_of_dft(
    in_process: Store, lpad: "LaunchPad", mongod: MongoServer, launchpad_name: str, process_state: Path, tiny: None
) -> None:
    added = add_candidate(in_process, lpad, SILICON, WORKFLOW.identifier)
    assert list(added.calculation_ids) == [
        "relaxation", "reference Si", "dft", "static", "dft_phonon", "bands", "transport",
    ]  # fmt: skip
    run_worker(mongod.uri, launchpad_name, run_folder=process_state, once=True)
    records = {one.kind: one for one in calculations.of_ids(in_process, added.calculation_ids.values())}
    assert {kind: one.error for kind, one in records.items()} == dict.fromkeys(records)
    assert set(states(lpad, list(added.calculation_ids.values())).values()) == {"COMPLETED"}
    assert all((one.core_seconds or 0) > 0 and (one.peak_memory_mb or 0) > 50 for one in records.values())

    material = materials.material(in_process, material_id(SILICON.fingerprint))
    assert material.dft_formation_energy_per_atom == pytest.approx(0.0, abs=0.001)  # eV/atom, of silicon from silicon
    assert material.phonon_verdict == "stable"
    # PBE 15.1 THz; this cutoff and mesh leave it within a fifth.
    assert material.lowest_optical_frequency == pytest.approx(15.1, rel=0.2)
    assert material.band_gap_method == "tiny-bands/1"
    physics = material.physics
    assert physics["bands_calculation_id"] == added.calculation_ids["bands"]
    assert physics["phonon_protocol"] == "tiny-gamma/1"
    assert physics["is_metal"] is False
    rows = physics["transport"]
    assert isinstance(rows, list)
    assert len(rows) == 18
    # Hot and little doped, electrons and holes of a small gap conduct together: the sign is the doping's if it is high.
    signs = {
        row["carrier"]: float(str(row["seebeck"])) > 0
        for row in rows
        if isinstance(row, dict) and (row["temperature"], row["doping"]) == (300.0, 1e20)
    }
    assert signs == {"p": True, "n": False}
    assert arrays_of(in_process, added.calculation_ids["dft_phonon"])["force_constants"].shape == (2, 2, 3, 3)
    assert picture_of(in_process, added.calculation_ids["bands"]).startswith(b"<?xml")
