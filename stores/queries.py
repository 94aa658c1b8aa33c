"""Questions to the database in the language of targets; a user's text becomes values, never operators.

Every answer is read through an index and a cursor: what a question costs grows with its answer, not with the database.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from pymongo.errors import PyMongoError

from wyloop.models.errors import DatabaseError, TargetError
from wyloop.models.targets import Target
from wyloop.stores.conditions import mongo_filter
from wyloop.stores.connection import Store
from wyloop.stores.failures import describe, translated
from wyloop.stores.indexes import expected_indexes
from wyloop.stores.records import JSON, crystal_of, to_json

if TYPE_CHECKING:
    from pandas import DataFrame  # half a second
    from pymatgen.core.structure import Structure  # half a second

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
_BATCH = 1000
Row = dict[str, JSON]


@translated
def query(
    store: Store,
    filters: Target,
    *,
    collection: Collection | Literal["all"] = "materials",
    limit: int | None = None,
    sort: str | None = None,
) -> list[Row]:
    """Return rows that meet every condition, ready for JSON: what `rows` yields."""
    return list(rows(store, filters, collection=collection, limit=limit, sort=sort))


def rows(
    store: Store,
    filters: Target,
    *,
    collection: Collection | Literal["all"] = "materials",
    limit: int | None = None,
    sort: str | None = None,
) -> Iterator[Row]:
    """Yield rows that meet every condition, ready for JSON, a batch of them in memory.

    A structure's space group is that of its gene, once it has one. A candidate's properties are predictions.

    Args:
        store: The database.
        filters: Conditions, as `Target.parse` reads them.
        collection: Where to look; all: materials, then the structures that are no part of one, then candidates.
        limit: Most rows.
        sort: Name of a column, with a minus before it for falling order; rows without a value come last, those with
            the same value in the order of their ids, which falls with falling values.

    Raises:
        TargetError: The sort column is unknown, or the limit is negative.
    """
    if limit is not None and limit < 0:
        raise TargetError(f"limit {limit}; expected 0 or more")
    if sort is not None:
        sort_column(sort)
    names = COLLECTIONS if collection == "all" else (collection,)
    found = [_rows(store, filters, name, limit, sort, is_one_of_all=collection == "all") for name in names]
    return islice(chain.from_iterable(found) if sort is None else _merged(found, sort), limit)


@translated
def query_frame(
    store: Store,
    filters: Target,
    *,
    collection: Collection | Literal["all"] = "materials",
    limit: int | None = None,
    sort: str | None = None,
) -> "DataFrame":
    """Return what `query` finds as a pandas frame."""
    return to_frame(query(store, filters, collection=collection, limit=limit, sort=sort))


@translated
def query_crystals(
    store: Store,
    filters: Target,
    *,
    collection: Literal["materials", "structures"] = "materials",
    limit: int | None = None,
    sort: str | None = None,
) -> "dict[str, Structure]":
    """Return the crystals that meet every condition as pymatgen structures by id, in the order of `query`."""
    found = query(store, filters, collection=collection, limit=limit, sort=sort)
    return pymatgen_structures(store, collection, [str(row["id"]) for row in found])


@translated
def pymatgen_structures(
    store: Store, collection: Literal["materials", "structures"], identities: Sequence[str]
) -> "dict[str, Structure]":
    """Return the crystals with these ids, those that exist, as pymatgen structures in this order."""
    name = IDENTITY[collection]
    fields = {"_id": 0, name: 1, "crystal": 1, "lattice": 1, "species": 1, "frac_coords": 1}
    made: dict[str, Structure] = {}
    for start in range(0, len(identities), _BATCH):
        wanted = list(map(str, identities[start : start + _BATCH]))
        for found in store.database[collection].find({name: {"$in": wanted}}, fields):
            made[found[name]] = crystal_of(found.get("crystal", found)).to_pymatgen()
    return {identity: made[identity] for identity in map(str, identities) if identity in made}


def to_frame(found: Sequence[Mapping[str, JSON]]) -> "DataFrame":
    """Return rows as a pandas frame, the columns in the order of `COLUMNS`."""
    import pandas as pd  # half a second

    present = [column for column in COLUMNS if any(column in row for row in found)]
    return pd.DataFrame([dict(row) for row in found], columns=present)


def sort_column(sort: str) -> str:
    """Return the column that a sort text names.

    Raises:
        TargetError: There is no such column, or rows can't be ordered by it.
    """
    name = sort.removeprefix("-")
    if name not in _SORTABLE:
        raise TargetError(f"can't sort by {name!r}; expected one of {', '.join(_SORTABLE)}")
    return name


def _rows(
    store: Store, filters: Target, collection: Collection, limit: int | None, sort: str | None, *, is_one_of_all: bool
) -> Iterator[Row]:
    if limit == 0:
        return
    places = {name: f"prediction.{name}" for name in _PREDICTED} if collection == "candidates" else {}
    parts = [mongo_filter(filters, places)]
    if is_one_of_all and collection == "structures":
        parts.append({"material_id": None})  # the others are shown as materials
    projection = {"_id": 0, IDENTITY[collection]: 1} | {places.get(name, name): 1 for name in COLUMNS[2:]}
    n_left = limit
    try:
        for extra, order in _passes(collection, sort, places, filters):
            criteria = [part for part in (*parts, extra) if part]
            found = store.database[collection].find({"$and": criteria} if criteria else {}, projection)
            found = found.sort(order).hint(_index(collection, filters, order[0][0]))
            for row in found.limit(n_left or 0).batch_size(_BATCH):
                yield _row(collection, row)
                if n_left is not None:
                    n_left -= 1
            if n_left == 0:
                return
    except PyMongoError as error:  # `translated` sees no further than the first row
        raise DatabaseError(describe(error)) from error


def _passes(
    collection: str, sort: str | None, places: Mapping[str, str], filters: Target
) -> list[tuple[dict[str, Any], list[tuple[str, int]]]]:
    """Return condition and order of each pass over the collection: those with a value first, then those without.

    An order that an index has; to sort by "has no value" first would read and sort everything.
    """
    identity = IDENTITY[collection]
    if sort is None:
        return [({}, [(identity, 1)])]
    name = sort_column(sort)
    place = places.get(name, name)
    if sort.startswith("-"):  # MongoDB puts what has no value last by itself
        return [({}, [(place, -1), (identity, -1)])]
    with_value = ({place: {"$ne": None}}, [(place, 1), (identity, 1)])
    if name in filters.fields:  # who has no value meets no condition
        return [({}, with_value[1])]
    return [with_value, ({place: None}, [(identity, 1)])]


def _index(collection: str, filters: Target, place: str) -> list[tuple[str, Any]] | None:
    """Return the index that has the order and what must be equal before it; None leaves the choice to the server.

    Left alone, the server keeps one plan for all questions of a form, finds again and again that it fits the next one
    badly, and tries every index anew: that takes longer than the answer.
    """
    fields = [condition.field for condition in filters.conditions]
    if "chemsys" in fields or "formula_pretty" in fields or filters.elements.may is not None:
        return None  # these leave so few documents that their order does not matter
    equal = ["elements"] if filters.elements.must else []
    equal += ["space_group_number"] if {"space_group_number", "crystal_system"} & set(fields) else []
    if equal[-1:] != ["space_group_number"]:
        return None
    first = (*equal, place)
    found = (one.keys for one in expected_indexes() if one.collection == collection)
    return next((list(keys) for keys in found if tuple(name for name, _ in keys[: len(first)]) == first), None)


def _row(collection: Collection, fields: dict[str, Any]) -> Row:
    if collection == "candidates":
        fields |= fields.pop("prediction", {})
    row: Row = {"id": fields[IDENTITY[collection]], "collection": collection}
    for name in COLUMNS[2:]:
        value = fields.get(name)
        if value is not None:
            row[name] = value if type(value) in (str, int) else to_json(value)
    return row


def _merged(found: Sequence[Iterator[Row]], sort: str) -> Iterator[Row]:
    name, is_falling = sort_column(sort), sort.startswith("-")

    def key(row: Row) -> tuple[bool, Any]:
        value = row.get(name)
        return (value is None) is not is_falling, 0 if value is None else value

    return merge(*found, key=key, reverse=is_falling)
