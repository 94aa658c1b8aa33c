from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import NACL, starter
from wyloop.flows import vasp
from wyloop.flows.by_name import add_candidate
from wyloop.flows.jobs.vasp import complete_with
from wyloop.flows.vasp import check_vasp, vasp_workflow
from wyloop.models.errors import CalculatorError
from wyloop.stores import calculations
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

# atomate2's own imports warn: what they call deprecated is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def licensed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like POTCARs of Na and Cl, and a command that looks like VASP; neither holds anything."""
    folder = tmp_path / "potcars" / "POT_GGA_PAW_PBE"
    folder.mkdir(parents=True)
    for name in ("POTCAR.Na_pv.gz", "POTCAR.Cl.gz"):
        (folder / name).write_bytes(b"")
    command = tmp_path / "vasp_std"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(folder.parent))
    monkeypatch.setenv("ATOMATE2_VASP_CMD", str(command))
    return tmp_path


def test_what_is_missing_is_said_before_submission(
    in_process: Store, lpad: "LaunchPad", licensed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_vasp(["Na", "Cl"])
    with pytest.raises(CalculatorError, match="no POTCAR of U under"):
        check_vasp(["U", "Cl"])
    monkeypatch.setenv("ATOMATE2_VASP_CMD", "srun vasp_of_nobody")
    with pytest.raises(CalculatorError, match="no VASP: vasp_of_nobody is not on the PATH; set ATOMATE2_VASP_CMD"):
        add_candidate(in_process, lpad, NACL, "mp-vasp/1")
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(licensed / "nowhere"))
    with pytest.raises(CalculatorError, match="no POTCARs: PMG_VASP_PSP_DIR names no folder"):
        add_candidate(in_process, lpad, NACL, "mp-vasp/1")
    monkeypatch.setattr(vasp, "find_spec", lambda _name: None)
    with pytest.raises(CalculatorError, match=r"install it with `pip install wyloop\[vasp\]`"):
        add_candidate(in_process, lpad, NACL, "mp-vasp/1")
    assert lpad.fireworks.count_documents({}) == 0


@pytest.mark.slow
def test_atomate2_s_jobs_become_fireworks(in_process: Store, lpad: "LaunchPad", licensed: Path) -> None:
    pytest.importorskip("atomate2")
    added = add_candidate(in_process, lpad, NACL, "mp-vasp/1")
    identity = added.calculation_ids["vasp"]
    made = vasp_workflow(starter("NaCl-225").crystal, "mp-vasp/1", calculation_id=identity, formula="NaCl")
    ids = lpad.add_wf(made)
    jobs = list(lpad.fireworks.find({"fw_id": {"$in": list(ids.values())}}).sort("fw_id", 1))
    names = {job["name"] for job in jobs}
    assert names == {"MP GGA relax 1 NaCl", "MP GGA relax 2 NaCl", "MP GGA static NaCl", "vasp result NaCl"}
    assert {job["spec"]["_category"] for job in jobs} == {"vasp"}
    assert [job["name"] for job in jobs if job["state"] == "READY"] == ["MP GGA relax 1 NaCl"]
    assert "mongodb://" not in str(jobs)

    complete_with(in_process, identity, {"output": {"energy_per_atom": -3.4, "bandgap": 5.1}})
    found = calculations.calculation(in_process, identity)
    assert (found.status, found.result["band_gap"], found.result["is_metal"]) == ("completed", 5.1, False)


@pytest.mark.slow
def test_the_inputs_are_the_materials_project_s(licensed: Path) -> None:
    pytest.importorskip("atomate2")
    from atomate2.vasp.jobs.mp import MPGGAStaticMaker

    generator = MPGGAStaticMaker().input_set_generator
    inputs = generator.get_input_set(starter("NaCl-225").crystal.to_pymatgen(), potcar_spec=True)
    assert inputs["INCAR"]["ENCUT"] == 520
    assert "Na_pv" in str(inputs["POTCAR.spec"])
