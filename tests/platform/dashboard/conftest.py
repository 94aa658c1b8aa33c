"""A filled database served on loopback, and one real Chromium for all tests."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.platform.dashboard.seed import fill
from tests.platform.dashboard.seed_learning import fill_learning
from wyloop.platform.api.app import create_app
from wyloop.platform.api.server import serving
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TOKEN = SecretStr("a-token-for-tests-only")
SCREENSHOTS = Path(os.environ.get("WYLOOP_SCREENSHOTS", Path(__file__).parents[3] / "build" / "screenshots"))
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
"""WebGL is drawn by the processor; nothing leaves the machine."""


@dataclass(frozen=True)
class Site:
    """The application on loopback."""

    store: Store
    url: str
    ids: dict[str, str]


@pytest.fixture(scope="session")
def site(mongod: MongoServer, shared_data: Path) -> Iterator[Site]:
    """Everything that pages show; a test that changes something undoes it."""
    settings = Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}")
    store = connect(settings)
    ids = fill(store) | fill_learning(store, shared_data / "mp20_biternary_test.csv.gz")
    with serving(create_app(settings, token=TOKEN)) as url:
        yield Site(store, url, ids)
    store.client.drop_database(store.name)
    store.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium; in CI it must be there."""
    binary = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium; CI needs it: apt-get install chromium")
        pytest.skip("no chromium; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """One page of the browser, and what went wrong in it."""

    page: "Page"
    url: str
    faults: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a page of the site and wait until its figures are drawn."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"

    def see_figures(self) -> None:
        """Scroll every figure into sight and wait until all are drawn or say why not."""
        for one in self.page.query_selector_all("[data-chart], [data-structure]"):
            one.scroll_into_view_if_needed()
        self.until(
            "[...document.querySelectorAll('[data-chart]')].every((one) => one.textContent.trim() !== 'loading')"
        )
        self.until("[...document.querySelectorAll('[data-structure]')].every((one) => one.dataset.drawn)")

    def until(self, expression: str, limit: float = 90.0) -> None:
        """Look until an expression holds; the browser's own waiting would need a laxer content security policy."""
        deadline = time.monotonic() + limit
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"not within {limit} s: {expression}; {self.faults}"
            time.sleep(0.1)

    def keep_picture(self, name: str) -> None:
        """Keep a picture for people to look at, where CI collects it."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def tab(site: Site, chromium: "Browser") -> Iterator[Tab]:
    """A page in a context of its own; console errors, page errors and foreign addresses fail the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield from watched(context, site.url)


@pytest.fixture
def phone(site: Site, chromium: "Browser") -> Iterator[Tab]:
    """The same on a small screen in the dark."""
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    yield from watched(context, site.url)


def watched(context: "BrowserContext", url: str) -> Iterator[Tab]:
    """Give a page of a context; what goes wrong in it fails the test that used it."""
    made = Tab(context.new_page(), url)

    def heard(message: Any) -> None:  # noqa: ANN401 - playwright's
        if message.type == "error":
            made.faults.append(message.text)

    made.page.set_default_timeout(60_000)
    made.page.on("console", heard)
    made.page.on("pageerror", lambda error: made.faults.append(str(error)))
    made.page.on("request", lambda request: made.addresses.append(request.url))
    yield made
    foreign = [one for one in made.addresses if not one.startswith((url, "data:", "blob:"))]
    context.close()
    assert not made.faults
    assert not foreign
