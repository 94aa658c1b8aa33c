"""The pages of the dashboard: each reads what it shows, and a template says how it looks."""

from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from wyloop.platform.api.data import campaign_of, listing, store_of
from wyloop.platform.dashboard import campaign_view, candidate_view, funnel_view, learning, maps, models_view
from wyloop.platform.dashboard.charts import MAX_LABEL
from wyloop.platform.dashboard.crystals import cell_of
from wyloop.platform.dashboard.hull_chart import hull_entries
from wyloop.platform.dashboard.tables import (
    SORTS,
    STATUS_CHOICES,
    Listing,
    TablePage,
    default_sort,
)
from wyloop.platform.dashboard.tables import page as table_page
from wyloop.platform.dashboard.templating import asset, page
from wyloop.stores import campaigns
from wyloop.stores.funnels import GeneratorFunnel, funnel_by_generator
from wyloop.stores.records import crystal_of

router = APIRouter(include_in_schema=False)
router.add_api_route("/assets/{name}", asset, methods=["GET", "HEAD"])

CANDIDATE_COLUMNS = {
    "formula": "formula",
    "space_group": "space group",
    "gene": "gene",
    "status": "status",
    "energy_predicted": "E_f predicted, eV/atom",
    "energy": "E_f calculated, eV/atom",
    "hull": "above hull, eV/atom",
    "gap_predicted": "gap predicted, eV",
    "gap": "gap calculated, eV",
    "sites": "atoms",
    "rank": "rank",
    "round": "round",
    "generator": "generator",
    "reason": "reason",
}
CANDIDATE_DEFAULT = (
    "formula", "space_group", "status", "energy_predicted", "energy", "hull", "gap_predicted", "gap", "rank", "round",
)  # fmt: skip
MATERIAL_COLUMNS = {
    "formula": "formula",
    "space_group": "space group",
    "energy": "E_f, eV/atom",
    "method": "method",
    "hull": "above hull, eV/atom",
    "gap": "gap, eV",
    "phonons": "phonons",
    "sites": "atoms",
    "origin": "origin",
}
SORT_OF = {
    "candidates": {"energy_predicted": "formation_energy_per_atom", "gap_predicted": "band_gap", "rank": "rank"},
    "materials": {"energy": "formation_energy_per_atom", "hull": "energy_above_hull", "gap": "band_gap"},
}
"""Shown column to the sort that its head asks for."""
Columns = Annotated[list[str] | None, Query(max_length=30)]


@router.get("/favicon.ico")
def icon(request: Request) -> Response:
    """Return the icon where browsers look for it on pages that name none, such as a job's log."""
    return asset(request, "icon.svg")


@router.get("/")
def overview(request: Request) -> Response:
    """Show every campaign at a glance."""
    store = store_of(request)
    found = campaign_view.cards(store)
    budgets = {one.campaign.campaign_id: campaign_view.budget_rows(store, one.campaign.campaign_id) for one in found}
    sizes = {
        name: store.database[name].estimated_document_count(maxTimeMS=500)
        for name in ("structures", "materials", "candidates", "calculations", "model_versions")
    }
    return page(request, "overview.html", cards=found, budgets=budgets, sizes=sizes)


@router.get("/campaigns/{identity}")
def campaign(request: Request, identity: str) -> Response:
    """Show one campaign: what it found, and why to believe it."""
    store = store_of(request)
    record = campaign_of(store, identity)
    card = campaign_view.card(store, record)
    points = learning.compared(store, identity)
    shown = card.rounds[-1:] if request.query_params.get("rounds") != "all" else card.rounds[-20:]
    return page(
        request,
        "campaign.html",
        card=card,
        budget=campaign_view.budget_rows(store, identity),
        funnels=[(one, funnel_view.funnel(store, one), campaign_view.minutes_of(one)) for one in reversed(shown)],
        steps=campaign_view.STEPS,
        curve=learning.learnt(store, card.rounds, points),
        points=points,
        best=learning.best(store, identity),
        generators=_generators(request, card) if "generators" in request.query_params else None,
    )


def _generators(request: Request, card: campaign_view.Card) -> list[GeneratorFunnel]:
    """Return the funnel of each generator in the last round; it reads every candidate of the campaign."""
    number = card.rounds[-1].number if card.rounds else None
    return funnel_by_generator(store_of(request), card.campaign.campaign_id, round_number=number)


@router.get("/candidates")
def candidates(request: Request, asked: Annotated[Listing, listing("candidates")], column: Columns = None) -> Response:
    """Show the table of candidates."""
    if "status" not in request.query_params and "filter" not in request.query_params:
        asked = Listing(**(asdict(asked) | {"status": STATUS_CHOICES[0]}))
    return _table(request, asked, CANDIDATE_COLUMNS, column or list(CANDIDATE_DEFAULT))


