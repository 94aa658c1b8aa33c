"""Conditions as MongoDB queries: known field names, plain values, and forms that an index answers."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import comb
from typing import Any

from wyloop.models.targets import AnyCondition, Condition, ElementCondition, Exclusion, Target, TextCondition

MAX_SYSTEMS = 1024
"""Chemical systems that 'elements in ...' is written out to; beyond, elements are compared one by one."""
_SYMMETRY = ("space_group_number", "crystal_system")


def mongo_filter(filters: Target, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the Mongo query of a target: known field names and plain values only.

    Space groups become a list of numbers, since an index can be read in order for each number but not for a range.

    Args:
        filters: Conditions.
        fields: Where a field stands in the documents, if elsewhere than under its own name.
    """
    places = fields or {}
    parts = []
    if any(condition.field in _SYMMETRY for condition in filters.conditions):
        numbers = filters.space_group_numbers()
        place = places.get("space_group_number", "space_group_number")
        parts.append({place: {"$eq": numbers[0]} if len(numbers) == 1 else {"$in": numbers}})
    for condition in filters.conditions:
        if isinstance(condition, ElementCondition):
            parts += _elements(condition, filters.range("nelements"))
        elif condition.field not in _SYMMETRY:
            parts.append({places.get(condition.field, condition.field): _comparison(condition)})
    return {"$and": parts} if parts else {}


def _comparison(condition: AnyCondition) -> dict[str, Any]:
    if isinstance(condition, TextCondition):
        return {"$eq": condition.value}
    if isinstance(condition, Exclusion):
        kind = "string" if isinstance(condition.value, str) else "number"
        return {"$type": kind, "$ne": condition.value}
    assert isinstance(condition, Condition)  # noqa: S101 - elements are told apart above
    if condition.low is not None and condition.low == condition.high:
        return {"$eq": condition.low}
    bounds: dict[str, Any] = {}
    if condition.low is not None:
        bounds["$gte" if condition.low_inclusive else "$gt"] = condition.low
    if condition.high is not None:
        bounds["$lte" if condition.high_inclusive else "$lt"] = condition.high
    return bounds or {"$type": "number"}


def _elements(condition: ElementCondition, nelements: tuple[float, float] | None) -> Iterator[dict[str, Any]]:
    if condition.may is not None:
        optional = sorted(set(condition.may) - set(condition.must) - set(condition.must_not))
        low, high = nelements or (1.0, 118.0)
        sizes = [n for n in range(len(optional) + 1) if low <= n + len(condition.must) <= high]
        if sum(comb(len(optional), n) for n in sizes) <= MAX_SYSTEMS:
            chosen = (set(some) | set(condition.must) for n in sizes for some in combinations(optional, n))
            yield {"chemsys": {"$in": sorted("-".join(sorted(symbols)) for symbols in chosen if symbols)}}
            return
        yield {"elements": {"$not": {"$elemMatch": {"$nin": list(condition.may)}}}}
    if condition.must:
        yield {"elements": {"$all": list(condition.must)}}
    if condition.must_not:
        yield {"elements": {"$nin": list(condition.must_not)}}
