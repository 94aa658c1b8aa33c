from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from wyloop.models.errors import DatabaseError
from wyloop.stores.bulk import insert_new, insert_or_replace
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.candidates import CandidateDocument

CANDIDATE: dict[str, Any] = {
    "candidate_id": "c-1", "campaign_id": "k", "round_id": "k-r1", "round_number": 1, "fingerprint": "225 Cl:a Na:b",
    "space_group_number": 225, "wyckoff_sequence": "Cl:a Na:b", "formula_pretty": "NaCl", "chemsys": "Cl-Na",
    "elements": ["Cl", "Na"], "nelements": 2, "nsites": 2, "sampler": "x", "seed": 0, "status": "proposed",
}  # fmt: skip
PREDICTION = {
    "formation_energy_per_atom": -2.0, "formation_energy_per_atom_std": 0.1, "band_gap": 5.0, "band_gap_std": 0.1,
    "metal_probability": 0.0, "volume_per_atom": 22.0,
}  # fmt: skip
VERDICT = {"screen": "novelty", "passed": True, "value": 1.0, "unit": "1", "reason": "new"}


def test_what_is_new_is_inserted_and_what_is_there_is_left_or_replaced(database: Store) -> None:
    collection = database.database["things"]
    collection.create_index("name", unique=True)
    assert insert_new(collection, []) == []
    assert insert_new(collection, [{"name": "a", "n": 1}, {"name": "b", "n": 1}]) == []
    assert insert_new(collection, [{"name": "c", "n": 1}, {"name": "a", "n": 2}, {"name": "d", "n": 1}]) == [1]
    first = collection.find_one({"name": "b"}) or {}
    insert_or_replace(collection, [{"name": "b", "n": 3}, {"name": "e", "n": 3}], "name")
    found = {one["name"]: one["n"] for one in collection.find()}
    assert found == {"a": 1, "b": 3, "c": 1, "d": 1, "e": 3}
    assert (collection.find_one({"name": "b"}) or {})["_id"] == first["_id"]
    with pytest.raises(BulkWriteError):
        insert_new(collection, [{"name": "f", "n": 1, "_id": []}])


def test_a_candidate_is_the_same_by_mapping_and_by_mongoengine() -> None:
    made = checked(CandidateDocument, CANDIDATE | {"prediction": PREDICTION, "verdicts": [VERDICT, VERDICT]})
    document = CandidateDocument(**made)
    document.validate()
    assert dict(document.to_mongo()) == made
    assert made["prediction"] == PREDICTION
    whole = checked(CandidateDocument, CANDIDATE | {"prediction": PREDICTION | {"band_gap": 5}, "verdicts": ()})
    assert isinstance(whole["prediction"]["band_gap"], float)  # what needs a closer look gets it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "lost"}, "refused status"),
        ({"nsites": True}, None),
        ({"nsites": 0}, "too small"),
        ({"elements": ["Na", 1]}, "list of texts"),
        ({"prediction": PREDICTION | {"colour": 1.0}}, "refused"),
        ({"prediction": {"band_gap": 1.0}}, "refused prediction"),
        ({"prediction": PREDICTION | {"band_gap": float("nan")}}, "not a finite number"),
        ({"verdicts": [VERDICT | {"screen": 5}]}, "refused verdicts"),
        ({"verdicts": 5}, "refused verdicts"),
    ],
)
def test_fast_checks_refuse_what_the_fields_refuse(change: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert checked(CandidateDocument, CANDIDATE | change)["nsites"] == 1
        return
    with pytest.raises(DatabaseError, match=message):
        checked(CandidateDocument, CANDIDATE | change)
