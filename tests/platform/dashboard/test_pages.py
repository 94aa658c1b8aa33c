"""The pages in a real browser: drawn, filtered, exported, paused with a token only, live, usable by everybody."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.platform.dashboard.conftest import TOKEN, Site, Tab
from wyloop.stores import campaigns

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.browser

PAGES = {
    "overview": "/",
    "campaign": "/campaigns/{campaign}",
    "candidates": "/candidates",
    "candidate": "/candidates/{candidate}",
    "rejected": "/candidates/{rejected}",
    "materials": "/materials",
    "material": "/materials/{material}",
    "maps": "/maps",
    "models": "/models",
    "model": "/models/{latent}",
    "learning": "/campaigns/{learning}?rounds=all&generators=yes",
    "bands": "/candidates/{bands}",
}
SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_and_accessible(name: str, site: Site, tab: Tab) -> None:
    tab.open(PAGES[name].format(**site.ids))
    tab.see_figures()
    tab.keep_picture(name)
    assert tab.page.locator("h1").count() == 1
    assert tab.page.locator(".js-plotly-plot .main-svg").count() > 0 or not tab.page.locator("[data-chart]").count()
    assert not tab.page.evaluate("window.broken")  # a script in a name stays text
    assert _faults(tab) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_in_the_dark_shows_it_too(name: str, site: Site, phone: Tab) -> None:
    phone.open(PAGES[name].format(**site.ids))
    phone.see_figures()
    phone.keep_picture(f"{name}-phone")
    wide = phone.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0  # tables scroll in themselves
    assert _faults(phone) == []


def _faults(tab: Tab) -> list[str]:
    """Return serious findings of axe, each with the rule and where."""
    from axe_core_python.sync_playwright import Axe

    found = Axe().run(tab.page)["violations"]
    return [
        f"{one['id']}: {node['html'][:150]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def test_the_crystal_is_drawn_and_turns(site: Site, tab: Tab) -> None:
    tab.open(f"/candidates/{site.ids['candidate']}")
    tab.see_figures()
    viewer = tab.page.locator("[data-structure]")
    viewer.scroll_into_view_if_needed()
    first = viewer.screenshot()
    size = tab.page.evaluate("[...document.querySelectorAll('[data-structure] canvas')].map((one) => one.width)")
    assert max(size) > 100
    assert len(set(first)) > 100  # not one colour
    viewer.focus()
    for _ in range(4):
        tab.page.keyboard.press("ArrowRight")
    tab.page.wait_for_timeout(300)
    assert viewer.screenshot() != first
    tab.page.get_by_role("button", name="2×2×2").click()
    tab.page.locator("[data-cells='2'][aria-pressed=true]").wait_for()


def test_without_the_viewer_plotly_draws_the_crystal(site: Site, tab: Tab) -> None:
    def without_viewer(route: "Route") -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'data-viewer="[^"]*"', 'data-viewer=""', answer.text()))

    tab.page.route("**/candidates/*", without_viewer)
    tab.open(f"/candidates/{site.ids['bands']}")
    tab.see_figures()
    viewer = tab.page.locator("[data-structure]")
    assert viewer.get_attribute("data-drawn") == "plotly"
    n_atoms = len(requests.get(f"{tab.url}/api/candidates/{site.ids['bands']}/structure", timeout=30).json()["atoms"])
    assert tab.page.evaluate("document.querySelector('[data-structure]').data[2].x.length") == n_atoms
    assert len(set(viewer.screenshot())) > 100  # not one colour
    tab.keep_picture("crystal-by-plotly")


def drawn(tab: Tab, name: str) -> list[dict[str, Any]]:
    """Return the traces of a chart as the browser has drawn them."""
    found: list[dict[str, Any]] = tab.page.evaluate(
        "(name) => document.getElementById(name).data.map((one) => ({name: one.name, n: (one.x || []).length, "
        "x: one.x, y: one.y, ticks: document.getElementById(name).layout.xaxis.ticktext}))",
        name,
    )
    return found


def test_bands_stand_beside_the_density_of_states(site: Site, tab: Tab) -> None:
    tab.open(f"/candidates/{site.ids['bands']}")
    tab.see_figures()
    up, down, dos = drawn(tab, "bands-1")
    assert (up["name"], down["name"], dos["name"]) == ("bands, spin up", "bands, spin down", "density of states")
    assert up["n"] > 100
    shifts = [b - a for a, b in zip(up["y"][:20], down["y"][:20], strict=True) if None not in (a, b)]
    assert shifts == pytest.approx([0.3] * len(shifts), abs=1e-3)  # the path begins with the same band of both
    assert up["ticks"][0] == "Γ"
    assert max(dos["x"]) > 0
    assert max(map(abs, dos["y"])) <= 6
    told = tab.page.locator("section", has_text="Bands and density of states").inner_text()
    assert "Gap 1.25 eV, direct" in told
    tab.page.locator("details.job summary", has_text="bands").click()
    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="whole log").click()
    assert "the whole log of the bands" in tab.page.inner_text("body")


def test_curves_and_parity_show_every_round(site: Site, tab: Tab) -> None:
    tab.open(f"/campaigns/{site.ids['learning']}")
    tab.see_figures()
    curve = drawn(tab, "learning")
    assert {one["name"] for one in curve} >= {"formation energy, eV/atom", "band gap, eV"}
    assert curve[0]["x"] == [1, 2, 3]
    parity = drawn(tab, "parity-energy")
    assert [one["name"] for one in parity] == ["equal", "round 1", "round 2", "round 3"]
    assert [one["n"] for one in parity[1:]] == [8, 8, 8]
    errors = [abs(a - b) for one in parity[1:] for a, b in zip(one["x"], one["y"], strict=True)]
    assert sum(errors) / len(errors) < 0.2  # the shipped model on crystals that it has not seen, eV/atom
    tab.page.locator("summary", has_text="The same as a table").click()
    assert tab.page.locator("#curve tbody tr").count() == 3


def test_maps_hold_what_the_database_holds_and_lead_to_it(site: Site, tab: Tab) -> None:
    tab.open("/maps")
    tab.see_figures()
    known, own = drawn(tab, "latent-1")
    assert known["n"] > 600
    assert own["name"] == "found by campaigns"
    assert own["n"] >= 24
    gaps = drawn(tab, "map-gap-energy")
    assert gaps[1]["n"] >= 24
    link = tab.page.evaluate("document.getElementById('latent-1').data[1].customdata[0]")
    tab.open(link)
    assert tab.page.locator("h1").count() == 1


def test_filters_sort_and_columns(site: Site, tab: Tab) -> None:
    tab.open(f"/candidates?campaign={site.ids['campaign']}&status=computed")
    rows = tab.page.locator("tbody tr")
    assert rows.count() == 3  # those computed
    tab.page.get_by_label("Filter", exact=True).fill("elements has At")
    tab.page.get_by_role("button", name="Show").click()
    tab.page.wait_for_url("**filter=elements**")
    assert rows.count() == 2
    tab.page.get_by_role("link", name="E_f predicted").click()
    tab.page.wait_for_url("**sort=formation_energy_per_atom**")
    assert rows.first.locator("th").inner_text() == "KAt"
    tab.page.locator("summary", has_text="Columns").click()
    tab.page.get_by_label("gene", exact=True).check()
    tab.page.get_by_role("button", name="Show").click()
    tab.page.wait_for_url("**column=gene**")
    assert "At:" in rows.first.inner_text()


def test_a_wrong_filter_is_explained(tab: Tab) -> None:
    answer = tab.page.goto(tab.url + "/candidates?filter=band_gapp+%3E+1")
    assert answer is not None
    assert answer.status == 400
    assert "band_gap" in tab.page.get_by_role("alert").inner_text()
    tab.faults.clear()  # the browser notes the status as an error


def test_export_as_csv_and_cif(site: Site, tab: Tab, tmp_path: Path) -> None:
    tab.open(f"/candidates?campaign={site.ids['campaign']}&status=computed")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("candidate_id,formula_pretty")
    assert len(lines) == 4
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name="CIF").click()
    download.value.save_as(tmp_path / "crystals.zip")
    assert (tmp_path / "crystals.zip").read_bytes()[:2] == b"PK"


def test_pause_and_resume_need_the_token(site: Site, tab: Tab) -> None:
    identity = site.ids["campaign"]
    tab.open(f"/campaigns/{identity}")
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.get_by_label("Token of this server").fill("a-wrong-token-indeed")
    tab.page.get_by_role("button", name="Go on").click()
    tab.page.get_by_text("no valid token").wait_for()
    assert campaigns.campaign(site.store, identity).state == "active"
    tab.faults.clear()  # the browser notes 401 as an error
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.get_by_label("Token of this server").fill(TOKEN.get_secret_value())
    tab.page.get_by_role("button", name="Go on").click()
    tab.page.get_by_role("button", name="Resume").wait_for()
    assert campaigns.campaign(site.store, identity).state == "paused"
    tab.page.get_by_role("button", name="Resume").click()  # the tab remembers the token
    tab.page.get_by_role("button", name="Pause").wait_for()
    assert campaigns.campaign(site.store, identity).state == "active"


def test_a_change_is_seen_without_reloading(site: Site, tab: Tab) -> None:
    identity = site.ids["campaign"]
    tab.open(f"/campaigns/{identity}")
    tab.until("document.getElementById('live').textContent !== ''")
    time.sleep(1.5)  # the change stream opens with the first listener
    record = campaigns.rounds(site.store, identity)[-1]
    campaigns.record_step(site.store, record.round_id, "refresh", counts={})
    tab.page.locator(".steps .done", has_text="refresh").wait_for()
    assert "updated" in tab.page.locator("#live").inner_text()
