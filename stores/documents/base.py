"""What all documents share: strictness, version, stamp, numeric fields with units, and checks before bulk writes."""
# mypy: disable-error-code="import-untyped,misc,no-untyped-call"
# ruff: noqa: ANN401
# mongoengine ships no types, and a field takes any value before it is validated.

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from math import isfinite
from typing import Any

import numpy as np
from mongoengine import (
    DateTimeField,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    StringField,
)
from mongoengine import FloatField as AnyFloatField
from mongoengine.base import BaseField
from mongoengine.errors import FieldDoesNotExist, ValidationError

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.converters import NOT_SURE, Converter, converter, plain_type

ALIAS = "wyloop"
"""The mongoengine connection that the documents belong to: the store connected last in this process."""

SCHEMA_VERSION = 2
"""Version of the documents below; a database of a newer one is refused at connection."""


def now() -> datetime:
    """Return the time in aware UTC, at the millisecond resolution that MongoDB keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


@cache
def code_version() -> str:
    """Return the version of the installed package, recorded in every document."""
    return version("wyloop")


class FloatField(AnyFloatField):
    """A finite number; the argument `unit` says in which unit."""

    def validate(self, value: Any) -> None:
        """Refuse what is not a finite number."""
        super().validate(value)
        if not np.isfinite(value):
            self.error(f"{value} is not a finite number")


class ArrayField(BaseField):
    """A finite array kept as nested lists; `unit` and `width` (numbers in a row, none for a flat list) describe it."""

    def __init__(self, *, unit: str, width: int | None = None, **options: Any) -> None:
        super().__init__(unit=unit, width=width, **options)

    def validate(self, value: Any) -> None:
        """Refuse wrong shapes and numbers that are not finite."""
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            self.error("expected an array of numbers")
        expected = (len(array),) if self.width is None else (len(array), self.width)
        if array.shape != expected:
            self.error(f"shape {array.shape}; expected {expected}")
        if not np.isfinite(array).all():
            self.error("holds a number that is not finite")

    def to_mongo(self, value: Any) -> Any:
        """Turn the array into nested lists of floats."""
        return np.asarray(value, dtype=np.float64).tolist()

    def converted(self, value: Any) -> Any:
        """Do both at once for an array of the right form."""
        n_axes = 1 if self.width is None else 2
        if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != n_axes:
            return NOT_SURE
        if (n_axes == 2 and value.shape[1] != self.width) or not isfinite(np.vdot(value, value)):
            return NOT_SURE  # a sum of squares is finite where every number is, unless they are very large
        return value.tolist()


class StringsField(BaseField):
    """A list of texts."""

    def validate(self, value: Any) -> None:
        """Refuse anything but texts."""
        if not isinstance(value, list | tuple) or any(not isinstance(item, str) for item in value):
            self.error("expected a list of texts")

    def to_mongo(self, value: Any) -> Any:
        """Turn the texts into a list."""
        return list(value)

    def converted(self, value: Any) -> Any:
        """Do both at once for plain texts."""
        is_plain = isinstance(value, list | tuple) and set(map(type, value)) <= {str}
        return list(value) if is_plain else NOT_SURE


class WyloopDocument(Document):
    """Base of every collection's document: strict, versioned, stamped."""

    meta = {"abstract": True, "db_alias": ALIAS, "strict": True, "auto_create_index": False}

    schema_version = IntField(unit="1", required=True, default=SCHEMA_VERSION)
    code_version = StringField(required=True)
    last_updated = DateTimeField(required=True)


class CrystalFields(EmbeddedDocument):
    """A crystal inside a document."""

    lattice = ArrayField(unit="Å", width=3, required=True)
    species = StringsField(required=True)
    frac_coords = ArrayField(unit="1", width=3, required=True)


def checked(document: type[WyloopDocument], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a whole document field by field, and return it, with defaults and stamp, as pymongo writes it.

    It is what building, validating and converting a mongoengine document does, at a fifth of the time.

    Raises:
        DatabaseError: A field that the document does not have, or a value that it does not allow, or one missing.
    """
    given = {"code_version": code_version(), **fields}
    if "last_updated" not in given:
        given["last_updated"] = now()
    plan = _plan(document)
    if not given.keys() <= plan.keys():
        _refuse_unknown(document, given)
    made: dict[str, Any] = {}
    for name, (plain, convert, default, is_required) in plan.items():
        value = given.get(name)
        if value is None:
            value = default() if callable(default) else default
            if value is None:
                if is_required:
                    raise DatabaseError(f"{document.__name__} lacks {name}; expected a value; its schema requires one")
                continue
        if type(value) is plain:
            made[name] = value
            continue
        made[name] = convert(value)
        if made[name] is NOT_SURE:
            made[name] = _converted(document, name, value)
    return made


_Plan = dict[str, tuple[type | None, Converter, Any, bool]]


def _plan(document: type[WyloopDocument]) -> _Plan:
    """Return each field's type that is stored as it is, its fast check, default, and whether it must have a value."""
    if document not in _PLANS:
        _PLANS[document] = {
            name: (plain_type(field), converter(field), field.default, field.required and name != "id")
            for name, field in document._fields.items()
        }
    return _PLANS[document]


_PLANS: dict[type[WyloopDocument], _Plan] = {}


def checked_update(document: type[WyloopDocument], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Validate some fields of a document, and return them, with the stamp, for `$set`; None is kept as null.

    Raises:
        DatabaseError: A field that the document does not have, or a value that it does not allow.
    """
    given = {"code_version": code_version(), "last_updated": now(), **fields}
    _refuse_unknown(document, given)
    return {name: None if value is None else _converted(document, name, value) for name, value in given.items()}


def _refuse_unknown(document: type[WyloopDocument], fields: Mapping[str, Any]) -> None:
    for name in fields:
        if name not in document._fields:
            known = ", ".join(document._fields)
            raise DatabaseError(f"{document.__name__} has no field {name!r}; expected one of {known}")


def _converted(document: type[WyloopDocument], name: str, value: Any) -> Any:
    field = document._fields[name]
    made = converter(field)(value)
    if made is not NOT_SURE:
        return made
    if isinstance(value, Mapping) and isinstance(field, EmbeddedDocumentField):
        value = embedded(field.document_type, value)
    elif isinstance(value, list | tuple) and isinstance(getattr(field, "field", None), EmbeddedDocumentField):
        kind = field.field.document_type
        value = [embedded(kind, item) if isinstance(item, Mapping) else item for item in value]
    try:
        field._validate(value)
    except ValidationError as error:
        raise DatabaseError(_refusal(document, error, name)) from error
    return field.to_mongo(value)


def embedded(document: type[EmbeddedDocument], fields: Mapping[str, Any]) -> Any:
    """Build an embedded document; it is validated with the document that takes it.

    Raises:
        DatabaseError: A field that the document does not have.
    """
    try:
        return document(**fields)
    except FieldDoesNotExist as error:
        raise DatabaseError(_refusal(document, error)) from error


def _refusal(document: type, error: Exception, name: str = "") -> str:
    text = " ".join(str(error).split())
    return f"{document.__name__} refused{' ' + name if name else ''}: {text}; expected fields and values of its schema"


__all__ = [
    "ALIAS",
    "SCHEMA_VERSION",
    "ArrayField",
    "CrystalFields",
    "EmbeddedDocumentField",
    "FloatField",
    "StringsField",
    "WyloopDocument",
    "checked",
    "checked_update",
    "code_version",
    "embedded",
    "now",
]
