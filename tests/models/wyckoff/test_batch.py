import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.batch import encode_texts, realize_many, run_each
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.realize import realize


def test_texts_are_encoded_in_order_and_bad_ones_say_why(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "mp20_biternary_train.csv.gz", usecols=["cif"]).sample(130, random_state=1)
    texts = [*rows["cif"][:60], "no cif", *rows["cif"][60:]]
    found = list(encode_texts(texts, n_processes=2))
    assert len(found) == len(texts)
    assert isinstance(found[60], StructureError)
    assert "not a CIF" in str(found[60])
    for place in (0, 59, 61, 130):
        assert found[place] == encode(parse_cif(texts[place]))


def test_genes_are_realized_in_order_and_a_failure_ends_nothing() -> None:
    genes = [
        Gene.parse(text) for text in ("136 O:f Ti:a", "216 Si:a Si:c", "62 O:c O:d Sr:c Zr:a", "221 O:c Sr:a Ti:b")
    ]
    done = list(realize_many(genes, [10.4, 20.0, 13.8, 11.9], seed=5, n_processes=2))
    assert [one.gene for one in done] == genes
    assert [len(one.crystals) for one in done] == [1, 0, 1, 1]
    assert "more symmetry" in done[1].reason
    alone = realize(genes[2], 13.8, seed=5, n_starts=1)[0]
    np.testing.assert_array_equal(done[2].crystals[0].frac_coords, alone.frac_coords)
    assert all(encode(one.crystals[0]) == one.gene for one in done if one.crystals)


def test_a_gene_that_takes_too_long_is_given_up() -> None:
    large = Gene.parse("225 " + " ".join(["O:l"] * 12 + ["Ti:l"] * 6))  # 3456 atoms in the cell
    began = time.monotonic()
    done = list(realize_many([large, Gene.parse("221 O:c Sr:a Ti:b")], [9.0, 11.9], seed=0, time_limit=0.2))
    assert [bool(one.crystals) for one in done] == [False, True]
    assert done[0].reason
    assert not done[0].processor_seconds > 5.0
    assert time.monotonic() - began < 200.0


AWKWARD = {
    1: "__import__('os').kill(__import__('os').getpid(), 9)",
    3: "__import__('time').sleep(600)",
    5: "[][5]",
}


def test_workers_that_die_hang_or_raise_are_replaced() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    tasks = [AWKWARD.get(number, f"({number}, __import__('os').environ['OMP_NUM_THREADS'])") for number in range(8)]
    results = list(run_each(eval, tasks, n_processes=2, time_limit=4.0))  # a child can't import a test's own functions
    assert [result for result, _ in results] == [None if n in AWKWARD else (n, "1") for n in range(8)]
    assert "died" in results[1][1]
    assert "not done after 4 s" in results[3][1]
    assert results[5][1] == "IndexError: list index out of range"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_consumer_that_stops_leaves_no_process() -> None:
    import multiprocessing

    stream = run_each(abs, iter(range(1000)), n_processes=1)
    assert next(stream) == (0, "")
    assert len(multiprocessing.active_children()) == 1
    stream.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("tasks", [[], [-4]])
def test_few_tasks(tasks: list[int]) -> None:
    assert list(run_each(abs, tasks, n_processes=3)) == [(abs(task), "") for task in tasks]
