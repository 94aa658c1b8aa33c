import numpy as np

from tests.platform.conftest import Command
from wyloop.models.crystal import Crystal
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures

CSCL = Crystal(3.5 * np.eye(3), ("Cs", "Cl"), np.array([[0.0] * 3, [0.5] * 3]))
NEARLY = Crystal(3.6 * np.eye(3), ("Cs", "Cl"), np.array([[0.0] * 3, [0.5] * 3]))


def test_build_makes_what_is_new_and_says_how_much(wyloop: Command, cli_store: Store) -> None:
    write_structures(cli_store, [SourceStructure("s", "1", CSCL, -2.0, "mp-pbe"), SourceStructure("t", "1", NEARLY)])
    found = wyloop("db", "build", "--json", "--processes", "1")
    assert found.json == {
        "encodings": {"n_done": 2, "n_refused": 0, "n_skipped": 0},
        "materials": {"n_done": 1, "n_refused": 0, "n_skipped": 0},
        "hulls": {"n_done": 1, "n_refused": 0, "n_skipped": 0},
        "optimade": {"n_done": 2, "n_refused": 0, "n_skipped": 0},
    }
    told = wyloop("db", "build", "materials", "hulls")
    assert told.status == 0
    assert [line.split() for line in told.out.splitlines() if line.startswith(("materials", "hulls"))] == [
        ["materials", "0", "0", "1"],
        ["hulls", "0", "0", "1"],
    ]
    assert wyloop("db", "build", "--full", "--json", "materials").json["materials"]["n_done"] == 0
    assert wyloop("db", "build", "genes").status == 2
