"""Every example of the documentation is run: commands on a database of their own, programs, files of settings.

What can't be run is listed in `docs_examples.NOT_RUN` with the reason. Numbers are made smaller where a page asks for
more than a test should compute; the commands and their order are the page's own.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests
import yaml
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.flows import rounds
from tests.platform.conftest import Command
from tests.platform.docs_examples import NO_COMMANDS, NOT_RUN, PAGES, ROOT, Example, examples, is_meant, why_not_run
from wyloop.flows.generators.registered import GROUP as GENERATORS
from wyloop.flows.policy import Policy
from wyloop.models.physics.calculators import ENTRY_POINT_GROUP as CALCULATORS
from wyloop.models.targets import Target
from wyloop.models.wyckoff.cif import write_cif
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.realize import realize
from wyloop.platform import services
from wyloop.platform.api.app import create_app
from wyloop.platform.api.server import serving
from wyloop.platform.settings import AllSettings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

SMALLER = {
    "wyloop generate": ["-n", "12"],
    "wyloop model figures": ["-n", "10"],
    "wyloop campaign simulate": ["--known", "20", "--requests", "6", "--batch", "3", "--seeds", "1", "--no-controls"],
    "wyloop discover": ["-n", "40", "--n-relax", "1", "--no-starter", "--data", "mydata.csv.gz", "--keep"],
}
"""Beginning of a command to the options that make it small; a later option goes before an earlier one."""
WITH_SERVICES = ("docs/start.md", "docs/notebooks.md", "docs/reference/http.md")
PROGRAM = Path(sys.executable).with_name("wyloop")
N_ROWS = 40
ALL = examples()
FILES = [one for one in ALL if one.kind in ("toml", "yaml", "target")]
SHELL: dict[str, list[str]] = {}
"""Page to the commands on it that are run."""
for _one in (one for one in ALL if one.kind == "shell" and one.page not in WITH_SERVICES):
    for _line in _one.lines():
        if not why_not_run(_one.page, _line):
            SHELL.setdefault(_one.page, []).append(_line)


@pytest.fixture
def place(tmp_path: Path, shared_data: Path) -> Path:
    """The current folder, with the files that the pages name."""
    import gzip

    with gzip.open(shared_data / "mp20_biternary_test.csv.gz", "rt") as file:
        text = "".join(_rows(file))
    for name in ("mydata.csv.gz", "FILE.csv.gz", "mp20_biternary_train.csv.gz"):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write(text)
    (tmp_path / "folder").mkdir()
    for text in ("225 Cl:b Na:a", "225 Mg:a O:b"):
        gene = canonical(Gene.parse(text))
        (tmp_path / "folder" / f"{gene.formula_pretty}.cif").write_text(
            write_cif(realize(gene, 20.0, seed=0, n_starts=1)[0])
        )
    definition = next(one.text for one in ALL if one.page == "docs/campaigns.md" and one.kind == "yaml")
    for name in ("campaign.yaml", "FILE.yaml"):
        (tmp_path / name).write_text(definition)
    return tmp_path


def _rows(file: Any) -> Iterator[str]:  # noqa: ANN401 - an open file
    """Yield the head of a CSV file whose cells hold line breaks, and its first rows."""
    n_quotes = n_rows = 0
    for line in file:
        yield line
        n_quotes += line.count('"')
        n_rows += n_quotes % 2 == 0
        if n_rows > N_ROWS:
            return


@pytest.fixture
def optimade(mongod: MongoServer) -> Iterator[str]:
    """Somebody's OPTIMADE server."""
    settings = Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}")
    store = connect(settings)
    rounds.fill(store, step=5)
    build_optimade(store, n_processes=1)
    with serving(create_app(settings)) as url:
        yield f"{url}/optimade"
    store.client.drop_database(store.name)
    store.close()


def test_every_block_is_of_a_known_kind() -> None:
    assert {one.kind for one in ALL} == {"shell", "python", "toml", "yaml", "target", "picture"}
    for one in ALL:
        first = one.text.split()[0]
        assert one.kind != "shell" or re.match(r"[a-z.]|[A-Z_]+=", first), f"{one.page}: {one.text[:60]}"
    texts = "".join(page.read_text() for page in PAGES)
    assert all(start in texts for start in NO_COMMANDS)
    lines = [(one.page, line) for one in ALL if one.kind == "shell" for line in one.lines()]
    assert [pattern for pattern in NOT_RUN if not any(is_meant(pattern, *line) for line in lines)] == []


