"""Small known crystals as genes with labels, and one tiny trained model for the session."""

from collections.abc import Iterator

import pytest
import torch

from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.config import NetworkConfig, TrainingConfig
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.train import train
from wyloop.models.wyckoff.gene import Gene, canonical

TINY = NetworkConfig(
    width=32,
    n_layers=1,
    n_heads=2,
    n_experts=2,
    latent_dim=24,
    summary_width=32,
    decoder_width=64,
    head_width=32,
    dropout=0.0,
    n_prior_components=8,
)

ALKALI, ALKALINE, HALOGENS, CHALCOGENS = "Li Na K Rb Cs", "Mg Ca Sr Ba", "F Cl Br I", "O S Se Te"
PENALTY = {"F": -3.0, "Cl": -2.0, "Br": -1.6, "I": -1.2, "O": -2.8, "S": -1.9, "Se": -1.7, "Te": -1.3}  # eV/atom


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rows() -> list[TrainingRow]:
    """Rock salts, caesium chlorides, fluorites, perovskites and intermetallics with made-up but regular labels."""
    rows = []

    def add(number: int, orbits: list[tuple[str, str]], energy: float, gap: float | None) -> None:
        gene = canonical(Gene.of(number, orbits))
        labels = {"formation_energy_per_atom": energy, "volume_per_atom": 10.0 + 2 * len(orbits) + number / 50}
        if gap is not None:
            labels["band_gap"] = gap
        rows.append(TrainingRow(gene, labels))

    for cations, anions in ((ALKALI, HALOGENS), (ALKALINE, CHALCOGENS)):
        for cation in cations.split():
            for anion in anions.split():
                add(225, [(cation, "a"), (anion, "b")], PENALTY[anion], -2 * PENALTY[anion])
                add(221, [(cation, "a"), (anion, "b")], PENALTY[anion] + 0.1, None)
                add(186, [(cation, "b"), (anion, "b")], PENALTY[anion] + 0.2, -2 * PENALTY[anion] - 0.3)
    for cation in ALKALINE.split():
        for anion in HALOGENS.split():
            add(225, [(cation, "a"), (anion, "c")], PENALTY[anion] - 0.5, -2 * PENALTY[anion])
        for metal in ["Ti", "Zr", "Hf", "Sn"]:
            add(221, [(cation, "a"), (metal, "b"), ("O", "c")], -3.3, 3.0)
            add(62, [(cation, "c"), (metal, "b"), ("O", "c"), ("O", "d")], -3.4, 3.5)
    for first in ["Ni", "Fe", "Co", "Cu", "Pd"]:
        for second in ["Al", "Ti", "Ga", "In"]:
            add(221, [(first, "a"), (second, "b")], -0.4, 0.0)
            add(221, [(first, "c"), (second, "a")], -0.3, 0.0)
    return rows


@pytest.fixture(scope="session")
def tiny_config() -> TrainingConfig:
    return TrainingConfig(
        network=TINY,
        n_epochs=25,
        batch_size=16,
        learning_rate=6e-3,
        patience=25,
        average_decay=0.9,
        reconstruction_weight=0.4,
    )


@pytest.fixture(scope="session")
def tiny(rows: list[TrainingRow], tiny_config: TrainingConfig) -> Checkpoint:
    """A tiny model trained for a few seconds."""
    return train(rows, tiny_config)
