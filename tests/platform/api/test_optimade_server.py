"""The OPTIMADE server as clients meet it: pages, fields, references, refusals, limits, and a database that changes."""

import http.client
import json
import logging
import threading
import time
from datetime import UTC, datetime

import pytest
import requests
from optimade.models import ReferenceResponseMany, StructureResponseMany, StructureResponseOne

from tests.platform.api.conftest import Served
from wyloop.platform.api.app import create_app
from wyloop.platform.api.entries import Limits
from wyloop.platform.api.server import serving
from wyloop.stores.builders.optimade import build_optimade
from wyloop.stores.connection import Store
from wyloop.stores.ingest.starter import ingest_starter
from wyloop.stores.settings import Settings

# optimade's own models use what pydantic 2.11 deprecated
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
N_STARTER = 646
N_ENTRIES = N_STARTER + 3


def ids_of_all_pages(served: Served, **parameters: str | int) -> list[str]:
    page = served.structures(**parameters).body
    found = [entry["id"] for entry in page["data"]]
    while page["links"]["next"]:
        page = requests.get(page["links"]["next"], timeout=30).json()
        found += [entry["id"] for entry in page["data"]]
    return found


def test_entries_are_those_of_the_standard(served: Served) -> None:
    answer = served.structures(page_limit=500)
    StructureResponseMany(**answer.body)
    assert answer.meta["data_returned"] == answer.meta["data_available"] == N_ENTRIES
    assert answer.meta["provider"]["prefix"] == "wyloop"
    references = served.get("/v1/references", page_limit=100)
    ReferenceResponseMany(**references.body)
    assert references.meta["data_available"] > 10


def test_gallium_arsenide_has_its_published_properties(served: Served) -> None:
    entry = served.structures(filter='chemical_formula_reduced="AsGa" AND _wyloop_space_group_number=216').body["data"][
        0
    ]
    attributes = entry["attributes"]
    assert attributes["chemical_formula_descriptive"] == "GaAs"
    assert attributes["chemical_formula_hill"] == "AsGa"
    assert attributes["chemical_formula_anonymous"] == "AB"
    assert attributes["elements"] == ["As", "Ga"]
    assert attributes["elements_ratios"] == [0.5, 0.5]
    assert attributes["space_group_symbol_hermann_mauguin"] == "F -4 3 m"
    assert attributes["space_group_it_number"] == attributes["_wyloop_space_group_number"] == 216
    assert attributes["species"][0] == {"name": "As", "chemical_symbols": ["As"], "concentration": [1.0]}
    assert attributes["dimension_types"] == [1, 1, 1]
    assert attributes["assemblies"] is None
    assert attributes["_wyloop_hull_id"] == "As-Ga|chgnet"
    assert attributes["_wyloop_energy_above_hull"] == pytest.approx(0, abs=1e-9)
    assert attributes["_wyloop_protostructure"] == "AB_cF8_216_a_c:As-Ga"


def test_what_was_computed_here_is_served_with_its_origin(served: Served) -> None:
    found = served.structures(filter='_wyloop_source="wyloop"').body["data"]
    assert sorted(entry["attributes"]["chemical_formula_descriptive"] for entry in found) == ["FrF", "KAt", "NaAt"]
    sodium = next(entry["attributes"] for entry in found if "Na" in entry["attributes"]["elements"])
    assert sodium["_wyloop_is_validated"] is True
    assert (sodium["_wyloop_band_gap"], sodium["_wyloop_band_gap_method"]) == (2.5, "gpaw")
    assert (sodium["_wyloop_campaign_id"], sodium["_wyloop_candidate_id"]) == ("k-1", "c-NaAt")
    assert sodium["_wyloop_hull_id"] == "At-Na|chgnet"


def test_own_properties_are_described_with_units(served: Served) -> None:
    described = served.get("/v1/info/structures").body["data"]["properties"]
    own = {name: entry for name, entry in described.items() if name.startswith("_wyloop_")}
    served_names = served.structures(page_limit=1).body["data"][0]["attributes"]
    assert set(own) == {name for name in served_names if name.startswith("_wyloop_")}
    assert all(entry["description"].endswith(".") for entry in own.values())
    assert own["_wyloop_formation_energy_per_atom"]["unit"] == "eV/{atom}"
    assert own["_wyloop_formation_energy_per_atom"]["type"] == "float"
    assert own["_wyloop_band_gap"]["unit"] == "eV"
    assert own["_wyloop_is_validated"]["type"] == "boolean"
    floats = [name for name, entry in own.items() if entry["type"] == "float"]
    assert [name for name in floats if "unit" not in own[name]] == []