@pytest.mark.expects_findings("orphan_file")
@pytest.mark.parametrize("page", SHELL)
def test_commands_run(
    page: str, wyloop: Command, cli_store: Store, place: Path, optimade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds.fill(cli_store, step=11)
    _, record = rounds.open_round(cli_store)
    rounds.propose(cli_store, record, rounds.NACL, "passed")
    build_materials(cli_store, n_processes=1)
    build_hulls(cli_store)
    before = set(cli_store.client.list_database_names())
    try:
        for line in SHELL[page]:
            _run(line, wyloop, cli_store, optimade, monkeypatch)
    finally:
        for name in set(cli_store.client.list_database_names()) - before:
            if name.startswith(cli_store.name[:20]):
                cli_store.client.drop_database(name)


def _run(line: str, wyloop: Command, store: Store, optimade: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of a page in this process; it must end well."""
    names = {
        "URL": optimade, "PATH...": "folder", "folder/": "folder", "NAME": f"{store.name[:20]}_copy", "FILE": "folder",
        "CAMPAIGN": _id(store, "campaigns"), "ID": _id(store, "campaigns" if "campaign" in line else "candidates"),
    }  # fmt: skip
    if "import" in line:
        names |= {"FILE": "mydata.csv.gz", "NAME": "mattergen"}
        if "CAMPAIGN" not in line:
            line += f" --campaign {_id(store, 'campaigns')}"
    words = [names.get(word, word) for word in shlex.split(line)]
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    assert words[0] == "wyloop", line
    words += next((more for start, more in SMALLER.items() if line.startswith(start)), [])
    answer = wyloop(*words[1:])
    assert answer.status == 0, f"{line}\n{answer.err}"


def _id(store: Store, collection: str) -> str:
    """Return the id of the youngest document, made by a command of the same page; "" where there is none."""
    key = f"{collection.removesuffix('s')}_id"
    found = store.database[collection].find_one({}, {key: 1}, sort=[("_id", -1)])
    return "" if found is None else str(found[key])


@pytest.mark.parametrize(
    "example", [one for one in ALL if one.kind in ("toml", "yaml", "target")], ids=lambda one: one.page
)
def test_settings_can_be_read(example: Example) -> None:
    if example.kind == "toml":
        (group,) = tomllib.loads(example.text)["project"]["entry-points"]
        assert group in (CALCULATORS, GENERATORS)
    elif example.kind == "target":
        assert len(Target.parse([example.text]).conditions) == 3
    elif "target" not in (found := yaml.safe_load(example.text)):  # a part of a policy; a whole file is created from
        assert Policy.model_validate(found).generators == found["generators"]


def test_programs_run() -> None:
    for example in (one for one in ALL if one.kind == "python" and one.page not in WITH_SERVICES):
        exec(compile(example.text, example.page, "exec"), {})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_five_minute_start(settings: AllSettings, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What start.md says, each command a process as people run it, and on its services what else needs some."""
    monkeypatch.setenv("WYLOOP_PLATFORM_N_WORKERS", "1")
    lines = [line for one in ALL if one.page == "docs/start.md" for line in one.lines()]
    for line in (line for line in lines if line.startswith("wyloop")):
        if line == "wyloop down":
            pids = {row.name: row.pid for row in services.status(settings)}
            _on_running_services(psutil.Process(pids["flows"]).environ()["WYLOOP_FLOWS_DASHBOARD_URL"])
        more = next((more for start, more in SMALLER.items() if line.startswith(start)), [])
        told = _process(PROGRAM, *shlex.split(line)[1:], *more)
        if line.startswith("wyloop discover"):
            assert "on target, all calculated" in told
    assert {row.state for row in services.status(settings)} == {"stopped"}


def _process(*words: str | Path) -> str:
    """Run a program to its end, which must be a good one; return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout


def _on_running_services(url: str) -> None:
    """Ask the web server what http.md asks, and run the program of notebooks.md, its campaign smaller.

    Args:
        url: Where the flow server says that the dashboard is.
    """
    told = json.loads(_process(PROGRAM, "up", "--json"))
    assert url == told["web"]
    (campaign,) = requests.get(f"{url}/api/campaigns", timeout=60).json()
    page = requests.get(f"{url}/campaigns/{campaign['campaign_id']}", timeout=60).text
    assert f"{told['prefect']}/runs?flow-run-search={campaign['campaign_id']}" in page
    (asked,) = [one.lines() for one in ALL if one.page == "docs/reference/http.md" and one.kind == "shell"]
    address = shlex.split(asked[0])[1].replace("http://127.0.0.1:8000", url)
    assert len(requests.get(address, timeout=60).json()["rows"]) > 0
    (program,) = [one.text for one in ALL if one.page == "docs/notebooks.md" and one.kind == "python"]
    smaller = program.replace(
        "n_candidates=200, n_relaxations=4", "n_candidates=30, n_relaxations=1, retraining={'every_rounds': 0}"
    )
    assert smaller != program
    _process(sys.executable, "-c", smaller)


def cells(path: Path) -> list[ast.Module]:
    """Return the code of a notebook's cells."""
    parts = re.split(r"^# %%(?: \[markdown\])?.*$", path.read_text(), flags=re.M)
    return [tree for part in parts if (tree := ast.parse(part)).body]


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebooks_run_and_show_what_they_show(notebook: Path, cli_store: Store) -> None:
    names: dict[str, Any] = {}
    shown = []
    for cell in cells(notebook):
        last = cell.body.pop() if isinstance(cell.body[-1], ast.Expr) else None
        exec(compile(cell, notebook.name, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), notebook.name, "eval"), names)
            shown += [] if value is None else [value._repr_html_()]
    assert len(shown) >= 4
    assert all(html.lstrip().startswith("<") for html in shown)
