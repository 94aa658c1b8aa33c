import logging
from dataclasses import replace

import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.builders.encodings import EncodingBuilder, build_encodings
from wyloop.stores.builders.run import BuildCounts, run
from wyloop.stores.candidates import known_among
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material, material_id, materials, upsert_material

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def rock_salt(cation: str, anion: str, a: float = 5.6) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))


def structures(n: int) -> list[SourceStructure]:
    return [SourceStructure("s", str(i), rock_salt("Na", "Cl", 5.6 + 0.001 * i), -2.0, "chgnet") for i in range(n)]


def made(crystal: Crystal, energy: float, **changes: object) -> MaterialRecord:
    gene = encode(crystal)
    record = MaterialRecord(material_id(str(gene)), str(gene), gene, crystal, energy, "chgnet", campaign_id="k")
    return replace(record, **changes)  # type: ignore[arg-type]  # fields by name


def test_only_new_and_changed_structures_are_encoded(database: Store) -> None:
    write_structures(database, structures(5))
    broken = Crystal(np.eye(3) * 3.0, ("Na", "Cl"), np.array([[0.0] * 3, [0.001] * 3]))
    write_structures(database, [SourceStructure("s", "broken", broken)])
    seen: list[tuple[int, int]] = []
    counts = build_encodings(database, on_progress=lambda done, total: seen.append((done, total)))
    assert counts == BuildCounts(n_done=5, n_refused=1, n_skipped=0)
    assert seen[-1] == (6, 6)
    first = list(database.database["encodings"].find().sort("structure_id"))
    assert first[0]["fingerprint"] == "225 Cl:b Na:a" or first[0]["fingerprint"] == "225 Cl:a Na:b"
    assert first[0]["protostructure"].startswith("AB_cF8_225_")
    assert first[-1]["refused"]
    assert known_among(database, [first[0]["fingerprint"], "221 Cl:b Cs:a"]) == {first[0]["fingerprint"]}
    assert build_encodings(database) == BuildCounts(0, 0, 6)
    assert list(database.database["encodings"].find().sort("structure_id")) == first
    write_structures(database, [SourceStructure("s", "1", rock_salt("K", "Cl", 6.3))])
    assert build_encodings(database) == BuildCounts(1, 0, 5)
    changed = database.database["encodings"].find_one({"structure_id": "s:1"})
    assert changed is not None
    assert "K:" in changed["fingerprint"]


def test_genes_are_noted_on_the_structures_and_what_the_source_said_is_kept(database: Store) -> None:
    write_structures(
        database,
        [
            SourceStructure("s", "1", rock_salt("Na", "Cl"), -2.0, "chgnet", space_group_number=221),
            SourceStructure("s", "2", Crystal(np.eye(3) * 3.0, ("Na", "Cl"), np.array([[0.0] * 3, [0.001] * 3]))),
        ],
    )
    build_encodings(database)
    salt, broken = database.database["structures"].find().sort("structure_id")
    assert (salt["space_group_number"], salt["reported_space_group_number"]) == (225, 221)
    assert salt["protostructure"].startswith("AB_cF8_225_")
    assert "fingerprint" not in broken
    write_structures(database, [SourceStructure("s", "1", rock_salt("Na", "Cl"), -2.1, "chgnet")])  # another label
    assert "fingerprint" not in next(database.database["structures"].find({"structure_id": "s:1"}))
    assert build_encodings(database) == BuildCounts(1, 0, 1)
    assert next(database.database["structures"].find({"structure_id": "s:1"}))["fingerprint"] == salt["fingerprint"]


def test_several_processes_make_the_same_encodings(database: Store) -> None:
    write_structures(database, structures(30))
    build_encodings(database, n_processes=2)
    together = list(database.database["encodings"].find({}, {"_id": 0, "last_updated": 0}).sort("structure_id"))
    database.database["encodings"].delete_many({})
    build_encodings(database, n_processes=1)
    assert list(database.database["encodings"].find({}, {"_id": 0, "last_updated": 0}).sort("structure_id")) == together


def test_a_builder_leaves_logging_and_the_client_alone(database: Store) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    write_structures(database, structures(3))
    builder = EncodingBuilder(database, chunk_size=2)
    run(builder)
    builder.finalize()
    assert (root.level, list(root.handlers)) == before
    assert database.client.admin.command("ping")["ok"] == 1.0
    assert "mongodb://" not in builder.structures.name


@pytest.mark.expects_findings  # it names a hull that nobody built
@pytest.mark.expects_findings("material_without_hull")
def test_materials_are_upserted_by_fingerprint_and_listed_best_first(database: Store) -> None:
    far = made(rock_salt("Na", "Cl"), -1.0, energy_above_hull=0.3, hull_id="h", candidate_id="c-1", round_number=1)
    near = made(rock_salt("K", "Cl", 6.3), -2.0, energy_above_hull=0.0, hull_id="h", is_validated=True, round_number=2)
    for record in (far, near, far):
        upsert_material(database, record)
    found = materials(database, campaign_id="k")
    assert [record.material_id for record in found] == [near.material_id, far.material_id]
    assert [record.material_id for record in materials(database, round_number=1)] == [far.material_id]
    assert [record.material_id for record in materials(database, candidate_ids=["c-1"])] == [far.material_id]
    assert [record.material_id for record in materials(database, is_validated=True)] == [near.material_id]
    assert found[0].gene == near.gene
    assert np.array_equal(found[0].crystal.frac_coords, near.crystal.frac_coords)
    assert found[0].values()["nsites"] == 2
    cheaper = replace(far, formation_energy_per_atom=-1.5, energy_above_hull=None, hull_id=None)
    assert upsert_material(database, cheaper)
    assert material(database, far.material_id).energy_above_hull is None  # of another energy: no longer true
