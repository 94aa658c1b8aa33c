"""Pages and single entries of the OPTIMADE server, read from the view within limits of time and size."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pymongo.errors import ExecutionTimeout

from wyloop.platform.api.conditions import NEVER, Query
from wyloop.platform.api.errors import bad_request, forbidden, not_found, not_implemented
from wyloop.platform.api.filters import known_prefixes, parse_filter
from wyloop.platform.api.properties import PREFIX, Property, properties
from wyloop.stores.indexes import expected_indexes

if TYPE_CHECKING:
    from pymongo.collection import Collection

MAX_OFFSET = 2**31 - 1
MAX_SORT_FIELDS = 5
COUNT_LIFE = 1.0  # s
_TOP_LEVEL = ("id", "type")
_NEGATIONS = frozenset(("$not", "$nin", "$ne"))
COLLECTIONS = {"structures": "optimade_structures", "references": "optimade_references"}


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        page_limit: Entries on a page if the request does not say.
        max_page_limit: Most entries on a page.
        query_time_ms: Longest time that a query may take in the database, ms.
        count_time_ms: Longest time that counting all matches may take, ms; after it their number is given as unknown.
    """

    page_limit: int = 20
    max_page_limit: int = 500
    query_time_ms: int = 3000
    count_time_ms: int = 50


@dataclass(frozen=True)
class Listing:
    """What a client asked of a listing; sort is as OPTIMADE writes it, response_fields empty for all."""

    filter: str = ""
    sort: str = ""
    response_fields: tuple[str, ...] = ()
    page_limit: int | None = None
    page_offset: int = 0
    page_above: str | None = None


