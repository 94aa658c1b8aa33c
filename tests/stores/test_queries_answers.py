from collections.abc import Iterator

import numpy as np
import pytest
from pymongo import MongoClient

from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError, TargetError
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.builders.encodings import build_encodings, encoding_fields
from wyloop.stores.candidates import CandidateRecord, candidate, candidate_id, known_among, propose
from wyloop.stores.conditions import MAX_SYSTEMS, mongo_filter
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, Written, write_structures
from wyloop.stores.queries import pymatgen_structures, query, query_crystals, query_frame, rows

pytestmark = pytest.mark.expects_findings  # candidates without a campaign
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
PAIRS = (("Na", "Cl", 5.64, 5.0), ("K", "Cl", 6.3, 5.1), ("Ti", "C", 4.3, None), ("Mg", "O", 4.2, 4.5))
HOSTILE = (
    "$where", "$where = 1", "band_gap.$gt = 1", "a.b > 1", "elements.0 = Na", "__proto__ = 1", "band_gap > {$gt: 0}",
    '{"$ne": null}', "band_gap = $rand", 'formula_pretty = "$where"', 'formula_pretty = ".*"',
    "formula_pretty = /Na/", 'formula_pretty = "{$regex: Na}"', 'chemsys = "$ne"', "elements has $where",
    'elements has "Na.Cl"', "crystal_system = $in", "band_gap > 1; db.drop()", "band_gap > 1\x00 and nsites = 2",
)  # fmt: skip


def structures(source: str = "s") -> list[SourceStructure]:
    return [
        SourceStructure(source, a + b, Crystal(edge * FCC, (a, b), np.array([[0.0] * 3, [0.5] * 3])), -1.0, "x", gap)
        for a, b, edge, gap in PAIRS
    ]


@pytest.fixture
def filled(database: Store) -> Store:
    made = structures()
    write_structures(database, made, genes={one.structure_id: encoding_fields(one.crystal) for one in made})
    for text, gap, energy in (("225 Br:a K:b", 3.0, -2.0), ("225 I:a K:b", 4.0, -1.5), ("221 Cl:a Cs:b", 4.0, -1.0)):
        gene = Gene.parse(text)
        prediction = Prediction(energy, 0.1, gap, 0.1, 0.0, 30.0)
        propose(database, [CandidateRecord(candidate_id("k", text), "k", "k-r1", 1, gene, prediction)])
    return database


def formulas(store: Store, text: str, **options: object) -> list[str]:
    target = Target.parse([text] if text else [])
    return [str(row["formula_pretty"]) for row in query(store, target, **options)]  # type: ignore[arg-type]


