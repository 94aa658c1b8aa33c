import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.flows.rounds import NACL, wait_for
from wyloop.flows.by_name import add_candidate
from wyloop.flows.launchpad import states
from wyloop.flows.queue import FILE_NAME, queue_adapter, run_queue
from wyloop.models.errors import ServiceError
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

SBATCH = """#!/bin/sh
# A batch system of one machine: the script runs at once, and is in the queue while it does.
cp "$1" "{folder}/script"
echo running > "{folder}/queue-$$"
(/bin/bash "$1" > "{folder}/output-$$" 2>&1; rm "{folder}/queue-$$") > /dev/null 2>&1 &
echo "Submitted batch job $$"
"""
SQUEUE = '#!/bin/sh\nfor file in "{folder}"/queue-*; do [ -e "$file" ] && echo "\\"$4\\""; done\nexit 0\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_environment: dict[str, str]) -> Path:
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name, value in own_environment.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.mark.slow
def test_batch_jobs_run_the_real_rocket(in_process: Store, lpad: "LaunchPad", slurm: Path, tmp_path: Path) -> None:
    added = add_candidate(in_process, lpad, NACL, "mlip-screen/1")
    folder = tmp_path / "runs"
    adapter = queue_adapter("slurm", folder, categories=["mlip", "light"])
    assert "walltime: 24:00:00" in (folder / FILE_NAME).read_text()
    assert run_queue(lpad, adapter, folder, categories=["mlip", "light"], once=True) == 1
    assert "--cpus-per-task=1" in (slurm / "script").read_text()
    identity = added.calculation_ids["relaxation"]
    wait_for(lambda: not list(slurm.glob("queue-*")))
    output = next(slurm.glob("output-*")).read_text()
    assert states(lpad, [identity]) == {identity: "COMPLETED"}, output
    assert "ran 2 jobs" in output
    assert run_queue(lpad, adapter, folder, categories=["mlip"], once=True) == 0  # nothing is ready any more


def test_a_person_s_settings_are_kept(slurm: Path, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("q_type: SLURM\naccount: crystals\nwalltime: '1:00:00'\n")
    script = queue_adapter("slurm", tmp_path).get_script_str(str(tmp_path))
    assert "#SBATCH --account=crystals" in script
    assert "#SBATCH --time=1:00:00" in script
    assert "wyloop.platform.cli.main worker --once" in script
    (tmp_path / FILE_NAME).write_text("q_type: PBS\n")
    with pytest.raises(ServiceError, match="is not for slurm; expected q_type: SLURM"):
        queue_adapter("slurm", tmp_path)


def test_the_shipped_examples_are_adapters(slurm: Path, tmp_path: Path) -> None:
    (slurm / "qsub").write_text("#!/bin/sh\n")
    (slurm / "qsub").chmod(0o755)
    for kind, line in (("slurm", "#SBATCH --ntasks=1"), ("pbs", "#PBS -l nodes=1:ppn=1")):
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        example = Path(__file__).parents[2] / "deploy" / "queue" / f"{kind}.yaml"
        (folder / FILE_NAME).write_text(example.read_text())
        script = queue_adapter(kind, folder).get_script_str(str(folder))  # type: ignore[arg-type]  # the two literals
        assert line in script
        assert "export OMP_NUM_THREADS=1" in script


def test_a_refusal_is_said(in_process: Store, lpad: "LaunchPad", slurm: Path, tmp_path: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")
    add_candidate(in_process, lpad, NACL, "mlip-screen/1")
    with pytest.raises(ServiceError, match="sbatch refused .*: sbatch: error: invalid account; correct"):
        run_queue(lpad, queue_adapter("slurm", tmp_path), tmp_path, once=True)


def test_without_a_batch_system_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="no sbatch on the PATH; expected one for --queue slurm"):
        queue_adapter("slurm", tmp_path)
