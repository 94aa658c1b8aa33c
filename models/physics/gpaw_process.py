"""Running GPAW: this Python environment's in this process, Debian's (`gpaw python`) as another one.

Both run gpaw_runner.py; what goes wrong comes back as a `CalculationFailedError` with its class and the log's tail.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.failures import REMEDIES, CalculationFailedError, Failure, Solver, classify_report

REMEDY = "install it with `pip install gpaw gpaw-data` (see models/physics/gpaw_siteconfig.py) or `apt install gpaw`"
LOG_TAIL = 2000  # characters
KILLED = (-9, 137)  # what the kernel does to a process that takes too much memory
GRACE = 30.0  # s, for another Python to start and end


@dataclass(frozen=True)
class GPAWInstallation:
    """Where GPAW is: in this Python environment, or a command that starts a Python which has it."""

    kind: Literal["environment", "external"]
    command: tuple[str, ...] = ()


def find_gpaw() -> GPAWInstallation:
    """Return the GPAW to use: this environment's, else one on the PATH.

    Raises:
        CalculationFailedError: There is none.
    """
    if find_spec("gpaw") is not None:
        return GPAWInstallation("environment")
    executable = shutil.which("gpaw")
    if executable is None:
        message = f"GPAW is neither in this Python environment nor on the PATH; {REMEDY}"
        raise CalculationFailedError(message, Failure.MACHINE)
    return GPAWInstallation("external", (executable, "python"))


def run_gpaw(
    crystal: Crystal,
    settings: Mapping[str, Any],
    *,
    task: Mapping[str, Any],
    time_limit: float,
    magnetic_moments: list[float] | None = None,
    solver: Solver | None = None,
    log: Path | None = None,
    gpaw: GPAWInstallation | None = None,
) -> dict[str, Any]:
    """Run one job of gpaw_runner.py and return its result.

    Args:
        crystal: The cell.
        settings: Those of `dft.DFTSettings`, plain.
        task: What to do: `task`, `relax`, `is_molecule` and whatever the task takes.
        time_limit: Wall time, s; the solver's comes before it.
        magnetic_moments: Initial ones, Bohr magnetons; None is a calculation without spin.
        solver: How to go about it.
        log: GPAW's text output; a temporary file by default.
        gpaw: Defaults to what `find_gpaw` finds.

    Raises:
        CalculationFailedError: GPAW is missing, fails, does not converge or takes too long.
    """
    gpaw, solver = gpaw or find_gpaw(), solver or Solver()
    with tempfile.TemporaryDirectory(prefix="wyloop-gpaw-") as folder:
        path = log or Path(folder) / "gpaw.txt"
        job = {
            "lattice": crystal.lattice.tolist(),
            "species": list(crystal.species),
            "frac_coords": crystal.frac_coords.tolist(),
            "settings": dict(settings),
            "relax": "none",
            "is_molecule": False,
            "magnetic_moments": magnetic_moments,
            "solver": asdict(solver),
            "log": str(path),
            "time_limit": solver.wall_time or time_limit,
            **task,
        }
        formula = "".join(f"{element}{n if n > 1 else ''}" for element, n in crystal.amounts.items())
        if gpaw.kind == "environment":
            return _run_here(job, formula, path)
        return _run_outside(job, gpaw.command, formula, Path(folder))


def _run_here(job: dict[str, Any], formula: str, log: Path) -> dict[str, Any]:
    # ASE's optimisers and GPAW take a second to import.
    from wyloop.models.physics import gpaw_runner

    try:
        with threadpool_limits(1):
            return gpaw_runner.run(job)
    except Exception as error:  # noqa: BLE001  # GPAW raises its own, numpy's and builtin errors; none may pass
        kind, text = type(error).__name__, _first_line(error)
        raise _failure(job, formula, kind, f"{kind}: {text}", _tail(log)) from error


def _run_outside(job: dict[str, Any], command: tuple[str, ...], formula: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("gpaw_runner.py"))
    job_path, result_path, log = folder / "job.json", folder / "result.json", Path(job["log"])
    job_path.write_text(json.dumps(job), encoding="utf-8")
    try:
        finished = subprocess.run(
            [*command, script, str(job_path), str(result_path)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=job["time_limit"] + GRACE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failure(job, formula, "TimeLimitError", "", _tail(log)) from error
    except OSError as error:
        raise CalculationFailedError(
            f"{command[0]} can't be run: {error.strerror}; {REMEDY}", Failure.MACHINE
        ) from error
    if not result_path.exists():
        tail = (finished.stderr.strip().splitlines() or ["no output"])[-1]
        failure = Failure.OUT_OF_MEMORY if finished.returncode in KILLED else Failure.MACHINE
        message = f"GPAW ({' '.join(command)}) ended with {finished.returncode} on {formula}: {tail}"
        raise CalculationFailedError(
            f"{message}; {REMEDIES[failure]}", failure, finished.stderr[-LOG_TAIL:] or _tail(log)
        )
    result: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in result:
        raise _failure(job, formula, result["kind"], result["error"], _tail(log))
    return result


def _failure(job: dict[str, Any], formula: str, kind: str, text: str, log_tail: str) -> CalculationFailedError:
    failure = classify_report(kind, text)
    if failure is Failure.WALL_TIME:
        message = f"GPAW on {formula} took longer than {job['time_limit']:.0f} s; raise the time limit"
    else:
        message = f"GPAW failed on {formula}: {text}"
    return CalculationFailedError(f"{message}; {REMEDIES[failure]}", failure, log_tail)


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if log.is_file() else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


__all__ = ["REMEDY", "CalculatorError", "GPAWInstallation", "find_gpaw", "run_gpaw"]
