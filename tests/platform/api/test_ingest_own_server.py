"""Our own OPTIMADE server read by our own ingest, over real HTTP: what it says comes back the same."""

import numpy as np

from tests.platform.api.conftest import Served
from wyloop.stores.connection import Store
from wyloop.stores.ingest.optimade import ingest_optimade
from wyloop.stores.ingest.optimade_pages import Politeness
from wyloop.stores.records import crystal_of

POLITE = Politeness(delay=0.0, first_wait=0.1)


def test_what_our_server_says_comes_back_the_same(served: Served, database: Store) -> None:
    report = ingest_optimade(
        database, f"{served.url}/optimade", conditions='elements HAS "Ga"', page_limit=7, politeness=POLITE
    )
    assert report.n_refused == 0
    assert report.n_added == report.n_rows > 7
    known = {row["structure_id"]: row for row in served.store.database["structures"].find({"elements": "Ga"})}
    found = list(database.database["structures"].find({}))
    assert {row["source"] for row in found} == {"optimade-wyloop"}
    assert {row["source_id"] for row in found} == set(known)
    for row in found:
        original = known[row["source_id"]]
        for name in ("formula_pretty", "energy_method", "band_gap", "band_gap_method", "space_group_number"):
            assert row.get(name) == original.get(name), name
        assert abs(row["formation_energy_per_atom"] - original["formation_energy_per_atom"]) < 1e-9
        np.testing.assert_allclose(crystal_of(row).lattice, crystal_of(original).lattice, atol=1e-9)
    again = ingest_optimade(
        database, f"{served.url}/optimade/v1", conditions='elements HAS "Ga"', page_limit=7, politeness=POLITE
    )
    assert (again.n_added, again.n_updated, again.n_unchanged) == (0, 0, report.n_rows)
