"""`wyloop db ingest` on files, folders and servers: one command for all, one line for each failure."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.platform.conftest import Command
from tests.stores.crystals import GAAS, NACL, SILICON
from tests.stores.optimade_server import Provider, resource, serving
from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store


def test_files_folders_and_servers(wyloop: Command, cli_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "crystals"
    folder.mkdir()
    (folder / "NaCl.cif").write_text(write_cif(NACL))
    (folder / "si.json").write_text(json.dumps({"structure": SILICON.to_pymatgen().as_dict(), "band_gap": 0.6}))
    (folder / "bad.cif").write_text("data_x\n")
    report = tmp_path / "refused.csv"
    answer = wyloop("db", "ingest", folder, "--report", report)
    assert (answer.status, answer.err) == (0, "")
    assert "3 rows: 2 added, 0 updated, 0 unchanged, 1 refused; 2 encoded" in answer.out
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert (row["identity"], row["field"]) == (str(folder / "bad.cif"), "cif")
    again = wyloop("db", "ingest", "--json", folder, folder / "NaCl.cif").json  # options may come first
    assert (again["n_unchanged"], again["n_added"], again["n_refused"]) == (2, 0, 1)
    assert wyloop("db", "ingest", "cif", folder, "--json").json["n_rows"] == 2
    assert wyloop("db", "ingest", "json", folder / "si.json", "--source", "mine").status == 0

    gaas = [resource(f"o{i}", Crystal(GAAS.lattice * (1 + i / 100), *_sites(GAAS)), _oqmd_delta_e=-0.4) for i in (1, 2)]
    with serving(Provider(gaas, {"_oqmd_delta_e": {}}, prefix="oqmd")) as url:
        answer = wyloop("db", "ingest", "optimade", url, "--filter", "nelements=2", "--page", "1", "--delay", "0")
        assert "2 rows: 2 added" in answer.out
    rows = wyloop("db", "query", "elements has Ga", "-c", "structures", "--json").json
    assert {row["energy_method"] for row in rows} == {"oqmd-pbe"}
    methods = cli_store.database["structures"].distinct("source")
    assert sorted(methods) == ["cif", "json", "mine", "optimade-oqmd"]


def _sites(crystal: Crystal) -> tuple[tuple[str, ...], np.ndarray]:
    return crystal.species, crystal.frac_coords


def test_every_failure_is_one_line(
    wyloop: Command, cli_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MP_API_KEY", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("")
    for arguments, told in (
        (("csvv", "x"), "csvv is no file or folder; expected files or folders, a kind such as csv"),
        ((tmp_path / "empty",), "no file of a known kind in"),
        (("csv", tmp_path / "x.csv"), "is empty"),
        (("csv", tmp_path / "empty"), "Is a directory"),
        (("vasp", tmp_path / "empty"), "no file 'vasprun.xml' in"),
        (("optimade", "nomad.org"), "is no address; expected https://host/path"),
        (("optimade", "http://h", "--provider", "nomad"), "expected auto or one of"),
        (("mp", "--elements", "Ga,As"), "no key of the Materials Project in the environment variable MP_API_KEY"),
        (("mp", "--api-key-from", "file", tmp_path / "key"), "can't read the key from"),
        (("mp", "--api-key-from", "vault", "x"), "expected env NAME or file PATH"),
        ((tmp_path / "x.csv", "--report", tmp_path / "none" / "x.csv"), "can't write"),
    ):
        answer = wyloop("db", "ingest", *arguments)
        assert answer.status in (1, 2)
        assert told in answer.error
    assert cli_store.database["structures"].count_documents({}) == 0
    assert wyloop("db", "ingest").status == 2
    assert "optimade" in wyloop("db", "ingest", "-h").out
