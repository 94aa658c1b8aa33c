"""Our own API under /api: what the dashboard shows, as JSON; it reads, and with a token it pauses and resumes."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from wyloop.models.errors import CampaignError, DatabaseError
from wyloop.platform.api.tokens import may_write
from wyloop.platform.dashboard import campaign_view, candidate_view, charts, funnel_view, learning, maps, models_view
from wyloop.platform.dashboard.bands_chart import bands_figure
from wyloop.platform.dashboard.candidate_view import NotFoundError
from wyloop.platform.dashboard.crystals import MAX_CELLS, drawing
from wyloop.platform.dashboard.hull_chart import hull_entries, hull_figure
from wyloop.platform.dashboard.live import MAX_LISTENERS, Live
from wyloop.platform.dashboard.tables import MAX_PAGE, PAGE, Kind, Listing, page
from wyloop.stores import campaigns
from wyloop.stores.calculation_files import arrays_of, raw_of
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store
from wyloop.stores.records import crystal_of, to_json

router = APIRouter(prefix="/api")
Identity = Annotated[str, Path(max_length=120, description="Id")]
Json = dict[str, Any]


def store_of(request: Request) -> Store:
    """Return the application's database."""
    store: Store = request.app.state.store
    return store


def campaign_of(store: Store, identity: str) -> CampaignRecord:
    """Return a campaign.

    Raises:
        NotFoundError: None has this id.
    """
    try:
        return campaigns.campaign(store, identity)
    except CampaignError as error:
        raise NotFoundError(str(error)) from error


