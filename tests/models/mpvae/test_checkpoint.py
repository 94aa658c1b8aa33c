import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import SHIPPED, Checkpoint, load_shipped
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.predict import predict
from wyloop.models.wyckoff.gene import Gene


def with_metadata(data: bytes, **changes: str) -> bytes:
    """Change metadata in safetensors bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_bytes_and_file_round_trip(tiny: Checkpoint, rows: list[TrainingRow], tmp_path: Path) -> None:
    data = tiny.to_bytes()
    again = Checkpoint.from_bytes(data)
    assert again.config == tiny.config
    assert again.card == tiny.card
    genes = [row.gene for row in rows[:20]]
    assert predict(again, genes) == predict(tiny, genes)
    tiny.save(tmp_path / "folder" / "model.safetensors")
    loaded = Checkpoint.load(tmp_path / "folder" / "model.safetensors")
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in tiny.weights.items())
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["model.safetensors"]


def test_other_versions_and_damage_are_refused_in_one_line(tiny: Checkpoint, tmp_path: Path) -> None:
    data = tiny.to_bytes()
    with pytest.raises(ModelError, match="format version 99; this code reads version 2"):
        Checkpoint.from_bytes(with_metadata(data, format_version="99"))
    with pytest.raises(ModelError, match="format 'other'"):
        Checkpoint.from_bytes(with_metadata(data, format="other"))
    for damaged in (b"", b"PK\x03\x04 no such file", data[:1000], data[:-1000], with_metadata(data, config="{}x")):
        with pytest.raises(ModelError) as caught:
            Checkpoint.from_bytes(damaged)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="can't read model"):
        Checkpoint.load(tmp_path / "nothing.safetensors")


def test_weights_of_other_sizes_are_refused(tiny: Checkpoint) -> None:
    wider = tiny.config.model_copy(update={"latent_dim": tiny.config.latent_dim + 1})
    with pytest.raises(ModelError, match="do not fit"):
        Checkpoint.from_bytes(replace(tiny, config=wider).to_bytes())


def test_shipped_weights_load_and_have_their_card() -> None:
    shipped = load_shipped()
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert shipped.card == card
    assert SHIPPED.stat().st_size <= 20e6
    assert {"data", "split", "metrics", "seed", "code_version", "config", "wall_time_s"} <= set(card)
    assert all(len(file["sha256"]) == 64 and file["n_used"] > 0 for file in card["data"]["files"])
    test = card["metrics"]["test"]
    assert test["n_rows"] == 3594
    assert test["valid_share"] == 1.0


def test_shipped_weights_know_textbook_crystals() -> None:
    """PBE values of the Materials Project, within five times the model's error on its test file."""
    texts = ["225 Cl:b Na:a", "225 Mg:a O:b", "221 O:c Sr:a Ti:b", "216 As:c Ga:a", "221 Al:b Ni:a"]
    genes = [Gene.parse(text) for text in texts]
    predictions = predict(load_shipped(), genes)
    test = load_shipped().card["metrics"]["test"]
    energies = (-2.11, -3.04, -3.55, -0.41, -0.66)  # eV/atom
    for prediction, energy in zip(predictions, energies, strict=True):
        assert abs(prediction.formation_energy_per_atom - energy) < 5 * test["formation_energy_mae"] + 0.1
    assert predictions[0].band_gap > 3
    assert predictions[4].band_gap == pytest.approx(0, abs=0.1)
    assert predictions[4].metal_probability > 0.8


def test_the_same_checkpoint_gives_the_same_bytes(tiny: Checkpoint) -> None:
    assert len({tiny.to_bytes() for _ in range(5)}) == 1
