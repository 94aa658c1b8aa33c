"""A database that the tests of a file share, emptied before each."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tests.conftest import MongoServer
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings


@pytest.fixture(scope="module")
def module_store(mongod: MongoServer) -> Iterator[Store]:
    """A database for one file of tests: making sixty indexes for each test costs more than the tests of the ingest."""
    store = connect(Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}"))
    yield store
    store.client.drop_database(store.name)
    store.close()


@pytest.fixture
def ingested(module_store: Store) -> Store:
    """The file's database, with nothing ingested."""
    for name in ("structures", "encodings", "ingests"):
        module_store.database[name].delete_many({})
    return module_store
