"""The interface for notebooks: what it returns shows itself; the examples are run by test_docs_examples.py."""

import pytest

from tests.flows import rounds
from wyloop.models.errors import TargetError
from wyloop.platform.notebook import Funnel, Table, connect
from wyloop.stores.connection import Store


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


def test_a_model_is_trained_and_asked(cli_store: Store) -> None:
    rounds.fill(cli_store, step=16)
    with connect() as wy:
        model = wy.train(n_epochs=1)
        card = cli_store.database["model_versions"].find_one({"model_id": model})["card"]
        assert len(card["history"]) == 1
        genes = wy.generate("band_gap > 1", n=5, model=model)
        assert len(set(map(str, genes))) == 5


def test_hostile_texts_stay_texts() -> None:
    assert "<script>" not in Table([{"id": "<script>", "formula_pretty": "<b>"}])._repr_html_()
    assert "<script>" not in Funnel("<script>", (("<script>", 1, "<b>"),))._repr_html_()
