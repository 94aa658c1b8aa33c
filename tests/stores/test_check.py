import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from bson import ObjectId
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.stores.dumps.make_dump import fill
from wyloop.stores.backup import content_of
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.campaigns import create_campaign
from wyloop.stores.check import broken, check
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import SCHEMA_VERSION
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.findings import KINDS, MAX_KEPT, Level
from wyloop.stores.indexes import index_faults, make_indexes
from wyloop.stores.repair import repair
from wyloop.stores.settings import Settings
from wyloop.stores.validation import explain, json_schema

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.expects_findings


@pytest.fixture(scope="module")
def example(mongod: MongoServer) -> Iterator[tuple[Store, dict[str, list[dict[str, Any]]]]]:
    """A campaign with one closed round, its materials, hulls and OPTIMADE view, all in order; and its documents."""
    store = connect(Settings(uri=SecretStr(mongod.uri), database=f"check_{uuid4().hex[:12]}"))
    fill(store)
    build_encodings(store)
    build_materials(store)
    build_hulls(store)
    build_optimade(store)
    report = check(store)
    assert report.is_clean, report.faults
    names = [name for name in store.database.list_collection_names() if not name.startswith("system.")]
    yield store, {name: list(store.database[name].find()) for name in names}
    store.client.drop_database(store.name)
    store.close()


@pytest.fixture
def filled(example: tuple[Store, dict[str, list[dict[str, Any]]]]) -> Store:
    """The example as it was at first: what a test before did to it is undone."""
    store, documents = example
    for name in store.database.list_collection_names():
        rows = documents.get(name, [])
        if list(store.database[name].find()) != rows:
            store.database[name].delete_many({})
            if rows:
                store.database[name].insert_many(rows)
    make_indexes(store.database, index_faults(store.database))
    return store


def kinds(store: Store) -> set[str]:
    return {finding.kind for finding in check(store).findings if finding.level != Level.NOTE}


def old_id() -> ObjectId:
    return ObjectId.from_datetime(LONG_AGO)


def test_a_database_in_order_is_clean_and_counted(filled: Store) -> None:
    report = check(filled)
    assert report.is_clean
    assert report.n_documents > 10
    assert report.faults == ()
    seen: list[tuple[int, int]] = []
    check(filled, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


BREAKS: list[tuple[str, str, Callable[[Any], object], str]] = [
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"colour": 1}}), "colour = 1"),
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"volume": math.nan}}), "finite"),
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"lattice": [[1.0]]}}), "expected 3"),
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"nsites": 0}}), "nsites = 0"),
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"nsites": "2"}}), "expected int"),
    ("structures", "document_breaks_schema", lambda c: c.update_one({}, {"$unset": {"chemsys": 1}}), "is missing"),
    ("campaigns", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"state": "lost"}}), "one of created"),
    ("calculations", "document_breaks_schema", lambda c: c.update_one({}, {"$set": {"result.x": 1}}), "no such field"),
    ("candidates", "candidate_without_campaign", lambda c: c.update_one({}, {"$set": {"campaign_id": "x"}}), "x does"),
    ("candidates", "candidate_without_round", lambda c: c.update_one({}, {"$set": {"round_id": "x"}}), "x does not"),
    ("candidates", "candidate_without_model", lambda c: c.update_one({}, {"$set": {"model_id": "x"}}), "x does not"),
    ("rounds", "round_without_campaign", lambda c: c.update_one({}, {"$set": {"campaign_id": "x"}}), "x does not"),
    ("rounds", "round_without_model", lambda c: c.update_one({}, {"$set": {"model_id": "x"}}), "x does not exist"),
    ("rounds", "rounds_contradict_campaign", lambda c: c.update_one({}, {"$set": {"state": "open"}}), "closed rounds"),
    ("campaigns", "rounds_contradict_campaign", lambda c: c.update_one({}, {"$set": {"rounds_closed": 3}}), "is 3"),
    ("model_versions", "model_without_campaign", lambda c: c.update_one({}, {"$set": {"campaign_id": "x"}}), "x does"),
    (
        "calculations",
        "calculation_completed_without_result",
        lambda c: c.update_one({}, {"$unset": {"result": 1}}),
        "no",
    ),
    (
        "materials",
        "material_without_calculation",
        lambda c: c.update_many({}, {"$push": {"calculation_ids": "x"}}),
        "x does",
    ),
    ("materials", "candidate_validated_without_material", lambda c: c.delete_many({}), "no material has"),
    ("fs.files", "file_missing", lambda c: c.delete_one({}), "names it, but it does not exist"),
    ("fs.chunks", "file_incomplete", lambda c: c.delete_one({}), "0 bytes in its chunks"),
    ("model_versions", "file_missing", lambda c: c.update_one({}, {"$unset": {"weights_file": 1}}), "names no weights"),
]


