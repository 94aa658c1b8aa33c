from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pymongo import MongoClient, monitoring
from safetensors.numpy import save

from wyloop.models.crystal import Crystal
from wyloop.models.errors import ModelError
from wyloop.models.mpvae import checkpoint as checkpoints
from wyloop.models.mpvae.checkpoint import Checkpoint, new_network
from wyloop.models.mpvae.config import NetworkConfig
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import campaigns, candidates, registry, stories
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.calculations import CalculationRecord, request_calculation
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.latents import build_latents
from wyloop.stores.model_outcome import came_of
from wyloop.stores.promotions import (
    drop_weights,
    garbage,
    named_checkpoint,
    promote,
    promoted,
    promotions,
    roll_back,
)
from wyloop.stores.training import training_snapshot

NOW = timedelta(0)
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def rock_salt(cation: str, a: float) -> Crystal:
    return Crystal(a * FCC, (cation, "Cl"), np.array([[0.0] * 3, [0.5] * 3]))


@pytest.fixture(scope="module")
def checkpoint_of() -> Callable[[int], bytes]:
    config = NetworkConfig()

    def made(seed: int) -> bytes:
        return Checkpoint(new_network(config, seed).state_dict(), config, {"seed": seed}).to_bytes()

    return made


def saved(store: Store, data: bytes, parent_id: str | None = None) -> str:
    return registry.save_model(
        store, data, parent_id=parent_id, card={"seed": 1}, snapshot=None, campaign_id=None, round_number=None
    )


def test_promote_and_roll_back(database: Store, checkpoint_of: Callable[[int], bytes]) -> None:
    assert promoted(database) is None
    with pytest.raises(ModelError, match="no model was promoted, the shipped one is in use"):
        roll_back(database)
    first, second, third = (saved(database, checkpoint_of(seed)) for seed in range(3))
    promote(database, first, "better gaps")
    promote(database, second)
    with pytest.raises(ModelError, match="is in use already"):
        promote(database, second)
    assert promoted(database) == second
    assert roll_back(database, "worse in the field").model_id == first
    promote(database, third)
    assert [roll_back(database).model_id, roll_back(database).model_id] == [first, None]
    assert promoted(database) is None
    told = [(one.number, one.action, one.model_id) for one in promotions(database)]
    assert told == [
        (1, "promote", first), (2, "promote", second), (3, "roll back", first),
        (4, "promote", third), (5, "roll back", first), (6, "roll back", None),
    ]  # fmt: skip
    assert promotions(database)[0].reason == "better gaps"


def test_a_model_is_found_by_its_name(database: Store, checkpoint_of: Callable[[int], bytes]) -> None:
    shipped = checkpoints.load_shipped()
    assert named_checkpoint(database, "shipped") == (None, shipped)
    assert named_checkpoint(database, "promoted") == (None, shipped)  # nothing is promoted
    first, second = (saved(database, checkpoint_of(seed)) for seed in range(2))
    promote(database, first)
    found, checkpoint = named_checkpoint(database, "promoted")
    assert (found, dict(checkpoint.card)) == (first, {"seed": 0})
    assert named_checkpoint(database, second)[0] == second
    with pytest.raises(ModelError, match="no model 'x'"):
        named_checkpoint(database, "x")


def test_with_the_weights_go_the_latent_vectors(database: Store, checkpoint_of: Callable[[int], bytes]) -> None:
    write_structures(database, [SourceStructure("s", "1", rock_salt("Na", 5.6), -2.0, "mp-pbe")])
    build_encodings(database)
    dropped, kept = (saved(database, checkpoint_of(seed)) for seed in range(2))
    for model_id in (dropped, kept):
        assert build_latents(database, model_id) == 1
    drop_weights(database, garbage(database, keep_newest=1, min_age=NOW))
    left = database.database["latents.files"].distinct("filename")
    assert left == [kept]
    assert database.database["latents.chunks"].count_documents({}) == 1


