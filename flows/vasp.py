"""VASP through atomate2's Materials-Project-compatible makers, turned into FireWorks by jobflow.

Nothing is submitted that could not run: package, binary and POTCARs are looked for first. Results go to jobflow's own
job store on the worker (JOBFLOW_CONFIG_FILE), so that no address or password enters a spec.
"""

import os
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wyloop.models.crystal import Crystal
from wyloop.models.physics.failures import CalculationFailedError, Failure
from wyloop.models.physics.protocols import protocol

if TYPE_CHECKING:
    from fireworks import Workflow

POTCAR_FOLDERS = ("POT_GGA_PAW_PBE", "POT_PAW_PBE", "POT_PAW_PBE_54", "POT_PAW_PBE_64", "potpaw_PBE")
COMMAND = "ATOMATE2_VASP_CMD"
CATEGORY = "vasp"


def check_vasp(elements: Iterable[str]) -> None:
    """Check that VASP jobs could run here: atomate2, the binary, POTCARs of the elements.

    Raises:
        CalculationFailedError: Something is missing; the message says what, and how to get it.
    """
    if find_spec("atomate2") is None:
        raise CalculationFailedError(
            "atomate2 is not in this Python environment; install it with `pip install wyloop[vasp]`", Failure.MACHINE
        )
    folder = _potcar_folder()
    if folder is None:
        raise CalculationFailedError(
            "no POTCARs: PMG_VASP_PSP_DIR names no folder; expected your licensed ones, arranged by "
            "`pmg config -p POTPAW_FOLDER TARGET`; then `pmg config --add PMG_VASP_PSP_DIR TARGET`",
            Failure.MACHINE,
        )
    missing = sorted(element for element in set(elements) if not _has_potcar(folder, element))
    if missing:
        raise CalculationFailedError(
            f"no POTCAR of {', '.join(missing)} under {folder}; expected PBE ones such as "
            f"{POTCAR_FOLDERS[0]}/POTCAR.{missing[0]}.gz",
            Failure.BAD_INPUT,
        )
    words = [word for word in os.environ.get(COMMAND, "vasp_std").split() if "vasp" in word]
    if not words or shutil.which(words[0]) is None:
        raise CalculationFailedError(
            f"no VASP: {words[0] if words else 'vasp_std'} is not on the PATH; set {COMMAND}, for example "
            "'srun vasp_std', where it is installed",
            Failure.MACHINE,
        )


def _potcar_folder() -> Path | None:
    given = os.environ.get("PMG_VASP_PSP_DIR")
    if given is None:
        from pymatgen.core import SETTINGS  # half a second; reads ~/.config/.pmgrc.yaml

        given = SETTINGS.get("PMG_VASP_PSP_DIR")
    return Path(given) if given and Path(given).is_dir() else None


def _has_potcar(folder: Path, element: str) -> bool:
    patterns = (f"POTCAR.{element}", f"POTCAR.{element}.*", f"POTCAR.{element}_*", element, f"{element}_*")
    return any(next((folder / name).glob(text), None) is not None for name in POTCAR_FOLDERS for text in patterns)


def vasp_workflow(
    crystal: Crystal, protocol_identifier: str, *, calculation_id: str, priority: int = 0, formula: str = ""
) -> "Workflow":
    """Return the FireWorks workflow of a protocol: atomate2's jobs, then one that stores what they found.

    Args:
        crystal: A relaxed crystal.
        protocol_identifier: Such as `mp-vasp/1`, whose settings name the maker.
        calculation_id: The calculation that the last job completes.
        priority: Of the jobs.
        formula: For their names.
    """
    import atomate2.vasp.flows.mp as makers
    from fireworks import Firework
    from fireworks import Workflow as FireWorkflow
    from jobflow.managers.fireworks import flow_to_workflow

    from wyloop.flows.jobs.vasp import VaspResultJob

    maker = getattr(makers, str(protocol(protocol_identifier).settings["maker"]))()
    flow = maker.make(crystal.to_pymatgen())
    workflow: Any = flow_to_workflow(flow)
    for firework in workflow.fws:
        firework.spec |= {"_category": CATEGORY, "_priority": priority}
        firework.name = f"{firework.name} {formula}".strip()
    static = list(flow.iterflow())[-1][0]
    leaves = [firework for firework in workflow.fws if not workflow.links.get(firework.fw_id)]
    task = VaspResultJob(calculation_id=calculation_id, job_uuid=static.uuid)
    spec = {"_category": CATEGORY, "_priority": priority}
    last = Firework([task], spec=spec, name=f"vasp result {formula}".strip(), parents=leaves)
    links = {fw_id: list(children) for fw_id, children in workflow.links.items()}
    for leaf in leaves:
        links[leaf.fw_id] = [last.fw_id]
    return FireWorkflow([*workflow.fws, last], links_dict=links, name=f"{formula} {protocol_identifier}".strip())
