"""Saved queries and neighbours from the command line, on a real database."""

import pytest

from tests.platform.conftest import Command
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.candidates import CandidateRecord, candidate_id, propose
from wyloop.stores.connection import Store

pytestmark = pytest.mark.expects_findings  # candidates without a campaign
GENES = ("225 Cl:a Na:b", "225 Cl:a K:b", "225 F:a Na:b", "221 Cl:a Cs:b")


@pytest.fixture
def filled(cli_store: Store) -> Store:
    records = [
        CandidateRecord(
            candidate_id("k", text), "k", "k-r1", 1, Gene.parse(text), Prediction(-2.0, 0.1, 5.0 - i, 0.1, 0.0, 20.0)
        )
        for i, text in enumerate(GENES)
    ]
    propose(cli_store, records)
    return cli_store


def test_a_query_is_saved_asked_listed_and_removed(wyloop: Command, filled: Store) -> None:
    saved = wyloop("db", "query", "elements has Cl and band_gap > 2.5", "-c", "candidates", "--sort", "band_gap",
                   "--save", "salts", "--json")  # fmt: skip
    assert [row["formula_pretty"] for row in saved.json] == ["KCl", "NaCl"]
    asked = wyloop("db", "query", "--saved", "salts", "--json")
    assert asked.json == saved.json
    assert len(wyloop("db", "query", "--saved", "salts", "--limit", "1", "--json").json) == 1
    listed = wyloop("db", "saved", "--json").json
    assert [(one["name"], one["collection"], one["sort"]) for one in listed] == [("salts", "candidates", "band_gap")]
    assert "salts" in wyloop("db", "saved").out
    both = wyloop("db", "query", "band_gap > 1", "--saved", "salts")
    assert both.status != 0
    assert "--saved together with FILTER" in both.err
    assert wyloop("db", "saved", "--remove", "salts").out == "no query is saved\n"
    gone = wyloop("db", "query", "--saved", "salts")
    assert gone.status != 0
    assert "no saved query 'salts'" in gone.err


def test_neighbours_of_a_gene_and_of_a_formula(wyloop: Command, filled: Store) -> None:
    near = wyloop("db", "nearest", "225 Cl:b Na:a", "--candidates", "-n", "2", "--json").json
    assert [(one["formula_pretty"], round(one["distance"], 3)) for one in near] == [("NaCl", 0.0), ("KCl", 0.05)]
    alike = wyloop("db", "nearest", "NaCl", "--candidates", "--json").json
    assert [one["formula_pretty"] for one in alike] == ["NaCl", "KCl", "CsCl", "NaF"]
    assert "225 Cl:a Na:b" in wyloop("db", "nearest", "225 Cl:b Na:a", "--candidates").out
    wrong = wyloop("db", "nearest", "Xx2")
    assert wrong.status != 0
    assert "Xx2" in wrong.err
