"""The OPTIMADE server as an application of its own, to be mounted: addresses, responses, and errors of the standard."""
# mypy: disable-error-code="import-untyped"
# optimade-python-tools ships no types.

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from optimade import __api_version__
from optimade.exceptions import OptimadeHTTPException
from pymongo.errors import ExecutionTimeout, PyMongoError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from wyloop.platform.api import info
from wyloop.platform.api.entries import COLLECTIONS, Entries, Limits, Page
from wyloop.platform.api.errors import not_found, not_implemented, version_not_supported
from wyloop.platform.api.parameters import PAGING, ListingParameters, Parameters, listing, names_in, read
from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/vnd.api+json"
VERSIONS = tuple("v" + ".".join(__api_version__.split(".")[:n]) for n in (1, 2, 3))
_VERSION = re.compile(r"/(v\d+(?:\.\d+){0,2})(?=/|$)")


def optimade_app(store: Store, limits: Limits) -> FastAPI:
    """Make the application that serves the OPTIMADE view of a database.

    Args:
        store: The database; only read.
        limits: What one request may take.
    """
    app = FastAPI(title="Wyloop OPTIMADE API", version=__api_version__, openapi_url=None)  # the standard publishes it
    app.state.entries = {
        name: Entries(name, store.database[collection], limits) for name, collection in COLLECTIONS.items()
    }
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET"])
    for kind in (OptimadeHTTPException, HTTPException, PyMongoError, Exception):
        app.add_exception_handler(kind, _refuse)
    router = APIRouter()
    router.add_api_route("/info", _info)
    router.add_api_route("/info/{entry_type}", _entry_info)
    router.add_api_route("/links", _links)
    router.add_api_route("/{entry_type}", _listing)
    router.add_api_route("/{entry_type}/{identity:path}", _single)
    app.add_api_route("/versions", _versions)
    app.add_api_route("/", _home)
    for version in VERSIONS:
        app.include_router(router, prefix=f"/{version}")
    app.include_router(router)
    return app


def _home(request: Request) -> Response:
    return RedirectResponse(f"{_base_url(request)}/{VERSIONS[0]}/info")


def _versions() -> Response:
    return Response(f"version\n{VERSIONS[0][1:]}", media_type="text/csv; header=present")


def _info(request: Request) -> Response:
    read(request, ListingParameters)
    return _answer(request, {"data": info.base_info(_base_url(request), VERSIONS[0])}, n_matches=1, n_available=1)


def _entry_info(request: Request, entry_type: str) -> Response:
    if entry_type not in COLLECTIONS:
        raise not_found(f"no entries of type {entry_type[:80]!r}; expected one of {', '.join(COLLECTIONS)}")
    read(request, ListingParameters)
    return _answer(request, {"data": info.entry_info(entry_type)}, n_matches=1, n_available=1)


def _links(request: Request) -> Response:
    for name in ("filter", "sort"):
        if request.query_params.get(name):
            raise not_implemented(f"{name} is not supported for links, of which there are two")
    read(request, ListingParameters)
    links = info.links(_base_url(request))
    return _answer(request, {"data": links}, n_matches=len(links), n_available=len(links))


def _listing(request: Request, entry_type: str) -> Response:
    found = _entries(request, entry_type)
    parameters, warnings = read(request, ListingParameters)
    page = found.page(listing(parameters, found.limits))
    following = None
    if page.next_parameters is not None:
        kept = [item for item in parse_qsl(request.url.query, keep_blank_values=True) if item[0] not in PAGING]
        following = f"{_without_query(request)}?{urlencode([*kept, *page.next_parameters.items()])}"
    body = {
        "data": page.entries,
        "links": {"next": following},
        "included": _included(request, entry_type, parameters, page),
    }
    return _answer(
        request,
        body,
        n_matches=page.n_matches,
        n_available=page.n_available,
        has_more=following is not None,
        warnings=(*warnings, *page.warnings),
    )


def _single(request: Request, entry_type: str, identity: str) -> Response:
    found = _entries(request, entry_type)
    parameters, warnings = read(request, Parameters)
    page = found.one(identity, names_in(parameters.response_fields))
    body = {
        "data": page.entries[0],
        "links": {"next": None},
        "included": _included(request, entry_type, parameters, page),
    }
    return _answer(request, body, n_matches=1, n_available=page.n_available, warnings=(*warnings, *page.warnings))


def _entries(request: Request, entry_type: str) -> Entries:
    found: Mapping[str, Entries] = request.app.state.entries
    if entry_type not in found:
        version = _VERSION.match(_path(request))
        if version is not None and version.group(1) not in VERSIONS:
            raise version_not_supported(f"no {version.group(1)} here")
        raise not_found(f"nothing at {request.url.path[:200]!r}; expected {', '.join(found)}, info, links or versions")
    return found[entry_type]


def _included(request: Request, entry_type: str, parameters: Parameters, page: Page) -> list[dict[str, Any]]:
    if entry_type == "references" or not page.references or "references" not in names_in(parameters.include):
        return []
    found: Entries = request.app.state.entries["references"]
    return found.of(page.references)


def _refuse(request: Request, error: Exception) -> Response:
    """Answer every failure as the standard wants it; only a fault of ours is a 500, which uvicorn logs."""
    status, title, detail = _described(request, error)
    body = {"errors": [{"status": str(status), "title": title, "detail": detail}]}
    return _answer(request, body, n_matches=0, n_available=0, status=status)


def _described(request: Request, error: Exception) -> tuple[int, str, str]:
    if isinstance(error, OptimadeHTTPException):
        return error.status_code, error.title, str(error.detail)
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), f"{request.method} {request.url.path[:200]}: {error.detail}"
    if isinstance(error, ExecutionTimeout):
        return 504, "Gateway Timeout", "the database took too long; narrow the filter, or sort by id"
    if isinstance(error, PyMongoError):
        logger.error("OPTIMADE request failed: %s", type(error).__name__)
        return 503, "Service Unavailable", "the database does not answer; try again later"
    return 500, "Internal Server Error", "a fault of this server; it is in its log"


def _answer(
    request: Request,
    body: dict[str, Any],
    *,
    n_matches: int | None,
    n_available: int,
    has_more: bool = False,
    warnings: tuple[str, ...] = (),
    status: int = 200,
) -> Response:
    path = _VERSION.sub("", _path(request), count=1)
    meta: dict[str, Any] = {
        "query": {"representation": f"{path}?{unquote(request.url.query)}"},
        "api_version": __api_version__,
        "time_stamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "data_returned": n_matches,
        "data_available": n_available,
        "more_data_available": has_more,
        "schema": info.SCHEMA_URL,
        "provider": info.provider(),
        "implementation": info.implementation(),
    }
    if warnings:
        meta["warnings"] = [{"type": "warning", "detail": warning} for warning in warnings]
    text = json.dumps(body | {"meta": meta}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, media_type=MEDIA_TYPE)


def _path(request: Request) -> str:
    """Return the path below the address where the application is mounted."""
    return request.url.path.removeprefix(request.scope.get("root_path", ""))


def _base_url(request: Request) -> str:
    return str(request.url.replace(path=request.scope.get("root_path", ""), query="", fragment=""))


def _without_query(request: Request) -> str:
    return str(request.url.replace(query="", fragment=""))
