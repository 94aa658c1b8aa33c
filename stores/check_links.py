"""References between documents, campaigns that contradict their rounds, and files in GridFS: what does not fit."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from mongoengine import ObjectIdField  # type: ignore[import-untyped]  # ships no types
from pymongo.client_session import ClientSession

from wyloop.stores.budget import contradictions
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.findings import Finding, finding

WRITING = timedelta(hours=1)
"""A file younger than this without an owner may be one that somebody stores right now."""


def _candidates(store: Store, session: ClientSession) -> Iterator[Finding]:
    """Campaign, round and model of every candidate: distinct values first, since they are few."""
    targets = (
        ("campaign_id", "campaigns", "candidate_without_campaign"),
        ("round_id", "rounds", "candidate_without_round"),
        ("model_id", "model_versions", "candidate_without_model"),
    )
    for field, collection, kind in targets:
        missing = _missing(store, session, "candidates", field, collection)
        query = {field: {"$in": missing}}
        for row in store.database["candidates"].find(query, {"candidate_id": 1, field: 1}, session=session):
            yield finding(kind, "candidates", row.get("candidate_id"), f"{field} {row[field]} does not exist")
    stages: list[dict[str, Any]] = [
        {"$match": {"status": "validated"}},
        _absent("materials", "fingerprint", "fingerprint"),
        *_only_absent({"candidate_id": 1}),
    ]
    for row in store.database["candidates"].aggregate(stages, session=session):
        what = "its status is validated, but no material has its fingerprint"
        yield finding("candidate_validated_without_material", "candidates", row.get("candidate_id"), what)


def _rounds(store: Store, session: ClientSession) -> Iterator[Finding]:
    for field, collection, kind in (
        ("campaign_id", "campaigns", "round_without_campaign"),
        ("model_id", "model_versions", "round_without_model"),
    ):
        missing = _missing(store, session, "rounds", field, collection)
        for row in store.database["rounds"].find({field: {"$in": missing}}, {"round_id": 1, field: 1}, session=session):
            yield finding(kind, "rounds", row.get("round_id"), f"{field} {row[field]} does not exist")
    missing = _missing(store, session, "model_versions", "campaign_id", "campaigns")
    query = {"campaign_id": {"$in": missing}}
    for row in store.database["model_versions"].find(query, {"model_id": 1, "campaign_id": 1}, session=session):
        what = f"campaign_id {row['campaign_id']} does not exist"
        yield finding("model_without_campaign", "model_versions", row.get("model_id"), what)


def _campaigns(store: Store, session: ClientSession) -> Iterator[Finding]:
    lookup = {
        "from": "rounds",
        "localField": "campaign_id",
        "foreignField": "campaign_id",
        "pipeline": [{"$project": {"_id": 0, "number": 1, "state": 1}}, {"$sort": {"number": 1}}],
        "as": "rounds",
    }
    stages: list[dict[str, Any]] = [
        {"$lookup": lookup},
        {"$project": {"campaign_id": 1, "rounds_closed": 1, "rounds": 1}},
    ]
    for row in store.database["campaigns"].aggregate(stages, session=session):
        if what := _contradiction(row.get("rounds_closed", 0), row["rounds"]):
            yield finding("rounds_contradict_campaign", "campaigns", row.get("campaign_id"), what)


def _contradiction(n_closed: int, rounds: list[dict[str, Any]]) -> str:
    closed = [one.get("number") for one in rounds if one.get("state") == "closed"]
    still_open = [one.get("number") for one in rounds if one.get("state") == "open"]
    if closed != list(range(1, n_closed + 1)):
        return f"rounds_closed is {n_closed}, but the closed rounds are {closed}"
    if len(still_open) > 1:
        return f"rounds {still_open} are open at once; expected one"
    if still_open and still_open != [n_closed + 1]:
        return f"round {still_open[0]} is open after {n_closed} closed rounds; expected round {n_closed + 1}"
    return ""


def _calculations(store: Store, session: ClientSession) -> Iterator[Finding]:
    query = {"status": "completed", "result": None}
    for row in store.database["calculations"].find(query, {"calculation_id": 1}, session=session):
        what = "its status is completed, but it has no result"
        yield finding("calculation_completed_without_result", "calculations", row.get("calculation_id"), what)
    stages: list[dict[str, Any]] = [
        {"$match": {"kind": {"$ne": "reference"}}},
        {"$project": {"calculation_id": 1, "candidate_id": 1, "subject": 1}},
        _absent("candidates", "candidate_id", "candidate_id"),
        {"$match": {"absent": []}},
        _absent("materials", "subject", "fingerprint"),
        *_only_absent({"calculation_id": 1}),
    ]
    for row in store.database["calculations"].aggregate(stages, session=session):
        what = "no candidate asked for it and no material uses it"
        yield finding("calculation_unused", "calculations", row.get("calculation_id"), what)


def _materials(store: Store, session: ClientSession) -> Iterator[Finding]:
    stages: list[dict[str, Any]] = [
        {"$project": {"material_id": 1, "calculation_ids": 1}},
        {"$unwind": "$calculation_ids"},
        _absent("calculations", "calculation_ids", "calculation_id"),
        *_only_absent({"material_id": 1, "calculation_ids": 1}),
    ]
    for row in store.database["materials"].aggregate(stages, session=session):
        what = f"calculation {row['calculation_ids']} does not exist"
        yield finding("material_without_calculation", "materials", row.get("material_id"), what)


def _files(store: Store, session: ClientSession) -> Iterator[Finding]:
    """Both ways between GridFS and the documents that name its files; files are as few as models."""
    owned: dict[ObjectId, str] = {}
    for collection, field in file_fields():
        query = {field: {"$type": "objectId"}}
        for row in store.database[collection].find(query, session=session, projection={"_id": 0, field: 1}):
            owned[row[field]] = f"{collection}.{field}"
    lost = {"weights_file": None, "weights_dropped_at": None}
    for row in store.database["model_versions"].find(lost, {"model_id": 1}, session=session):
        what = f"{row.get('model_id')} names no weights, and nobody dropped them"
        yield finding("file_missing", "model_versions", row.get("model_id"), what)
    lengths = {row["_id"]: row for row in store.database["fs.files"].find({}, session=session)}
    for file in owned.keys() - lengths.keys():
        yield finding("file_missing", "fs.files", file, f"{owned[file]} names it, but it does not exist")
    for file in lengths.keys() - owned.keys():
        name = lengths[file].get("filename") or file
        kind = "file_being_written" if _is_young(file) else "file_without_owner"
        yield finding(kind, "fs.files", file, f"no document names the file {name}")
    stages: list[dict[str, Any]] = [
        {"$group": {"_id": "$files_id", "n": {"$sum": 1}, "size": {"$sum": {"$binarySize": "$data"}}}},
    ]
    sizes = {row["_id"]: row["size"] for row in store.database["fs.chunks"].aggregate(stages, session=session)}
    for file in sizes.keys() - lengths.keys():
        kind = "file_being_written" if _is_young(file) else "chunk_without_file"
        yield finding(kind, "fs.chunks", file, "chunks of a file that does not exist")
    for file, row in lengths.items():
        if sizes.get(file, 0) != row.get("length"):
            what = f"{sizes.get(file, 0)} bytes in its chunks; expected {row.get('length')}"
            yield finding("file_incomplete", "fs.files", file, what)


def file_fields() -> list[tuple[str, str]]:
    """Return the collection and name of every field that names a file in GridFS."""
    return [
        (document._meta["collection"], field.db_field)
        for document in DOCUMENTS
        for field in document._fields.values()
        if isinstance(field, ObjectIdField) and field.db_field != "_id"
    ]


def _is_young(file: object) -> bool:
    made: datetime | None = file.generation_time if isinstance(file, ObjectId) else None
    return made is not None and now() - made < WRITING


def _missing(store: Store, session: ClientSession, collection: str, field: str, foreign: str) -> list[str]:
    """Return the values of a field that are no identity in another collection."""
    stages: list[dict[str, Any]] = [
        {"$match": {field: {"$type": "string"}}},
        {"$group": {"_id": f"${field}"}},
        _absent(foreign, "_id", field),
        *_only_absent({}),
    ]
    return [row["_id"] for row in store.database[collection].aggregate(stages, session=session)]


def _absent(collection: str, local: str, foreign: str) -> dict[str, Any]:
    first = [{"$limit": 1}, {"$project": {"_id": 1}}]
    return {
        "$lookup": {
            "from": collection, "localField": local, "foreignField": foreign, "pipeline": first, "as": "absent",
        }
    }  # fmt: skip


def _only_absent(fields: dict[str, int]) -> list[dict[str, Any]]:
    return [{"$match": {"absent": []}}, {"$project": {"_id": 1} | fields}]


def _budgets(store: Store, session: ClientSession) -> Iterator[Finding]:
    for what in contradictions(store, session):
        yield finding("budget_contradicts_reservations", "budgets", what.partition(":")[0], what)


LOOKS = (_candidates, _rounds, _campaigns, _calculations, _materials, _files, _budgets)
