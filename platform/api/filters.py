"""OPTIMADE filters to MongoDB queries: a user's text becomes values, known field names and our operators, nothing else.

The grammar is that of optimade-python-tools, read by a parser that takes linear time. A property that is not known for
an entry makes no comparison true, nor its negation.
"""
# mypy: disable-error-code="import-untyped"
# optimade-python-tools ships no types.

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wyloop.platform.api.conditions import (
    ALWAYS,
    OPERATORS,
    REVERSED,
    Query,
    all_of,
    any_of,
    compared,
    has,
    has_length,
    has_part,
    known,
)
from wyloop.platform.api.errors import bad_request, not_implemented
from wyloop.platform.api.properties import PREFIX, Property, properties

if TYPE_CHECKING:
    from lark import Lark, Tree

MAX_LENGTH = 8000
MAX_DEPTH = 40

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Filter:
    """A filter as MongoDB takes it, and what the user should be told about it."""

    query: Query
    warnings: tuple[str, ...] = ()


@lru_cache(maxsize=1000)
def parse_filter(text: str, entry_type: str) -> Filter:
    """Translate a filter.

    Args:
        text: The filter; an empty one takes everything.
        entry_type: structures or references.

    Raises:
        BadRequest: Not a filter, a property that entries do not have, or a value of another type than the property's.
        NotImplementedResponse: An optional feature of the language that this server does not have.
    """
    from lark.exceptions import LarkError

    if not text.strip():
        return Filter(ALWAYS)
    if len(text) > MAX_LENGTH:
        raise bad_request(f"filter of {len(text)} characters; expected at most {MAX_LENGTH}; split it")
    if (depth := _depth(text)) > MAX_DEPTH:
        raise bad_request(f"filter with {depth} nested parentheses; expected at most {MAX_DEPTH}")
    try:
        tree = _parser().parse(text)
    except LarkError as error:
        place = getattr(error, "column", None)
        where = f" at character {place}" if isinstance(place, int) and place > 0 else ""
        raise bad_request(f"can't read the filter{where}; expected the OPTIMADE filter language") from None
    compiler = _Compiler(entry_type)
    query = compiler.expression(tree, is_negated=False)
    return Filter(query, tuple(dict.fromkeys(compiler.warnings)))


@cache
def _parser() -> "Lark":
    import optimade.grammar
    from lark import Lark

    path = Path(str(optimade.grammar.__file__)).parent / "v1.2.0.lark"
    text = path.read_text()
    # the grammar drops the word of a truth value, and lets two expressions stand side by side
    for old, new in (
        ('bool: ( "TRUE" | "FALSE" )', 'bool: TRUE | FALSE\nTRUE: "TRUE"\nFALSE: "FALSE"'),
        ("filter: expression*", "filter: expression"),
    ):
        if text.count(old) != 1:
            raise RuntimeError(f"{path.name} has changed: no {old!r}; expected optimade 1.5's grammar")
        text = text.replace(old, new)
    return Lark(text, parser="lalr", maybe_placeholders=False)


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in re.sub(r'"(?:\\.|[^"\\])*"', "", text):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


