"""Folders of CIF, POSCAR, extended XYZ, JSON and ASE databases: recognised, read, refused file by file."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core.structure import Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.vasp.inputs import Poscar

from tests.stores.crystals import GAAS, NACL, SILICON
from wyloop.models.crystal import MAX_SITES, Crystal
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store
from wyloop.stores.ingest.atoms import read_ase_sqlite, read_extxyz
from wyloop.stores.ingest.files import find_items, ingest_files, kind_of, sniffed_kind
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.poscar import read_poscar
from wyloop.stores.ingest.record import Reading
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structure_json import read_json
from wyloop.stores.ingest.structures import SourceStructure

READING = Reading("test", "mp-pbe", "pbe")


def poscar(crystal: Crystal) -> str:
    return str(Poscar(crystal.to_pymatgen()).get_str())


def parted(rows: Any) -> tuple[list[SourceStructure], list[Refusal]]:  # noqa: ANN401 - an iterator of either
    found = list(rows)
    return [one for one in found if isinstance(one, SourceStructure)], [
        one for one in found if isinstance(one, Refusal)
    ]


def from_json(path: Path, content: object) -> tuple[list[SourceStructure], list[Refusal], Tally]:
    path.write_text(json.dumps(content))
    tally = Tally()
    return *parted(read_json(path, "file", READING, tally)), tally


def same(first: Crystal, second: Crystal) -> bool:
    return first.species == second.species and bool(
        np.allclose(first.lattice, second.lattice, atol=1e-6)
        and np.allclose((first.frac_coords - second.frac_coords + 0.5) % 1.0, 0.5, atol=1e-6)
    )


def test_a_folder_of_everything_in_one_call(ingested: Store, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    for name in ("a/one", "a/two", ".hidden"):
        (root / name).mkdir(parents=True)
    (root / "NaCl.cif").write_text(write_cif(NACL))
    (root / "GaAs.cif.gz").write_bytes(gzip.compress(write_cif(GAAS).encode()))
    (root / "a/one/POSCAR").write_text(poscar(NACL))
    (root / "a/two/POSCAR").write_text(poscar(NACL))
    (root / "a/two/CONTCAR").write_text(poscar(SILICON))
    (root / "a/GaAs.vasp").write_text(poscar(GAAS))
    (root / "si.json").write_text(json.dumps(SILICON.to_pymatgen().as_dict()))
    ase.io.write(root / "frames.extxyz", [NACL.to_ase(), GAAS.to_ase()], format="extxyz")
    (root / "set.csv").write_text(f'material_id,cif\nx,"{write_cif(NACL)}"\n')
    (root / "wrong.csv").write_text("name,energy\nx,1\n")
    (root / "notes.txt").write_text("nothing")
    (root / ".hidden/x.cif").write_text(write_cif(NACL))
    report = ingest_files(ingested, [root])
    assert (report.n_rows, report.n_added, report.n_refused) == (10, 9, 1)
    identities = {row["structure_id"] for row in ingested.database["structures"].find({}, {"structure_id": 1})}
    assert identities == {
        "cif:NaCl", "cif:GaAs", "poscar:a/one", "poscar:a/two", "poscar:GaAs", "json:si", "extxyz:frames-1",
        "extxyz:frames-2", "set:x",
    }  # fmt: skip
    found = ingested.database["structures"].find_one({"structure_id": "poscar:a/two"})
    assert found is not None
    assert found["formula_pretty"] == "Si"  # the CONTCAR
    assert "wrong.csv has the columns name, energy" in report.refused[0].value
    assert "not read (2 other files: 1 .txt, 1 POSCAR)" in report.notes
    again = ingest_files(ingested, [root])
    assert (again.n_added, again.n_updated, again.n_unchanged) == (0, 0, 9)
    (root / "NaCl.cif").write_text(write_cif(SILICON))
    changed = ingest_files(ingested, [root])
    assert (changed.n_added, changed.n_updated, changed.n_unchanged) == (0, 1, 8)
    other = ingest_files(ingested, [root / "NaCl.cif"], source="other")  # one crystal of two sources: two records
    assert other.n_added == 1


def test_kinds_are_told_by_name_or_by_the_first_lines(tmp_path: Path) -> None:
    names = {
        "x.CIF": "cif", "POSCAR": "poscar", "CONTCAR.gz": "poscar", "POSCAR_mp-1": "poscar", "x.poscar": "poscar",
        "x.xyz": "extxyz", "x.json.gz": "json", "x.db": "ase", "vasprun.xml": "vasp", "vasprun.relax2.xml.gz": "vasp",
        "x.gpw": "gpaw", "x.csv.xz": "csv", "x.pdf": None, "POSCARS": None,
    }  # fmt: skip
    assert {name: kind_of(Path(name)) for name in names} == names
    for text, kind in {write_cif(NACL): "cif", "[1]": "json", "2\nLattice=": "extxyz", "hello": None}.items():
        (tmp_path / "x").write_text(text)
        assert sniffed_kind(tmp_path / "x") == kind
    (tmp_path / "y").write_text(write_cif(NACL))
    assert [item.kind for item in find_items([tmp_path / "y"]).items] == ["cif"]
    with pytest.raises(IngestError, match="is of no kind that its name or first lines tell"):
        find_items([tmp_path / "x"])
    with pytest.raises(IngestError, match="is no file or folder; expected files or folders, a kind such as csv"):
        find_items([tmp_path / "csvv"])
    assert [item.kind for item in find_items([tmp_path / "x"], "cif").items] == ["cif"]


def test_folders_that_can_not_be_read_are_told(tmp_path: Path) -> None:
    from tests.stores.test_ingest_csv import as_nobody

    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "x.cif").write_text(write_cif(NACL))
    (tmp_path / "y.cif").write_text(write_cif(NACL))
    for folder in (tmp_path, *tmp_path.parents):
        if os.access(folder, os.W_OK) and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    closed.chmod(0)
    with as_nobody():
        found = find_items([tmp_path])
    closed.chmod(0o755)
    assert [item.identity for item in found.items] == ["y"]
    assert [(one.identity, one.value) for one in found.refused] == [(str(closed), "Permission denied")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a POSCAR"),
        ("x\n1.0\n", "not a POSCAR"),
        ("x\n1\n5 0 0\n0 5 0\n0 0 5\n1\ndirect\n0 0 0\n", "without element symbols"),
        ("Na\n1\n5 0 0\n0 5 0\n0 0 5\nQq\n1\ndirect\n0 0 0\n", ""),
        ("Na\n1\n5 0 0\n0 5 0\n0 0 5\nNa\n2\ndirect\n0 0 0\n0 0 0.01\n", "apart"),
        ("Na\n1\n5 0 0\n0 5 0\n0 0 5\nNa\n2\ndirect\n0 0 0\n", "not a POSCAR"),
        ("Na\n1\n5 0 0\n5 0 0\n0 0 5\nNa\n1\ndirect\n0 0 0\n", "flat"),
        ("Na\n1\nnan 0 0\n0 5 0\n0 0 5\nNa\n1\ndirect\n0 0 0\n", ""),
    ],
)
def test_faulty_poscars_are_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "POSCAR").write_text(text)
    taken, refused = parted(read_poscar(tmp_path / "POSCAR", "x", "poscar"))
    assert (len(taken), len(refused)) == (0, 1)
    assert told in refused[0].value


def test_poscars_and_what_they_may_hold(tmp_path: Path) -> None:
    text = "GaAs by hand\n5.65\n0 .5 .5\n.5 0 .5\n.5 .5 0\nGa As\n1 1\nSelective dynamics\nDirect\n"
    text += "0 0 0 T T F\n.25 .25 .25 F F F\n\n0 0 0\n0 0 0\n"  # with velocities
    (tmp_path / "POSCAR").write_bytes(text.replace("\n", "\r\n").encode())
    (row,), refused = parted(read_poscar(tmp_path / "POSCAR", "x", "poscar"))
    assert refused == []
    assert same(row.crystal, GAAS)


def test_extended_xyz_with_labels_and_faults(tmp_path: Path) -> None:
    labelled = GAAS.to_ase()
    labelled.info |= {"material_id": "mp-2534", "formation_energy_per_atom": -0.43, "band_gap": 0.19, "note": "x y"}
    labelled.calc = SinglePointCalculator(labelled, energy=-8.0)
    free = NACL.to_ase()
    free.info |= {"functional": "pbe-test"}
    free.calc = SinglePointCalculator(free, energy=-6.0)
    wrong = NACL.to_ase()
    wrong.info["band_gap"] = "wide"
    slab = NACL.to_ase()
    slab.pbc = (True, True, False)
    ase.io.write(tmp_path / "x.extxyz", [labelled, free, wrong, slab], format="extxyz")
    with (tmp_path / "x.extxyz").open("a") as file:
        file.write('1\nno cell\nNa 0 0 0\n\n1\nLattice="1 2" x\nNa 0 0 0\n2\nLattice="5 0 0 0 5 0 0 0 5"\nNa 0 0 0\n')
    tally = Tally()
    taken, refused = parted(read_extxyz(tmp_path / "x.extxyz", "x", READING, tally))
    assert [row.source_id for row in taken] == ["mp-2534", "x-2"]
    assert same(taken[0].crystal, GAAS)
    assert (taken[0].formation_energy_per_atom, taken[0].band_gap, taken[0].energy_per_atom) == (-0.43, 0.19, None)
    assert (taken[1].energy_per_atom, taken[1].functional) == (-3.0, "pbe-test")
    assert set(tally.ignored) == {"note", "energy (its functional is not stated)"}
    assert [(one.identity, one.field) for one in refused[:4]] == [
        ("x-3", "band_gap"), ("x-4", "structure"), ("x-5", "frame"), ("x-6", "frame"),
    ]  # fmt: skip
    assert "not periodic" in refused[1].value
    assert "ends after 1 of 2 atoms" in refused[4].value
    (tmp_path / "y.xyz").write_text(f"{MAX_SITES + 1}\nLattice\n")
    _, (huge,) = parted(read_extxyz(tmp_path / "y.xyz", "y", READING, tally))
    assert f"expected 1 to {MAX_SITES}" in f"{huge.value}; expected {huge.expected}"


def test_json_of_pymatgen(tmp_path: Path) -> None:
    structure = GAAS.to_pymatgen()
    taken, refused, _ = from_json(tmp_path / "a.json", structure.as_dict())
    assert same(taken[0].crystal, GAAS)
    data = {"band_gap": 0.2, "formation_energy_per_atom": -0.4, "material_id": "mp-2534", "colour": "grey"}
    entry = ComputedStructureEntry(structure, -8.4, parameters={"run_type": "GGA"}, data=data, entry_id="e-1")
    bare = ComputedStructureEntry(NACL.to_pymatgen(), -6.8)
    taken, refused, tally = from_json(tmp_path / "b.json", [entry.as_dict(), bare.as_dict(), structure.as_dict()])
    assert (refused, [row.source_id for row in taken]) == ([], ["mp-2534", "file-2", "file-3"])
    assert (taken[0].energy_per_atom, taken[0].functional) == (pytest.approx(-4.2), "GGA")
    assert (taken[0].band_gap, taken[0].formation_energy_per_atom, taken[0].energy_method) == (0.2, -0.4, "mp-pbe")
    assert taken[1].energy_per_atom is None
    assert {"colour", "energy (its functional is not stated)"} <= set(tally.ignored)
    taken, _, _ = from_json(
        tmp_path / "c.json", {"one": structure.as_dict(), "two": {"structure": structure.as_dict()}}
    )
    assert [row.source_id for row in taken] == ["one", "two"]
    decorated = Structure(structure.lattice, [{"Ga3+": 1}, {"As3-": 1}], structure.frac_coords)
    taken, _, _ = from_json(tmp_path / "d.json", decorated.as_dict())
    assert taken[0].crystal.species == ("Ga", "As")


def test_json_of_jarvis_matbench_and_lines(tmp_path: Path) -> None:
    atoms = {
        "lattice_mat": GAAS.lattice.tolist(), "coords": GAAS.frac_coords.tolist(), "elements": ["Ga", "As "],
        "cartesian": False, "props": ["", ""],
    }  # fmt: skip
    row = {"jid": "JVASP-1174", "atoms": atoms, "formation_energy_peratom": -0.4, "optb88vdw_bandgap": 0.1}
    cartesian = atoms | {"cartesian": True, "coords": (GAAS.frac_coords @ GAAS.lattice).tolist()}
    taken, refused, _ = from_json(tmp_path / "a.json", [row, row | {"jid": "J-2", "atoms": cartesian}])
    assert refused == []
    assert same(taken[0].crystal, GAAS)
    assert same(taken[1].crystal, GAAS)
    assert (taken[0].source_id, taken[0].energy_method, taken[0].band_gap_method) == (
        "JVASP-1174", "jarvis-optb88vdw", "jarvis-optb88vdw",
    )  # fmt: skip
    values = [[GAAS.to_pymatgen().as_dict(), 0.3], [NACL.to_pymatgen().as_dict()]]
    table = {"index": [0, 1], "columns": ["structure", "gap pbe"], "data": values}
    (row_,), (refused_,), _ = from_json(tmp_path / "b.json", table)
    assert (row_.source_id, row_.band_gap, row_.band_gap_method) == ("file-0", 0.3, "pbe")
    assert refused_.value == "of another length"
    lines = [json.dumps(row), "", "{broken", json.dumps({"nothing": 1})]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    taken, refused = parted(read_json(tmp_path / "c.jsonl.gz", "c", READING, Tally()))
    assert ([one.source_id for one in taken], [one.identity for one in refused]) == (["JVASP-1174"], ["c-3", "c-4"])
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:-12])
    assert parted(read_json(tmp_path / "c.jsonl.gz", "c", READING, Tally()))[1]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, "3", '"text"', "{}", '{"a": 1}', '[{"a": 1}, 3]', '{"lattice": 1, "sites": []}',
     '{"lattice": {"matrix": [[1,0,0],[0,1,0],[0,0,1]]}, "sites": [{"species": [], "abc": [0,0,0]}]}',
     '{"structure": {"lattice_mat": "x", "coords": [], "elements": []}}'],
)  # fmt: skip
def test_json_that_holds_no_crystal_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    taken, refused = parted(read_json(tmp_path / "x.json", "x", READING, Tally()))
    assert taken == []
    assert refused


def test_disorder_and_what_is_no_element_are_refused(tmp_path: Path) -> None:
    lattice = GAAS.to_pymatgen().lattice
    disordered = Structure(lattice, [{"Ga": 0.5, "In": 0.5}, "As"], GAAS.frac_coords)
    dummy = Structure(lattice, ["X", "As"], GAAS.frac_coords)
    taken, refused, _ = from_json(tmp_path / "x.json", [disordered.as_dict(), dummy.as_dict()])
    assert taken == []
    assert ["disordered" in refused[0].value, "species X" in refused[1].value] == [True, True]
    assert refused[0].expected == "one element a site"


@pytest.mark.parametrize("kind", ["json", "db"])
def test_databases_of_ase(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    with ase.db.connect(path) as rows:
        atoms = GAAS.to_ase()
        atoms.calc = SinglePointCalculator(atoms, energy=-8.0)
        rows.write(atoms, band_gap=0.2, xc="PBE", data={"formation_energy_per_atom": -0.4, "spectrum": np.zeros(3)})
        rows.write(SILICON.to_ase())
        rows.write(ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    tally = Tally()
    if kind == "json":
        taken, refused = parted(read_json(path, "x", READING, tally))
    else:
        taken, refused = parted(read_ase_sqlite(path, "x", READING, tally))
    assert [row.crystal.species for row in taken] == [("Ga", "As"), ("Si", "Si")]
    assert len({row.source_id for row in taken}) == 2
    first = taken[0]
    assert (first.band_gap, first.formation_energy_per_atom, first.energy_per_atom, first.functional) == (
        0.2, -0.4, -4.0, "PBE",
    )  # fmt: skip
    assert ["without a cell" in one.value for one in refused] == [True]


def test_a_file_that_is_no_database_of_ase_is_refused_and_left_alone(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    (tmp_path / "text.db").write_text("hello")
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE other (x)")
        database.commit()
    before = (tmp_path / "other.db").read_bytes()
    for name in ("text.db", "other.db"):
        taken, refused = parted(read_ase_sqlite(tmp_path / name, "x", READING, Tally()))
        assert (taken, refused[0].expected) == ([], "a database of ASE")
    assert (tmp_path / "other.db").read_bytes() == before
