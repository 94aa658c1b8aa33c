"""Workers behind a batch system: a FireWorks queue adapter submits `wyloop worker` as a batch job while jobs are ready.

A batch job looks up its work when it starts, so nothing is reserved that a cancelled batch job could lose.
"""

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wyloop.models.errors import ServiceError

if TYPE_CHECKING:
    from fireworks import LaunchPad
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

logger = logging.getLogger(__name__)

QueueKind = Literal["slurm", "pbs"]
SUBMIT = {"slurm": "sbatch", "pbs": "qsub"}
FILE_NAME = "queue.yaml"
SCRIPT = "batch-job.sh"
PATIENCE = 60.0  # s, for the batch system to answer
LOOK = 5.0  # s between two looks
DEFAULTS: dict[str, dict[str, Any]] = {
    "slurm": {"nodes": 1, "ntasks": 1, "cpus_per_task": 1, "walltime": "24:00:00", "job_name": "wyloop"},
    "pbs": {"nnodes": 1, "ppnode": 1, "walltime": "24:00:00", "job_name": "wyloop"},
}


def queue_adapter(kind: QueueKind, folder: Path, *, categories: Sequence[str] = ()) -> "CommonAdapter":
    """Return the adapter of a batch system, from the folder's `queue.yaml`; written there first if it is not.

    A person edits the file: queue, account, wall time, modules to load (see deploy/queue/). The command that a batch
    job runs is ours, since it must fit this installation.

    Raises:
        ServiceError: The batch system's command is not on the PATH, or the file can't be read.
    """
    import shutil

    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if shutil.which(SUBMIT[kind]) is None:
        raise ServiceError(
            f"no {SUBMIT[kind]} on the PATH; expected one for --queue {kind}; run this on the cluster's login node"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path, yaml = folder / FILE_NAME, YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            yaml.dump({"q_type": kind.upper(), **DEFAULTS[kind]}, file)
        logger.info("wrote %s; edit it for your queue and account", path)
    try:
        given = yaml.load(path.read_text(encoding="utf-8"))
        if str(given.pop("q_type", kind)).lower() != kind:
            raise ServiceError(f"{path} is not for {kind}; expected q_type: {kind.upper()}; name another --run-folder")
    except (YAMLError, AttributeError) as error:
        raise ServiceError(f"{path} can't be read: {str(error).splitlines()[0]}; correct or remove it") from error
    command = [sys.executable, "-m", "wyloop.platform.cli.main", "worker", "--once"]
    if categories:
        command += ["--categories", ",".join(categories)]
    return CommonAdapter(q_type=kind.upper(), rocket_launch=" ".join(command), **given)


def run_queue(
    lpad: "LaunchPad",
    adapter: "CommonAdapter",
    folder: Path,
    *,
    categories: Sequence[str] = (),
    max_in_queue: int = 10,
    once: bool = False,
    is_wanted: Callable[[], bool] = lambda: True,
) -> int:
    """Submit a batch job for every ready job, up to a number in the queue, until nothing is left or told to stop.

    Args:
        lpad: The LaunchPad.
        adapter: Of `queue_adapter`.
        folder: Where scripts and outputs of the batch jobs go.
        categories: Categories of jobs that the workers take; all if empty.
        max_in_queue: Batch jobs of this user that may be in the queue.
        once: Stop when every ready job has a batch job.
        is_wanted: Asked between looks.

    Returns:
        How many batch jobs were submitted.

    Raises:
        ServiceError: The batch system refused one.
    """
    query: dict[str, Any] = {"state": "READY"}
    if categories:
        query["spec._category"] = {"$in": list(categories)}
    n_submitted = 0
    while is_wanted():
        n_ready = lpad.fireworks.count_documents(query)
        n_queued = adapter.get_njobs_in_queue() or 0
        for _ in range(min(n_ready, max_in_queue) - n_queued):
            _submit(adapter, folder)
            n_submitted += 1
        if once:
            break
        time.sleep(LOOK)
    return n_submitted


def _submit(adapter: "CommonAdapter", folder: Path) -> None:
    """Write the script of a batch job in a folder of its own and hand it to the batch system."""
    # FireWorks' own launcher looks for the adapter's class in every module it knows, its tests among them
    own = Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-", dir=folder))
    script = own / SCRIPT
    script.write_text(adapter.get_script_str(str(own)), encoding="utf-8")
    # the batch system writes its output where it was called; FireWorks' own call leaves pipes open
    command = SUBMIT[adapter.q_type.lower()]
    done = subprocess.run([command, SCRIPT], cwd=own, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise ServiceError(f"{command} refused {script}: {said}; correct {folder / FILE_NAME}")
    logger.info("submitted %s: %s", script, done.stdout.strip())
