import pytest

from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.connection import Store
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.starter.read import starter_set
from wyloop.stores.training import training_snapshot


@pytest.mark.timeout(300)
def test_the_starter_set_fills_an_empty_database_once(database: Store) -> None:
    report = ingest_starter(database)
    assert report.n_added == report.n_rows == len(starter_set()) >= 400
    assert ingest_starter(database).n_unchanged == report.n_rows
    counts = build_encodings(database)
    assert (counts.n_done, counts.n_refused) == (report.n_rows, 0)
    found = database.database["structures"].find_one({"band_gap": {"$gt": 1.0}})
    assert found is not None
    assert found["citation"]
    assert found["energy_method"] == "chgnet"
    labels = [row.labels for row in training_snapshot(database).rows]
    assert not any("band_gap" in row for row in labels)  # measured gaps are no PBE labels
    assert sum(row.get("is_metal") == 0.0 for row in labels) >= 100