@dataclass(frozen=True)
class Page:
    """One page of entries in JSON form.

    Attributes:
        entries: Resource objects.
        n_matches: Number of entries that meet the filter, None if counting took too long.
        n_available: Number of entries in the database.
        next_parameters: Parameters that ask for the next page in the place of those that asked for this one; None
            on the last page.
        references: Identities of the references that the entries cite.
        warnings: What the client should be told.
    """

    entries: list[dict[str, Any]]
    n_matches: int | None
    n_available: int
    next_parameters: Mapping[str, str] | None = None
    references: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class Entries:
    """The entries of one type."""

    def __init__(self, entry_type: str, collection: "Collection[dict[str, Any]]", limits: Limits) -> None:
        self.entry_type = entry_type
        self.collection = collection
        self.limits = limits
        self.properties = properties(entry_type)
        self._counted: tuple[float, int] | None = None
        self.indexed = frozenset(
            str(spec.keys[0][0]) for spec in expected_indexes() if spec.collection == collection.name
        )

    def page(self, listing: Listing) -> Page:
        """Return one page.

        Without a sort, pages are ordered by id and the next one starts above the last id: entries that appear or go
        meanwhile move nothing.

        Raises:
            OptimadeHTTPException: Something that no server or not this one can answer; the database took too long.
        """
        found = parse_filter(listing.filter, self.entry_type)
        limit = self._limit(listing)
        order = self._order(listing.sort)
        shown, warnings = self._shown(listing.response_fields)
        query = self._above(listing, found.query)
        documents: list[dict[str, Any]] = []
        if found.query is not NEVER and limit:
            cursor = self.collection.find(query, _projection(shown), max_time_ms=self.limits.query_time_ms)
            documents = list(cursor.sort(order).skip(listing.page_offset).limit(limit + 1))
        has_more = len(documents) > limit
        documents = documents[:limit]
        n_available = self._n_available()
        return Page(
            entries=[self._entry(document, shown) for document in documents],
            n_matches=self._n_matches(listing, found.query, n_available, len(documents), has_more=has_more),
            n_available=n_available,
            next_parameters=_next(listing, documents) if has_more else None,
            references=_cited(documents),
            warnings=(*found.warnings, *warnings),
        )

    def one(self, identity: str, response_fields: tuple[str, ...]) -> Page:
        """Return a page of one entry.

        Raises:
            NotFound: No entry has this id.
            OptimadeHTTPException: Other fields than entries have; the database took too long.
        """
        shown, warnings = self._shown(response_fields)
        document = self.collection.find_one(
            {"entry_id": {"$eq": identity}}, _projection(shown), max_time_ms=self.limits.query_time_ms
        )
        if document is None:
            raise not_found(f"no entry {identity[:200]!r} in {self.entry_type}")
        n_available = self._n_available()
        return Page([self._entry(document, shown)], 1, n_available, None, _cited([document]), warnings)

    def of(self, identities: Sequence[str]) -> list[dict[str, Any]]:
        """Return whole entries by their ids, in the order of these."""
        criteria = {"entry_id": {"$in": list(identities)}}
        shown = self._shown(())[0]
        found = self.collection.find(criteria, _projection(shown), max_time_ms=self.limits.query_time_ms)
        return [self._entry(document, shown) for document in found.sort("entry_id", 1)]

    def _limit(self, listing: Listing) -> int:
        if listing.page_limit is None:
            return self.limits.page_limit
        if listing.page_limit > self.limits.max_page_limit:
            raise forbidden(
                f"page_limit is more than this server allows; expected at most {self.limits.max_page_limit}"
            )
        return listing.page_limit

    def _order(self, sort: str) -> list[tuple[str, int]]:
        order: list[tuple[str, int]] = []
        names = sort.split(",") if sort else []
        if len(names) > MAX_SORT_FIELDS:
            raise bad_request(f"sort by {len(names)} properties; expected at most {MAX_SORT_FIELDS}")
        for name in names:
            found = self.properties.get(name.removeprefix("-"))
            if found is None or not found.is_sortable:
                raise bad_request(f"can't sort by {name[:80]!r}; expected a property that /info lists as sortable")
            order.append((found.path, -1 if name.startswith("-") else 1))
        if "entry_id" not in [path for path, _ in order]:
            order.append(("entry_id", 1))  # a stable order among equals
        return list(dict(order).items())

    def _above(self, listing: Listing, query: Query) -> Query:
        if listing.page_offset > MAX_OFFSET:
            raise bad_request(f"page_offset is too large; expected at most {MAX_OFFSET}")
        if listing.page_above is None:
            return query
        if listing.sort or listing.page_offset:
            raise not_implemented("page_above is supported for pages in the order of id only: without sort and offset")
        above = {"entry_id": {"$gt": listing.page_above}}
        return {"$and": [above, query]} if query else above

    def _shown(self, names: tuple[str, ...]) -> tuple[list[Property | str], tuple[str, ...]]:
        """Return the attributes asked for, those of others by name only: they are shown as unknown."""
        if not names:
            return [found for name, found in self.properties.items() if name not in _TOP_LEVEL], ()
        shown: list[Property | str] = []
        warnings: list[str] = []
        for name in dict.fromkeys(names):
            if name in self.properties:
                if name not in _TOP_LEVEL:
                    shown.append(self.properties[name])
                continue
            prefix = name.split("_")[1] if name.startswith("_") and name.count("_") > 1 else ""
            if not prefix:
                raise bad_request(f"no property {name[:80]!r} to respond with; expected those that /info lists")
            if prefix == PREFIX or prefix not in known_prefixes():
                warnings.append(f"no property {name[:80]!r} here; it is given as unknown")
            shown.append(name)
        return shown, tuple(warnings)

    def _n_available(self) -> int:
        """Return the number of all entries, as it was not more than a second ago."""
        now = time.monotonic()
        if self._counted is None or now > self._counted[0] + COUNT_LIFE:
            count = self.collection.estimated_document_count(maxTimeMS=self.limits.query_time_ms)
            self._counted = (now, count)
        return self._counted[1]

    def _n_matches(
        self, listing: Listing, query: Query, n_available: int, n_shown: int, *, has_more: bool
    ) -> int | None:
        if query is NEVER:
            return 0
        if not query:
            return n_available
        is_first = listing.page_above is None and listing.page_offset == 0
        if is_first and not has_more and listing.page_limit != 0:
            return n_shown
        try:
            # without a hint the database would count what no index finds by reading the whole collection
            hint: dict[str, Any] = {} if _is_indexed(query, self.indexed) else {"hint": "entry_id_1"}
            return self.collection.count_documents(query, maxTimeMS=self.limits.count_time_ms, **hint)
        except ExecutionTimeout:
            return None

    def _entry(self, document: Mapping[str, Any], shown: list[Property | str]) -> dict[str, Any]:
        attributes = {
            found if isinstance(found, str) else found.name: None
            if isinstance(found, str)
            else _json(document.get(found.path))
            for found in shown
        }
        entry = {"id": document["entry_id"], "type": self.entry_type, "attributes": attributes}
        if references := document.get("reference_ids"):
            data = [{"type": "references", "id": identity} for identity in references]
            entry["relationships"] = {"references": {"data": data}}
        return entry


def _is_indexed(query: Query, indexed: frozenset[str]) -> bool:
    """Whether an index surely finds what meets a query; one on lists finds no negation."""
    if "$and" in query:
        return any(_is_indexed(part, indexed) for part in query["$and"])
    if "$or" in query:
        return all(_is_indexed(part, indexed) for part in query["$or"])
    return any(path in indexed and not _NEGATIONS.intersection(condition) for path, condition in query.items())


def _projection(shown: list[Property | str]) -> dict[str, int]:
    paths = {found.path for found in shown if isinstance(found, Property) and found.path}
    return {"_id": 0, "entry_id": 1, "reference_ids": 1} | dict.fromkeys(sorted(paths), 1)


def _next(listing: Listing, documents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not listing.sort and not listing.page_offset:
        return {"page_above": str(documents[-1]["entry_id"])}
    return {"page_offset": str(listing.page_offset + len(documents))}


def _cited(documents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for document in documents for name in document.get("reference_ids") or ()))


def _json(value: Any) -> Any:  # noqa: ANN401 - of any type
    """Write a time as RFC 3339 has it; all else is JSON already."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value
