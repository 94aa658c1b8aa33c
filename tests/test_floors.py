"""Imports run downwards only: platform, flows, stores, models; heavy foreign packages stay on their floor."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
FLOORS = ("models", "stores", "flows", "platform")
FORBIDDEN = {
    "models": {"pymongo", "mongoengine", "maggma", "bson", "gridfs", "prefect", "fireworks", "typer"},
    "stores": {"prefect", "fireworks", "typer"},
    "flows": {"typer"},
    "platform": {"prefect", "fireworks"},  # it starts their servers as processes
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four floors in a folder of their own, seen as `wyloop`."""
    for floor in FLOORS:
        shutil.copytree(CHECKOUT / floor, tmp_path / floor, ignore=lambda _, names: [n for n in names if ignored(n)])
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "wyloop").symlink_to("..")
    return tmp_path


def ignored(name: str) -> bool:
    return "." in name and not name.endswith(".py")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the copy alone: -S keeps path files out, and with them the editable wyloop."""
    paths = dict.fromkeys((str(folder / "view"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-S", "-c", command, "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def foreign_imports(text: str) -> set[str]:
    """First names of what a module imports anywhere, inside functions and for type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_imports_run_downwards_and_one_that_does_not_is_found(copy: Path) -> None:
    good = lint_imports(copy)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 kept, 0 broken" in good.stdout
    below = copy / "models" / "wyckoff" / "gene.py"
    below.write_text(below.read_text() + "\ndef late() -> None:\n    from wyloop.stores import queries  # noqa: F401\n")
    beside = copy / "stores" / "queries.py"
    hidden = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wyloop.platform import services\n"
    beside.write_text(beside.read_text() + hidden)
    bad = lint_imports(copy)
    assert bad.returncode == 1
    assert "0 kept, 1 broken" in bad.stdout
    assert "wyloop.models.wyckoff.gene -> wyloop.stores.queries" in bad.stdout
    assert "wyloop.stores.queries -> wyloop.platform.services" in bad.stdout


@pytest.mark.parametrize("floor", FLOORS)
def test_foreign_packages_stay_on_their_floor(floor: str) -> None:
    modules = sorted((CHECKOUT / floor).rglob("*.py"))
    assert len(modules) > 10
    found = {
        str(path.relative_to(CHECKOUT)): sorted(foreign_imports(path.read_text()) & FORBIDDEN[floor])
        for path in modules
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_an_import_of_a_foreign_package_is_seen_wherever_it_stands() -> None:
    text = "import os\ndef f():\n    from prefect.client import get\n    import pymongo.errors as e, numpy\n"
    assert foreign_imports(text) == {"os", "prefect", "pymongo", "numpy"}
    assert foreign_imports("from . import prefect\nfrom wyloop.flows import x\n") == {"wyloop"}
