"""Clients that people have: pymatgen's, and that of optimade-python-tools."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform.api.conftest import Served

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")


def test_pymatgens_client_finds_structures(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    from pymatgen.ext.optimade import OptimadeRester

    url = f"{served.url}/optimade/"
    rester = OptimadeRester(url, timeout=30)
    with caplog.at_level(logging.WARNING):
        found = rester.get_structures(elements=["As", "Ga"], nelements=2)[url]
    assert caplog.text == ""
    assert {structure.composition.reduced_formula for structure in found.values()} == {"GaAs"}
    zincblende = found["wyloop-starter:starter-GaAs-216"]
    assert zincblende.get_space_group_info()[1] == 216
    many = rester.get_structures_with_filter("nelements=2 AND nsites<=4")[url]  # more than one page
    assert len(many) > 40
    assert "wyloop" in rester.describe().lower()
    snls = rester.get_snls(elements=["As", "Ga"], nelements=2, additional_response_fields=["_wyloop_band_gap"])[url]
    gap = snls["wyloop-starter:starter-GaAs-216"].data["_optimade"]["_wyloop_band_gap"]
    assert 1.3 < gap < 1.6  # eV, experiment


def test_optimade_get_finds_structures(served: Served, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    url = f"{served.url}/optimade"
    text = 'elements HAS ALL "O","Cu" AND nelements=3'
    command = "from optimade.client.cli import get; get()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--filter", text, "--max-results-per-provider", "0", "--silent"]
        + ["--output-file", str(out), "--response-fields", "chemical_formula_reduced,_wyloop_band_gap", url],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["structures"][text][url]
    assert found["errors"] == []
    view = served.store.database["optimade_structures"]
    expected = {row["entry_id"] for row in view.find({"elements": {"$all": ["Cu", "O"]}, "nelements": 3})}
    assert {entry["id"] for entry in found["data"]} == expected
    assert len(expected) > 10