@pytest.mark.parametrize(("collection", "kind", "spoil", "what"), BREAKS, ids=[f"{b[0]}-{b[1]}-{b[3]}" for b in BREAKS])
def test_what_only_a_person_can_mend_is_found_and_left_alone(
    filled: Store, collection: str, kind: str, spoil: Callable[[Any], object], what: str
) -> None:
    spoil(filled.database[collection])
    found = [finding for finding in check(filled).findings if finding.kind == kind]
    assert found, kinds(filled)
    assert any(what in finding.what for finding in found), found
    assert not found[0].is_safe_to_repair
    assert found[0].remedy
    before = content_of(filled.database, collection)
    if collection != "materials":
        left = repair(filled).left
        assert kind in {finding.kind for finding in left.findings}
        assert content_of(filled.database, collection) == before


MENDED: list[tuple[str, str, Callable[[Any], object]]] = [
    ("document_of_older_schema", "campaigns", lambda c: c.update_one({}, {"$set": {"schema_version": 1}})),
    ("derived_document_breaks_schema", "encodings", lambda c: c.update_one({}, {"$set": {"symprec": -1.0}})),
    ("derived_document_breaks_schema", "materials", lambda c: c.update_many({}, {"$set": {"volume_per_atom": "x"}})),
    ("derived_document_breaks_schema", "hulls", lambda c: c.update_many({}, {"$set": {"n_entries": -1}})),
    ("derived_document_breaks_schema", "optimade_structures", lambda c: c.update_one({}, {"$set": {"nsites": 0}})),
    ("index_missing", "hulls", lambda c: c.drop_index("hull_id_1")),
    ("encoding_without_structure", "structures", lambda c: c.delete_one({"structure_id": "mp:broken"})),
    ("encoding_stale", "encodings", lambda c: c.update_one({}, {"$set": {"input_hash": "other@0.1"}})),
    ("structure_of_other_gene", "structures", lambda c: c.update_one({}, {"$set": {"fingerprint": "1 H:a"}})),
    ("structure_of_other_material", "structures", lambda c: c.update_one({}, {"$set": {"material_id": "m-none"}})),
    ("material_stale", "structures", lambda c: c.delete_one({"structure_id": "mp:1"})),
    ("hull_stale", "hulls", lambda c: c.update_one({}, {"$set": {"entries.0.formation_energy_per_atom": -9.0}})),
    ("hull_stale", "hulls", lambda c: c.update_one({}, {"$set": {"entries.0.identity": "m-none"}})),
    ("material_without_hull", "hulls", lambda c: c.delete_one({})),
    ("optimade_view_stale", "optimade_structures", lambda c: c.update_one({}, {"$set": {"input_hash": "x"}})),
    ("file_without_owner", "fs.files", lambda c: c.insert_one({"_id": old_id(), "length": 0, "filename": "x"})),
    ("chunk_without_file", "fs.chunks", lambda c: c.insert_one({"files_id": old_id(), "n": 0, "data": b"x"})),
]


@pytest.mark.parametrize(("kind", "collection", "spoil"), MENDED, ids=[f"{m[1]}-{m[0]}" for m in MENDED])
def test_what_loses_nothing_is_mended_and_a_second_look_finds_nothing(
    filled: Store, kind: str, collection: str, spoil: Callable[[Any], object]
) -> None:
    spoil(filled.database[collection])
    found = {finding.kind for finding in check(filled).findings}
    assert kind in found
    assert KINDS[kind].is_safe_to_repair
    report = repair(filled)
    assert report.done
    assert report.left.is_clean, report.left.faults
    assert repair(filled).done == {}


