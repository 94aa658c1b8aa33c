"""A LaunchPad of its own for every test, the environment that flows and jobs find their database in, and Prefect."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.conftest import MongoServer
from wyloop.flows import session
from wyloop.flows.launchpad import launchpad
from wyloop.flows.worker import ONE_THREAD
from wyloop.platform.prefect_server import start_prefect, stop_prefect
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad


@pytest.fixture
def launchpad_name() -> str:
    return f"fireworks_{uuid4().hex[:20]}"


@pytest.fixture
def lpad(mongod: MongoServer, launchpad_name: str) -> Iterator["LaunchPad"]:
    lpad = launchpad(mongod.uri, launchpad_name)
    yield lpad
    lpad.connection.drop_database(launchpad_name)
    lpad.connection.close()


@pytest.fixture
def own_environment(mongod: MongoServer, database: Store, launchpad_name: str) -> dict[str, str]:
    """Variables that make a process work on the test's database and LaunchPad."""
    return {
        **ONE_THREAD,
        "WYLOOP_STORES_URI": mongod.uri,
        "WYLOOP_STORES_DATABASE": database.name,
        "WYLOOP_FLOWS_LAUNCHPAD_DATABASE": launchpad_name,
    }


@pytest.fixture
def in_process(own_environment: dict[str, str], lpad: "LaunchPad", monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The test's database and LaunchPad as this process's own."""
    for name, value in own_environment.items():
        monkeypatch.setenv(name, value)
    with this_process():
        yield session.store()


@contextmanager
def this_process() -> Iterator[None]:
    """Let this process take its database and LaunchPad from the environment as it is now, and forget them after."""
    caches = (session.store, session.settings, session.launchpad)
    for cached in caches:
        cached.cache_clear()
    yield
    session.launchpad().connection.close()
    session.store().close()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Prefect server for the session."""
    folder = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        api_url = start_prefect(folder).api_url
    yield api_url
    stop_prefect(folder)


@contextmanager
def prefect_at(api_url: str) -> Iterator[None]:
    """Run the flows of this process on a server."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_LOGGING_LEVEL,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    # Logs are sent in the background, and at exit to a server that is gone by then: a minute of attempts.
    quiet = {PREFECT_LOGGING_LEVEL: "ERROR", PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings({PREFECT_API_URL: api_url, **quiet}):
        yield


@pytest.fixture
def prefect(prefect_api: str) -> Iterator[str]:
    """This process's flows run on the session's server; its address."""
    with prefect_at(prefect_api):
        yield prefect_api


@pytest.fixture
def process_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A worker in this process changes its folder and its signal handlers: both are put back. The run folder."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path / "runs"
    for number, handler in handlers.items():
        signal.signal(number, handler)
