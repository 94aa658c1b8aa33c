"""The one web application: the dashboard under /, OPTIMADE under /optimade, our own routes under /api."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import SecretStr
from pymongo.errors import PyMongoError

from wyloop.models.errors import WyloopError
from wyloop.platform.api import data, downloads
from wyloop.platform.api.entries import Limits
from wyloop.platform.api.failures import tell_failures
from wyloop.platform.api.optimade_app import optimade_app
from wyloop.platform.api.refresh import refreshing
from wyloop.platform.api.tokens import hashed, may_write
from wyloop.platform.dashboard import pages
from wyloop.platform.dashboard.campaign_view import forget_cards
from wyloop.platform.dashboard.live import Live
from wyloop.platform.metrics import Recent, exposition
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import code_version
from wyloop.stores.settings import Settings as StoreSettings

OPTIMADE_PATH = "/optimade"


def create_app(
    stores: StoreSettings,
    *,
    token: SecretStr | None = None,
    limits: Limits | None = None,
    refresh_seconds: float = 0,
    launchpad_database: str = "wyloop_fireworks",
    prefect_url: str | None = None,
) -> FastAPI:
    """Make the application on a database; it closes its connection when the server ends.

    Args:
        stores: Where the database is; with `is_read_only` a user who may only read is enough, and nothing is written.
        token: Token that requests need that change something; none: nothing can be changed.
        limits: What one OPTIMADE request may take.
        launchpad_database: Name of FireWorks' database, whose queues /metrics counts.
        prefect_url: Address of Prefect's pages, which those of campaigns link to.
        refresh_seconds: Time after which the OPTIMADE view is brought up to date again; 0: only when asked for.

    Raises:
        DatabaseError: The database is unreachable or of another schema.
    """
    store = connect(stores)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        is_refreshed = refresh_seconds > 0 and not store.is_read_only
        with refreshing(store, refresh_seconds) if is_refreshed else nullcontext():
            yield
        app.state.live.close()
        store.close()

    app = FastAPI(
        title="Wyloop", version=code_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json",
    )  # fmt: skip
    app.state.store = store
    app.state.live = Live(store, on_change=forget_cards)
    app.state.figures = Recent(store, launchpad_database)
    app.state.prefect_url = (prefect_url or "").rstrip("/")
    app.state.query_time_ms = (limits or Limits()).query_time_ms
    app.state.token_hash = None if stores.is_read_only else hashed(token)
    app.add_api_route("/api/health", _health)
    app.add_api_route("/health", _health_whole)
    app.add_api_route("/metrics", _metrics, response_class=Response)
    app.add_api_route("/api/builders/optimade", _build_optimade, methods=["POST"], dependencies=[Depends(may_write)])
    app.include_router(downloads.router)  # before the pages of one: "export" is no id
    app.include_router(data.router)
    app.include_router(pages.router)
    tell_failures(app)
    app.mount(OPTIMADE_PATH, optimade_app(store, limits or Limits()))
    return app


def _health(request: Request) -> dict[str, str]:
    """Say whether the database answers."""
    store: Store = request.app.state.store
    try:
        store.client.admin.command("ping", maxTimeMS=1000)
    except PyMongoError:
        raise HTTPException(503, "the database does not answer; try again later") from None
    return {"status": "ok", "version": code_version()}


def _health_whole(request: Request) -> dict[str, Any]:
    """Say whether the database answers and how fast, and what waits; 503 if it does not."""
    found = request.app.state.figures()
    if not found.is_up:
        raise HTTPException(503, "the database does not answer; start it, or see 'wyloop doctor'")
    return {
        "status": "ok",
        "version": code_version(),
        "database_latency_seconds": found.latency,
        "jobs": dict(found.jobs),
        "oldest_job_seconds": dict(found.oldest),
        "campaigns": dict(found.campaigns),
        "failures": dict(found.failures),
    }


def _metrics(request: Request) -> Response:
    """Return the figures of operation in Prometheus' text format."""
    return Response(exposition(request.app.state.figures), media_type="text/plain; version=0.0.4; charset=utf-8")


def _build_optimade(request: Request) -> dict[str, Any]:
    """Bring the OPTIMADE view up to date with structures and materials."""
    try:
        return asdict(build_optimade(request.app.state.store, n_processes=1))
    except WyloopError as error:
        raise HTTPException(503, str(error)) from None