@router.get("/materials")
def materials(request: Request, asked: Annotated[Listing, listing("materials")], column: Columns = None) -> Response:
    """Show the table of materials."""
    return _table(request, asked, MATERIAL_COLUMNS, column or list(MATERIAL_COLUMNS))


def _table(request: Request, asked: Listing, columns: dict[str, str], wanted: list[str]) -> Response:
    from wyloop.models.errors import TargetError

    store, kind = store_of(request), asked.kind
    problem, found = "", TablePage([], None, 0)
    try:
        found = table_page(store, asked, time_ms=request.app.state.query_time_ms)
    except TargetError as error:
        problem = str(error)
    kept = {key: value for key, value in request.query_params.multi_items() if key not in ("after", "column")}
    more = [("column", name) for name in request.query_params.getlist("column")]

    def address(**changes: str) -> str:
        values = {key: value for key, value in (kept | changes).items() if value}
        if "status" in kept or "status" in changes:
            values.setdefault("status", kept.get("status", ""))
        return f"/{kind}?{urlencode([*values.items(), *more])}"

    names = campaigns.campaigns(store)[-100:]
    return page(
        request,
        "table.html",
        kind=kind,
        asked=asked,
        sort=asked.sort or default_sort(kind),
        rows=found.rows,
        found=found,
        problem=problem,
        columns=columns,
        shown=[name for name in columns if name in wanted],
        statuses=STATUS_CHOICES,
        sorts=SORTS[kind],
        sort_of=SORT_OF[kind],
        campaigns=[(one.campaign_id, one.name[:MAX_LABEL]) for one in reversed(names)],
        address=address,
        exported=urlencode({key: value for key, value in _asked(asked).items() if value}),
        status_code=400 if problem else 200,
        status=400 if problem else 200,
    )


def _asked(asked: Listing) -> dict[str, str]:
    return {
        "filter": asked.filter,
        "campaign": asked.campaign_id,
        "round": str(asked.round_number or ""),
        "status": asked.status,
        "sort": asked.sort,
    }


@router.get("/candidates/{identity}")
def candidate(request: Request, identity: str) -> Response:
    """Show one candidate's whole story."""
    store = store_of(request)
    told = candidate_view.told_of(store, identity)
    found = candidate_view.candidate_crystal(store, told)
    return page(
        request,
        "candidate.html",
        told=told,
        jobs=told.get("calculations") or [],
        structure=None if found is None else found[1],
        cell=None if found is None else cell_of(found[0]),
        positions=candidate_view.wyckoff_table(told["fingerprint"]),
        comparisons=candidate_view.comparisons(told),
        frequencies=candidate_view.frequencies(told.get("calculations") or []),
        lineage=candidate_view.lineage(told),
        **_hull_values(request, told.get("material") or {}),
    )


@router.get("/materials/{identity}")
def material(request: Request, identity: str) -> Response:
    """Show one material."""
    store = store_of(request)
    found = candidate_view.material(store, identity)
    return page(
        request,
        "material.html",
        material=found,
        cell=cell_of(crystal_of(found["crystal"])),
        positions=candidate_view.wyckoff_table(found["fingerprint"]),
        **_hull_values(request, found),
    )


def _hull_values(request: Request, found: dict[str, Any]) -> dict[str, Any]:
    hull_id = found.get("hull_id")
    entries = hull_entries(store_of(request), hull_id) if hull_id else []
    size = len(str(found.get("chemsys", "")).split("-"))
    near = sorted(entries, key=lambda one: (one["energy_above_hull"], one["formula_pretty"]))[:30]
    return {"hull_id": hull_id, "competing": near, "is_hull_drawn": bool(hull_id) and size in (2, 3)}


@router.get("/maps")
def show_maps(request: Request) -> Response:
    """Show maps of materials and of latent spaces."""
    store = store_of(request)
    found = store.database["latents.files"].distinct("filename")[:50]
    return page(request, "maps.html", maps=maps.MAPS, titles=maps.TITLES, latent=sorted(map(str, found)))


@router.get("/models")
def models(request: Request) -> Response:
    """Show the model versions."""
    return page(request, "models.html", models=models_view.listed(store_of(request)), metrics=models_view.METRICS)


@router.get("/models/{identity}")
def model(request: Request, identity: str) -> Response:
    """Show one model version."""
    found = models_view.shown(store_of(request), identity)
    return page(request, "model.html", model=found, metrics=models_view.METRICS)


def is_page(path: str) -> bool:
    """Whether an address is a page for people: what goes wrong there is told as a page."""
    return not path.startswith(("/api", "/optimade", "/health", "/metrics", "/assets"))