def test_a_wrong_index_is_made_anew_unless_duplicates_stand_in_the_way(database: Store) -> None:
    filled = database
    create_campaign(database, ("band_gap > 1",), {})
    hulls = filled.database["hulls"]
    hulls.drop_index("hull_id_1")
    hulls.create_index("hull_id")
    assert kinds(filled) == {"index_with_other_options"}
    assert repair(filled).left.is_clean
    assert hulls.index_information()["hull_id_1"]["unique"]
    campaigns = filled.database["campaigns"]
    campaigns.drop_index("campaign_id_1")
    campaigns.create_index("campaign_id")
    (document,) = campaigns.find()
    campaigns.insert_one({key: value for key, value in document.items() if key != "_id"})
    assert {"identity_not_unique", "index_with_other_options"} <= kinds(filled)
    left = repair(filled).left
    assert {"identity_not_unique", "index_with_other_options"} <= {finding.kind for finding in left.findings}
    assert campaigns.count_documents({}) == 2
    assert "campaign_id_1" in campaigns.index_information()


def test_what_is_allowed_is_a_note(filled: Store) -> None:
    filled.database["ingests"].create_index("url")
    filled.gridfs.put(b"being stored")
    filled.database["fs.chunks"].insert_one({"files_id": ObjectId(), "n": 0, "data": b"x"})
    calculation = filled.database["calculations"].find_one({"kind": "dft"})
    assert calculation is not None
    unused = {"_id": ObjectId(), "calculation_id": "calc-x", "candidate_id": "c-x", "subject": "s", "status": "failed"}
    filled.database["calculations"].insert_one(calculation | unused)
    filled.database["structures"].update_many({}, {"$unset": {"fingerprint": 1, "material_id": 1}})
    filled.database["encodings"].delete_many({})
    report = check(filled)
    noted = {finding.kind for finding in report.findings if finding.level == Level.NOTE}
    assert {"index_unknown", "file_being_written", "calculation_unused", "structures_not_encoded"} <= noted


def test_findings_are_counted_beyond_those_that_are_kept(filled: Store) -> None:
    (first, *_) = filled.database["encodings"].find()
    n = MAX_KEPT + 20
    rows = [first | {"_id": ObjectId(), "structure_id": f"x:{i}"} for i in range(n)]
    filled.database["encodings"].insert_many(rows)
    report = check(filled)
    assert report.counts["encoding_without_structure"] == n
    assert sum(finding.kind == "encoding_without_structure" for finding in report.findings) == MAX_KEPT
    assert repair(filled).done["encodings without structure dropped"] == n


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
def test_server_and_explanation_agree_on_every_field(filled: Store, document: Any) -> None:  # noqa: ANN401 - a class
    """Spoil each field of a real document in several ways: what the server finds, `explain` can explain."""
    collection = filled.database[document._meta["collection"]]
    found = collection.find_one()
    if found is None:
        assert document.__name__ in {
            "IngestDocument",
            "PromotionDocument",
            "OptimadeReferenceDocument",
            "SavedQueryDocument",
            "BudgetDocument",
            "ReservationDocument",
            "ImportDocument",
        }
        return
    schema = json_schema(document)
    assert explain(schema, found) == ""
    spoiled = filled.database["spoiled"]
    odd = ("text", -1, 0, 5, math.inf, None, True, [1], [["x"]], {"x": 1}, ObjectId(), LONG_AGO, [[1.0, 2.0, math.nan]])
    rows = [found | {"_id": ObjectId(), name: value} for name in found if name != "_id" for value in odd]
    rows += [
        {key: value for key, value in found.items() if key not in ("_id", name)} | {"_id": ObjectId()} for name in found
    ]
    spoiled.insert_many(rows)
    broken_ids = {row["_id"] for row in spoiled.find(broken(document), {"_id": 1})}
    explained = {row["_id"] for row in rows if explain(schema, row)}
    assert broken_ids == explained
    assert len(broken_ids) > len(found)


def test_documents_of_an_older_schema_are_told_from_broken_ones(filled: Store) -> None:
    filled.database["rounds"].update_many({}, {"$set": {"schema_version": SCHEMA_VERSION - 1, "colour": 1}})
    assert kinds(filled) == {"document_of_older_schema", "document_breaks_schema"}


def test_a_validated_candidate_gets_its_material_back(filled: Store) -> None:
    """Materials follow from structures and calculations: all of them lost, a repair builds them again."""
    before = list(filled.database["materials"].find().sort("material_id"))
    filled.database["materials"].delete_many({})
    assert repair(filled).left.is_clean
    after = list(filled.database["materials"].find().sort("material_id"))
    assert [row["material_id"] for row in after] == [row["material_id"] for row in before]
