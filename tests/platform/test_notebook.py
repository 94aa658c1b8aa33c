"""The interface for notebooks: the example runs, and what it returns shows itself."""

import runpy
from pathlib import Path

import pytest

from wyloop.models.errors import TargetError
from wyloop.platform.notebook import Funnel, Table, connect
from wyloop.stores.connection import Store

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, cli_store: Store) -> None:
    found = runpy.run_path(str(example))
    assert len(found["oxides"]) == 5
    assert len(found["figure"].data) == 2


def test_what_is_returned_shows_itself(cli_store: Store) -> None:
    with connect() as wy:
        wy.ingest()
        rows = wy.query("elements has Na", limit=3)
        assert len(rows) == 3
        html = rows._repr_html_()
        assert html.count("<tr>") == 4
        assert "646 structures" in wy._repr_html_()
        crystal = wy.structure(str(rows[0]["id"]))
        assert "Na" in crystal._repr_html_()
        assert len(crystal.to_ase()) == crystal.crystal.nsites
        assert list(rows.frame()["id"]) == [row["id"] for row in rows]
        with pytest.raises(TargetError, match="no material or structure"):
            wy.structure("m-none")


def test_hostile_texts_stay_texts() -> None:
    assert "<script>" not in Table([{"id": "<script>", "formula_pretty": "<b>"}])._repr_html_()
    assert "<script>" not in Funnel("<script>", (("<script>", 1, "<b>"),))._repr_html_()
