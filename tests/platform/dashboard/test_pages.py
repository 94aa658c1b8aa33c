"""The pages in a real browser: drawn, filtered, exported, paused with a token only, live, usable by everybody."""

import time
from pathlib import Path

import pytest

from tests.platform.dashboard.conftest import TOKEN, Site, Tab
from wyloop.stores import campaigns

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
    "model": "/models/{model}",
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


@pytest.mark.parametrize("name", ["overview", "campaign", "candidates", "candidate"])
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


def test_filters_sort_and_columns(site: Site, tab: Tab) -> None:
    tab.open("/candidates")
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


def test_export_as_csv_and_cif(tab: Tab, tmp_path: Path) -> None:
    tab.open("/candidates")
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
