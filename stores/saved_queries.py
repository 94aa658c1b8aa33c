"""Saved queries: questions under a name, kept as the canonical text of their conditions and read again when used."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from wyloop.models.errors import TargetError
from wyloop.models.targets import Target
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.saved_queries import SavedQueryDocument
from wyloop.stores.failures import translated
from wyloop.stores.queries import COLLECTIONS, Collection, Row, query, sort_column

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class SavedQuery:
    """A question under a name; what it means is what its conditions meant when it was saved."""

    name: str
    target: Target
    collection: Collection | Literal["all"] = "all"
    sort: str | None = None
    limit: int | None = None


@translated
def save_query(store: Store, saved: SavedQuery) -> None:
    """Keep a question under its name; one of the same name is replaced.

    Raises:
        TargetError: A name, collection, sort column or limit that can't be.
    """
    _check(saved)
    fields = {
        "name": saved.name,
        "conditions": saved.target.texts(),
        "collection": saved.collection,
        "sort": saved.sort,
        "limit": saved.limit,
    }
    document = checked(SavedQueryDocument, fields)
    store.database["saved_queries"].replace_one({"name": {"$eq": saved.name}}, document, upsert=True)


@translated
def saved_query(store: Store, name: str) -> SavedQuery:
    """Return the question of this name, read and checked as if it were new.

    Raises:
        TargetError: There is none, or what is stored can't be read any more.
    """
    found = store.database["saved_queries"].find_one({"name": {"$eq": str(name)}})
    if found is None:
        raise TargetError(f"no saved query {name!r}; expected a name that 'wyloop db saved' lists")
    return _read(found)


@translated
def saved_queries(store: Store) -> list[SavedQuery]:
    """Return all saved questions by name."""
    return [_read(found) for found in store.database["saved_queries"].find().sort("name", 1)]


@translated
def remove_query(store: Store, name: str) -> None:
    """Remove the question of this name; the data it asked for stay.

    Raises:
        TargetError: There is none.
    """
    if store.database["saved_queries"].delete_one({"name": {"$eq": str(name)}}).deleted_count == 0:
        raise TargetError(f"no saved query {name!r}; expected a name that 'wyloop db saved' lists")


@translated
def ask(store: Store, saved: SavedQuery) -> list[Row]:
    """Return the rows that a saved question finds now."""
    return query(store, saved.target, collection=saved.collection, sort=saved.sort, limit=saved.limit)


def _read(found: dict[str, Any]) -> SavedQuery:
    name = found["name"]
    try:
        target = Target.parse([str(text) for text in found.get("conditions", [])])
        saved = SavedQuery(name, target, found["collection"], found.get("sort"), found.get("limit"))
        _check(saved)
    except TargetError as error:
        raise TargetError(f"saved query {name!r} can't be read any more ({error}); save it again") from error
    return saved


def _check(saved: SavedQuery) -> None:
    if not isinstance(saved.name, str) or not _NAME.fullmatch(saved.name):
        raise TargetError(f"name {saved.name!r}; expected at most 64 letters, digits, dots, hyphens and underscores")
    if saved.collection not in (*COLLECTIONS, "all"):
        raise TargetError(f"collection {saved.collection!r}; expected one of {', '.join(COLLECTIONS)}, all")
    if saved.sort is not None:
        sort_column(saved.sort)
    if saved.limit is not None and saved.limit < 0:
        raise TargetError(f"limit {saved.limit}; expected 0 or more")