class _Compiler:
    """Walks the parsed filter; every method returns the query of its part, or of the part's negation."""

    def __init__(self, entry_type: str) -> None:
        self.entry_type = entry_type
        self.known = properties(entry_type)
        self.warnings: list[str] = []

    def expression(self, tree: "Tree[Any]", *, is_negated: bool) -> Query:
        """Translate a filter, an expression, or a part of one."""
        rule, parts = str(tree.data), list(tree.children)
        if rule == "expression_phrase":
            is_negated ^= str(parts[0]) == "NOT"
            return self.expression(parts[-1], is_negated=is_negated)
        if rule in ("expression", "expression_clause"):
            is_or = (rule == "expression") ^ is_negated
            joined = [self.expression(part, is_negated=is_negated) for part in parts]
            return any_of(joined) if is_or else all_of(joined)
        if rule == "constant_first_comparison":
            return self._constant_first(parts, is_negated=is_negated)
        if rule == "property_first_comparison":
            return self._property_first(parts, is_negated=is_negated)
        return self.expression(parts[0], is_negated=is_negated)  # filter, comparison

    def _constant_first(self, parts: Sequence[Any], *, is_negated: bool) -> Query:
        constant, operator, other = parts
        inner = other.children[0]
        if other.data != "non_string_value" or inner.data != "property":
            raise not_implemented("comparisons of two constants are not supported; compare a property")
        found = self._property(inner)
        return compared(found, REVERSED[str(operator)], _value(constant), is_negated=is_negated)

    def _property_first(self, parts: Sequence[Any], *, is_negated: bool) -> Query:
        found, right = self._property(parts[0]), parts[1]
        rule, words = str(right.data), list(right.children)
        if rule == "value_op_rhs":
            return compared(found, str(words[0]), _value(words[1]), is_negated=is_negated)
        if rule == "known_op_rhs":
            return known(found, is_known=(str(words[1]) == "KNOWN") ^ is_negated)
        if rule == "fuzzy_string_op_rhs":
            return has_part(found, str(words[0]), _value(words[-1]), is_negated=is_negated)
        if rule == "length_op_rhs":
            operator = str(words[1]) if len(words) == 3 else "="
            return has_length(found, operator, _integer(words[-1].children[0]), is_negated=is_negated)
        if rule == "set_op_rhs":
            return has(
                found,
                str(words[1]) if len(words) > 2 else "HAS",
                list(_set_values(words)),
                is_negated=is_negated,
            )
        raise not_implemented("correlated lists (a:b HAS x:y) are not supported")

    def _property(self, tree: "Tree[Any]") -> Property:
        names = [str(token) for token in tree.children]
        name = names[0]
        if name in ("references", "structures"):
            if name == "references" and names[1:] == ["id"] and self.entry_type == "structures":
                return Property("references.id", "reference_ids", "list", "string")
            raise not_implemented(f"relationships are filtered by references.id only, not by {'.'.join(names)!r}")
        found = self.known.get(name)
        if found is not None and len(names) == 1:
            return found
        if found is not None:
            raise not_implemented(f"parts of properties, as {'.'.join(names)!r}, can't be filtered")
        prefix = name.split("_")[1] if name.startswith("_") and name.count("_") > 1 else ""
        if not prefix or prefix == PREFIX:
            raise bad_request(f"no property {name!r}; expected one that /info lists")
        if prefix not in known_prefixes():
            self.warnings.append(f"property {name!r} is of a provider nobody knows; it counts as unknown")
        return Property(name, "", "string")


@cache
def known_prefixes() -> frozenset[str]:
    """Return the prefixes of the providers that optimade-python-tools knows."""
    from optimade.server.data import providers

    return frozenset(str(provider["id"]) for provider in providers.get("data", []))


def _set_values(words: Sequence[Any]) -> Iterator[Any]:
    """Read what follows HAS: an optional operator and a value, or ALL, ANY or ONLY and a list."""
    for word in words[1:]:
        if not hasattr(word, "data"):
            if str(word) in OPERATORS:
                raise not_implemented("operators inside HAS are not supported")
            continue  # ALL, ANY, ONLY
        for item in word.children if word.data == "value_list" else [word]:
            if not hasattr(item, "data"):
                raise not_implemented("operators inside HAS are not supported")
            yield _value(item)


def _value(tree: "Tree[Any]") -> Any:  # noqa: ANN401 - of any type
    inner = tree.children[0]
    if not hasattr(inner, "data"):
        inner = tree
    token = str(inner.children[0])
    if inner.data == "property":
        raise not_implemented("comparisons of two properties are not supported; compare with a value")
    if inner.data == "string":
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    if inner.data == "bool":
        return token == "TRUE"
    return _number(token)


def _number(token: str) -> int | float:
    try:
        return _integer(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
    except (OverflowError, ValueError):
        raise bad_request(f"number of {len(token)} digits; expected one that fits in 64 bits") from None


def _integer(token: object) -> int:
    text = str(token)
    if len(text) > 20 or int(text) not in _INT64:
        raise bad_request(f"number of {len(text)} digits; expected one that fits in 64 bits")
    return int(text)