def test_pages_are_in_the_order_of_id_and_hold_each_entry_once(served: Served) -> None:
    found = ids_of_all_pages(served, page_limit=100, response_fields="nsites")
    assert found == sorted(found)
    assert len(set(found)) == len(found) == N_ENTRIES
    by_offset = served.structures(page_limit=10, page_offset=20)
    by_number = served.structures(page_limit=10, page_number=3)
    assert by_offset.ids == by_number.ids == found[20:30]
    assert "page_offset=30" in by_offset.body["links"]["next"]


def test_sorting_is_stable_under_paging(served: Served) -> None:
    found = ids_of_all_pages(served, sort="-nelements,nsites", page_limit=90, response_fields="nsites,nelements")
    assert len(set(found)) == len(found) == N_ENTRIES
    entries = served.structures(sort="-nelements,nsites", page_limit=500).body["data"]
    keys = [(-e["attributes"]["nelements"], e["attributes"]["nsites"], e["id"]) for e in entries]
    assert keys == sorted(keys)
    gaps = served.structures(sort="-_wyloop_band_gap", page_limit=50).body["data"]
    values = [entry["attributes"]["_wyloop_band_gap"] for entry in gaps]
    assert values == sorted(values, reverse=True)


def test_a_page_of_nothing_and_the_last_page_end(served: Served) -> None:
    empty = served.structures(page_limit=0)
    assert (empty.status, empty.body["data"], empty.body["links"]["next"]) == (200, [], None)
    beyond = served.structures(page_offset=100_000)
    assert (beyond.body["data"], beyond.meta["more_data_available"]) == ([], False)
    exact = served.structures(filter='elements HAS ANY "Fr","At"', page_limit=3)
    assert (len(exact.ids), exact.meta["more_data_available"], exact.meta["data_returned"]) == (3, False, 3)


def test_paging_is_steady_while_entries_come_and_go(served: Served, database: Store, stores_settings: Settings) -> None:
    ingest_starter(database)
    build_optimade(database, n_processes=1)
    view = database.database["optimade_structures"]
    template = view.find_one() or {}
    steady = {row["entry_id"] for row in view.find({}, {"entry_id": 1})}
    is_done = threading.Event()

    def write() -> None:
        number = 0
        while not is_done.is_set():
            number += 1
            identity = f"wyloop-starter:starter-{chr(65 + number % 26)}-new-{number}"
            added = {key: value for key, value in template.items() if key != "_id"}
            view.insert_one(added | {"entry_id": identity, "immutable_id": identity})
            if number % 2:
                view.delete_one({"entry_id": identity})

    with serving(create_app(stores_settings)) as url:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            found = ids_of_all_pages(Served(database, url), page_limit=25, response_fields="nsites")
        finally:
            is_done.set()
            writer.join()
    assert len(set(found)) == len(found)
    assert steady <= set(found)
    assert view.estimated_document_count() > len(steady)
    assert build_optimade(database, n_processes=1).n_removed > 0


def test_response_fields_are_those_asked_for(served: Served) -> None:
    found = served.structures(response_fields="nsites,_wyloop_band_gap,_exmpl_x,_wyloop_x,id", page_limit=1)
    attributes = found.body["data"][0]["attributes"]
    assert set(attributes) == {"nsites", "_wyloop_band_gap", "_exmpl_x", "_wyloop_x"}
    assert attributes["_exmpl_x"] is attributes["_wyloop_x"] is None
    assert ["_wyloop_x" in warning["detail"] for warning in found.meta["warnings"]] == [True]
    assert "warnings" not in served.structures(page_limit=1).meta


def test_references_are_included_unless_declined(served: Served) -> None:
    cited = 'filter=_wyloop_citation CONTAINS "Madelung"'
    found = served.structures(filter=cited.partition("=")[2], page_limit=5)
    StructureResponseMany(**found.body)
    included = {entry["id"]: entry["attributes"] for entry in found.body["included"]}
    named = {one["id"] for entry in found.body["data"] for one in entry["relationships"]["references"]["data"]}
    assert set(included) == named
    madelung = next(one for one in included.values() if "Madelung" in one["note"])
    assert (madelung["doi"], madelung["year"]) == ("10.1007/978-3-642-18865-7", "2004")
    assert served.structures(filter=cited.partition("=")[2], include="").body["included"] == []
    assert served.structures(filter=f'references.id HAS "{min(named)}"').meta["data_returned"] > 0


