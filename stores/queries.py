"""Questions to the database in the language of targets; a user's text becomes values, never operators."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from wyloop.models.errors import TargetError
from wyloop.models.targets import AnyCondition, Condition, ElementCondition, Exclusion, Target, TextCondition
from wyloop.models.wyckoff.tables import space_group
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json

if TYPE_CHECKING:
    from pandas import DataFrame  # half a second

Collection = Literal["materials", "structures", "candidates"]
COLLECTIONS: tuple[Collection, ...] = ("materials", "structures", "candidates")
IDENTITY: Mapping[str, str] = {
    "materials": "material_id",
    "structures": "structure_id",
    "candidates": "candidate_id",
}

COLUMNS = (
    "id",
    "collection",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "nsites",
    "space_group_number",
    "volume_per_atom",
    "formation_energy_per_atom",
    "energy_method",
    "energy_above_hull",
    "hull_id",
    "band_gap",
    "band_gap_method",
    "lowest_optical_frequency",
    "is_validated",
    "meets_target",
    "status",
)
"""What a row of an answer may hold, in this order; absent where the collection has no such field."""

_PREDICTED = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
_SORTABLE = tuple(column for column in COLUMNS if column not in ("id", "collection", "elements"))


@translated
def query(
    store: Store,
    filters: Target,
    *,
    collection: Collection | Literal["all"] = "materials",
    limit: int | None = None,
    sort: str | None = None,
) -> list[dict[str, JSON]]:
    """Return rows that meet every condition, ready for JSON.

    A structure's space group is that of its gene, where it has one. A candidate's properties are predictions.

    Args:
        store: The database.
        filters: Conditions, as `Target.parse` reads them.
        collection: Where to look; all: materials, then structures, then candidates.
        limit: Most rows.
        sort: Name of a column, with a minus before it for falling order; rows without a value come last.

    Raises:
        TargetError: The sort column is unknown, or the limit is negative.
    """
    if limit is not None and limit < 0:
        raise TargetError(f"limit {limit}; expected 0 or more")
    rows: list[dict[str, JSON]] = []
    for name in COLLECTIONS if collection == "all" else (collection,):
        rows += _query(store, filters, name, limit, sort)
    if sort is not None and collection == "all":
        rows = _sorted(rows, sort)
    return rows if limit is None else rows[:limit]


def to_frame(rows: Sequence[Mapping[str, JSON]]) -> "DataFrame":
    """Return rows as a pandas frame, the columns in the order of `COLUMNS`."""
    import pandas as pd  # half a second

    present = [column for column in COLUMNS if any(column in row for row in rows)]
    return pd.DataFrame([dict(row) for row in rows], columns=present)


def mongo_filter(filters: Target, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the Mongo query of a target: known field names and plain values only.

    Args:
        filters: Conditions.
        fields: Where a field stands in the documents, if elsewhere than under its own name.
    """
    parts = [_condition(condition, fields or {}) for condition in filters.conditions]
    return {"$and": parts} if parts else {}


def _query(
    store: Store, filters: Target, collection: Collection, limit: int | None, sort: str | None
) -> list[dict[str, JSON]]:
    places = {name: f"prediction.{name}" for name in _PREDICTED} if collection == "candidates" else {}
    symmetry = tuple(c for c in filters.conditions if c.field in ("space_group_number", "crystal_system"))
    stages: list[dict[str, Any]]
    if collection == "structures":
        others = Target(tuple(c for c in filters.conditions if c not in symmetry))
        stages = [{"$match": mongo_filter(others)}]
        if symmetry:
            stages += [*_gene_symmetry(), {"$match": mongo_filter(Target(symmetry))}]
    else:
        stages = [{"$match": mongo_filter(filters, places)}]
    stages += _order(collection, sort, places)
    if limit is not None:
        if limit == 0:
            return []
        stages.append({"$limit": limit})
    if collection == "structures" and not symmetry:
        stages += _gene_symmetry()
    columns: dict[str, Any] = {name: f"${places.get(name, name)}" for name in COLUMNS[2:]}
    stages.append({"$project": {"_id": 0, "id": f"${IDENTITY[collection]}", **columns}})
    found = store.database[collection].aggregate(stages, allowDiskUse=True)
    return [_row(collection, row) for row in found]


def _row(collection: str, fields: dict[str, Any]) -> dict[str, JSON]:
    row: dict[str, JSON] = {"id": fields["id"], "collection": collection}
    row |= {name: to_json(fields[name]) for name in COLUMNS[2:] if fields.get(name) is not None}
    return row


def _gene_symmetry() -> list[dict[str, Any]]:
    """Return stages that put the gene's space group in the place of the one that the source reports."""
    return [
        {"$lookup": {"from": "encodings", "localField": "structure_id", "foreignField": "structure_id", "as": "gene"}},
        {"$set": {"space_group_number": {"$ifNull": [{"$first": "$gene.space_group_number"}, "$space_group_number"]}}},
        {"$unset": "gene"},
    ]


def _order(collection: str, sort: str | None, places: Mapping[str, str]) -> list[dict[str, Any]]:
    identity = IDENTITY[collection]
    if sort is None:
        return [{"$sort": {identity: 1}}]
    name = _sort_column(sort)
    place = places.get(name, name)
    return [
        {"$set": {"unknown": {"$eq": [{"$ifNull": [f"${place}", None]}, None]}}},
        {"$sort": {"unknown": 1, place: -1 if sort.startswith("-") else 1, identity: 1}},
    ]


def _sort_column(sort: str) -> str:
    name = sort.removeprefix("-")
    if name not in _SORTABLE:
        raise TargetError(f"can't sort by {name!r}; expected one of {', '.join(_SORTABLE)}")
    return name


def _sorted(rows: list[dict[str, JSON]], sort: str) -> list[dict[str, JSON]]:
    name = _sort_column(sort)
    known = [row for row in rows if row.get(name) is not None]
    known.sort(key=lambda row: row[name], reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]  # one kind a column
    return known + [row for row in rows if row.get(name) is None]


def _condition(condition: AnyCondition, places: Mapping[str, str]) -> dict[str, Any]:
    if condition.field == "crystal_system":
        return _crystal_system(condition)
    place = places.get(condition.field, condition.field)
    if isinstance(condition, Condition):
        bounds: dict[str, Any] = {"$type": "number"}
        if condition.low is not None:
            bounds["$gte" if condition.low_inclusive else "$gt"] = condition.low
        if condition.high is not None:
            bounds["$lte" if condition.high_inclusive else "$lt"] = condition.high
        return {place: bounds}
    if isinstance(condition, TextCondition):
        return {place: {"$eq": condition.value}}
    if isinstance(condition, Exclusion):
        kind = "string" if isinstance(condition.value, str) else "number"
        return {place: {"$type": kind, "$ne": condition.value}}
    return _elements(condition)


def _elements(condition: ElementCondition) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"elements": {"$type": "array"}}]
    if condition.must:
        parts.append({"elements": {"$all": list(condition.must)}})
    if condition.must_not:
        parts.append({"elements": {"$nin": list(condition.must_not)}})
    if condition.may is not None:
        parts.append({"elements": {"$not": {"$elemMatch": {"$nin": list(condition.may)}}}})
    return {"$and": parts}


def _crystal_system(condition: AnyCondition) -> dict[str, Any]:
    systems = {number: space_group(number).crystal_system for number in range(1, 231)}
    allowed = [number for number, system in systems.items() if condition.accepts(system)]
    return {"space_group_number": {"$in": allowed}}
