"""Finished calculations of VASP and GPAW: what they say, what is refused, and formation energies of one method."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.stores.crystals import FCC, GAAS, NACL, SILICON
from tests.stores.vasprun import vasprun_xml
from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.stores.connection import Store
from wyloop.stores.ingest.files import find_items, ingest_files
from wyloop.stores.ingest.gpaw import method_of, read_gpaw_log, read_gpw
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.record import Reading
from wyloop.stores.ingest.references import formation_energy
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structure_json import read_json
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.vasp import read_vasp

SODIUM = Crystal(4.2 * FCC, ("Na",), np.zeros((1, 3)))
CHLORINE = Crystal(4.5 * FCC, ("Cl",), np.zeros((1, 3)))


def vasp(path: Path, text: str) -> SourceStructure | Refusal:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    (row,) = read_vasp(path, "x", "vasp")
    return row


def taken(row: SourceStructure | Refusal) -> SourceStructure:
    assert isinstance(row, SourceStructure), str(row)
    return row


def refused(row: SourceStructure | Refusal) -> Refusal:
    assert isinstance(row, Refusal)
    return row


def test_a_finished_vasp_run(tmp_path: Path) -> None:
    row = taken(vasp(tmp_path / "vasprun.xml", vasprun_xml(SILICON, -10.8)))
    assert (row.energy_per_atom, row.functional) == (-5.4, "vasp-pbe/520")
    assert (row.band_gap, row.band_gap_method) == (pytest.approx(0.6), "vasp-pbe/520")
    assert (row.formation_energy_per_atom, row.provenance) == (None, "VASP 6.3.2, vasp-pbe/520, PAW_PBE Si 05Jan2001")
    np.testing.assert_allclose(row.crystal.lattice, SILICON.lattice, atol=1e-6)
    assert taken(vasp(tmp_path / "vasprun.xml.gz", vasprun_xml(SILICON, -10.8))).energy_per_atom == -5.4


def test_functionals_of_vasp_are_told_apart(tmp_path: Path) -> None:
    for given, method in (
        ({"gga": "PS"}, "vasp-pbesol/520"),
        ({"gga": "--"}, "vasp-pbe/520"),
        ({"hubbard": 3.9}, "vasp-pbe+u/520"),
        ({"cutoff": 400.0}, "vasp-pbe/400"),
    ):
        assert taken(vasp(tmp_path / "vasprun.xml", vasprun_xml(SILICON, -10.8, **given))).functional == method  # type: ignore[arg-type]
    metal = taken(vasp(tmp_path / "vasprun.xml", vasprun_xml(SILICON, -10.8, gap=-0.5)))
    assert metal.band_gap == 0.0


def test_unfinished_and_broken_vasp_runs_are_refused(tmp_path: Path) -> None:
    whole = vasprun_xml(SILICON, -10.8)
    told = {
        vasprun_xml(SILICON, -10.8, n_electronic=60): "electrons not converged after 60 of NELM = 60 steps",
        vasprun_xml(SILICON, -10.8, n_ionic=20): "ions not converged after 20 of NSW = 20 steps",
        whole[: len(whole) // 2]: "not readable",
        whole.replace("<calculation>", "<nothing>").replace("</calculation>", "</nothing>"): "not readable",
        "": "not readable",
        "<modeling></modeling>": "not readable",
        vasprun_xml(SILICON, float("nan")): "nan",
    }
    for text, why in told.items():
        found = refused(vasp(tmp_path / "vasprun.xml", text))
        assert why in found.value
        assert found.expected == "a finished VASP calculation"
    (tmp_path / "vasprun.xml.gz").write_bytes(gzip.compress(whole.encode())[:-50])
    assert isinstance(next(iter(read_vasp(tmp_path / "vasprun.xml.gz", "x", "vasp"))), Refusal)


def test_vasp_folders_and_formation_energies_of_one_method(ingested: Store, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    vasp(runs / "NaCl/vasprun.xml", vasprun_xml(NACL, -6.8))
    (runs / "NaCl/POSCAR").write_text("start")
    (runs / "NaCl/other.cif").write_text("data_x")
    (runs / "NaCl/vasprun.relax1.xml").write_text("older")
    vasp(runs / "other/vasprun.relax2.xml.gz", vasprun_xml(NACL, -6.6, cutoff=400.0))
    report = ingest_files(ingested, [runs])
    assert (report.n_rows, report.n_added, report.n_refused) == (2, 2, 0)
    assert "not read (1 other files: 1 .cif beside a calculation)" in report.notes
    structures = ingested.database["structures"]

    def energies() -> dict[str, tuple[float | None, str | None]]:
        rows = structures.find({})
        return {row["source_id"]: (row.get("formation_energy_per_atom"), row.get("energy_method")) for row in rows}

    assert energies() == {"NaCl": (None, None), "other": (None, None)}
    vasp(runs / "Na/vasprun.xml", vasprun_xml(SODIUM, -1.3, gap=0.0))
    vasp(runs / "Cl/vasprun.xml", vasprun_xml(CHLORINE, -1.7, gap=0.0))
    report = ingest_files(ingested, [runs])
    assert (report.n_added, report.n_unchanged, report.n_updated) == (2, 2, 0)
    assert any("formation energies of 3 calculations" in note for note in report.notes)
    found = energies()
    assert found["NaCl"] == (pytest.approx(-3.4 + 1.5), "vasp-pbe/520")
    assert found["Na"] == (pytest.approx(0.0), "vasp-pbe/520")
    assert found["other"] == (None, None)  # at another cutoff: no reference of its own
    again = ingest_files(ingested, [runs])
    assert (again.n_added, again.n_unchanged, again.n_updated) == (0, 4, 0)
    assert not any("formation" in note for note in again.notes)
    structures.delete_one({"source_id": "Na"})
    (runs / "Na/vasprun.xml").unlink()
    ingest_files(ingested, [runs], kind="vasp")
    assert energies()["NaCl"] == (None, None)  # a reference gone takes what was counted from it along
    plan = structures.find({"functional": {"$eq": "x"}, "energy_per_atom": {"$type": "number"}}).explain()
    assert "IXSCAN" in json.dumps(plan["queryPlanner"]["winningPlan"])
    with pytest.raises(IngestError, match=r"no file 'vasprun\.xml' in"):
        ingest_files(ingested, [runs / "Na"], kind="vasp")


def test_formation_energies_need_every_reference() -> None:
    assert formation_energy(-3.0, ["Na", "Cl"], {"Na": -1.0, "Cl": -2.0}) == pytest.approx(-1.5)
    assert formation_energy(-3.0, ["Na", "Cl"], {"Na": -1.0}) is None


def test_methods_of_gpaw() -> None:
    assert method_of({}) == "gpaw-lda/fd"
    assert method_of({"xc": "PBE", "mode": "pw"}) == "gpaw-pbe/pw340"
    assert method_of({"xc": {"name": "PBE"}, "mode": {"name": "pw", "ecut": 500}}) == "gpaw-pbe/pw500"
    assert method_of({"xc": "PBE", "setups": {"Ni": ":d,6.0"}, "mode": "lcao"}) == "gpaw-pbe+u/lcao"


@pytest.fixture(scope="module")
def silicon_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real GPAW calculation of two seconds: its file and its log, as its user leaves them."""
    from gpaw import GPAW, PW

    folder = tmp_path_factory.mktemp("gpaw") / "silicon"
    folder.mkdir()
    atoms = SILICON.to_ase()
    atoms.calc = GPAW(
        mode=PW(200),
        xc="PBE",
        kpts=(2, 2, 2),
        txt=str(folder / "si.txt"),
        convergence={"energy": 1e-3, "density": 1e-3},
    )
    atoms.get_potential_energy()
    atoms.calc.write(str(folder / "si.gpw"))
    return folder


