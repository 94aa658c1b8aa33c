"""The wheel holds all that the code needs, and works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # one process builds the wheel

CHECKOUT = Path(__file__).parents[1]
FLOORS = ("models", "stores", "flows", "platform")
BUILD = ("pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """Files of the four floors that git tracks or would track."""
    listed = run(
        "git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard", *FLOORS, folder=CHECKOUT
    )
    found = sorted({name for name in listed.split("\0") if name and (CHECKOUT / name).is_file()})
    assert len(found) > 80
    return found


@pytest.fixture(scope="module")
def wheel(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that the build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    for name in (*sources, *BUILD):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", folder=copy)
    (built,) = (copy / "dist").glob("wyloop-*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """An environment whose `wyloop` comes from the wheel; all other packages are those of this one."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("environment") / "venv")
    run(sys.executable, "-m", "venv", "--without-pip", found.folder, folder=found.folder.parent)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", found.python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=found.folder)
    # A path file below a path file is not read: the editable wyloop of this environment stays out.
    (site,) = found.folder.glob("lib/python*/site-packages")
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return found


def test_nothing_is_missing_from_the_wheel(wheel: Path, sources: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == {f"wyloop/{name}" for name in sources}
        copy = wheel.parents[1]
        assert [name for name in sources if archive.read(f"wyloop/{name}") != (copy / name).read_bytes()] == []


def test_the_installed_command_runs_from_another_folder(installed: Installed, tmp_path: Path) -> None:
    told = run(installed.folder / "bin" / "wyloop", "--help", folder=tmp_path)
    assert "Usage: wyloop" in told
    assert "discover" in told


def test_the_installed_data_are_found(installed: Installed, tmp_path: Path) -> None:
    code = """
from pathlib import Path
from wyloop.models.mpvae import checkpoint
from wyloop.models.physics import references
from wyloop.models.screening import synthesizability
from wyloop.models.wyckoff import gene
from wyloop.stores.starter import read
for module in (checkpoint, references, synthesizability, gene, read):
    print(Path(module.__file__).resolve())
checkpoint.load_shipped()
assert len(references.reference_energies()) == 89
assert gene.canonical(gene.Gene.parse("216 As:a Ga:c"))
assert synthesizability.synthesizability([gene.Gene.parse("225 Na:a Cl:b")])[0].value is not None
assert len(read.starter_set()) >= 400
"""
    told = run(installed.python, "-c", code, folder=tmp_path).splitlines()
    assert len(told) == 5
    assert all(line.startswith(str(installed.folder.resolve())) for line in told)


def test_no_floor_is_a_regular_package() -> None:
    assert [str(path) for floor in FLOORS for path in (CHECKOUT / floor).rglob("__init__.py")] == []


def test_the_floor_named_platform_does_not_hide_the_standard_library() -> None:
    told = run(sys.executable, "-c", "import platform; print(platform.system(), platform.__file__)", folder=CHECKOUT)
    system, path = told.split(maxsplit=1)
    assert system == os.uname().sysname
    assert Path(path.strip()).parent == Path(sysconfig.get_path("stdlib"))
