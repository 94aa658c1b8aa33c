"""Structures of OPTIMADE servers over real HTTP on loopback: fields, paging, faults, patience, stops."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stores.crystals import GAAS, NACL, SILICON
from tests.stores.optimade_server import Provider, Reply, resource, serving
from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.stores.connection import Store
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.optimade import ingest_optimade
from wyloop.stores.ingest.optimade_fields import PROVIDERS, fields_to_ask, resource_structure
from wyloop.stores.ingest.optimade_pages import Pages, Politeness, retry_after, structures_url
from wyloop.stores.ingest.record import Reading
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structure_json import read_json
from wyloop.stores.ingest.structures import SourceStructure

QUICK = Politeness(delay=0.0, timeout=5.0, first_wait=0.01, longest_wait=2.0, n_tries=3)


def mapped(attributes: dict[str, Any], *, url: str = "", provider: str = "auto") -> SourceStructure | Refusal:
    found = resource("x", GAAS, **attributes)
    return resource_structure(found, "fallback", "test", Tally(), url=url, provider=provider)


def many(n: int) -> list[dict[str, Any]]:
    return [resource(f"r{i}", Crystal(GAAS.lattice * (1 + i / 1000), GAAS.species, GAAS.frac_coords)) for i in range(n)]


@pytest.mark.parametrize(
    ("attributes", "url", "energy", "method", "gap", "gap_method"),
    [
        (
            {"_mp_stability": {"r2scan": {"formation_energy_per_atom": -0.5}, "gga_gga+u": {
                "formation_energy_per_atom": -0.4, "energy_above_hull": 0.0}}},
            "", -0.4, "mp-gga-gga+u", None, None,
        ),
        ({"_mp_stability": {"r2scan": {"formation_energy_per_atom": -0.5}}}, "", -0.5, "mp-r2scan", None, None),
        ({"_mp_stability": {"gga_gga+u": None}}, "", None, None, None, None),
        ({"_oqmd_delta_e": -0.3, "_oqmd_band_gap": 0.2, "_oqmd_stability": 0.1}, "", -0.3, "oqmd-pbe", 0.2, "oqmd-pbe"),
        (
            {"_alexandria_formation_energy_per_atom": -0.35, "_alexandria_band_gap": 0.6,
             "_alexandria_hull_distance": 0.0},
            "https://host/pbesol/v1/structures", -0.35, "alexandria-pbesol", 0.6, "alexandria-pbesol",
        ),
        ({"_alexandria_formation_energy_per_atom": -0.35}, "https://host/v1", -0.35, "alexandria", None, None),
        (
            {"_jarvis_formation_energy_peratom": -0.36, "_jarvis_optb88vdw_bandgap": 0.17, "_jarvis_mbj_bandgap": "na"},
            "", -0.36, "jarvis-optb88vdw", 0.17, "jarvis-optb88vdw",
        ),
        (
            {"_wyloop_formation_energy_per_atom": -0.4, "_wyloop_energy_method": "chgnet", "_wyloop_band_gap": 1.5,
             "_wyloop_band_gap_method": "experiment"},
            "", -0.4, "chgnet", 1.5, "experiment",
        ),
        ({"_oqmd_delta_e": None, "_oqmd_band_gap": "na"}, "", None, None, None, None),
    ],
)  # fmt: skip
def test_fields_of_the_known_providers(
    attributes: dict[str, Any],
    url: str,
    energy: float | None,
    method: str | None,
    gap: float | None,
    gap_method: str | None,
) -> None:
    row = mapped(attributes, url=url)
    assert isinstance(row, SourceStructure)
    assert (row.formation_energy_per_atom, row.energy_method) == (energy, method)
    assert (row.band_gap, row.band_gap_method) == (gap, gap_method)
    np.testing.assert_allclose(row.crystal.frac_coords, GAAS.frac_coords, atol=1e-12)


def test_what_is_asked_for_is_what_the_server_offers() -> None:
    offered = {"_oqmd_delta_e": {}, "_oqmd_prototype": {}, "space_group_it_number": {}, "lattice_vectors": {}}
    assert set(fields_to_ask(offered, "auto")) > {"_oqmd_delta_e", "space_group_it_number", "species_at_sites"}
    assert "_mp_stability" not in fields_to_ask(offered, "auto")
    assert not any(name.startswith("_") for name in fields_to_ask(None, "auto"))
    assert "_jarvis_formation_energy_peratom" in fields_to_ask(None, "jarvis")
    row = mapped({"_oqmd_delta_e": -1.0, "_mp_stability": {"gga_gga+u": {"formation_energy_per_atom": -2.0}}},
                 provider="oqmd")  # fmt: skip
    assert isinstance(row, SourceStructure)
    assert (row.formation_energy_per_atom, row.energy_method) == (-1.0, "oqmd-pbe")
    row = mapped({"space_group_it_number": 216, "species": None})
    assert isinstance(row, SourceStructure)
    assert row.space_group_number == 216
    assert all(one.energy is not None for one in PROVIDERS.values())


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"structure_features": ["disorder"]}, "structure features disorder"),
        ({"dimension_types": [1, 1, 0]}, "dimension types"),
        ({"lattice_vectors": None}, "no lattice_vectors"),
        ({"lattice_vectors": [[1, None, 0], [0, 1, 0], [0, 0, 1]]}, "not a finite number"),
        ({"lattice_vectors": [[3, 0, 0], [3, 0, 0], [0, 0, 3]]}, "close no cell"),
        ({"cartesian_site_positions": []}, "no cartesian_site_positions"),
        ({"cartesian_site_positions": [[0, 0, 0]]}, "1 coordinates of 2 sites"),
        ({"cartesian_site_positions": [[0, 0, 0], [0, 0]]}, "close no cell"),
        ({"cartesian_site_positions": [[0, 0, 0], [0, 0, 0.1]]}, "apart"),
        ({"species_at_sites": ["Ga", "Q"]}, "species Q"),
        ({"species": [{"name": "Ga", "chemical_symbols": ["Ga", "In"], "concentration": [0.5, 0.5]}]}, "species Ga of"),
        ({"species": [{"name": "Ga", "chemical_symbols": ["Ga"], "concentration": [0.5]}]}, "concentration 0.5"),
        ({"species": [{"name": "Ga", "chemical_symbols": ["Ga", "vacancy"], "concentration": [0.9, 0.1]}]}, "vacancy"),
        ({"_oqmd_delta_e": "low"}, "low"),
        ({"_oqmd_delta_e": True}, "True"),
        ({"_oqmd_band_gap": -1.0}, "-1"),
    ],
)
def test_what_is_no_ordered_crystal_or_no_number_is_refused(attributes: dict[str, Any], told: str) -> None:
    row = mapped(attributes)
    assert isinstance(row, Refusal)
    assert row.identity == "x"
    assert told in row.value
    assert row.expected


def test_no_resource_is_refused() -> None:
    for found in (None, 3, {}, {"id": "a"}, {"id": "a", "attributes": []}):
        assert isinstance(resource_structure(found, "fallback", "s", Tally()), Refusal)


def test_addresses_and_waits() -> None:
    for given in ("https://h/o", "https://h/o/", "https://h/o/v1", "https://h/o/v1/structures/"):
        assert structures_url(given) == "https://h/o/v1/structures"
    assert structures_url("https://h/v1.2") == "https://h/v1.2/structures"
    assert (retry_after(None), retry_after("7"), retry_after("soon"), retry_after("-1")) == (None, 7.0, None, 0.0)
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert later is not None
    assert 80 < later <= 90
    for wrong in ("", "ftp://h/x", "h/x", "http://", "http://h:port/"):
        with pytest.raises(IngestError, match="is no address"):
            Pages(wrong, QUICK)


def test_pages_are_followed_and_a_second_time_changes_nothing(ingested: Store) -> None:
    provider = Provider(many(25), {"lattice_vectors": {}, "_oqmd_delta_e": {}}, prefix="oqmd")
    provider.resources[3]["attributes"] |= {"_oqmd_delta_e": -0.4, "_oqmd_prototype": "B3"}
    provider.resources[4]["attributes"]["species_at_sites"] = ["Ga", "Q"]
    seen: list[tuple[int, int]] = []
    with serving(provider) as url:
        report = ingest_optimade(
            ingested, url, conditions='elements HAS "Ga"', page_limit=10, politeness=QUICK,
            on_progress=lambda *counts: seen.append(counts),
        )  # fmt: skip
        again = ingest_optimade(ingested, url, conditions='elements HAS "Ga"', page_limit=10, politeness=QUICK)
    assert (report.n_rows, report.n_added, report.n_refused) == (25, 24, 1)
    assert (report.refused[0].row, report.refused[0].identity) == (5, "r4")
    assert report.notes == ("not taken: _oqmd_prototype",)
    assert seen == [(10, 25), (20, 25), (25, 25)]
    assert (again.n_added, again.n_updated, again.n_unchanged) == (0, 0, 24)
    assert provider.asked[0]["filter"] == ['elements HAS "Ga"']
    assert "_oqmd_delta_e" in provider.asked[0]["response_fields"][0]
    assert provider.headers[0]["User-Agent"].startswith("wyloop/")
    found = ingested.database["structures"].find_one({"structure_id": "optimade-oqmd:r3"})
    assert found is not None
    assert (found["energy_method"], found["provenance"]) == ("oqmd-pbe", f"{provider.url}/v1/structures/r3")
    state = ingested.database["ingests"].find_one({})
    assert state is not None
    assert (state["n_rows"], state["n_refused"], state["is_finished"]) == (25, 1, True)


def test_a_stopped_ingest_goes_on_at_the_next_page(ingested: Store) -> None:
    provider = Provider(many(30))
    with serving(provider) as url:
        provider.faults = [Reply(provider.reply(f"/v1/structures?page_limit=10")), Reply({}, 404)]  # noqa: F541
        provider.faults[0] = provider.faults[0].body
        provider.asked.clear()
        with pytest.raises(IngestError, match="answers 404"):
            ingest_optimade(ingested, url, page_limit=10, politeness=QUICK)
        assert ingested.database["structures"].count_documents({}) == 10
        provider.asked.clear()
        report = ingest_optimade(ingested, url, page_limit=10, politeness=QUICK)
        assert [one["page_offset"] for one in provider.asked] == [["10"], ["20"]]
        assert (report.n_rows, report.n_added) == (20, 20)
        assert "went on after 10 rows of an earlier run" in report.notes
        assert ingested.database["structures"].count_documents({}) == 30
        # a limit ends within a page: the rest of it comes next
        limited = ingest_optimade(ingested, url, page_limit=10, max_rows=15, politeness=QUICK)
        assert limited.n_rows == 15
        rest = ingest_optimade(ingested, url, page_limit=10, politeness=QUICK)
        assert rest.n_rows == 20  # the second page again, and the third
        # a next page that the server has forgotten, and a start anew by wish
        ingest_optimade(ingested, url, page_limit=10, max_rows=10, politeness=QUICK)
        provider.faults = [Reply({"errors": [{"detail": "cursor expired"}]}, 400)]
        anew = ingest_optimade(ingested, url, page_limit=10, politeness=QUICK)
        assert (anew.n_rows, anew.n_unchanged) == (30, 30)
        assert any("started anew" in note for note in anew.notes)
        ingest_optimade(ingested, url, page_limit=10, max_rows=10, politeness=QUICK)
        provider.asked.clear()
        ingest_optimade(ingested, url, page_limit=10, is_restart=True, politeness=QUICK)
        assert "page_offset" not in provider.asked[0]


READER = """
import os, sys
from pydantic import SecretStr
from wyloop.stores.connection import connect
from wyloop.stores.ingest.optimade import ingest_optimade
from wyloop.stores.ingest.optimade_pages import Politeness
from wyloop.stores.settings import Settings
store = connect(Settings(uri=SecretStr(os.environ["URI"]), database=sys.argv[1]))
ingest_optimade(store, sys.argv[2], page_limit=2, politeness=Politeness(delay=0.3))
"""


def test_a_killed_ingest_goes_on_where_it_was(ingested: Store) -> None:
    provider = Provider(many(40))
    states = ingested.database["ingests"]
    with serving(provider) as url:
        command = [sys.executable, "-c", READER, ingested.name, url]
        reader = subprocess.Popen(command, env=os.environ | {"URI": ingested.uri, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 120
        while states.count_documents({"n_rows": {"$gte": 4}}) == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        reader.kill()
        reader.wait()
        state = states.find_one({})
        assert state is not None
        assert 4 <= state["n_rows"] < 40
        assert not state["is_finished"]
        provider.asked.clear()
        report = ingest_optimade(ingested, url, page_limit=2, politeness=QUICK)
    assert provider.asked[0]["page_offset"] == [str(state["n_rows"])]
    assert report.n_rows == 40 - state["n_rows"]
    assert ingested.database["structures"].count_documents({}) == 40


def structures_of(url: str, politeness: Politeness) -> dict[str, Any]:
    with closing(Pages(url, politeness)) as pages:
        return pages.get(pages.url, {"page_limit": "5"})


@pytest.mark.parametrize(
    ("faults", "at_least"),
    [
        ([Reply(b"", 429, {"Retry-After": "1"})], 1.0),
        ([Reply(b"", 503, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"})], 0.0),
        ([Reply(b"<html>", 200), Reply(b'{"data": [', 200)], 0.03),
        ([Reply(b"", 502), Reply({"errors": [{"detail": "busy"}]}, 500)], 0.03),
        ([Reply(b"{}", 200, {"Content-Length": "5000"})], 0.01),
    ],
)
def test_a_busy_server_is_waited_for(faults: list[Reply], at_least: float) -> None:
    with serving(Provider(many(3), faults=list(faults))) as url:
        began = time.monotonic()
        assert len(structures_of(url, Politeness(0.0, 1.0, 0.01, 2.0, 3))["data"]) == 3
        assert time.monotonic() - began >= at_least


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([Reply({"errors": [{"detail": "bad\nfilter"}]}, 400)], r"answers 400 \(bad filter\); expected structures"),
        ([Reply(b"<html>no</html>", 403)], "answers 403; expected"),
        ([Reply({"errors": [{"title": "Not Implemented"}]}, 501)], r"answers 501 \(Not Implemented\)"),
        ([Reply(b"", 429, {"Retry-After": "3600"})], "asks to wait 3600 s"),
        ([Reply(b"x", 500)] * 3, "500, 3 times"),
        ([Reply(b"<html>")] * 3, "no JSON of OPTIMADE but"),
        ([Reply({"data": []}, 301, {"Location": "/v1/structures"})] * 30, "redirect"),
    ],
)
def test_a_server_that_refuses_ends_in_one_line(faults: list[Reply], told: str) -> None:
    with (
        serving(Provider(many(1), faults=list(faults))) as url,
        pytest.raises(IngestError, match=told) as caught,
    ):
        structures_of(url, QUICK)
    assert "\n" not in str(caught.value)


def test_next_links_that_lead_nowhere_or_elsewhere(ingested: Store) -> None:
    provider = Provider(many(12), next_link=lambda link: {"href": link.replace("127.0.0.1", "inner.host")})
    with serving(provider) as url:
        assert ingest_optimade(ingested, url, page_limit=5, politeness=QUICK).n_rows == 12
        provider.next_link = lambda link: link.split("127.0.0.1")[1].split("/", 1)[1].join(["/", ""])
        assert ingest_optimade(ingested, url, page_limit=5, politeness=QUICK).n_rows == 12
        provider.next_link = lambda _: None
        with pytest.raises(IngestError, match="says that there is more but gives no next page"):
            ingest_optimade(ingested, url, page_limit=5, politeness=QUICK)
        provider.next_link = lambda link: link.replace("page_offset=10", "page_offset=5")
        with pytest.raises(IngestError, match="leads to itself"):
            ingest_optimade(ingested, url, page_limit=5, is_restart=True, politeness=QUICK)


def test_no_server_a_silent_one_and_a_password(ingested: Store) -> None:
    with pytest.raises(IngestError, match=r"no answer \(ConnectError.*3 times"):
        ingest_optimade(ingested, "http://127.0.0.1:9", politeness=QUICK)
    with pytest.raises(IngestError, match="provider 'nomad'; expected auto or one of mp, oqmd"):
        ingest_optimade(ingested, "http://127.0.0.1:9", provider="nomad")
    provider = Provider(many(1), prefix=None)
    with serving(provider) as url:
        ingest_optimade(ingested, url.replace("//", "//reader:secret@"), politeness=QUICK)
        assert provider.headers[-1]["Authorization"].startswith("Basic ")
        provider.faults = [Reply({}, 403)]
        with pytest.raises(IngestError) as caught:
            ingest_optimade(ingested, url.replace("//", "//reader:secret@"), politeness=QUICK)
    assert "secret" not in str(caught.value)
    stored = json.dumps([list(ingested.database[name].find({}, {"_id": 0})) for name in ("ingests", "structures")],
                        default=str)  # fmt: skip
    assert "secret" not in stored
    assert "127.0.0.1:r0" in stored  # without a prefix the source is called after the server


def test_a_saved_answer_of_a_provider(tmp_path: Path) -> None:
    answer = {"data": [resource("mp-1", NACL), resource("mp-2", SILICON, _oqmd_delta_e="x"), 7], "meta": {}}
    (tmp_path / "x.json").write_text(json.dumps(answer))
    rows = list(read_json(tmp_path / "x.json", "x", Reading("saved"), Tally()))
    assert [isinstance(row, SourceStructure) for row in rows] == [True, False, False]
