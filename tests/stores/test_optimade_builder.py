import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import bson
import numpy as np
import pytest
from optimade.models import StructureResource
from optimade.models.utils import HM_SYMBOL_REGEXP
from pymongo import MongoClient, monitoring

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.builders.chain import DERIVED, build
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.builders.optimade import OptimadeBuilder, OptimadeCounts, build_optimade
from wyloop.stores.builders.optimade_entries import crystal_properties, space_group_properties
from wyloop.stores.builders.run import run
from wyloop.stores.calculations import CalculationRecord, complete, request_calculation
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import material_id

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
CITED = "Somebody, A Journal 1, 2 (1999), doi:10.1234/abc."


def rock_salt(cation: str, anion: str, a: float = 5.6) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))


def known(name: str, crystal: Crystal, energy: float | None = None, **more: Any) -> SourceStructure:  # noqa: ANN401
    return SourceStructure("s", name, crystal, energy, "chgnet" if energy is not None else None, **more)


def relax(store: Store, crystal: Crystal, energy: float) -> None:
    """Put a completed relaxation into the database, eV/atom."""
    asked = CalculationRecord("calc-1", None, None, "relaxation", str(encode(crystal)), "mlip-screen/1", "h")
    request_calculation(store, asked)
    complete(store, "calc-1", result={"converged": True, "formation_energy_per_atom": energy}, crystal=crystal)


def view(store: Store, collection: str = "optimade_structures") -> dict[str, dict[str, Any]]:
    return {row["entry_id"]: row for row in store.database[collection].find().sort("entry_id", 1)}


def raw(store: Store) -> list[bytes]:
    """The documents as the database holds them, byte by byte."""
    options = bson.codec_options.CodecOptions(document_class=bson.raw_bson.RawBSONDocument)
    names = ("optimade_structures", "optimade_references")
    found = [store.database.get_collection(name, codec_options=options).find().sort("entry_id", 1) for name in names]
    return [document.raw for cursor in found for document in cursor]  # type: ignore[attr-defined]  # raw BSON


def build_all(store: Store) -> OptimadeCounts:
    build_encodings(store)
    build_materials(store)
    build_hulls(store)
    return build_optimade(store)


@pytest.fixture
def filled(database: Store) -> Store:
    write_structures(
        database,
        [
            known("NaCl", rock_salt("Na", "Cl"), -2.0, citation=CITED, band_gap=5.0, band_gap_method="PBE"),
            known("KCl", rock_salt("K", "Cl", 6.3), -2.2, citation=CITED),
            known("MgO", rock_salt("Mg", "O", 4.2)),
        ],
    )
    relax(database, rock_salt("Na", "Br", 5.9), -1.8)
    return database


def test_an_entry_a_structure_and_an_own_material(filled: Store) -> None:
    assert build_all(filled) == OptimadeCounts(4, 0, 0)
    entries = view(filled)
    own = material_id(str(encode(rock_salt("Na", "Br", 5.9))))
    assert list(entries) == [own, "s:KCl", "s:MgO", "s:NaCl"]
    salt = entries["s:NaCl"]
    assert (salt["source"], salt["source_id"], salt["is_validated"]) == ("s", "NaCl", False)
    assert (salt["energy_above_hull"], salt["hull_id"]) == (0.0, "Cl-Na|chgnet")
    assert salt["band_gap"] == 5.0
    assert salt["material_id"].startswith("m-")
    assert salt["space_group_it_number"] == 225
    assert "energy_above_hull" not in entries["s:MgO"]
    assert (entries[own]["source"], entries[own]["source_id"]) == ("wyloop", own)
    assert entries[own]["hull_id"] == "Br-Na|chgnet"
    assert entries[own]["volume"] == pytest.approx(5.9**3 / 4)
    references = view(filled, "optimade_references")
    assert [row["doi"] for row in references.values()] == ["10.1234/abc"]
    assert salt["reference_ids"] == entries["s:KCl"]["reference_ids"] == list(references)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
def test_entries_are_valid_by_the_models_of_the_standard(filled: Store) -> None:
    build_all(filled)
    names = set(StructureResource.model_fields["attributes"].annotation.model_fields)  # type: ignore[union-attr]
    for entry in view(filled).values():
        attributes = {name: value for name, value in entry.items() if name in names}
        StructureResource(id=entry["entry_id"], type="structures", attributes=attributes)


def test_only_what_changed_is_touched(filled: Store) -> None:
    build_all(filled)
    before = view(filled)
    assert build_all(filled) == OptimadeCounts(0, 0, 4)
    assert view(filled) == before
    write_structures(filled, [known("KCl", rock_salt("K", "Cl", 6.4), -2.1), known("LiF", rock_salt("Li", "F", 4.0))])
    counts = build_all(filled)
    after = view(filled)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"s:KCl", "s:LiF"}
    assert counts == OptimadeCounts(2, 0, 3)
    assert after["s:KCl"]["immutable_id"] != before["s:KCl"]["immutable_id"]
    assert after["s:KCl"]["last_modified"] > before["s:KCl"]["last_modified"]


