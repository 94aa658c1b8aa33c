"""Indexes: what the documents ask for, what the database has, and making the one the other."""
# mypy: disable-error-code="import-untyped"
# mongoengine ships no types.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.registry import DOCUMENTS

Keys = tuple[tuple[str, Any], ...]
_OPTIONS = ("unique", "sparse", "partialFilterExpression", "expireAfterSeconds", "collation")
_MISSING_NAMESPACE = 26
_CONFLICTS = (85, 86, 11000)  # other options, other keys, duplicates
_UNAUTHORIZED = 13


@dataclass(frozen=True)
class IndexSpec:
    """One index that a collection must have."""

    collection: str
    keys: Keys
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The index as people write it, such as `unique (source, source_id)`."""
        names = ", ".join(name if order == ASCENDING else f"{name}: {order}" for name, order in self.keys)
        return f"{'unique ' if self.options.get('unique') else ''}({names})"

    def model(self) -> IndexModel:
        """Return it as pymongo creates it."""
        return IndexModel(list(self.keys), **self.options)


@dataclass(frozen=True)
class IndexFault:
    """An index that is not there, or stands there with other options under `present`."""

    spec: IndexSpec
    present: str | None


@cache
def expected_indexes() -> tuple[IndexSpec, ...]:
    """Return the indexes of every document's collection and of GridFS."""
    found = [
        IndexSpec(
            document._meta["collection"],
            tuple((str(name), order) for name, order in spec["fields"]),
            {key: spec[key] for key in (*_OPTIONS, "name") if spec.get(key)},
        )
        for document in DOCUMENTS
        for spec in document._meta["index_specs"]
    ]
    # pymongo makes these at the first file, which a user without the right to make indexes could not
    found.append(IndexSpec("fs.files", (("filename", ASCENDING), ("uploadDate", ASCENDING)), {}))
    found.append(IndexSpec("fs.chunks", (("files_id", ASCENDING), ("n", ASCENDING)), {"unique": True}))
    return tuple(found)


def index_faults(database: "Database[dict[str, Any]]") -> list[IndexFault]:
    """Return every expected index that is missing or has other options."""
    faults: list[IndexFault] = []
    present: dict[str, dict[str, Any]] = {}
    for spec in expected_indexes():
        if spec.collection not in present:
            present[spec.collection] = _present(database, spec.collection)
        same_keys = [
            (name, index) for name, index in present[spec.collection].items() if _keys(index["key"]) == spec.keys
        ]
        if any(_fits(spec, index) for _, index in same_keys):
            continue
        faults.append(IndexFault(spec, same_keys[0][0] if same_keys else None))
    return faults


def make_indexes(database: "Database[dict[str, Any]]", faults: list[IndexFault]) -> None:
    """Make the indexes that are missing; one that is there with other options is never dropped.

    Raises:
        DatabaseError: Duplicates or a foreign index stand in the way, or the user may not make indexes.
    """
    for name in dict.fromkeys(fault.spec.collection for fault in faults):
        wanted = [fault.spec for fault in faults if fault.spec.collection == name]
        try:
            database[name].create_indexes([spec.model() for spec in wanted])
        except OperationFailure as error:
            if error.code in _CONFLICTS:
                raise DatabaseError(
                    f"can't make the indexes of {name} ({str(error).split(', full error')[0]}); expected unique "
                    "identities; remove the duplicates or the foreign index, or see 'wyloop db check'"
                ) from error
            if error.code == _UNAUTHORIZED:
                raise DatabaseError(
                    f"collection {name} lacks the index {wanted[0].label}, and MongoDB refused the user "
                    f"({_refusal(error)}); expected its owner to have opened the database once; "
                    "run 'wyloop db check --repair' as the owner"
                ) from error
            raise
    for fault in index_faults(database) if faults else []:
        raise DatabaseError(
            f"collection {fault.spec.collection} has no proper index {fault.spec.label}; expected it without other "
            f"options; drop {fault.present or 'what stands in its way'} there and connect again"
        )


def _present(database: "Database[dict[str, Any]]", collection: str) -> dict[str, Any]:
    try:
        return dict(database[collection].index_information())
    except OperationFailure as error:
        if error.code == _MISSING_NAMESPACE:
            return {}
        raise


def _keys(found: Any) -> Keys:  # noqa: ANN401 - pymongo's
    return tuple((str(name), int(order) if isinstance(order, float) else order) for name, order in found)


def _fits(spec: IndexSpec, index: Mapping[str, Any]) -> bool:
    for option in ("unique", "sparse"):
        if bool(index.get(option)) is not bool(spec.options.get(option)):
            return False
    for option in ("partialFilterExpression", "expireAfterSeconds"):
        if index.get(option) != spec.options.get(option):
            return False
    wanted = spec.options.get("collation")
    return wanted is None or dict(wanted).items() <= dict(index.get("collation", {})).items()


def _refusal(error: OperationFailure) -> str:
    return str(error).splitlines()[0].split(", full error")[0].split(" to execute command")[0]
