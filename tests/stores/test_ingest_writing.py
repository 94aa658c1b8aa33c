from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymongo.errors import PyMongoError

from tests.stores.crystals import GAAS, NACL
from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.builders.encodings import build_encodings, encoding_fields
from wyloop.stores.builders.run import BuildCounts
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import checked, now
from wyloop.stores.documents.structures import StructureDocument
from wyloop.stores.ingest import writer as writing
from wyloop.stores.ingest.csv import ingest_csv
from wyloop.stores.ingest.structures import SourceStructure, Written, rows_of, write_structures
from wyloop.stores.ingest.writer import StructureWriter
from wyloop.stores.settings import Settings

BROKEN = Crystal(np.eye(3) * 3.0, ("Na", "Cl"), np.array([[0.0] * 3, [0.001] * 3]))
"""Two atoms on one place: it has no gene."""


def structures(n: int, *, energy: float = -1.0, crystal: Crystal = NACL) -> list[SourceStructure]:
    return [SourceStructure("s", f"{i:04d}", crystal, energy, "x") for i in range(n)]


def genes(batch: list[SourceStructure]) -> dict[str, dict[str, Any]]:
    return {one.structure_id: encoding_fields(one.crystal) for one in batch}


def content(store: Store) -> dict[str, list[dict[str, Any]]]:
    own = {"_id": 0, "last_updated": 0}
    return {
        name: list(store.database[name].find({}, own).sort("structure_id", 1)) for name in ("structures", "encodings")
    }


def assert_in_step(store: Store) -> None:
    """Every structure has its encoding, of the crystal that it is."""
    encodings = {one["structure_id"]: one for one in store.database["encodings"].find()}
    assert len(encodings) == store.database["structures"].count_documents({})
    for one in store.database["structures"].find():
        encoding = encodings[one["structure_id"]]
        assert encoding["input_hash"].split("@")[0] == one["crystal_hash"]
        assert encoding.get("fingerprint") == one.get("fingerprint")


def test_the_hash_of_a_content_is_what_it_was_and_the_volume_that_of_the_crystal() -> None:
    cell = np.array([[4.0, 0.1, 0.2], [0.3, 5.0, 0.4], [0.5, 0.6, 6.0]])
    crystal = Crystal(cell, ("Na", "Cl", "O"), np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.3, 0.1]]))
    one = SourceStructure("a", "b", crystal, -1.5, "m", 0.25, "p", 1, "é")
    rows = list(rows_of([one, replace(one, crystal=GAAS), replace(one, crystal=BROKEN)]))
    assert rows[0].content_hash == "9e52660dcf27b2b16816ab5a66bc4044450a3ee6af4c1f15bbffb93c44a6cbef"
    assert [row.content["volume"] for row in rows] == [row.crystal.volume for row in rows]
    assert list(rows_of([])) == []


def test_values_that_are_stored_as_they_are_are_still_checked() -> None:
    class Text(str):
        pass

    [row] = rows_of(structures(1))
    good = row.document(now())
    assert checked(StructureDocument, good | {"citation": Text("a")})["citation"] == "a"
    huge = np.full((1, 3), 1e200)  # the square of which is no finite number
    assert checked(StructureDocument, good | {"frac_coords": huge})["frac_coords"] == huge.tolist()
    faults: tuple[dict[str, Any], ...] = (
        {"citation": 5}, {"citation": b"a"}, {"last_updated": "today"}, {"last_updated": 5}, {"nsites": 0},
        {"frac_coords": np.array([[np.nan, 0, 0]])}, {"frac_coords": np.array([[np.inf, 0, 0]])}, {"colour": "red"},
        {"volume": float("inf")}, {"source": None}, {"band_gap": -1.0},
    )  # fmt: skip
    for fault in faults:
        with pytest.raises(DatabaseError):
            checked(StructureDocument, good | fault)


def test_a_changed_crystal_is_left_to_the_builder_and_nothing_is_lost(database: Store) -> None:
    old, new = structures(3), structures(3, crystal=GAAS)
    assert write_structures(database, old, genes=genes(old)) == Written(n_added=3)
    assert_in_step(database)
    assert write_structures(database, new[:2], genes=genes(new)) == Written(n_updated=2)
    assert build_encodings(database) == BuildCounts(2, 0, 1)
    assert_in_step(database)
    mixed = [*new, *structures(5)[3:]]  # two there, one changed, two new
    assert write_structures(database, mixed, genes=genes(mixed)) == Written(2, 1, 2)
    assert build_encodings(database) == BuildCounts(1, 0, 4)
    assert_in_step(database)


