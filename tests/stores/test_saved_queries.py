import pytest

from wyloop.models.errors import TargetError
from wyloop.models.targets import Target
from wyloop.stores.connection import Store
from wyloop.stores.saved_queries import SavedQuery, ask, remove_query, save_query, saved_queries, saved_query

TARGET = Target.parse(["1 < band_gap <= 2 and elements has Ga and crystal_system = cubic"])


def test_a_question_is_kept_replaced_listed_and_removed(database: Store) -> None:
    saved = SavedQuery("solar-1", TARGET, "candidates", "-band_gap", 5)
    save_query(database, saved)
    save_query(database, SavedQuery("a.b", Target()))
    assert saved_query(database, "solar-1") == saved
    assert [one.name for one in saved_queries(database)] == ["a.b", "solar-1"]
    save_query(database, SavedQuery("solar-1", TARGET))
    assert saved_query(database, "solar-1").collection == "all"
    assert ask(database, saved) == []
    stored = database.database["saved_queries"].find_one({"name": "solar-1"}) or {}
    assert stored["conditions"] == TARGET.texts()
    remove_query(database, "solar-1")
    for call in (saved_query, remove_query):
        with pytest.raises(TargetError, match="no saved query 'solar-1'"):
            call(database, "solar-1")


@pytest.mark.parametrize("name", ["", "$where", "a b", ".x", "x" * 65, "a\n", {"$ne": ""}, "{$gt: ''}"])
def test_a_hostile_name_is_refused_or_found_nowhere(database: Store, name: str) -> None:
    save_query(database, SavedQuery("mine", TARGET))
    with pytest.raises(TargetError, match="expected at most 64 letters"):
        save_query(database, SavedQuery(name, TARGET))
    with pytest.raises(TargetError, match="no saved query"):
        saved_query(database, name)
    with pytest.raises(TargetError, match="no saved query"):
        remove_query(database, name)
    assert len(saved_queries(database)) == 1


@pytest.mark.expects_findings
def test_what_was_tampered_with_is_refused(database: Store) -> None:
    save_query(database, SavedQuery("mine", TARGET, sort="band_gap"))
    collection = database.database["saved_queries"]
    for change, message in (
        ({"conditions": ["$where = 1"]}, "can't be read any more"),
        ({"conditions": [], "sort": "$natural"}, "can't sort by"),
        ({"sort": None, "collection": "users"}, "expected one of materials"),
        ({"collection": "all", "limit": -1}, "limit -1"),
    ):
        collection.update_one({}, {"$set": change})
        with pytest.raises(TargetError, match=message):
            saved_query(database, "mine")
