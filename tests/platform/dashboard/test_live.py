"""A campaign at work, seen by people: the dashboard follows it and pauses it, Prefect's own pages show what it did."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import requests
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.flows import rounds
from tests.flows.fast_campaign import TARGET
from tests.platform.dashboard.conftest import TOKEN, Tab, watched
from wyloop.flows.policy import Policy
from wyloop.platform.api.app import create_app
from wyloop.platform.api.server import serving
from wyloop.platform.prefect_server import PrefectHandle, prefect_environment, start_prefect, stop_prefect
from wyloop.stores import campaigns
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]
POLICY = {
    "n_candidates": 4, "n_relaxations": 3, "n_dft": 0, "n_starts": 1, "max_per_chemsys": 5, "hull_cutoff": 9.0,
    "quarantine_sigma": 1000.0, "retraining": {"every_rounds": 0},
}  # fmt: skip


@dataclass
class Campaign:
    """A campaign under way, its process, and where it is seen."""

    store: Store
    identity: str
    process: "subprocess.Popen[str]"
    dashboard: str
    prefect: PrefectHandle

    def say(self, word: str) -> str:
        """Let the process do something; return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("told "):
                return line.removeprefix("told ").strip()
        raise AssertionError("the campaign's process has ended")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectHandle]:
    folder = tmp_path_factory.mktemp("prefect of the live campaign")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        handle = start_prefect(folder)
    yield handle
    stop_prefect(folder)


@pytest.fixture(scope="module")
def live(mongod: MongoServer, prefect: PrefectHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    settings = Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}")
    store = connect(settings)
    rounds.fill(store, step=60)
    build_materials(store, n_processes=1)
    build_hulls(store)
    made = campaigns.create_campaign(store, TARGET, Policy.model_validate(POLICY).model_dump(mode="json"), "Live")
    campaigns.set_campaign_state(store, made.campaign_id, "active")
    campaigns.request_rounds(store, made.campaign_id, 2)
    folder = tmp_path_factory.mktemp("live")
    with serving(create_app(settings, token=TOKEN, prefect_url=prefect.ui_url)) as url:
        environment = os.environ | prefect_environment(folder)
        environment |= {
            "WYLOOP_STORES_URI": mongod.uri, "WYLOOP_STORES_DATABASE": store.name,
            "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": f"{store.name}_jobs", "WYLOOP_FLOWS_DASHBOARD_URL": url,
            "PREFECT_API_URL": prefect.api_url, "PREFECT_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with _process(made.campaign_id, environment, folder) as process:
            yield Campaign(store, made.campaign_id, process, url, prefect)
    for name in (store.name, f"{store.name}_jobs"):
        store.client.drop_database(name)
    store.close()


@contextmanager
def _process(identity: str, environment: dict[str, str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    script = Path(__file__).with_name("live_campaign.py")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, script, identity], env=environment, cwd=folder, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    else:
        pytest.fail((folder / "log").read_text()[-2000:])
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def dashboard(live: Campaign, chromium: "Browser") -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield from watched(context, live.dashboard)


@pytest.fixture
def pages(live: Campaign, chromium: "Browser") -> Iterator[Tab]:
    """Prefect's own pages; what they look for elsewhere is not ours to judge."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = Tab(context.new_page(), live.prefect.ui_url)
    tab.page.set_default_timeout(60_000)
    yield tab
    context.close()


def test_the_page_of_a_campaign_at_work_follows_it(live: Campaign, dashboard: Tab) -> None:
    dashboard.open(f"/campaigns/{live.identity}")
    dashboard.until("document.getElementById('live').textContent === 'live'")
    time.sleep(1.5)  # the change stream opens with the first listener
    page = dashboard.page
    assert page.get_by_text("No round has begun.").count() == 1
    assert live.say("advance") == "waiting"  # to the jobs of the first round
    page.locator(".steps .done", has_text="dispatch").wait_for()
    page.locator("#funnels li", has_text="synthesizability").first.wait_for(state="attached")
    page.locator("#state", has_text="jobs to go").wait_for()
    dashboard.keep_picture("live-jobs")

    # paused from the page: without the token nothing happens, with it the campaign waits
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Cancel").click()
    assert requests.post(f"{live.dashboard}/api/campaigns/{live.identity}/pause", timeout=30).status_code == 401
    assert campaigns.campaign(live.store, live.identity).state == "active"
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Token of this server").fill(TOKEN.get_secret_value())
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert live.say("advance") == "paused"
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()

    # the jobs run, the round ends, and its materials appear; nobody has reloaded the page
    told = [live.say(word) for _ in range(6) for word in ("jobs", "advance")]
    assert told[-1] == "finished", told
    page.locator("#best tbody tr").first.wait_for()
    page.locator("#state", has_text="Finished: all rounds asked for are closed.").wait_for()
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1
    dashboard.see_figures()
    dashboard.keep_picture("live-finished")


def artifact(live: Campaign, key: str) -> str:
    """Return the address of the page of the youngest artifact of a key."""
    found = requests.post(
        f"{live.prefect.api_url}/artifacts/filter",
        json={"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1},
        timeout=60,
    ).json()
    assert found, f"no artifact {key}"
    return f"{live.prefect.ui_url}/artifacts/artifact/{found[0]['id']}"


def test_prefects_pages_show_the_campaign(live: Campaign, dashboard: Tab, pages: Tab) -> None:
    dashboard.open(f"/campaigns/{live.identity}")
    there = dashboard.page.get_by_role("link", name="Runs of this campaign in Prefect").get_attribute("href")
    assert there is not None
    page = pages.page
    page.goto(there)
    page.get_by_role("link", name=live.identity).first.wait_for()
    page.get_by_text("Completed").first.wait_for()
    pages.keep_picture("prefect-runs")

    page.goto(artifact(live, f"funnel-{live.identity}-r1"))
    page.get_by_text("charge neutrality").first.wait_for()
    pages.keep_picture("prefect-funnel")
    page.goto(artifact(live, f"best-materials-{live.identity}-r1"))
    material = page.get_by_role("link", name="LiF")
    material.wait_for()
    assert str(material.get_attribute("href")).startswith(f"{live.dashboard}/candidates/c-")
    pages.keep_picture("prefect-best-materials")
    page.goto(artifact(live, f"figures-{live.identity}"))
    page.get_by_role("heading", name="Predicted against calculated").wait_for()
    pages.until("[...document.images].filter((one) => one.naturalWidth > 300).length === 4")
    pages.keep_picture("prefect-figures")

    page.goto(artifact(live, f"summary-{live.identity}-r1"))
    link = page.get_by_role("link", name="The campaign in the dashboard")
    link.wait_for()
    pages.keep_picture("prefect-summary")
    assert link.get_attribute("href") == f"{live.dashboard}/campaigns/{live.identity}"


def test_a_failed_step_says_in_prefect_what_to_do(live: Campaign, pages: Tab) -> None:
    campaigns.request_rounds(live.store, live.identity, 1)
    live.say("break")
    assert live.say("advance").startswith("Failed")
    pages.page.goto(artifact(live, f"what-to-do-{live.identity}-r3"))
    pages.page.get_by_role("heading", name=f"The step refresh of {live.identity}-r3 failed").wait_for()
    pages.keep_picture("prefect-what-to-do")
    told = str(pages.page.evaluate("document.body.innerText"))
    assert "n_candidates" in told  # what is wrong
    assert "wyloop doctor" in told
    live.say("mend")
    assert live.say("advance") in ("waiting", "finished")