def test_a_single_entry_by_its_id(served: Served) -> None:
    found = served.get("/v1/structures/wyloop-starter:starter-Ag2O-224")
    StructureResponseOne(**found.body)
    assert found.body["data"]["attributes"]["nsites"] == 6
    assert served.get("/v1/structures/wyloop-starter:starter-Ag2O-224", response_fields="nsites").body["data"][
        "attributes"
    ] == {"nsites": 6}
    for name in ("nothing", '" OR id IS KNOWN OR id="', "..%2F..%2Fetc%2Fpasswd", "../../../etc/passwd", "%00", "ü"):
        assert served.get(f"/v1/structures/{name}").status == 404


REFUSALS: list[tuple[str, int]] = [
    ("/v1/structures?page_offset=-1", 400),
    ("/v1/structures?page_offset=99999999999999999999999", 400),
    ("/v1/structures?page_limit=-1", 400),
    ("/v1/structures?page_limit=abc", 400),
    ("/v1/structures?page_limit=501", 403),
    ("/v1/structures?page_limit=99999999999999999999999", 403),
    ("/v1/structures?page_number=0", 400),
    ("/v1/structures?page_number=99999999999999999", 400),
    ("/v1/structures?page_number=1&page_offset=2", 400),
    ("/v1/structures?page_cursor=3", 501),
    ("/v1/structures?page_below=a", 501),
    ("/v1/structures?page_above=a&sort=nsites", 501),
    ("/v1/structures?response_format=xml", 400),
    ("/v1/structures?response_format=jsonlines", 400),
    ("/v1/structures?response_fields=nsites,colour", 400),
    ("/v1/structures?response_fields=$where", 400),
    ("/v1/structures?sort=colour", 400),
    ("/v1/structures?sort=elements", 400),
    ("/v1/structures?sort=$natural", 400),
    ("/v1/structures?sort=,", 400),
    ("/v1/structures?sort=nsites,nsites,nsites,nsites,nsites,nsites", 400),
    ("/v1/structures?include=calculations", 400),
    ("/v1/structures?colour=red", 400),
    ("/v1/structures?_wyloop_colour=red", 400),
    ("/v1/structures?filter", 400),
    ("/v1/structures?filter=nsites=1&filter=nsites=2", 400),
    ("/v1/structures?filter[$where]=1", 400),
    ('/v1/structures?filter={"$where":"sleep(1000)"}', 400),
    ("/v1/structures?filter=$where=1", 400),
    ("/v1/structures?filter=elements.$size=1", 400),
    ("/v1/structures?filter=_id=1", 400),
    ('/v1/structures?filter=entry_id="a"', 400),
    ('/v1/structures?filter=input_hash="a"', 400),
    ("/v1/structures?filter=nelements=3;drop", 400),
    ("/v1/structures?filter=%FF%FE", 400),
    ("/v1/structures?filter=élements=3", 400),
    ("/v1/structures?filter=nelements=\u0663", 400),
    ("/v1/structures?filter=" + "(" * 3000, 400),
    ("/v1/structures?filter=" + "NOT " * 1000 + "nsites=1", 400),
    ("/v1/structures?filter=nelements=nsites", 501),
    ("/v1/structures?email_address=nobody", 400),
    ("/v1/structures?api_hint=2", 400),
    ("/v1/structures?api_hint=v2", 553),
    ("/structures?api_hint=v99999999999999999999", 553),
    ("/v2/structures", 553),
    ("/v1.9/info", 553),
    ("/v1/versions", 404),
    ("/v1/v1/info", 404),
    ("/v1/info/calculations", 404),
    ("/v1/links?filter=id=1", 501),
    ("/v1/links?response_format=xml", 400),
    ("/v1/info?response_format=xml", 400),
    ("/v1/info/structures?colour=red", 400),
    ("/v1/references?filter=nsites=1", 400),
    ('/v1/references?sort=-note,id&page_limit=1&filter=note HAS "x"', 400),
]


@pytest.mark.parametrize(("path", "status"), REFUSALS, ids=[path[:60] for path, _ in REFUSALS])
def test_what_is_not_supported_is_refused_with_its_reason(served: Served, path: str, status: int) -> None:
    answer = served.get(path)
    assert answer.status == status
    error = answer.body["errors"][0]
    assert error["status"] == str(status)
    assert error["detail"]
    assert "Traceback" not in json.dumps(answer.body)
    assert answer.meta["api_version"] == "1.2.0"


