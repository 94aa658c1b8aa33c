"""Materials Project: summary documents by emmet's field names, and what happens without key, package or server."""

import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stores.crystals import GAAS, SILICON
from wyloop.models.errors import IngestError
from wyloop.stores.connection import Store
from wyloop.stores.ingest.materials_project import (
    Search,
    fetch_summaries,
    ingest_materials_project,
    summary_structure,
)
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure

SECRET = "k" * 32


def summary(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "material_id": "mp-2534",
        "structure": GAAS.to_pymatgen().as_dict(),
        "formation_energy_per_atom": -0.43,
        "band_gap": 0.19,
        "symmetry": {"number": 216, "symbol": "F-43m"},
        "deprecated": False,
        "builder_meta": {"database_version": "2025.09.25"},
    } | changes


def test_summaries_become_structures() -> None:
    row = summary_structure(summary())
    assert isinstance(row, SourceStructure)
    assert (row.structure_id, row.formation_energy_per_atom, row.energy_method) == (
        "mp:mp-2534", -0.43, "mp-gga-gga+u-r2scan",
    )  # fmt: skip
    assert (row.band_gap, row.space_group_number, row.provenance) == (0.19, 216, "Materials Project 2025.09.25")
    assert row.crystal.species == ("Ga", "As")
    document = SimpleNamespace(
        material_id="mp-149", structure=SILICON.to_pymatgen(), symmetry=SimpleNamespace(number=227), band_gap=None
    )
    row = summary_structure(document)
    assert isinstance(row, SourceStructure)
    assert (row.source_id, row.space_group_number, row.band_gap, row.formation_energy_per_atom) == (
        "mp-149", 227, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"material_id": None}, "material_id"),
        ({"deprecated": True}, "deprecated"),
        ({"structure": None}, "structure"),
        ({"structure": {"lattice": 1}}, "structure"),
        ({"band_gap": -1.0}, "band_gap"),
        ({"band_gap": "wide"}, "band_gap"),
        ({"formation_energy_per_atom": float("inf")}, "formation_energy_per_atom"),
    ],
)
def test_faulty_summaries_are_refused(changes: dict[str, Any], field: str) -> None:
    row = summary_structure(summary(**changes))
    assert isinstance(row, Refusal)
    assert row.field == field


def test_searches_become_arguments() -> None:
    assert Search().arguments() == {}
    search = Search(elements=("Ga", "As"), n_elements=(2, 3), band_gap=(0.5, 2.0))
    assert search.arguments() == {"elements": ["Ga", "As"], "num_elements": (2, 3), "band_gap": (0.5, 2.0)}


def test_ingest_twice_and_without_key_or_conditions(ingested: Store) -> None:
    def fetch(search: Search, key: str) -> Iterator[Mapping[str, Any]]:
        assert (search.elements, key) == (("Ga",), SECRET)
        yield from (summary(), summary(material_id="mp-1", deprecated=True))

    report = ingest_materials_project(ingested, Search(("Ga",)), SECRET, fetch=fetch)
    assert (report.n_added, report.n_refused) == (1, 1)
    assert ingest_materials_project(ingested, Search(("Ga",)), SECRET, fetch=fetch).n_unchanged == 1
    with pytest.raises(IngestError, match="no key"):
        ingest_materials_project(ingested, Search(("Ga",)), " ", fetch=fetch)
    with pytest.raises(IngestError, match="without conditions"):
        ingest_materials_project(ingested, Search(), SECRET, fetch=fetch)


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mp_api", "mp_api.client"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(IngestError, match=r"pip install wyloop\[mp\]"):
        next(iter(fetch_summaries(Search(("Ga",)), SECRET)))


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rester:
        def __init__(self, key: str, **_: object) -> None:
            raise ValueError(f"no access with {key}\nat all")

    monkeypatch.setitem(sys.modules, "mp_api", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mp_api.client", SimpleNamespace(MPRester=Rester))
    with pytest.raises(
        IngestError, match="the Materials Project refused: ValueError no access with KEY at all"
    ) as caught:
        next(iter(fetch_summaries(Search(("Ga",)), SECRET)))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(IngestError, match="a key of 3 characters; expected"):
        next(iter(fetch_summaries(Search(("Ga",)), "key")))
