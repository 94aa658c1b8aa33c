from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save

from wyloop.models.crystal import Crystal
from wyloop.models.errors import ModelError
from wyloop.models.wyckoff.encode import encode
from wyloop.stores import registry
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material
from wyloop.stores.training import training_snapshot

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def rock_salt(cation: str, anion: str, a: float = 5.6) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))


def weights_of(value: float, n: int = 4) -> bytes:
    return save({"weight": np.full(n, value, dtype=np.float32)}, {"format": "other"})


def fill(store: Store) -> None:
    write_structures(
        store,
        [
            SourceStructure("s", "1", rock_salt("Na", "Cl"), -2.0, "chgnet", 8.5, "experiment"),
            SourceStructure("s", "2", rock_salt("Na", "Cl", 5.7), -1.9, "chgnet", 5.0, "pbe"),
            SourceStructure("s", "3", rock_salt("Na", "Cl", 5.8), -1.8, "mp-pbe", 5.1, "pbe"),
            SourceStructure("s", "4", rock_salt("Ti", "C", 4.3), -0.8, "mp-pbe", 0.0, "pbe"),
            SourceStructure("s", "5", rock_salt("Pb", "Te", 6.5), None, None, 0.3, "experiment"),
        ],
    )
    build_encodings(store)
    for cation, validated in (("K", True), ("Rb", False)):
        gene = encode(rock_salt(cation, "Cl", 6.4))
        upsert_material(
            store,
            MaterialRecord(
                material_id(str(gene)), str(gene), gene, rock_salt(cation, "Cl", 6.4), -2.1, "chgnet",
                band_gap=4.9, band_gap_method="gpaw-pbe/1", is_validated=validated,
            ),
        )  # fmt: skip


def test_a_snapshot_takes_the_lowest_of_each_gene_and_method_and_only_pbe_gaps(database: Store) -> None:
    fill(database)
    snapshot = training_snapshot(database)
    labels = dict(zip(snapshot.row_ids, (row.labels for row in snapshot.rows), strict=True))
    kcl = next(identity for identity in snapshot.row_ids if identity.startswith("m-"))
    assert list(labels) == [kcl, "s:1", "s:3", "s:4", "s:5"]
    assert labels["s:1"] == {
        "volume_per_atom": pytest.approx(5.6**3 / 8), "formation_energy_per_atom": -2.0, "is_metal": 0.0,
    }  # fmt: skip
    assert (labels["s:3"]["band_gap"], labels["s:3"]["is_metal"]) == (5.1, 0.0)
    assert (labels["s:4"]["band_gap"], labels["s:4"]["is_metal"]) == (0.0, 1.0)
    assert set(labels["s:5"]) == {"volume_per_atom"}  # a small measured gap may be none in PBE
    assert labels[kcl]["band_gap"] == 4.9
    assert training_snapshot(database).hash == snapshot.hash
    write_structures(database, [SourceStructure("s", "4", rock_salt("Ti", "C", 4.3), -0.81, "mp-pbe", 0.0, "pbe")])
    assert training_snapshot(database).hash != snapshot.hash


@pytest.mark.expects_findings("model_without_campaign")
def test_a_model_is_saved_once_and_its_training_set_can_be_rebuilt(database: Store) -> None:
    fill(database)
    snapshot = training_snapshot(database)
    weights = weights_of(1.0, 256_000)  # more than one GridFS chunk
    shipped = registry.save_model(
        database, weights_of(0.0), parent_id=None, card={"mae": 0.1}, snapshot=None, campaign_id=None, round_number=None
    )

    def save(_: int) -> str:
        return registry.save_model(
            database, weights, parent_id=shipped, card={"metrics": {"mae": float("nan")}}, snapshot=snapshot,
            campaign_id="k", round_number=1,
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(save, range(4)))
    assert len(ids) == 1
    model_id = ids.pop()
    assert registry.load_weights(database, model_id) == weights
    assert database.database["fs.files"].count_documents({"filename": {"$regex": model_id}}) == 2
    record = registry.model(database, model_id)
    assert (record.parent_id, record.snapshot_hash, record.n_rows) == (shipped, snapshot.hash, 5)
    assert record.card == {"metrics": {"mae": None}}
    assert [found.model_id for found in registry.models(database)] == [shipped, model_id]
    again = registry.load_snapshot(database, model_id)
    assert again is not None
    assert again == snapshot
    assert registry.load_snapshot(database, shipped) is None


@pytest.mark.expects_findings("model_without_campaign")
def test_a_save_that_was_killed_leaves_no_file_behind(database: Store) -> None:
    fill(database)
    snapshot, weights = training_snapshot(database), weights_of(1.0, 256_000)

    def save() -> str:
        return registry.save_model(
            database, weights, parent_id=None, card={}, snapshot=snapshot, campaign_id="k", round_number=1
        )

    model_id, files = save(), database.database["fs.files"]
    for is_between_files in (False, True):  # killed before the model's document, or before the second file as well
        found = database.database["model_versions"].find_one_and_delete({"model_id": model_id})
        if is_between_files:
            database.gridfs.delete(found["snapshot_file"])
        assert save() == model_id
        assert files.count_documents({}) == 2
        assert registry.load_weights(database, model_id) == weights
        assert registry.load_snapshot(database, model_id) == snapshot


@pytest.mark.expects_findings("file_missing")
def test_damage_is_found(database: Store) -> None:
    model_id = registry.save_model(
        database, weights_of(1.0), parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None
    )
    database.database["model_versions"].update_one({"model_id": model_id}, {"$set": {"weights_hash": "0"}})
    with pytest.raises(ModelError, match="damaged"):
        registry.load_weights(database, model_id)
    database.database["fs.files"].delete_many({})
    with pytest.raises(ModelError, match="missing or damaged"):
        registry.load_weights(database, model_id)
    with pytest.raises(ModelError, match="no model 'x'"):
        registry.model(database, "x")