def listing(kind: Kind) -> Any:  # noqa: ANN401 - a dependency
    """Return a dependency that reads what is asked of a table from the address."""

    def read(
        filter: Annotated[str, Query(max_length=2000, description="Such as band_gap > 1 and elements has O")] = "",  # noqa: A002 - the parameter's name
        campaign: Annotated[str, Query(max_length=120)] = "",
        round: Annotated[str, Query(max_length=7, pattern="^[0-9]*$")] = "",  # noqa: A002 - the parameter's name
        status: Annotated[str, Query(max_length=20)] = "",
        sort: Annotated[str, Query(max_length=60, description="A column; -COLUMN for falling order")] = "",
        after: Annotated[str, Query(max_length=400, description="next_after of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
    ) -> Listing:
        return Listing(kind, filter, campaign, int(round) if round else None, status, sort, after, limit)

    return Depends(read)


@router.get("/campaigns")
def list_campaigns(request: Request) -> list[Json]:
    """Return every campaign at a glance."""
    return [card.as_json() for card in campaign_view.cards(store_of(request))]


@router.get("/campaigns/{identity}")
def show_campaign(request: Request, identity: Identity) -> Json:
    """Return a campaign with its rounds, funnels and what was learnt."""
    store = store_of(request)
    card = campaign_view.card(store, campaign_of(store, identity))
    points = learning.compared(store, identity)
    rounds = [
        to_json(asdict(one) | {"stages": [asdict(stage) for stage in funnel_view.funnel(store, one)]})
        for one in card.rounds[-50:]
    ]
    learnt = [asdict(one) for one in learning.learnt(store, card.rounds, points)]
    return card.as_json() | {"rounds": rounds, "learnt": learnt, "budget": campaign_view.budget_rows(store, identity)}


CampaignChart = Literal["learning", "found", "parity-energy", "parity-gap"]


@router.get("/campaigns/{identity}/charts/{name}")
def campaign_chart(request: Request, identity: Identity, name: CampaignChart) -> Json:
    """Return a figure of a campaign, as Plotly takes it."""
    store = store_of(request)
    record = campaign_of(store, identity)
    points = learning.compared(store, identity)
    if name in ("learning", "found"):
        curve = learning.learnt(store, campaigns.rounds(store, record.campaign_id), points)
        return charts.learning(curve) if name == "learning" else charts.found(curve)
    return charts.parity(points, name.removeprefix("parity-"))


ACTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pause": ("paused", ("active",)),
    "resume": ("active", ("paused",)),
    "stop": ("stopped", ("created", "active", "paused")),
}
"""What may be done to a campaign: the state that it gets, and those that it may have."""


@router.post("/campaigns/{identity}/{action}", dependencies=[Depends(may_write)])
def act(request: Request, identity: Identity, action: Literal["pause", "resume", "stop"]) -> Json:
    """Pause, resume or stop a campaign; needs the token."""
    store = store_of(request)
    state, allowed = ACTIONS[action]
    record = campaign_of(store, identity)
    if record.state not in allowed:
        raise HTTPException(409, f"{identity} is {record.state}; expected it {' or '.join(allowed)}")
    try:
        campaigns.set_campaign_state(store, identity, state, reason=f"{action} over HTTP", only_from=allowed)
    except CampaignError as error:  # changed by somebody else in between
        raise HTTPException(409, str(error)) from None
    return campaign_view.card(store, campaigns.campaign(store, identity)).as_json()


@router.get("/candidates")
def list_candidates(request: Request, asked: Annotated[Listing, listing("candidates")]) -> JSONResponse:
    """Return one page of candidates: `rows`, `next_after`, `n_matches`, `is_more`."""
    return _table(request, asked)


def _table(request: Request, asked: Listing) -> JSONResponse:
    """Return a page of a table; its rows are plain already, and FastAPI would look at each value twice more."""
    found = page(store_of(request), asked, time_ms=request.app.state.query_time_ms)
    return JSONResponse(vars(found))


@router.get("/candidates/{identity}")
def show_candidate(request: Request, identity: Identity) -> Json:
    """Return a candidate's whole story."""
    return candidate_view.told_of(store_of(request), identity)


@router.get("/candidates/{identity}/structure")
def candidate_structure(
    request: Request, identity: Identity, cells: Annotated[int, Query(ge=1, le=MAX_CELLS)] = 1
) -> Json:
    """Return the atoms of a candidate's crystal, as a viewer draws them."""
    store = store_of(request)
    found = candidate_view.candidate_crystal(store, candidate_view.told_of(store, identity))
    if found is None:
        raise HTTPException(404, f"{identity} has no 3D structure yet; expected one that was selected")
    return drawing(found[0], cells=cells) | {"what": found[1]}


@router.get("/candidates/{identity}/charts/{name}")
def candidate_chart(request: Request, identity: Identity, name: Literal["hull", "gamma"]) -> Json:
    """Return a figure of a candidate, as Plotly takes it."""
    store = store_of(request)
    told = candidate_view.told_of(store, identity)
    if name == "gamma":
        found = candidate_view.frequencies(told.get("calculations") or [])
        if found is None:
            raise HTTPException(404, f"{identity} has no phonons yet; expected a finished phonon job")
        return charts.gamma(*found)
    material = told.get("material") or {}
    return _hull(store, material, identity)


@router.get("/calculations/{identity}/bands")
def bands(request: Request, identity: Identity) -> Json:
    """Return bands and density of states of a calculation, as Plotly takes them."""
    store = store_of(request)
    found = store.database["calculations"].find_one({"calculation_id": {"$eq": identity}}, {"result.labels": 1})
    try:
        return bands_figure(arrays_of(store, identity), ((found or {}).get("result") or {}).get("labels") or [])
    except (DatabaseError, KeyError):
        raise HTTPException(404, f"{identity} has no bands; expected a completed calculation of them") from None


@router.get("/calculations/{identity}/log", response_class=PlainTextResponse)
def log(request: Request, identity: Identity) -> PlainTextResponse:
    """Return the log that a calculation's worker kept."""
    try:
        return PlainTextResponse(raw_of(store_of(request), identity))
    except DatabaseError:
        raise HTTPException(404, f"{identity} has no log; expected a worker with WYLOOP_FLOWS_RAW_FILES=keep") from None


@router.get("/materials")
def list_materials(request: Request, asked: Annotated[Listing, listing("materials")]) -> JSONResponse:
    """Return one page of materials: `rows`, `next_after`, `n_matches`, `is_more`."""
    return _table(request, asked)


@router.get("/materials/{identity}")
def show_material(request: Request, identity: Identity) -> Json:
    """Return one material, its crystal included."""
    return candidate_view.material(store_of(request), identity)


@router.get("/materials/{identity}/structure")
def material_structure(
    request: Request, identity: Identity, cells: Annotated[int, Query(ge=1, le=MAX_CELLS)] = 1
) -> Json:
    """Return the atoms of a material's crystal, as a viewer draws them."""
    found = candidate_view.material(store_of(request), identity)
    return drawing(crystal_of(found["crystal"]), cells=cells) | {"what": str(found.get("energy_method") or "")}


@router.get("/materials/{identity}/charts/hull")
def material_hull(request: Request, identity: Identity) -> Json:
    """Return the hull of a material's chemical system, as Plotly takes it."""
    store = store_of(request)
    return _hull(store, candidate_view.material(store, identity), identity)


def _hull(store: Store, material: Json, identity: str) -> Json:
    if not material.get("hull_id"):
        raise HTTPException(404, f"{identity} is on no hull yet; expected a computed energy")
    entries = hull_entries(store, material["hull_id"])
    found = hull_figure(entries, material["chemsys"], material["material_id"])
    if found is None:
        raise HTTPException(404, f"the hull of {material['chemsys']} is not drawn; expected two or three elements")
    return found


@router.get("/maps/{name}")
def show_map(request: Request, name: Annotated[str, Path(max_length=40)]) -> JSONResponse:
    """Return a map of materials by two properties, as Plotly takes it."""
    return JSONResponse(maps.property_map(store_of(request), name))


@router.get("/maps/latent/{identity}")
def show_latent_map(request: Request, identity: Identity) -> JSONResponse:
    """Return the latent space of a model version, as Plotly takes it."""
    return JSONResponse(maps.latent_map(store_of(request), identity))


@router.get("/models")
def list_models(request: Request) -> list[Json]:
    """Return the model versions, the youngest first."""
    return models_view.listed(store_of(request))


@router.get("/models/{identity}")
def show_model(request: Request, identity: Identity) -> Json:
    """Return a model version with its card and what came of it."""
    return models_view.shown(store_of(request), identity)


@router.get("/models/{identity}/charts/history")
def model_history(request: Request, identity: Identity) -> Json:
    """Return the losses of a model's training, as Plotly takes them."""
    return charts.history((models_view.shown(store_of(request), identity).get("card") or {}).get("history") or [])


@router.get("/events", response_class=StreamingResponse)
async def events(request: Request) -> StreamingResponse:
    """Tell what changes in the database, as server-sent events named `change`: collection to number of changes."""
    live: Live = request.app.state.live
    if live.n_listeners >= MAX_LISTENERS:
        raise HTTPException(503, f"{MAX_LISTENERS} pages listen already; try again later")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(live.events(), media_type="text/event-stream", headers=headers)