def test_a_filter_of_a_hundred_kilobytes_is_refused(served: Served) -> None:
    for text in (" OR ".join(['id="x"'] * 10_000), f'id="{"x" * 100_000}"'):
        answer = requests.get(f"{served.url}/optimade/v1/structures", params={"filter": text}, timeout=30)
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("text", ['"\\"', '"(((("', '"[a-z]*+"', '"$where"', '"\u0000"', '"\U0001f4a5é"', '"a\nb"'])
def test_odd_texts_are_values(served: Served, text: str) -> None:
    for word in ("CONTAINS", "STARTS WITH", "ENDS WITH", "=", "!="):
        answer = served.structures(filter=f"chemical_formula_descriptive {word} {text}", page_limit=1)
        assert answer.status in (200, 400)
        if answer.status == 200 and word != "!=":
            assert answer.body["data"] == []


def test_only_reading_is_possible(served: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = requests.request(method, f"{served.url}/optimade/v1/structures", timeout=30)
        assert answer.status_code == 405
        assert answer.json()["errors"][0]["status"] == "405"


def test_versions_and_links(served: Served) -> None:
    versions = requests.get(f"{served.url}/optimade/versions", timeout=30)
    assert (versions.text, versions.headers["content-type"]) == (
        "version\n1",
        "text/csv; header=present; charset=utf-8",
    )
    info = served.get("/v1.2/info").body["data"]["attributes"]
    assert info["available_api_versions"] == [{"url": f"{served.url}/optimade/v1/", "version": "1.2.0"}]
    links = served.get("/links").body["data"]
    assert links[0]["attributes"]["base_url"] == f"{served.url}/optimade"
    assert requests.get(f"{served.url}/optimade/", timeout=30).json()["data"]["type"] == "info"


def test_a_query_that_takes_too_long_is_ended(served: Served, database: Store, stores_settings: Settings) -> None:
    view = database.database["optimade_structures"]
    template = served.store.database["optimade_structures"].find_one({}, {"_id": 0}) or {}
    rows = [template | {"entry_id": f"x{i:06}", "immutable_id": f"x{i:06}", "volume": float(i)} for i in range(8000)]
    view.insert_many(rows, ordered=False)
    with serving(create_app(stores_settings, limits=Limits(query_time_ms=2, count_time_ms=1))) as url:
        started = time.monotonic()
        slow = requests.get(f"{url}/optimade/v1/structures", {"sort": "-_wyloop_volume"}, timeout=30)
        assert time.monotonic() - started < 5
        uncounted = requests.get(f"{url}/optimade/v1/structures", {"filter": "_wyloop_volume >= 0"}, timeout=30)
    assert (slow.status_code, slow.json()["errors"][0]["title"]) == (504, "Gateway Timeout")
    assert uncounted.status_code == 200
    assert uncounted.json()["meta"]["data_returned"] is None
    assert uncounted.json()["meta"]["more_data_available"] is True
    assert uncounted.json()["links"]["next"]
    view.delete_many({})


def test_a_lost_database_is_said_without_its_address(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.model_validate({"uri": served.store.uri, "database": served.store.name})
    app = create_app(settings)
    with serving(app) as url:
        app.state.store.client.close()  # every use of it fails from here on
        with caplog.at_level(logging.DEBUG):
            answer = requests.get(f"{url}/optimade/v1/structures", timeout=30)
            health = requests.get(f"{url}/api/health", timeout=30)
    assert answer.status_code in (500, 503)
    assert health.status_code == 503
    assert "mongodb://" not in answer.text + health.text + caplog.text


def test_no_path_leads_out(served: Served) -> None:
    for path in ("/optimade/v1/../../etc/passwd", "/optimade/v1/structures/../../../x", "/optimade/..", "//etc/passwd"):
        connection = http.client.HTTPConnection(served.url.removeprefix("http://"))
        connection.request("GET", path)
        assert connection.getresponse().status == 404
        connection.close()


def test_the_library_sets_up_no_logging(served: Served) -> None:
    assert logging.getLogger("optimade").handlers == []


def test_last_modified_finds_what_changed_since(served: Served) -> None:
    newest = max(row["last_modified"] for row in served.store.database["optimade_structures"].find())
    text = newest.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found = served.structures(filter=f'last_modified >= "{text}"')
    assert found.meta["data_returned"] >= 1
    assert served.structures(filter=f'last_modified > "{text}"').meta["data_returned"] == 0
    assert datetime.fromisoformat(found.body["data"][0]["attributes"]["last_modified"]) == newest