def test_an_encoding_of_an_earlier_structure_of_that_name_is_made_again(database: Store) -> None:
    old, new = structures(2), structures(2, crystal=GAAS)
    write_structures(database, old, genes=genes(old))
    database.database["structures"].delete_many({})
    assert write_structures(database, new, genes=genes(new)) == Written(n_added=2)
    assert build_encodings(database) == BuildCounts(2, 0, 0)
    assert_in_step(database)


def test_killed_between_structures_and_encodings_the_builder_makes_up_for_it(database: Store) -> None:
    batch = structures(4)
    write_structures(database, batch, genes=genes(batch))
    whole = content(database)
    database.database["encodings"].delete_many({"structure_id": {"$in": ["s:0001", "s:0002"]}})
    assert write_structures(database, batch, genes=genes(batch)) == Written(n_unchanged=4)
    assert build_encodings(database).n_done == 2
    assert content(database) == whole


def test_two_writers_of_other_contents_end_in_step(database: Store) -> None:
    other = connect(Settings(uri=database.uri, database=database.name))  # type: ignore[arg-type]  # pydantic converts
    starts = list(range(0, 120, 10))

    def write(store: Store, rows: list[SourceStructure], order: list[int]) -> Written:
        with StructureWriter(store) as writer:
            for first in order:
                writer.write(rows[first : first + 10], genes(rows[first : first + 10]))
        return writer.written

    with ThreadPoolExecutor(2) as pool:
        batches = (structures(120), structures(120, crystal=GAAS))
        counts = list(pool.map(write, (database, other), batches, (starts, starts[::-1])))
    other.close()
    assert sum(one.n_added for one in counts) == 120
    assert all(one.n_added + one.n_updated + one.n_unchanged == 120 for one in counts)
    build_encodings(database)
    assert_in_step(database)


@pytest.mark.parametrize("parallel_from", [0, 1000])
def test_encoding_while_reading_is_what_ingest_and_builder_write(
    database: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel_from: int
) -> None:
    monkeypatch.setattr(writing, "PARALLEL_FROM", parallel_from)
    crystals = [replace(GAAS, lattice=GAAS.lattice * (1 + i / 9000)) for i in range(20)]
    rows = [SourceStructure("s", f"{i:04d}", one) for i, one in enumerate([*crystals, BROKEN])]

    def parts() -> Iterator[list[SourceStructure]]:
        yield from (rows[first : first + 6] for first in range(0, len(rows), 6))

    with StructureWriter(database, is_encoding=True) as writer:
        for part in parts():
            writer.write(part)
    assert (writer.written, writer.n_encoded, writer.n_not_encodable) == (Written(n_added=21), 20, 1)
    assert build_encodings(database) == BuildCounts(0, 0, 21)
    at_once = content(database)
    with StructureWriter(database, is_encoding=True) as writer:
        for part in parts():
            writer.write(part)
    assert (writer.written, writer.n_encoded) == (Written(n_unchanged=21), 0)
    for name in ("structures", "encodings"):
        database.database[name].delete_many({})
    with StructureWriter(database) as writer:
        for part in parts():
            writer.write(part)
    build_encodings(database)
    assert content(database) == at_once


def test_a_file_is_encoded_as_it_is_read(database: Store, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    cif = write_cif(GAAS).replace('"', "'")
    path.write_text(f'material_id,cif\na,"{cif}"\nb,nothing\n', encoding="utf-8")
    report = ingest_csv(database, path, is_encoding=True)
    assert (report.n_added, report.n_refused, report.n_encoded, report.n_not_encodable) == (1, 1, 1, 0)
    assert build_encodings(database) == BuildCounts(0, 0, 1)
    assert_in_step(database)


def test_what_goes_wrong_beside_is_told_at_the_end(database: Store) -> None:
    def write(store: Store, batches: list[list[SourceStructure]]) -> None:
        with StructureWriter(store) as writer:
            for batch in batches:
                writer.write(batch)

    closed = connect(Settings(uri=database.uri, database=database.name))  # type: ignore[arg-type]  # pydantic converts
    closed.close()
    with pytest.raises(PyMongoError):
        write(closed, [structures(2)])
    faulty = [replace(one, band_gap=-1.0) for one in structures(2)]
    with pytest.raises(DatabaseError, match="band_gap"):
        write(database, [structures(2), faulty])
    assert database.database["structures"].count_documents({}) == 2  # what went before is there