class Commands(monitoring.CommandListener):
    """Which documents of large collections were asked for, and how many came."""

    def __init__(self) -> None:
        self.n_returned: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        cursor = event.reply.get("cursor", {})
        name = str(cursor.get("ns", "")).split(".", 1)[-1]
        self.n_returned[name] += len(cursor.get("firstBatch", cursor.get("nextBatch", [])))

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def listened(filled: Store) -> Iterator[tuple[Store, Commands]]:
    """The same database, with the commands sent to it."""
    build_all(filled)
    commands = Commands()
    client: MongoClient[dict[str, Any]] = MongoClient(filled.uri, tz_aware=True, event_listeners=[commands])
    yield replace(filled, client=client, database=client[filled.name]), commands
    client.close()


def test_a_refresh_reads_only_what_was_written_since(listened: tuple[Store, Commands]) -> None:
    store, commands = listened
    assert build_optimade(store) == OptimadeCounts(0, 0, 4)
    assert {commands.n_returned[name] for name in ("structures", "materials", "optimade_structures")} == {0}
    write_structures(store, [known("LiF", rock_salt("Li", "F", 4.0))])
    for name in DERIVED[:3]:
        build(store, name)
    commands.n_returned.clear()
    assert build_optimade(store) == OptimadeCounts(1, 0, 4)
    assert commands.n_returned["structures"] == 4  # its id by its update and by its material, its state, itself
    assert commands.n_returned["materials"] <= 2
    assert commands.n_returned["optimade_structures"] == 0
    commands.n_returned.clear()
    assert build_optimade(store) == OptimadeCounts(0, 0, 5)
    assert commands.n_returned["structures"] == 0


def test_what_is_deleted_leaves_the_view_at_the_next_refresh(listened: tuple[Store, Commands]) -> None:
    store, commands = listened
    own = material_id(str(encode(rock_salt("Na", "Br", 5.9))))
    removed = store.database["materials"].find_one_and_delete({"material_id": own})
    assert removed is not None
    assert build_optimade(store) == OptimadeCounts(0, 1, 3)
    assert list(view(store)) == ["s:KCl", "s:MgO", "s:NaCl"]
    store.database["materials"].insert_one(removed)
    gone = store.database["structures"].find_one_and_delete({"structure_id": "s:KCl"})
    commands.n_returned.clear()
    assert build_optimade(store) == OptimadeCounts(1, 1, 2)
    assert list(view(store)) == [own, "s:MgO", "s:NaCl"]
    assert gone is not None
    store.database["structures"].insert_one(gone)
    assert build_optimade(store) == OptimadeCounts(1, 0, 3)


def test_without_the_record_of_changes_everything_is_compared(filled: Store) -> None:
    build_all(filled)
    state = filled.database["locks"].find_one({"_id": "optimade-view"})
    assert state is not None
    filled.database["structures"].update_one({"structure_id": "s:MgO"}, {"$set": {"volume": 1.0, "content_hash": "x"}})
    for broken in ({"place": {"_data": "00"}}, {"stamp": ["another version"]}, {"n_entries": 3}):
        filled.database["locks"].update_one({"_id": "optimade-view"}, {"$set": broken})
        filled.database["structures"].update_one({"structure_id": "s:MgO"}, {"$set": {"content_hash": str(broken)}})
        assert build_optimade(filled) == OptimadeCounts(1, 0, 3)
        assert build_optimade(filled) == OptimadeCounts(0, 0, 4)
    filled.database["optimade_structures"].update_one({"entry_id": "s:KCl"}, {"$set": {"input_hash": "wrong"}})
    assert build_optimade(filled) == OptimadeCounts(0, 0, 4)  # it looks at what was written, not at the view
    assert build_optimade(filled, is_thorough=True) == OptimadeCounts(1, 0, 3)


def test_what_is_gone_is_removed_with_its_reference(filled: Store) -> None:
    build_all(filled)
    filled.database["structures"].delete_many({"citation": CITED})
    filled.database["calculations"].delete_many({})
    for name in DERIVED[:3]:
        build(filled, name, full=True)
    assert build_optimade(filled) == OptimadeCounts(0, 3, 1)
    assert list(view(filled)) == ["s:MgO"]
    assert view(filled, "optimade_references") == {}


def test_a_rebuild_has_the_same_bytes(filled: Store) -> None:
    build_all(filled)
    before = raw(filled)
    assert build_optimade(filled, full=True) == OptimadeCounts(4, 0, 0)
    assert raw(filled) == before
    for name in ("optimade_structures", "optimade_references"):
        filled.database[name].delete_many({})
    build_optimade(filled)
    assert raw(filled) == before
    assert len(before) == 5


