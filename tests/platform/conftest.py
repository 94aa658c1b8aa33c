"""Services of their own for the tests of the platform, and a command line that talks to the session's database."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import assert_clean
from wyloop.platform import services
from wyloop.platform.cli.main import run
from wyloop.platform.settings import AllSettings, all_settings
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings as StoreSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's reaches a test, and no test the developer's data folder."""
    for name in ("WYLOOP_STORES_URI", "WYLOOP_CONFIG", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WYLOOP_CONFIG", "")
    monkeypatch.setenv("WYLOOP_PLATFORM_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings() -> Iterator[AllSettings]:
    """Settings with a data folder of their own; whatever runs there at the end is stopped."""
    found = all_settings()
    yield found
    services.down(found)


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Command = Callable[..., Answer]


@pytest.fixture
def wyloop(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in this process as `main` runs it; the logging that it sets up is undone after."""
    handlers, level = logging.root.handlers[:], logging.getLogger("wyloop").level

    def call(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        return Answer(status, *capfd.readouterr())

    yield call
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.getLogger("wyloop").setLevel(level)


@pytest.fixture
def cli_store(
    request: pytest.FixtureRequest, stores_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """A database of its own that the command line works on too."""
    assert stores_settings.uri is not None
    name = stores_settings.database
    monkeypatch.setenv("WYLOOP_STORES_URI", stores_settings.uri.get_secret_value())
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", name)
    monkeypatch.setenv("WYLOOP_FLOWS_LAUNCHPAD_DATABASE", f"{name}_fw")
    store = connect(all_settings().stores)
    yield store
    try:
        assert_clean(store, request.node)
    finally:
        store.client.drop_database(name)
        store.client.drop_database(f"{name}_fw")
        store.close()