def test_of_two_promotions_at_once_both_are_recorded_in_some_order(
    database: Store, checkpoint_of: Callable[[int], bytes]
) -> None:
    ids = [saved(database, checkpoint_of(seed)) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda model_id: promote(database, model_id), ids))
    assert sorted(one.number for one in promotions(database)) == [1, 2, 3]
    assert {one.model_id for one in promotions(database)} == set(ids)


def test_what_does_not_load_here_is_not_promoted_and_the_reason_is_exact(
    database: Store, checkpoint_of: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="no model 'x'"):
        promote(database, "x")
    good = saved(database, checkpoint_of(0))
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 99)
    newer = saved(database, checkpoint_of(0))
    monkeypatch.undo()
    assert newer != good
    database.database["model_versions"].update_one({"model_id": newer}, {"$set": {"code_version": "9.9.9"}})
    reason = f"{newer}, written by Wyloop 9.9.9: MPVAE checkpoint of format version 99; this code reads version 2"
    for use in (promote, registry.load_checkpoint):
        with pytest.raises(ModelError, match=reason):
            use(database, newer)
    foreign = saved(database, save({"weight": np.zeros(2, dtype=np.float32)}, {"format": "other"}))
    with pytest.raises(ModelError, match="not an MPVAE checkpoint"):
        promote(database, foreign)
    older = database.database["model_versions"].update_one({"model_id": good}, {"$set": {"code_version": "0.0.1"}})
    assert older.modified_count == 1  # another code version of the same format loads
    assert dict(registry.load_checkpoint(database, good).card) == {"seed": 0}


def test_only_safetensors_are_stored(database: Store) -> None:
    import pickle

    for data in (b"", b"weights", pickle.dumps({"weight": 1})):
        with pytest.raises(ModelError, match="no safetensors file"):
            saved(database, data)
    assert registry.models(database) == []
    assert database.database["fs.files"].count_documents({}) == 0


def test_garbage_is_what_nobody_needs_and_can_come_back(database: Store, checkpoint_of: Callable[[int], bytes]) -> None:
    write_structures(database, [SourceStructure("s", "1", rock_salt("Na", 5.6), -2.0, "mp-pbe", 5.0, "pbe")])
    build_encodings(database)
    snapshot = training_snapshot(database)
    ids = [saved(database, checkpoint_of(seed)) for seed in range(3)]
    unused = registry.save_model(
        database, checkpoint_of(3), parent_id=ids[0], card={"seed": 3}, snapshot=snapshot, campaign_id=None,
        round_number=None,
    )  # fmt: skip
    newest = saved(database, checkpoint_of(4))
    promote(database, ids[0])
    promote(database, ids[1])
    campaign, record = propose(database, ids[2])
    assert garbage(database, keep_newest=1) == []  # all are young
    (found,) = garbage(database, keep_newest=1, min_age=NOW)
    assert (found.model_id, found.is_referenced) == (unused, False)
    assert registry.load_weights(database, unused)  # so far nothing changed
    assert drop_weights(database, [found]) == found.n_bytes
    assert drop_weights(database, [found]) == 0
    assert database.database["fs.files"].count_documents({"filename": {"$regex": f"{unused}.safetensors"}}) == 0
    with pytest.raises(ModelError, match=rf"the weights of {unused} were dropped on \d+-\d+-\d+.*its snapshot"):
        registry.load_weights(database, unused)
    assert registry.load_snapshot(database, unused) == snapshot
    assert registry.model(database, unused).card == {"seed": 3}
    assert garbage(database, keep_newest=1, min_age=NOW) == []
    referenced = garbage(database, keep_newest=1, min_age=NOW, with_referenced=True)
    assert [(one.model_id, one.is_referenced) for one in referenced] == []  # its round is open
    campaigns.close_round(database, record, {})
    referenced = garbage(database, keep_newest=1, min_age=NOW, with_referenced=True)
    assert [(one.model_id, one.is_referenced) for one in referenced] == [(ids[2], True)]
    assert newest not in {one.model_id for one in referenced}
    assert saved(database, checkpoint_of(3)) == unused  # trained again: the same bytes are the same model
    assert registry.load_weights(database, unused) == checkpoint_of(3)
    assert registry.model(database, unused).weights_dropped_at is None
    assert campaign