@pytest.mark.dft
def test_a_real_gpaw_run_by_its_file_and_by_its_log(silicon_run: Path, tmp_path: Path) -> None:
    (by_file,) = (taken(row) for row in read_gpw(silicon_run / "si.gpw", "si", "gpaw"))
    (by_log,) = (taken(row) for row in read_gpaw_log(silicon_run / "si.txt", "si", "gpaw"))
    assert by_file.energy_per_atom is not None
    assert by_log.energy_per_atom == pytest.approx(by_file.energy_per_atom, abs=1e-5)
    assert -5.5 < by_file.energy_per_atom < -5.2
    assert (by_file.functional, by_log.functional) == ("gpaw-pbe/pw200", "gpaw-pbe/pw200")
    assert by_log.band_gap == pytest.approx(by_file.band_gap, abs=1e-3)
    assert by_log.band_gap is not None
    assert by_log.band_gap > 0
    for row in (by_file, by_log):
        np.testing.assert_allclose(row.crystal.lattice, SILICON.lattice, atol=1e-5)
        np.testing.assert_allclose(row.crystal.frac_coords, SILICON.frac_coords, atol=1e-5)
    items = find_items([silicon_run]).items
    assert [(item.kind, item.path.name, item.identity) for item in items] == [("gpaw", "si.gpw", "silicon")]
    text = (silicon_run / "si.txt").read_text()
    (tmp_path / "run").mkdir()
    cut = tmp_path / "run" / "out.txt"
    cut.write_text(text[: text.index("Converged in")])
    (unfinished,) = (refused(row) for row in read_gpaw_log(cut, "x", "gpaw"))
    assert "ends before an energy" in unfinished.value
    cut.write_text(text + text[text.index("SCF iterations") : text.index("Converged in")])
    (unfinished,) = (refused(row) for row in read_gpaw_log(cut, "x", "gpaw"))
    assert "did not converge" in unfinished.value
    cut.write_text(text)
    assert [(item.kind, item.identity) for item in find_items([tmp_path]).items] == [("gpaw", "run")]
    content = (silicon_run / "si.gpw").read_bytes()
    for broken in (content[:1000], b"", b"no ulm file at all"):
        (tmp_path / "x.gpw").write_bytes(broken)
        (row,) = (refused(row) for row in read_gpw(tmp_path / "x.gpw", "x", "gpaw"))
        assert "not readable" in row.value


