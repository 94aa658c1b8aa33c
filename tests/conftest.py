"""A real MongoDB for the session, and a database of its own for every test."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from wyloop.platform.mongod import start_mongod, stop_mongod
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings


@dataclass(frozen=True)
class MongoServer:
    host: str
    port: int
    uri: str


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "expects_findings(*kinds): what the database may be found wrong in after the test; none named: anything",
    )


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A replica set of one for this process of the session; with xdist each worker has its own."""
    folder = tmp_path_factory.mktemp("mongod")
    handle = start_mongod(folder)
    try:
        yield MongoServer("127.0.0.1", handle.port, handle.uri)
    finally:
        stop_mongod(folder)


@pytest.fixture
def stores_settings(mongod: MongoServer) -> Settings:
    return Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}")


@pytest.fixture
def database(request: pytest.FixtureRequest, stores_settings: Settings) -> Iterator[Store]:
    """A database of its own, which `wyloop db check` must find clean after the test."""
    store = connect(stores_settings)
    yield store
    try:
        assert_clean(store, request.node)
    finally:
        store.client.drop_database(store.name)
        store.close()


def assert_clean(store: Store, test: pytest.Item) -> None:
    """What a test leaves behind holds together, but for what its mark `expects_findings` names."""
    mark = test.get_closest_marker("expects_findings")
    if mark is not None and not mark.args:
        return
    expected = mark.args if mark is not None else ()
    faults = [one for one in check(store).faults if one.kind not in expected]
    told = "\n".join(f"{one.kind}: {one.collection} {one.identity}: {one.what}" for one in faults)
    assert not faults, f"the test leaves a database with {len(faults)} findings:\n{told}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no data folder {folder}; CI needs it")
        pytest.skip(f"no data folder {folder}; set WYLOOP_DATA")
    return folder