def test_some_chemical_systems_alone(filled: Store) -> None:
    build_encodings(filled)
    build_materials(filled)
    build_hulls(filled)
    assert build_optimade(filled, ["Cl-Na", "Br-Na", "H-He"]) == OptimadeCounts(2, 0, 0)
    assert build_optimade(filled, ["Cl-Na", "Br-Na"]) == OptimadeCounts(0, 0, 2)
    filled.database["structures"].delete_one({"structure_id": "s:NaCl"})
    assert build_optimade(filled, ["Cl-Na"]) == OptimadeCounts(0, 1, 0)
    for name in DERIVED:
        build(filled, name, full=True)


def test_small_chunks_and_several_processes_make_the_same(database: Store) -> None:
    write_structures(database, [known(f"{i:02}", rock_salt("Na", "Cl", 5.6 + 0.01 * i)) for i in range(23)])
    database.database["optimade_structures"].insert_one({"entry_id": "s:05a", "origin": "structures"})
    database.database["optimade_structures"].insert_one(
        {"entry_id": "zz", "immutable_id": "zz", "origin": "structures", "input_hash": ""}
    )
    builder = OptimadeBuilder(database, chunk_size=4)
    database.database["optimade_structures"].update_one({"entry_id": "s:05a"}, {"$set": {"input_hash": ""}})
    run(builder)
    assert (builder.n_done, builder.n_removed, builder.n_skipped) == (23, 2, 0)
    first = raw(database)
    database.database["optimade_structures"].delete_many({})
    build_optimade(database, n_processes=2)
    assert raw(database) == first


def test_a_structure_above_its_material_is_as_much_further_above_the_hull(database: Store) -> None:
    same = [known("a", rock_salt("Na", "Cl"), -2.0), known("b", rock_salt("Na", "Cl", 5.601), -1.9)]
    write_structures(database, same)
    build_all(database)
    entries = view(database)
    assert entries["s:a"]["material_id"] == entries["s:b"]["material_id"]
    assert entries["s:a"]["energy_above_hull"] == pytest.approx(0.0)
    assert entries["s:b"]["energy_above_hull"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("species", "reduced", "hill", "anonymous", "descriptive"),
    [
        (["Ga", "As"], "AsGa", "AsGa", "AB", "GaAs"),
        (["Na", "Na", "O", "O"], "NaO", "Na2O2", "AB", "Na2O2"),
        (["Ca", "C", "O", "O", "O"], "CCaO3", "CCaO3", "A3BC", "CaCO3"),
        (["N", "H", "H", "H", "C"], "CH3N", "CH3N", "A3BC", "H3CN"),
        (["Si"] * 8, "Si", "Si", "A", "Si"),
        (["H", "Cl", "O"], "ClHO", "ClHO", "ABC", "HClO"),
    ],
)
def test_formulas(species: list[str], reduced: str, hill: str, anonymous: str, descriptive: str) -> None:
    found = crystal_properties(np.eye(3).tolist(), species, [[0.1 * i, 0, 0] for i in range(len(species))])
    assert found["chemical_formula_reduced"] == reduced
    assert found["chemical_formula_hill"] == hill
    assert found["chemical_formula_anonymous"] == anonymous
    assert found["chemical_formula_descriptive"] == descriptive
    assert sum(found["elements_ratios"]) == pytest.approx(1.0)
    assert found["nsites"] == len(found["cartesian_site_positions"]) == len(species)


def test_positions_are_cartesian() -> None:
    lattice = [[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.5, 6.0]]
    found = crystal_properties(lattice, ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.25, -0.5]])
    assert found["cartesian_site_positions"].tolist() == [[0.0, 0.0, 0.0], [2.25, 1.0, -3.0]]


def test_every_space_group_has_a_symbol_that_the_standard_accepts() -> None:
    symbols = [space_group_properties(n)["space_group_symbol_hermann_mauguin"] for n in range(1, 231)]
    assert len(set(symbols)) == 230
    assert [symbol for symbol in symbols if not re.match(HM_SYMBOL_REGEXP, symbol)] == []
    assert (symbols[61], symbols[185], symbols[220]) == ("P n m a", "P 63 m c", "P m -3 m")
    assert space_group_properties(None) == {}


def test_times_follow_the_inputs(filled: Store) -> None:
    build_all(filled)
    structure = filled.database["structures"].find_one({"structure_id": "s:MgO"}) or {}
    found = filled.database["materials"].find_one({"structure_ids": "s:MgO"}) or {}
    assert view(filled)["s:MgO"]["last_modified"] == max(structure["last_updated"], found["last_updated"])
    later = structure["last_updated"] + timedelta(days=1)
    filled.database["structures"].update_one({"structure_id": "s:MgO"}, {"$set": {"last_updated": later}})
    assert build_optimade(filled) == OptimadeCounts(1, 0, 3)
    assert view(filled)["s:MgO"]["last_modified"] == later
