import csv
import json
from pathlib import Path

import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError, TargetError
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.candidates import CandidateRecord, candidate_id, propose
from wyloop.stores.conditions import mongo_filter
from wyloop.stores.connection import Store
from wyloop.stores.export import export
from wyloop.stores.ingest.csv import ingest_csv
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material
from wyloop.stores.queries import query, to_frame
from wyloop.stores.status import counts

pytestmark = pytest.mark.expects_findings  # a material of a hull that is not there
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def cubic(first: str, second: str, place: float, a: float) -> Crystal:
    return Crystal(a * FCC, (first, second), np.array([[0.0] * 3, [place] * 3]))


@pytest.fixture
def filled(database: Store) -> Store:
    write_structures(
        database,
        [
            SourceStructure("s", "NaCl", cubic("Na", "Cl", 0.5, 5.6), -2.1, "mp-pbe", 5.0, "pbe"),
            SourceStructure("s", "GaAs", cubic("Ga", "As", 0.25, 5.65), -0.4, "mp-pbe", 0.2, "pbe"),
            SourceStructure("s", "TiC", cubic("Ti", "C", 0.5, 4.3), -0.8, "mp-pbe"),
        ],
    )
    build_encodings(database)
    gap = cubic("Ga", "P", 0.25, 5.45)
    gene = encode(gap)
    upsert_material(
        database,
        MaterialRecord(
            material_id(str(gene)), str(gene), gene, gap, -0.5, "chgnet", 0.0, "Ga-P|chgnet", 1.6, "gpaw-pbe/1"
        ),
    )
    proposed = encode(cubic("Al", "As", 0.25, 5.66))
    propose(
        database,
        [
            CandidateRecord(
                candidate_id("k", str(proposed)), "k", "k-r1", 1, proposed, Prediction(-0.6, 0.1, 1.5, 0.2, 0.0, 22.0)
            )
        ],
    )
    return database


def ids(store: Store, text: str, **options: object) -> list[str]:
    rows = query(store, Target.parse([text]), **options)  # type: ignore[arg-type]  # options by name
    return [str(row["formula_pretty"]) for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("band_gap > 1", ["NaCl"]),
        ("band_gap >= 0.2", ["GaAs", "NaCl"]),
        ("0.2 < band_gap < 6", ["NaCl"]),
        ("band_gap != 5", ["GaAs"]),
        ("space_group_number = 225", ["NaCl", "TiC"]),
        ("space_group_number < 225 and crystal_system = cubic", ["GaAs"]),
        ("crystal_system = hexagonal", []),
        ("elements has Ga", ["GaAs"]),
        ("elements without Cl", ["GaAs", "TiC"]),
        ("elements in Ti, C, Ga", ["TiC"]),
        ("formula_pretty = GaAs", ["GaAs"]),
        ("formula_pretty != GaAs", ["NaCl", "TiC"]),
        ("chemsys = As-Ga", ["GaAs"]),
        ("nelements = 2 and nsites <= 2", ["GaAs", "NaCl", "TiC"]),
        ("energy_above_hull < 1", []),
    ],
)
def test_conditions_become_queries(filled: Store, text: str, expected: list[str]) -> None:
    assert ids(filled, text, collection="structures") == expected


def test_all_collections_sorted_and_limited(filled: Store) -> None:
    rows = query(filled, Target.parse(["band_gap > 0"]), collection="all", sort="-band_gap")
    assert [(row["collection"], row["formula_pretty"], row["band_gap"]) for row in rows] == [
        ("structures", "NaCl", 5.0),
        ("materials", "GaP", 1.6),
        ("candidates", "AlAs", 1.5),
        ("structures", "GaAs", 0.2),
    ]
    assert ids(filled, "nelements = 2", collection="structures", sort="band_gap") == ["GaAs", "NaCl", "TiC"]
    assert ids(filled, "nelements = 2", collection="all", limit=2) == ["GaP", "GaAs"]
    assert ids(filled, "nelements = 2", limit=0) == []
    assert json.loads(json.dumps(rows)) == rows
    frame = to_frame(rows)
    assert list(frame["formula_pretty"]) == ["NaCl", "GaP", "AlAs", "GaAs"]
    assert len(query(filled, Target.parse([]), collection="structures")) == 3
    with pytest.raises(TargetError, match=r"can't sort by '\$where'; expected one of formula_pretty"):
        query(filled, Target.parse([]), sort="$where")
    with pytest.raises(TargetError, match="limit -1"):
        query(filled, Target.parse([]), limit=-1)


def test_text_never_becomes_an_operator(filled: Store) -> None:
    for text in ('chemsys = "$where"', 'formula_pretty = "{$gt: 1}"', "$where = 1"):
        try:
            target = Target.parse([text])
        except TargetError:
            continue
        assert query(filled, target, collection="all") == []
        assert "$where" not in mongo_filter(target)


def test_an_export_can_be_read_again(filled: Store, tmp_path: Path) -> None:
    rows = query(filled, Target.parse(["nelements = 2"]), collection="all")
    assert export(filled, rows, "csv", tmp_path / "new" / "out.csv") == 5
    with (tmp_path / "new" / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["formula_pretty"] for row in read] == ["GaP", "GaAs", "NaCl", "TiC", "AlAs"]
    report = ingest_csv(filled, tmp_path / "new" / "out.csv", source="again")
    assert report.n_added == 4
    assert [refusal.identity for refusal in report.refused] == [read[4]["material_id"]]  # a candidate has no crystal
    assert export(filled, rows, "jsonl", tmp_path / "out.jsonl") == 5
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["species"] == ["Ga", "P"]
    assert export(filled, rows, "cif", tmp_path / "cifs") == 4
    assert {parse_cif(path.read_text()).nsites for path in (tmp_path / "cifs").iterdir()} == {2}
    with pytest.raises(IngestError, match="export format 'xls'; expected one of csv, cif, jsonl"):
        export(filled, rows, "xls", tmp_path / "x")  # type: ignore[arg-type]  # what a user might ask
    with pytest.raises(IngestError, match="can't write"):
        export(filled, rows, "csv", tmp_path)


def test_counts(filled: Store) -> None:
    assert counts(filled)["structures"] == counts(filled)["encodings"] == 3
