"""The documentation names commands, options, fields and files that exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from wyloop.models.targets import FIELDS, Target
from wyloop.platform.cli.main import app
from wyloop.platform.settings import LAYERS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
LINE = re.compile(r"^(?: {4}|\t)(?:sudo )?(wyloop [^\n]*(?:\\\n[^\n]*)*)$", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Return each page's command lines, without comments and continued lines joined."""
    found = []
    for page in PAGES:
        for text in LINE.findall(page.read_text().replace("\\\n", " ")):
            line = " ".join(text.split(" # ")[0].split("     ")[0].split())
            found.append((page.relative_to(ROOT).as_posix(), line))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_documentation_exist(page: str, line: str) -> None:
    words = [word for word in shlex.split(line.split("|")[0])[1:] if word not in ("...",)]
    command: Any = typer.main.get_command(app)
    is_group = True
    while words and is_group and not words[0].startswith("-"):
        subcommands = getattr(command, "commands", {})
        is_group = bool(subcommands)
        if not is_group:
            break
        if words[0].split("|")[0] not in subcommands and "files" in subcommands:  # what `db ingest` takes it for
            command = subcommands["files"]
            break
        name = words.pop(0)
        for one in name.split("|"):
            assert one in subcommands, f"{page}: {line}: no command {one!r}"
        command = subcommands[name.split("|")[0]]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if re.fullmatch(r"--?[a-z][a-z-]*", word):
            assert word in known, f"{page}: {line}: no option {word}"


def test_targets_of_the_documentation_can_be_read() -> None:
    texts = [text for page in PAGES for text in re.findall(r'--target "([^"]+)"', page.read_text())]
    assert len(texts) > 5
    for text in texts:
        assert Target.parse([text]).conditions


def test_the_page_of_filters_names_every_field() -> None:
    text = (ROOT / "docs" / "reference" / "filters.md").read_text()
    assert [field for field in FIELDS if f"`{field}`" not in text] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if page not in text] == []


def test_files_that_the_documentation_names_exist() -> None:
    for page in (page for page in PAGES if page.parent.name != "benchmarks"):  # records of what was measured
        for name in re.findall(r"`((?:deploy|tests|models|stores|flows|platform|docs)/[\w./-]+)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / name.split("*")[0]).exists(), f"{page.name}: {name}"


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    shutil.rmtree(ROOT / "build" / "docs_view", ignore_errors=True)  # as in a fresh checkout
    done = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--quiet", "--strict", "-d", tmp_path / "site"],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "site" / "reference" / "python" / "index.html").read_text()
    assert "run_campaign" in reference  # from a docstring
    assert "wyloop campaign pause" in (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()
    settings = (tmp_path / "site" / "reference" / "settings" / "index.html").read_text()
    assert "WYLOOP_FLOWS_LEASE_SECONDS" in settings
    assert "How long one owner may advance a campaign" in settings


def test_every_setting_is_described() -> None:
    missing = [
        f"{layer}.{name}"
        for layer, model in LAYERS.items()
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert missing == []
