"""A LaunchPad of its own for every test, and the process environment that flows and jobs find their database in."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.conftest import MongoServer
from wyloop.flows import session
from wyloop.flows.launchpad import launchpad
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
def in_process(
    mongod: MongoServer, database: Store, lpad: "LaunchPad", launchpad_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """The test's database and LaunchPad as this process's own."""
    monkeypatch.setenv("WYLOOP_STORES_URI", mongod.uri)
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", database.name)
    monkeypatch.setenv("WYLOOP_FLOWS_LAUNCHPAD_DATABASE", launchpad_name)
    caches = (session.store, session.settings, session.launchpad)
    for cached in caches:
        cached.cache_clear()
    yield session.store()
    session.launchpad().connection.close()
    session.store().close()
    for cached in caches:
        cached.cache_clear()
