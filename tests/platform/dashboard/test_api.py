"""The API behind the pages: pages by keys, refusals, downloads, events, figures of operation; hostile input."""

import csv
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
from pymongo import MongoClient

from tests.platform.dashboard.conftest import TOKEN, Site
from wyloop.platform.metrics import Figures, exposition, figures
from wyloop.stores import campaigns
from wyloop.stores.documents.base import now

RIGHT = {"Authorization": f"Bearer {TOKEN.get_secret_value()}"}


def get(site: Site, path: str, **parameters: str | int) -> requests.Response:
    return requests.get(site.url + path, params=parameters, timeout=60)


@pytest.mark.parametrize(
    "sort", ["", "-formation_energy_per_atom", "band_gap", "-band_gap", "material_id", "-material_id"]
)
def test_pages_follow_each_other_without_loss(site: Site, sort: str) -> None:
    whole = get(site, "/api/materials", sort=sort, limit=500).json()
    seen, after, n_pages = [], "", 0
    while True:
        part = get(site, "/api/materials", sort=sort, limit=150, after=after).json()
        seen += [row["material_id"] for row in part["rows"]]
        n_pages += 1
        if part["next_after"] is None:
            break
        after = part["next_after"]
    assert len(seen) == len(set(seen)) == site.store.database["materials"].count_documents({})
    assert seen[:500] == [row["material_id"] for row in whole["rows"]]
    assert n_pages > 4


def test_a_falling_order_is_the_rising_one_backwards_but_for_what_has_no_value(site: Site) -> None:
    rising = [row.get("band_gap") for row in _rows(site, "band_gap")]
    falling = [row.get("band_gap") for row in _rows(site, "-band_gap")]
    known = [value for value in rising if value is not None]
    assert known == sorted(known)
    assert falling[: len(known)] == known[::-1]
    assert set(falling[len(known) :]) == set(rising[len(known) :]) == {None}


def _rows(site: Site, sort: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while after is not None:
        part = get(site, "/api/materials", sort=sort, limit=500, after=after).json()
        found += part["rows"]
        after = part["next_after"]
    return found


def test_candidates_by_campaign_round_status_and_filter(site: Site) -> None:
    everything = get(site, "/api/candidates", campaign=site.ids["campaign"]).json()
    assert everything["n_matches"] == len(everything["rows"]) == 4
    assert [row["rank"] for row in everything["rows"][:3]] == [1, 2, 3]
    computed = get(site, "/api/candidates", status="computed", campaign=site.ids["campaign"], round="1").json()
    assert [row["material"]["formation_energy_per_atom"] for row in computed["rows"]] == [-1.2, -1.4, -2.0]
    assert get(site, "/api/candidates", round="2", campaign=site.ids["campaign"]).json()["rows"] == []
    fluorides = get(site, "/api/candidates", filter="elements has F", campaign=site.ids["campaign"]).json()["rows"]
    assert [row["formula_pretty"] for row in fluorides] == ["FrF"]


HOSTILE = (
    ("/api/candidates", {"filter": '{"$where": "sleep(5000)"}'}),
    ("/api/candidates", {"filter": "band_gap > 1; drop"}),
    ("/api/candidates", {"sort": "$where"}),
    ("/api/candidates", {"sort": "verdicts"}),
    ("/api/candidates", {"status": "{$ne: 1}"}),
    ("/api/candidates", {"after": "WzEs"}),
    ("/api/candidates", {"after": "eyIkZ3QiOiIifQ"}),
    ("/api/candidates", {"after": "W3siJGd0IjoxfSwiYyJd"}),  # [{"$gt":1},"c"]
    ("/api/candidates", {"after": "W251bGwseyIkZ3QiOiIifV0"}),  # [null,{"$gt":""}]
    ("/api/candidates", {"after": "WzFlNDAwLCJjIl0"}),  # [1e400,"c"]
    ("/api/candidates", {"limit": "100000"}),
    ("/api/candidates", {"limit": "-1"}),
    ("/api/candidates", {"round": "99999999999999999999"}),
    ("/api/candidates", {"round": "1"}),
    ("/api/candidates", {"filter": "x" * 5000}),
    ("/api/candidates/export", {"format": "../../etc/passwd"}),
    ("/api/materials/export", {"filter": "nonsense"}),
    ("/api/candidates/c-0/structure", {}),
    ("/api/maps/..%2f..%2fetc%2fpasswd", {}),
    ("/assets/..%2f..%2fpages.py", {}),
    ("/assets/pages.py", {}),
    ("/assets/%2e%2e/pages.py", {}),
    ("/campaigns/%24ne", {}),
    ("/candidates/c-0", {}),
    ("/materials/m-0%00", {}),
    ("/models/x" + "y" * 500, {}),
    ("/nowhere", {}),
)


@pytest.mark.parametrize(("path", "parameters"), HOSTILE)
def test_hostile_input_is_refused(site: Site, path: str, parameters: dict[str, str]) -> None:
    answer = get(site, path, **parameters)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert "root:" not in answer.text


def test_a_script_in_a_name_stays_text(site: Site) -> None:
    for path in ("/", f"/campaigns/{site.ids['campaign']}", f"/candidates/{site.ids['rejected']}", "/candidates"):
        answer = get(site, path)
        assert "<script>window" not in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_only_the_bearer_of_the_token_pauses(site: Site) -> None:
    address = f"{site.url}/api/campaigns/{site.ids['campaign']}"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN.get_secret_value()}"}):
        assert requests.post(f"{address}/pause", headers=headers, timeout=30).status_code == 401
    assert campaigns.campaign(site.store, site.ids["campaign"]).state == "active"
    assert requests.post(f"{address}/pause", headers=RIGHT, timeout=30).json()["state"] == "paused"
    assert requests.post(f"{address}/pause", headers=RIGHT, timeout=30).status_code == 409
    assert requests.post(f"{address}/resume", headers=RIGHT, timeout=30).json()["state"] == "active"
    assert requests.post(f"{address}/explode", headers=RIGHT, timeout=30).status_code == 422
    assert requests.post(f"{site.url}/api/campaigns/none/pause", headers=RIGHT, timeout=30).status_code == 404


