"""Fast checks of values in bulk writes: what a field would store, or NOT_SURE where mongoengine must look."""
# mypy: disable-error-code="import-untyped"
# ruff: noqa: ANN401
# mongoengine ships no types, and a field takes any value before it is validated.

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
from mongoengine import (
    BooleanField,
    DateTimeField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    FloatField,
    IntField,
    ListField,
    StringField,
)
from mongoengine.base import BaseField

NOT_SURE = object()
"""The answer for a value that only the field itself can judge, or refuse with its own message."""

INT64 = 2**63
Converter = Callable[[Any], Any]


@cache
def converter(field: BaseField) -> Converter:
    """Return a function from a value to what the field stores; it never refuses, it answers NOT_SURE."""
    for kind, make in _MAKERS.items():
        if type(field) is kind or (kind is FloatField and isinstance(field, FloatField)):
            return make(field)
    if hasattr(field, "converted"):  # fields of our own know themselves
        own: Converter = field.converted
        return own
    return _never


def plain_type(field: BaseField) -> type | None:
    """Return the type of which the field stores every value as it is; None where there is more to check."""
    if type(field) is StringField:
        free = field.regex is None and field.max_length is None and field.min_length is None and field.choices is None
        return str if free else None
    return _PLAIN.get(type(field))


_PLAIN: Mapping[type, type] = {BooleanField: bool, DateTimeField: datetime}


def _never(_value: Any) -> Any:
    return NOT_SURE


def _string(field: StringField) -> Converter:
    if field.regex or field.max_length is not None or field.min_length is not None:
        return _never
    choices = None if field.choices is None else frozenset(field.choices)

    def convert(value: Any) -> Any:
        return value if type(value) is str and (choices is None or value in choices) else NOT_SURE

    return convert


def _integer(field: IntField) -> Converter:
    low = -INT64 if field.min_value is None else field.min_value
    high = INT64 - 1 if field.max_value is None else field.max_value
    return lambda value: value if type(value) is int and low <= value <= high else NOT_SURE


def _float(field: FloatField) -> Converter:
    low = -np.inf if field.min_value is None else field.min_value
    high = np.inf if field.max_value is None else field.max_value

    def convert(value: Any) -> Any:
        return value if type(value) is float and isfinite(value) and low <= value <= high else NOT_SURE

    return convert


def _boolean(_field: BooleanField) -> Converter:
    return lambda value: value if type(value) is bool else NOT_SURE


def _time(_field: DateTimeField) -> Converter:
    return lambda value: value if type(value) is datetime else NOT_SURE


def _embedded(field: EmbeddedDocumentField) -> Converter:
    def convert(value: Any) -> Any:
        return embedded_fields(field.document_type, value) if isinstance(value, Mapping) else NOT_SURE

    return convert


def _list(field: ListField) -> Converter:
    if field.field is None or field.max_length is not None:
        return _never
    inner = field.field

    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return NOT_SURE
        of_item = converter(inner)
        made = [of_item(item) for item in value]
        return NOT_SURE if any(item is NOT_SURE for item in made) else made

    return convert


def embedded_fields(document: type[EmbeddedDocument], fields: Mapping[str, Any]) -> Any:
    """Return the fields of an embedded document as MongoDB stores them, unknown values left out, or NOT_SURE."""
    known = document._fields
    made: dict[str, Any] = {}
    n_used = 0
    for name, field in known.items():
        value = fields.get(name)
        n_used += name in fields
        if value is None:
            if field.required or (field.default is not None and not callable(field.default)):
                return NOT_SURE
            continue  # an empty list or mapping, the default of such a field, is not stored either
        made[name] = converter(field)(value)
        if made[name] is NOT_SURE:
            return NOT_SURE
    return made if n_used == len(fields) else NOT_SURE


_MAKERS: Mapping[type, Callable[[Any], Converter]] = {
    StringField: _string,
    IntField: _integer,
    FloatField: _float,
    BooleanField: _boolean,
    DateTimeField: _time,
    EmbeddedDocumentField: _embedded,
    ListField: _list,
}
