"""Conditions on one property as MongoDB queries, each with its negation: unknown values meet neither."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from wyloop.platform.api.errors import bad_request, not_implemented
from wyloop.platform.api.properties import Property

MAX_LIST_LENGTH = 1_000_000
MAX_PAIRED = 10  # elements, 45 pairs

Query = dict[str, Any]
NEVER: Query = {"$alwaysFalse": 1}
ALWAYS: Query = {}

OPERATORS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "=": "$eq", "!=": "$ne"}
_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "!=", "!=": "="}
REVERSED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


def all_of(parts: list[Query]) -> Query:
    """Return what meets every part."""
    if any(part is NEVER for part in parts):
        return NEVER
    kept = [part for part in parts if part is not ALWAYS]
    if not kept:
        return ALWAYS
    return kept[0] if len(kept) == 1 else {"$and": kept}


def any_of(parts: list[Query]) -> Query:
    """Return what meets any part."""
    if any(part is ALWAYS for part in parts):
        return ALWAYS
    kept = [part for part in parts if part is not NEVER]
    if not kept:
        return NEVER
    return kept[0] if len(kept) == 1 else {"$or": kept}


def known(found: Property, *, is_known: bool) -> Query:
    """Return the condition that a property is known, or unknown."""
    if found.kind == "constant" or not found.path:
        return ALWAYS if is_known == (found.kind == "constant") else NEVER
    return {found.path: {"$ne": None}} if is_known else {found.path: {"$eq": None}}


def compared(found: Property, operator: str, value: Any, *, is_negated: bool) -> Query:  # noqa: ANN401 - of any type
    """Return the condition that a property compares so with a value, or its negation.

    Raises:
        BadRequest: The value is of another type than the property.
        NotImplementedResponse: The property is a list.
    """
    operator = _NEGATED[operator] if is_negated else operator
    if found.kind == "constant":
        return ALWAYS if _holds(found.constant, operator, _typed(found, value)) else NEVER
    if not found.path:
        return NEVER
    if found.kind == "list":
        raise not_implemented(f"lists such as {found.name!r} are filtered by HAS and LENGTH, not by {operator}")
    if found.kind == "boolean" and operator not in ("=", "!="):
        raise bad_request(f"{found.name} {operator} {value}; expected = or != with TRUE or FALSE")
    typed = _typed(found, value)
    if operator == "!=":
        return {found.path: {"$nin": [typed, None]}}
    return {found.path: {OPERATORS[operator]: typed}}


def _holds(left: str, operator: str, right: str) -> bool:
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "=": left == right,
        "!=": left != right,
    }[operator]


def has_part(found: Property, word: str, value: Any, *, is_negated: bool) -> Query:  # noqa: ANN401 - of any type
    """Return the condition that a text CONTAINS, STARTS or ENDS with another, or its negation.

    Raises:
        BadRequest: Property or value is no text.
    """
    if found.kind not in ("string", "constant") or not isinstance(value, str):
        raise bad_request(f"{found.name} {word} {value!r}; expected a property and a value that are texts")
    if found.kind == "constant":
        test = {"CONTAINS": value in found.constant, "STARTS": found.constant.startswith(value)}
        return ALWAYS if test.get(word, found.constant.endswith(value)) ^ is_negated else NEVER
    if not found.path:
        return NEVER
    if "\0" in value:  # no text in the database has one, and no pattern may
        return known(found, is_known=True) if is_negated else NEVER
    pattern = re.escape(value)
    expression = {"$regex": {"CONTAINS": pattern, "STARTS": f"^{pattern}", "ENDS": rf"{pattern}\z"}[word]}
    return {found.path: {"$not": expression, "$ne": None}} if is_negated else {found.path: expression}


def has_length(found: Property, operator: str, length: int, *, is_negated: bool) -> Query:
    """Return the condition that the length of a list compares so with a number, or its negation.

    Raises:
        BadRequest: The property is no list.
    """
    operator = _NEGATED[operator] if is_negated else operator
    if found.kind != "list":
        raise bad_request(f"{found.name} LENGTH; expected a property that is a list")
    if not found.path:
        return NEVER
    if abs(length) > MAX_LIST_LENGTH:
        raise bad_request(f"LENGTH {length}; expected at most {MAX_LIST_LENGTH}")
    any_list = {found.path: {"$ne": None}}
    if found.length_path is not None:
        if operator == "!=":
            return {found.length_path: {"$nin": [length, None]}}
        return {found.length_path: {OPERATORS[operator]: length}}
    if operator in ("=", "!="):
        if length < 0:
            return NEVER if operator == "=" else any_list
        size = {"$size": length}
        return {found.path: size} if operator == "=" else {found.path: {"$not": size, "$ne": None}}
    least = length + (operator in (">", "<="))  # a list of at least so many items has one in that place
    is_longer = operator in (">", ">=")
    if least <= 0:
        return any_list if is_longer else NEVER
    return {"$and": [any_list, {f"{found.path}.{least - 1}": {"$exists": is_longer}}]}


def has(found: Property, word: str, values: Sequence[Any], *, is_negated: bool) -> Query:
    """Return the condition of HAS on a list, or its negation.

    Args:
        found: The property.
        word: HAS, ALL, ANY or ONLY.
        values: What the list is to have.
        is_negated: Whether the negation is wanted.

    Raises:
        BadRequest: The property is no list, or its items are of another type.
        NotImplementedResponse: The items are lists or dictionaries.
    """
    if found.kind != "list":
        if not found.path and found.kind == "string":  # of another provider
            return NEVER
        raise bad_request(f"{found.name} HAS; expected a property that is a list")
    if found.item_kind == "other":
        raise not_implemented(f"the items of {found.name!r} can't be filtered")
    typed = [_item(found, value) for value in values]
    if not found.path:
        return NEVER
    if word == "ONLY":
        others = {"$elemMatch": {"$nin": typed}}
        if is_negated:
            return {"$or": [{found.path: others}, {found.path: {"$eq": []}}]}
        return {found.path: {"$not": others, "$nin": [None, []]}}
    if word == "ALL":
        return _has_all(found, typed, is_negated=is_negated)
    return {found.path: {"$nin": [*typed, None]}} if is_negated else {found.path: {"$in": typed}}


def _has_all(found: Property, values: list[Any], *, is_negated: bool) -> Query:
    distinct = sorted(set(values))
    if is_negated:
        return {found.path: {"$not": {"$all": distinct}, "$ne": None}}
    if found.path == "elements" and 1 < len(distinct) <= MAX_PAIRED:
        # far fewer crystals hold two given elements than one of them, and an index names the pairs
        return {"element_pairs": {"$all": [f"{first}-{second}" for first, second in combinations(distinct, 2)]}}
    return {found.path: {"$all": distinct}}


def _typed(found: Property, value: Any) -> Any:  # noqa: ANN401 - of any type
    kind = found.kind
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("string", "constant") and isinstance(value, str):
        return value
    if kind in ("integer", "float") and is_number:
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "timestamp" and isinstance(value, str):
        return _time(found, value)
    raise bad_request(f"{found.name} compared with {_shown(value)}; expected a value of type {found.kind}")


def _item(found: Property, value: Any) -> Any:  # noqa: ANN401 - of any type
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str) if found.item_kind == "string" else is_number:
        return value
    raise bad_request(f"{found.name} HAS {_shown(value)}; expected a value of type {found.item_kind}")


def _time(found: Property, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None or time.microsecond % 1000 or not 1 < time.year < 9999:
            raise ValueError
    except ValueError:
        raise bad_request(
            f"{found.name} compared with {_shown(text)}; expected a time as 2026-01-31T12:00:00Z, to the millisecond"
        ) from None
    return time.astimezone(UTC)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