def test_what_a_campaign_shows(site: Site) -> None:
    told = get(site, f"/api/campaigns/{site.ids['campaign']}").json()
    assert told["next_step"].startswith("Round 2 of 2")
    first = told["rounds"][0]["stages"]
    assert [(one["name"], one["n"]) for one in first] == [("generated", 4), ("synthesizability", 3)]
    assert first[1]["reasons"][0][:2] == ["stopped by this screen", 1]
    assert told["learnt"][0]["energy_mae"] == pytest.approx((0.05 + 0.1 + 0.15) / 3)
    assert "lease_owner" not in told
    for name in ("learning", "found", "parity-energy", "parity-gap"):
        assert get(site, f"/api/campaigns/{site.ids['campaign']}/charts/{name}").json()["data"]


def test_what_a_candidate_shows(site: Site) -> None:
    base = f"/api/candidates/{site.ids['candidate']}"
    drawn = get(site, f"{base}/structure").json()
    assert {atom["element"] for atom in drawn["atoms"]} == {"Na", "At"}
    assert len(drawn["edges"]) == 12
    assert len(get(site, f"{base}/structure", cells=2).json()["atoms"]) > len(drawn["atoms"])
    assert get(site, f"{base}/charts/gamma").json()["data"][0]["x"][-3:] == [4.8, 4.8, None]
    hull = get(site, f"{base}/charts/hull").json()
    assert hull["data"][-1]["name"] == "this material"
    assert len(hull["data"][-1]["x"]) == 1
    assert get(site, f"/api/candidates/{site.ids['rejected']}/charts/gamma").status_code == 404


def test_downloads_hold_what_the_table_shows(site: Site) -> None:
    text = get(site, "/api/candidates/export", format="csv", campaign=site.ids["campaign"]).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4
    assert float(rows[0]["predicted_formation_energy_per_atom"]) == pytest.approx(-1.25)
    assert float(rows[0]["calculated_formation_energy_per_atom"]) == pytest.approx(-1.2)
    packed = get(site, "/api/materials/export", format="cif", campaign=site.ids["campaign"]).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert len(archive.namelist()) == 3
        assert "_atom_site_fract_x" in archive.read(archive.namelist()[0]).decode()


def test_a_change_is_told_as_an_event(site: Site) -> None:
    heard: list[str] = []

    def listen() -> None:
        with requests.get(f"{site.url}/api/events", stream=True, timeout=30) as answer:
            heard.append(answer.headers["content-type"])
            heard.extend(_until_data(answer.iter_lines(decode_unicode=True)))

    thread = threading.Thread(target=listen)
    thread.start()
    deadline = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.5)
        campaigns.set_next_advance(site.store, site.ids["campaign"], now())
    thread.join(5)
    assert heard[0].startswith("text/event-stream")
    assert json.loads(heard[-1].removeprefix("data: ")) == {"campaigns": pytest.approx(1, abs=20)}


def _until_data(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line.startswith("data:"):
            return


def test_figures_of_operation(site: Site) -> None:
    found = figures(site.store, "wyloop_none")
    assert found.is_up
    assert found.calculations[("phonon", "completed")] == 3
    assert found.open_rounds.keys() == {site.ids["campaign"]}
    told = get(site, "/metrics").text
    assert "wyloop_up 1.0" in told
    assert 'wyloop_calculations{kind="phonon",status="completed"} 3.0' in told
    assert 'wyloop_campaigns{state="active"}' in told
    assert get(site, "/health").json()["status"] == "ok"


def test_figures_of_a_database_that_is_gone(site: Site) -> None:
    nobody = MongoClient[dict[str, Any]]("mongodb://127.0.0.1:9/?directConnection=true", serverSelectionTimeoutMS=200)
    found = figures(replace(site.store, client=nobody), "wyloop_none")
    nobody.close()
    assert found == Figures(is_up=False)
    assert exposition(lambda: found).decode().strip().endswith("wyloop_up 0.0")


def test_scripts_are_packed_and_kept(site: Site) -> None:
    answer = get(site, "/assets/plotly.min.js")
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    again = requests.get(
        f"{site.url}/assets/plotly.min.js", headers={"If-None-Match": answer.headers["etag"]}, timeout=30
    )
    assert again.status_code == 304
