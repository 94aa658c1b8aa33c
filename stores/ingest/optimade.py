"""Crystals of any OPTIMADE provider by address and filter; a killed ingest goes on where it stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from wyloop.models.errors import IngestError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, checked_update, now
from wyloop.stores.documents.ingests import IngestDocument
from wyloop.stores.failures import translated
from wyloop.stores.ingest.intake import Tally, notes_of, take_in
from wyloop.stores.ingest.optimade_fields import PROVIDERS, fields_to_ask, resource_structure
from wyloop.stores.ingest.optimade_pages import PageError, Pages, Politeness
from wyloop.stores.ingest.report import MAX_KEPT, IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.records import digest

GONE = frozenset({400, 404, 410, 422})
"""Statuses of a next link that is no more."""


@translated
def ingest_optimade(
    store: Store,
    url: str,
    *,
    conditions: str = "",
    provider: str = "auto",
    source: str | None = None,
    page_limit: int = 100,
    max_rows: int | None = None,
    is_restart: bool = False,
    politeness: Politeness | None = None,
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
) -> IngestReport:
    """Read the structures of an OPTIMADE server that meet a filter into `structures`.

    After each page the address of the next one is kept in `ingests`; the same call after a stop goes on there. After
    the end it starts anew, and finds what changed.

    Args:
        store: The database.
        url: Base address, with or without the version; may hold user and password.
        conditions: Filter in OPTIMADE's language; empty: everything.
        provider: Whose fields hold the labels: a key of `PROVIDERS`, or `auto` for any known.
        source: Name of the source; `optimade-` and the provider's prefix if none.
        page_limit: Structures of a page.
        max_rows: Most rows to read in this call.
        is_restart: Start at the first page whatever an earlier call left.
        politeness: Delays, patience and tries.
        on_progress: Told the rows done and their total.
        on_refusal: Told each row that was not taken.

    Raises:
        IngestError: No such server, a filter that it refuses, or answers that are no OPTIMADE. Pages before are kept.
    """
    if provider != "auto" and provider not in PROVIDERS:
        raise IngestError(f"provider {provider!r}; expected auto or one of {', '.join(PROVIDERS)}")
    with closing(Pages(url, politeness or Politeness())) as pages:
        info = pages.info()
        source = source or f"optimade-{_prefix(info, pages.url)}"
        params = {"response_fields": ",".join(fields_to_ask(_offered(info), provider)), "page_limit": str(page_limit)}
        params |= {"filter": conditions} if conditions.strip() else {}
        start = f"{pages.url}?{urlencode(params)}"
        identity = _begin(store, pages.url, conditions, source, is_restart=is_restart)
        run = _Run(store, pages, identity, source, provider)
        _follow(run, start, max_rows, on_progress, on_refusal)
    return replace(run.total, notes=(*notes_of(run.tally, run.total.n_rows), *run.notes))


@dataclass
class _Run:
    """One call: where it reads and writes, and what it did."""

    store: Store
    pages: Pages
    identity: str
    source: str
    provider: str
    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    total: IngestReport = field(default_factory=lambda: IngestReport(0, 0, 0, 0))


def _follow(
    run: _Run, start: str, max_rows: int | None, on_progress: OnProgress | None, on_refusal: OnRefusal | None
) -> None:
    """Take in page after page, and keep after each where the next one is."""
    state = run.store.database["ingests"].find_one({"ingest_id": run.identity}) or {}
    current: str | None = state.get("next_link") or start
    n_before, n_refused_before = (state["n_rows"], state["n_refused"]) if current != start else (0, 0)
    if n_before:
        run.notes.append(f"went on after {n_before} rows of an earlier run")
    while current is not None and (max_rows is None or run.total.n_rows < max_rows):
        if run.total.n_rows:
            time.sleep(run.pages.politeness.delay)
        try:
            page = run.pages.get(current)
        except PageError as error:
            if current == start or error.status not in GONE or run.total.n_rows:
                raise
            run.notes.append("the server knows the next page of the earlier run no more: started anew")
            n_before, n_refused_before, current = 0, 0, start
            continue
        resources = page["data"] if isinstance(page["data"], list) else [page["data"]]
        wanted = resources if max_rows is None else resources[: max_rows - run.total.n_rows]
        done = take_in(
            run.store, _rows(run, wanted), Tally(), on_refusal=on_refusal, n_before=n_before + run.total.n_rows
        )
        run.total = _sum(run.total, done)
        if len(wanted) == len(resources):  # else the rest of this page comes next time
            current = run.pages.next_url(page, current)
        counts = (n_before + run.total.n_rows, n_refused_before + run.total.n_refused)
        _save(run.store, run.identity, current, *counts)
        _tell(on_progress, page, counts[0])


def _rows(run: _Run, resources: list[object]) -> Iterator[SourceStructure | Refusal]:
    for number, resource in enumerate(resources, start=1):
        name = f"item {number} of a page"
        yield resource_structure(resource, name, run.source, run.tally, url=run.pages.url, provider=run.provider)


def _begin(store: Store, url: str, conditions: str, source: str, *, is_restart: bool) -> str:
    """Return the id of this ingest's document, made or set back where it has to start anew."""
    identity = digest([url, conditions, source], 24)
    fresh = checked(
        IngestDocument,
        {
            "ingest_id": identity,
            "source": source,
            "url": url,
            "filter": conditions,
            "is_finished": False,
            "n_rows": 0,
            "n_refused": 0,
            "started_at": now(),
        },
    )
    ingests = store.database["ingests"]
    ingests.update_one({"ingest_id": identity}, {"$setOnInsert": fresh}, upsert=True)
    found = ingests.find_one({"ingest_id": identity}) or fresh
    if is_restart or found["is_finished"]:
        ingests.replace_one({"ingest_id": identity}, fresh)
    return identity


def _save(store: Store, identity: str, next_link: str | None, n_rows: int, n_refused: int) -> None:
    is_finished = next_link is None
    fields = {"next_link": next_link, "n_rows": n_rows, "n_refused": n_refused, "is_finished": is_finished}
    store.database["ingests"].update_one({"ingest_id": identity}, {"$set": checked_update(IngestDocument, fields)})


def _sum(first: IngestReport, second: IngestReport) -> IngestReport:
    refused = first.refused + second.refused
    n_refused = first.n_refused + second.n_refused
    return IngestReport(
        first.n_rows + second.n_rows,
        first.n_added + second.n_added,
        first.n_unchanged + second.n_unchanged,
        first.n_updated + second.n_updated,
        refused[:MAX_KEPT],
        n_refused_more=n_refused - len(refused[:MAX_KEPT]),
    )


def _tell(on_progress: Callable[[int, int], None] | None, page: dict[str, Any], n_rows: int) -> None:
    if on_progress is not None:
        returned = (page.get("meta") or {}).get("data_returned")
        on_progress(n_rows, max(returned, n_rows) if isinstance(returned, int) else n_rows)


def _prefix(info: dict[str, Any], url: str) -> str:
    """Return the provider's prefix, else the server's name."""
    provider = (info.get("meta") or {}).get("provider") if isinstance(info.get("meta"), dict) else None
    prefix = provider.get("prefix") if isinstance(provider, dict) else None
    return str(prefix) if prefix else str(urlsplit(url).hostname)


def _offered(info: dict[str, Any]) -> dict[str, Any] | None:
    data = info.get("data")
    properties = data.get("properties") if isinstance(data, dict) else None
    return properties if isinstance(properties, dict) else None
