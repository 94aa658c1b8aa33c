"""Files that crystal generators write, brought into a campaign."""

import csv
import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CampaignError, IngestError
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.campaigns import create_campaign
from wyloop.stores.connection import Store
from wyloop.stores.import_crystals import ImportReport, import_crystals
from wyloop.stores.import_files import GeneratedRow, read_generated
from wyloop.stores.imports import importing_generators, imports_for, settle_imports
from wyloop.stores.ingest.report import Refusal

RUTILE = Structure.from_spacegroup(136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])
PEROVSKITE = Structure.from_spacegroup(
    221, Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)
GENES = {"rutile": "136 O:f Ti:a", "perovskite": str(encode(Crystal.from_pymatgen(PEROVSKITE)))}
BROKEN = "data_x\n_cell_length_a 3\n"


@pytest.fixture
def campaign(database: Store) -> str:
    return create_campaign(database, ("band_gap > 1",), {}).campaign_id


def rows(path: Path) -> list[GeneratedRow | Refusal]:
    return list(read_generated(path, 0.1))


def genes(path: Path) -> list[str]:
    return [row.gene.fingerprint if isinstance(row, GeneratedRow) else row.field for row in rows(path)]


def table(path: Path, header: list[str], *lines: list[object]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def test_mattergen_writes_extxyz(tmp_path: Path) -> None:
    from ase.io import write

    path = tmp_path / "generated_crystals.extxyz"
    rng = np.random.default_rng(0)
    noisy = [one.copy().perturb(0.005) for one in (RUTILE, PEROVSKITE)]
    frames = [one.to_ase_atoms() for one in noisy]
    for atoms in frames:
        atoms.rotate(float(rng.random() * 90), "z", rotate_cell=True)
    write(path, frames, format="extxyz")
    assert genes(path) == [GENES["rutile"], GENES["perovskite"]]
    found = rows(path)[0]
    assert isinstance(found, GeneratedRow)
    assert found.crystal is not None
    assert encode(found.crystal).fingerprint == GENES["rutile"]
    assert (found.file, found.identity) == ("generated_crystals.extxyz", "generated_crystals-1")


def test_mattergen_writes_a_zip_of_cifs(tmp_path: Path) -> None:
    path = tmp_path / "generated_crystals_cif.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gen_0.cif", RUTILE.to(fmt="cif"))
        archive.writestr("folder/gen_1.cif", PEROVSKITE.to(fmt="cif"))
        archive.writestr("gen_2.cif", BROKEN)
        archive.writestr("notes.txt", "nothing")
    assert genes(path) == [GENES["rutile"], GENES["perovskite"], "cif"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IngestError, match=r"as a zip .*; expected one of CIF files"):
        rows(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(IngestError, match="holds 0 CIF files"):
        rows(path)


def test_a_table_of_cifs_or_of_structures_as_text(tmp_path: Path) -> None:
    as_json, as_python = RUTILE.to(fmt="json"), str(PEROVSKITE.as_dict())
    path = table(
        tmp_path / "diffcsp.csv.gz",
        ["material_id", "cif"],
        ["a", RUTILE.to(fmt="cif")],
        ["b", as_json],
        ["c", as_python],
        ["d", "{'lattice': __import__('os').getcwd()}"],
        ["e", BROKEN],
        ["f"],
    )
    assert genes(path) == [GENES["rutile"], GENES["rutile"], GENES["perovskite"], "cif", "cif", "row"]
    assert [row.identity for row in rows(path)] == ["a", "b", "c", "d", "e", "f"]


def test_crystalformer_writes_letters_and_sites(tmp_path: Path) -> None:
    header = ["L", "X", "A", "W", "M", "logp"]
    cell = [4.594, 4.594, 2.959, 90.0, 90.0, 90.0]
    padding = [0.0, 0.0, 0.0]

    def line(oxygen: list[float], letter: int = 6) -> list[object]:
        return [cell, [[0.0, 0.0, 0.0], oxygen, padding], [22, 8, 0], [1, letter, 0], [2, 4, 0], -3.0]

    path = table(
        tmp_path / "output_136.csv",
        header,
        line([0.305, 0.305, 0.0]),
        line([0.195, 0.805, 0.5]),  # another atom of the same orbit
        line([0.31, 0.29, 0.01]),  # sampled beside its position
        line([0.305, 0.1, 0.3]),  # nowhere near it: the letters stay
        line([0.305, 0.305, 0.0], letter=27),
        ["[1]", "x", "[", "[]", "[]", 0],
    )
    found = rows(path)
    assert genes(path) == [*[GENES["rutile"]] * 4, "L, X, A, W", "L, X, A, W"]
    assert [row.crystal is not None for row in found[:4] if isinstance(row, GeneratedRow)] == [True, True, True, False]
    renamed = table(tmp_path / "samples.csv", header, line([0.305, 0.305, 0.0]))
    assert genes(renamed) == ["space group"]
    diamond = [[3.567] * 3 + [90.0] * 3, [[0.125, 0.125, 0.125]], [6], [1], [8]]
    assert genes(table(tmp_path / "s.csv", ["G", "L", "X", "A", "W", "M"], [227, *diamond])) == ["227 C:a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "formula,energy\nNaCl,1\n", "expected a CSV file with a column cif or structure"),
        ("a.csv", "", "has the columns nothing"),
        ("a.dat", "nothing that anybody knows", "of no kind"),
    ],
)
def test_what_is_no_generators_file_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(IngestError, match=message):
        rows(tmp_path / name)
    with pytest.raises(IngestError, match="is no file or folder"):
        rows(tmp_path / "missing.csv")