def test_a_log_of_an_older_gpaw(tmp_path: Path) -> None:
    log = """
  ___ ___ ___ _ _ _
 |   |   |_  | | | |
 | | | | | . | | | |
 |__ |  _|___|_____|  21.6.0
 |___|_|
units:  Angstrom and eV
Input parameters:
  kpts: [2 2 2]
  mode: {ecut: 300.0,
         name: pw}
  xc: PBE
Positions:
   0 Si     0.000000    0.000000    0.000000    ( 0.0000,  0.0000,  0.0000)
   1 Si     1.357500    1.357500    1.357500    ( 0.0000,  0.0000,  0.0000)

Unit cell:
           periodic     x           y           z      points  spacing
  1. axis:    yes    0.000000    2.715000    2.715000    12     0.2613
  2. axis:    yes    2.715000    0.000000    2.715000    12     0.2613
  3. axis:    yes    2.715000    2.715000    0.000000    12     0.2613

iter:   1  12:00:00  -10.7
Converged after 12 iterations.
Free energy:    -10.800000
Extrapolated:   -10.790000
Gap: 0.610 eV
"""
    (tmp_path / "x.txt").write_text(log)
    (row,) = (taken(row) for row in read_gpaw_log(tmp_path / "x.txt", "x", "gpaw"))
    assert (row.functional, row.energy_per_atom, row.band_gap) == ("gpaw-pbe/pw300", -5.395, 0.61)
    assert row.provenance == "GPAW 21.6.0, gpaw-pbe/pw300, x.txt"
    np.testing.assert_allclose(row.crystal.lattice, SILICON.lattice)
    for wrong in ("yes", "Positions:"):
        (tmp_path / "x.txt").write_text(log.replace(wrong, "no"))
        refused(next(iter(read_gpaw_log(tmp_path / "x.txt", "x", "gpaw"))))


def test_results_of_our_own_runner(tmp_path: Path) -> None:
    result = {
        "lattice": GAAS.lattice.tolist(), "species": list(GAAS.species), "frac_coords": GAAS.frac_coords.tolist(),
        "energy_per_atom": -4.1, "band_gap": 0.2, "n_kpoints": 8, "is_converged": True,
    }  # fmt: skip

    def read(**changes: object) -> SourceStructure | Refusal:
        (tmp_path / "result.json").write_text(json.dumps(result | changes))
        (row,) = read_json(tmp_path / "result.json", "r", Reading("runs"), Tally())
        return row

    row = taken(read())
    assert (row.functional, row.energy_per_atom, row.band_gap) == ("gpaw-pbe/fd", -4.1, 0.2)
    (tmp_path / "job.json").write_text(json.dumps({"settings": {"cutoff": 400.0}}))
    assert taken(read()).functional == "gpaw-pbe/pw400"
    assert "did not reach the force" in refused(read(is_converged=False)).value
    assert "its energy is nan" in refused(read(energy_per_atom=float("nan"))).value
    assert refused(read(species=["Ga"])).field == "structure"
