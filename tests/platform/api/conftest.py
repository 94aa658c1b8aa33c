"""A real database with the starter set and some computed materials, and a real web server in front of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import requests
from pydantic import SecretStr

from tests.conftest import MongoServer
from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.encode import encode
from wyloop.platform.api.app import create_app
from wyloop.platform.api.server import serving
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store, connect
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material
from wyloop.stores.settings import Settings

TOKEN = SecretStr("a-token-for-the-tests")
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: Any

    @property
    def ids(self) -> list[str]:
        return [entry["id"] for entry in self.body["data"]]

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.body["meta"]
        return meta

    @property
    def detail(self) -> str:
        return str(self.body["errors"][0]["detail"])


@dataclass(frozen=True)
class Served:
    """A database and the address of the server in front of it."""

    store: Store
    url: str

    def get(self, path: str, **parameters: str | int) -> Answer:
        """Ask the OPTIMADE server; the path starts below its mount."""
        answer = requests.get(f"{self.url}/optimade{path}", params=parameters, timeout=30)
        is_json = "json" in answer.headers["content-type"]  # a path outside the API is a page
        return Answer(answer.status_code, answer.json() if is_json else {})

    def structures(self, **parameters: str | int) -> Answer:
        return self.get("/v1/structures", **parameters)


def computed(cation: str, anion: str, a: float, energy: float, **changes: Any) -> MaterialRecord:  # noqa: ANN401
    """A rock salt as a campaign computed it."""
    crystal = Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))
    gene = encode(crystal)
    return MaterialRecord(
        material_id(str(gene)),
        str(gene),
        gene,
        crystal,
        energy,
        "chgnet",
        campaign_id="k-1",
        candidate_id=f"c-{cation}{anion}",
        calculation_ids=(f"calculation-{cation}{anion}",),
        **changes,
    )


@pytest.fixture(scope="session")
def served(mongod: MongoServer) -> Iterator[Served]:
    """Read only: the starter set, three computed materials, and their view; tests that write take `database`."""
    settings = Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}")
    store = connect(settings)
    ingest_starter(store)
    build_encodings(store, n_processes=1)
    build_materials(store, n_processes=1)
    upsert_material(store, computed("Na", "At", 6.4, -1.2, band_gap=2.5, band_gap_method="gpaw"))
    upsert_material(store, computed("K", "At", 6.9, -1.4, band_gap=0.0, band_gap_method="gpaw"))
    upsert_material(store, computed("Fr", "F", 6.0, -2.0))
    build_hulls(store)
    # as the hulls' builder judges a material whose campaign's candidate met every demand
    judged = {"$set": {"is_validated": True, "content_hash": "judged"}}
    store.database["materials"].update_one({"candidate_id": "c-NaAt"}, judged)
    build_optimade(store, n_processes=1)
    with serving(create_app(settings, token=TOKEN)) as url:
        yield Served(store, url)
    store.client.drop_database(store.name)
    store.close()