def test_a_folder_is_imported_once(database: Store, campaign: str, tmp_path: Path) -> None:
    (tmp_path / "1.cif").write_text(RUTILE.to(fmt="cif"))
    (tmp_path / "2.cif").write_text((RUTILE * (1, 1, 2)).to(fmt="cif"))
    (tmp_path / "3.cif").write_text(PEROVSKITE.to(fmt="cif"))
    (tmp_path / "4.cif").write_text(BROKEN)
    refused: list[Refusal] = []
    done = import_crystals(database, tmp_path, "mattergen", campaign, on_refusal=refused.append)
    assert (done.n_rows, done.n_added, done.n_repeated, done.n_refused) == (4, 2, 1, 1)
    assert [one.row for one in refused] == [4]
    again = import_crystals(database, tmp_path, "mattergen", campaign)
    assert (again.n_added, again.n_repeated, again.n_refused) == (0, 3, 1)
    assert import_crystals(database, tmp_path / "1.cif", "other", campaign) == ImportReport(1, 1, 0, 0)
    assert importing_generators(database, campaign) == ["mattergen", "other"]

    found = imports_for(database, campaign, "r1", "mattergen")
    assert [one.fingerprint for one in found] == [GENES["rutile"], GENES["perovskite"]]
    assert found[0].origin == {"file": "1.cif", "row": 1, "identity": "1"}
    assert found[0].crystal is not None
    settle_imports(database, "r1", {"candidate": found[:1], "known": found[1:]})
    settle_imports(database, "r1", {"candidate": found[:1], "known": found[1:]})
    assert [one.outcome for one in imports_for(database, campaign, "r1", "mattergen")] == ["candidate", "known"]
    assert imports_for(database, campaign, "r2", "mattergen") == []
    assert importing_generators(database, campaign, round_id="r2") == ["other"]


def test_a_wrong_name_or_campaign_is_refused(database: Store, campaign: str, tmp_path: Path) -> None:
    (tmp_path / "1.cif").write_text(RUTILE.to(fmt="cif"))
    for name in ("", "x" * 61, "a b", "$where"):
        with pytest.raises(IngestError, match="such as mattergen"):
            import_crystals(database, tmp_path, name, campaign)
    with pytest.raises(CampaignError, match="no campaign 'x'"):
        import_crystals(database, tmp_path, "mattergen", "x")