def propose(store: Store, model_id: str) -> tuple[str, str]:
    """One campaign whose open round uses a model, with one candidate and its calculation."""
    campaign = campaigns.create_campaign(store, ("band_gap > 1",), {})
    campaigns.request_rounds(store, campaign.campaign_id, 1)
    record = campaigns.open_round(store, campaign.campaign_id)
    assert record is not None
    campaigns.record_step(store, record.round_id, "train", counts={}, model_id=model_id)
    gene = canonical(Gene.parse("216 As:a Ga:c"))
    identity = candidate_id(campaign.campaign_id, gene.fingerprint)
    proposed = CandidateRecord(
        identity, campaign.campaign_id, record.round_id, 1, gene, Prediction(-0.4, 0.1, 0.9, 0.2, 0.05, 23.5),
        model_id=model_id,
    )  # fmt: skip
    candidates.propose(store, [proposed])
    request_calculation(
        store,
        CalculationRecord("calc-1", identity, record.round_id, "relaxation", gene.fingerprint, "mlip-screen/1", "0"),
    )
    return campaign.campaign_id, record.round_id


class Commands(monitoring.CommandListener):
    """Names of the commands sent to the server."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


@pytest.fixture
def listened(database: Store) -> Iterator[tuple[Store, Commands]]:
    """The test's database through a client that notes what it sends."""
    commands = Commands()
    client: MongoClient[dict[str, Any]] = MongoClient(database.uri, tz_aware=True, event_listeners=[commands])
    yield replace(database, client=client, database=client[database.name]), commands
    client.close()


def test_lineage_is_one_aggregation_both_ways(
    database: Store, listened: tuple[Store, Commands], checkpoint_of: Callable[[int], bytes]
) -> None:
    parent = saved(database, checkpoint_of(0))
    model_id = saved(database, checkpoint_of(1), parent_id=parent)
    campaign, round_id = propose(database, model_id)
    found = database.database["candidates"].find_one({}, {"candidate_id": 1})
    assert found is not None
    store, commands = listened
    told = came_of(store, model_id)
    story = stories.story(store, found["candidate_id"])
    assert commands.names == ["aggregate", "aggregate"]
    assert told == {
        "campaigns": [campaign],
        "rounds": [round_id],
        "children": [],
        "candidates": {"proposed": 1},
        "calculations": {"relaxation requested": 1},
        "materials": {"all": 0, "validated": 0, "on target": 0},
    }
    assert isinstance(story["model"], dict)
    assert story["model"]["model_id"] == model_id
    assert came_of(database, parent)["children"] == [model_id]
    with pytest.raises(ModelError, match="no model 'x'"):
        came_of(database, "x")


def test_a_training_set_is_rebuilt_exactly_after_new_data_arrived(
    database: Store, checkpoint_of: Callable[[int], bytes]
) -> None:
    rows = [SourceStructure("s", str(i), rock_salt(cation, 5.6), -2.0 - i, "mp-pbe", 5.0 + 0.1 * i, "pbe")
            for i, cation in enumerate(("Na", "K", "Rb"))]  # fmt: skip
    write_structures(database, rows)
    build_encodings(database)
    snapshot = training_snapshot(database)
    model_id = registry.save_model(
        database, checkpoint_of(0), parent_id=None, card={}, snapshot=snapshot, campaign_id=None, round_number=None
    )
    changed = SourceStructure("s", "0", rock_salt("Na", 5.7), -9.0, "mp-pbe", 1.0, "pbe")
    write_structures(database, [changed, SourceStructure("s", "9", rock_salt("Li", 5.1), -2.0, "mp-pbe")])
    database.database["structures"].delete_one({"structure_id": "s:1"})
    database.database["encodings"].delete_one({"structure_id": "s:1"})
    build_encodings(database)
    assert training_snapshot(database).hash != snapshot.hash
    again = registry.load_snapshot(database, model_id)
    assert again is not None
    assert again.rows == snapshot.rows
    assert (again.row_ids, again.hash) == (snapshot.row_ids, registry.model(database, model_id).snapshot_hash)