def operators(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            if name.startswith("$"):
                yield name
            yield from operators(part)
    elif isinstance(value, list):
        for part in value:
            yield from operators(part)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_an_operator_or_a_field(filled: Store, text: str) -> None:
    try:
        target = Target.parse([text])
    except TargetError:
        return
    assert set(operators(mongo_filter(target))) <= {"$and", "$eq", "$in", "$all", "$gt", "$lt", "$gte", "$lte"}
    assert query(filled, target, collection="all") == []


@pytest.mark.parametrize("sort", ["$where", "-$natural", "prediction.band_gap", "elements", "", "band_gap.x", "_id"])
def test_only_columns_are_sorted_by(filled: Store, sort: str) -> None:
    with pytest.raises(TargetError, match="can't sort by"):
        rows(filled, Target(), sort=sort)


def test_a_value_that_is_an_operator_finds_nothing(filled: Store) -> None:
    anything: object = {"$ne": None}
    with pytest.raises(TypeError):
        known_among(filled, [anything])  # type: ignore[list-item]
    assert pymatgen_structures(filled, "structures", [anything]) == {}  # type: ignore[list-item]


def test_rows_without_a_value_come_last_both_ways(filled: Store) -> None:
    assert formulas(filled, "", collection="structures", sort="band_gap") == ["MgO", "NaCl", "KCl", "TiC"]
    assert formulas(filled, "", collection="structures", sort="-band_gap") == ["KCl", "NaCl", "MgO", "TiC"]
    assert formulas(filled, "", collection="structures", sort="band_gap", limit=2) == ["MgO", "NaCl"]
    assert formulas(filled, "band_gap > 4.6", collection="structures", sort="band_gap") == ["NaCl", "KCl"]
    assert formulas(filled, "", collection="candidates", sort="-band_gap")[2] == "KBr"
    everything = formulas(filled, "", collection="all", sort="-band_gap")
    assert everything[:3] == ["KCl", "NaCl", "MgO"]
    assert everything[-1] == "TiC"


def test_a_structure_that_is_part_of_a_material_is_shown_once(filled: Store) -> None:
    filled.database["structures"].update_one({"structure_id": "s:NaCl"}, {"$set": {"material_id": "m-1"}})
    assert "NaCl" not in formulas(filled, "", collection="all")
    assert "NaCl" in formulas(filled, "", collection="structures")


def test_elements_in_are_written_out_as_chemical_systems(filled: Store) -> None:
    few = Target.parse(["elements in Na, K, Cl, I and nelements = 2"])
    (part,) = (part["chemsys"]["$in"] for part in mongo_filter(few)["$and"] if "chemsys" in part)
    assert part == ["Cl-I", "Cl-K", "Cl-Na", "I-K", "I-Na", "K-Na"]
    assert formulas(filled, "elements in Na, K, Cl, I and nelements = 2", collection="structures") == ["KCl", "NaCl"]
    many = "elements in Na, K, Cl, I, Li, Rb, Cs, F, Br, O, S, Se, Te"
    assert MAX_SYSTEMS < 2**13
    assert "chemsys" not in str(mongo_filter(Target.parse([many])))
    assert formulas(filled, many, collection="structures") == ["KCl", "NaCl"]
    assert formulas(filled, "elements in Na, Cl and elements without Cl", collection="structures") == []
    assert formulas(filled, "elements in K, Cl, Na and elements has K", collection="structures") == ["KCl"]


def test_answers_as_frame_and_as_pymatgen_structures(filled: Store) -> None:
    frame = query_frame(filled, Target.parse(["elements has Cl"]), collection="structures", sort="band_gap")
    assert list(frame["formula_pretty"]) == ["NaCl", "KCl"]
    assert list(frame["space_group_number"]) == [225, 225]
    found = query_crystals(filled, Target.parse(["elements has Cl"]), collection="structures", sort="-band_gap")
    assert list(found) == ["s:KCl", "s:NaCl"]
    assert found["s:NaCl"].composition.reduced_formula == "NaCl"
    assert found["s:NaCl"].volume == pytest.approx(5.64**3 / 4)


def test_rows_come_as_they_are_read(filled: Store) -> None:
    found = rows(filled, Target(), collection="all")
    assert next(found)["collection"] == "structures"
    assert [row["collection"] for row in found] == ["structures"] * 3 + ["candidates"] * 3
    silent = MongoClient("127.0.0.1", 9, serverSelectionTimeoutMS=50)  # type: ignore[var-annotated]
    lost = Store(silent, silent["x"], filled.gridfs, "nowhere", "x", "", "none")
    with pytest.raises(DatabaseError, match="lost MongoDB"):
        next(rows(lost, Target(), collection="candidates"))
    silent.close()


def test_a_prediction_of_extra_properties_is_kept(database: Store) -> None:
    gene = Gene.parse("225 Cl:a Na:b")
    prediction = Prediction(-2.0, 0.1, 5.0, 0.1, 0.0, 22.0, extra={"bulk_modulus": (25.0, 3.0)})
    record = CandidateRecord(candidate_id("k", str(gene)), "k", "k-r1", 1, gene, prediction)
    assert propose(database, [record]) == 1
    assert propose(database, [record]) == 0
    assert candidate(database, record.candidate_id).prediction == prediction


def test_writing_with_genes_is_what_ingest_and_builder_write(database: Store) -> None:
    made, again = structures("a"), structures("b")
    genes = {one.structure_id: encoding_fields(one.crystal) for one in made}
    assert write_structures(database, made, genes=genes) == Written(n_added=4)
    assert build_encodings(database).n_done == 0
    assert write_structures(database, made, genes=genes) == Written(n_unchanged=4)
    write_structures(database, again)
    assert build_encodings(database).n_done == 4
    own = {"_id", "structure_id", "source", "content_hash", "last_updated"}
    for name in ("structures", "encodings"):
        stored = list(database.database[name].find().sort("structure_id", 1))
        plain = [{key: value for key, value in one.items() if key not in own} for one in stored]
        assert plain[:4] == plain[4:]
    assert known_among(database, ["225 Cl:a Na:b", "221 Cl:a Na:b"]) == {"225 Cl:a Na:b"}
