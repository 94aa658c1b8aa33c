from pathlib import Path

import numpy as np
import pytest
import torch

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import (
    COUNTS_START,
    N_KINDS,
    EncodedGenes,
    augmented,
    binned_features,
    decoded_genes,
    encode_genes,
    fault_shares,
    from_tensors,
    multiplicities,
    to_tensors,
    without_foreign_letters,
)
from wyloop.models.mpvae.published.losses import formula_term, published_losses
from wyloop.models.mpvae.published.model import (
    PublishedModel,
    decode,
    evaluate_published,
    latent_means,
    perturb_published,
    predict,
    reconstruct,
)
from wyloop.models.mpvae.published.network import PublishedVAE
from wyloop.models.mpvae.published.train import pretrain_published, train_published
from wyloop.models.wyckoff.gene import Gene, canonical

SMALL = PublishedConfig(
    n_steps=60,
    batch_size=32,
    learning_rate=2e-3,
    n_filters=32,
    hidden_width=128,
    latent_dim=32,
    steps_per_check=20,
    validation_fraction=0.1,
)
PEROVSKITE = Gene.of(221, [("Sr", "a"), ("Ti", "b"), ("O", "c")])
WURTZITE = Gene.of(186, [("Zn", "b"), ("O", "b")])


@pytest.fixture(scope="module")
def overfitted(rows: list[TrainingRow]) -> tuple[PublishedModel, list[TrainingRow]]:
    """A small model that has seen the same thirty crystals often."""
    some = [*rows[:24], *[row for row in rows if len(row.gene.amounts) == 3][:6]]
    config = SMALL.model_copy(
        update={
            "n_steps": 400,
            "kl_weight": 1e-4,
            "transfer": False,
            "augment": False,
            "multi_property_rows": "all",
            "validation_fraction": 0.0,
            "hidden_width": 256,
        }
    )
    return train_published(some, config), some


@pytest.fixture(scope="module")
def small(rows: list[TrainingRow]) -> PublishedModel:
    return train_published(rows, SMALL)


def test_array_of_a_perovskite() -> None:
    genes = encode_genes([PEROVSKITE, WURTZITE])
    array, group = to_tensors(genes, 10.0)
    assert array.shape == (2, 3, 224)
    assert group.tolist() == [220, 185]
    assert genes.amounts.tolist() == [[1, 1, 3], [2, 2, 0]]
    assert array[0, :, N_KINDS].tolist() == pytest.approx([0.1, 0.1, 0.3])
    assert array[0, :, N_KINDS + 1].tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert array[0, :, COUNTS_START : COUNTS_START + 3].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # a, b, c
    assert array[1, 2, 0] == 1  # the padding says "none" ...
    assert array[1, 2].sum() == 1  # ... and nothing else


def test_features_are_the_ninety_two_of_the_elements() -> None:
    features = binned_features()
    assert features.shape == (104, 92)
    assert not features[0].any()
    assert (features[1:, :18].sum(axis=1) == 1).all()
    assert len(np.unique(features[1:, :89], axis=0)) > 80  # most elements differ


def test_multiplicities_are_those_of_the_conventional_cell() -> None:
    assert multiplicities()[224, :3].tolist() == [4, 4, 8]  # Fm-3m
    assert multiplicities()[0].tolist() == [1, *[0] * 25]


def test_decoding_what_was_encoded_gives_the_genes_back(rows: list[TrainingRow]) -> None:
    genes = [row.gene for row in rows]
    array, group = to_tensors(encode_genes(genes), 4.0)
    logits = torch.nn.functional.one_hot(group, 230).float()
    assert [decoded.gene for decoded in decoded_genes(from_tensors(array, logits))] == genes


def test_four_elements_and_the_last_position_of_47_are_beyond_the_published_encoding() -> None:
    with pytest.raises(ModelError, match="4 elements.*room for 3"):
        encode_genes([Gene.of(1, [(symbol, "a") for symbol in ("Na", "K", "Cl", "O")])])
    genes = encode_genes([Gene.of(47, [("Na", "A"), ("Cl", "a")])])
    assert genes.counts.sum() == 1  # as published, A has no row


def one_row(number: int, columns: list[tuple[int, dict[int, int]]]) -> EncodedGenes:
    counts = np.zeros((1, 3, 26), np.int64)
    for place, (_, letters) in enumerate(columns):
        for letter, count in letters.items():
            counts[0, place, letter] = count
    return EncodedGenes(np.array([number]), np.array([[element for element, _ in columns]]), counts)


@pytest.mark.parametrize(
    ("number", "columns", "fault"),
    [
        (221, [(5, {0: 1}), (9, {1: 1}), (0, {})], None),
        (221, [(0, {}), (0, {}), (0, {})], "no element"),
        (221, [(5, {0: 1}), (5, {1: 1}), (0, {})], "an element twice"),
        (221, [(5, {0: 1}), (9, {1: 1}), (0, {2: 1})], "orbits without an element"),
        (221, [(5, {0: 1}), (9, {}), (0, {})], "an element without orbits"),
        (221, [(5, {0: 1}), (9, {20: 1}), (0, {})], "a letter that the space group does not have"),
        (221, [(5, {0: 1}), (9, {0: 1}), (0, {})], "a position without free parameters used twice"),
        (221, [(5, {4: 2}), (9, {1: 1}), (0, {})], None),  # e has a free parameter
    ],
)
def test_faults_are_named_and_not_repaired(
    number: int, columns: list[tuple[int, dict[int, int]]], fault: str | None
) -> None:
    (decoded,) = decoded_genes(one_row(number, columns))
    assert decoded.fault == fault
    assert (decoded.gene is None) == (fault is not None)
    assert fault_shares([decoded, decoded]) == ({fault: 1.0} if fault else {})


def test_foreign_letters_may_be_dropped_as_the_original_does() -> None:
    (kept,) = decoded_genes(one_row(221, [(5, {0: 1, 20: 1}), (9, {1: 1}), (0, {})]))
    (dropped,) = decoded_genes(without_foreign_letters(one_row(221, [(5, {0: 1, 20: 1}), (9, {1: 1}), (0, {})])))
    assert kept.fault == "a letter that the space group does not have"
    assert dropped.gene is not None
    assert [letter for _, letter in dropped.gene.orbits] == ["a", "b"]


def test_augmentation_yields_every_image() -> None:
    images, source = augmented([PEROVSKITE, WURTZITE])
    assert len(images) == len(set(images)) == len(source)
    assert source.tolist() == [0, 0, 1]
    assert {canonical(image) for image in images} == {canonical(PEROVSKITE), canonical(WURTZITE)}


def test_formula_term_vanishes_for_the_truth_and_has_a_gradient_on_the_counts_alone() -> None:
    array, group = to_tensors(encode_genes([PEROVSKITE, WURTZITE]), 10.0)
    assert formula_term(array, array, group) == 0
    decoded = (array + 0.1).requires_grad_()
    formula_term(decoded, array, group).backward()
    assert decoded.grad is not None
    assert not decoded.grad[:, :, :COUNTS_START].any()
    assert decoded.grad[0, :, COUNTS_START:][:, multiplicities()[220] > 0].all()


def test_balance_of_the_losses_does_not_depend_on_the_batch_size(rows: list[TrainingRow]) -> None:
    torch.manual_seed(0)
    network = PublishedVAE(SMALL).eval()
    genes = encode_genes([row.gene for row in rows[:8]])
    labels = torch.zeros(16, 2)
    array, group = (torch.cat([part, part]) for part in to_tensors(genes, 4.0))
    one, two = (
        published_losses(network, array[:n], group[:n], network(array[:n], group[:n]), labels[:n], SMALL)
        for n in (8, 16)
    )
    for name in ("total", "reconstruction", "space_group", "kl", "properties", "formula"):
        assert getattr(one, name).item() == pytest.approx(getattr(two, name).item(), rel=1e-4)  # float32 sums


def test_loss_falls_and_thirty_crystals_come_back(overfitted: tuple[PublishedModel, list[TrainingRow]]) -> None:
    model, some = overfitted
    history = model.card["history"]
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    metrics = evaluate_published(model, some)
    assert metrics["exact_reconstruction"] >= 0.6  # 400 steps of a small network; 0.97 when written
    assert metrics["space_group_reconstruction"] >= 0.9
    assert metrics["formation_energy_mae"] < 0.2  # their spread is 0.9 eV/atom
    assert 0 < metrics["valid_share"] < 1  # noise of 1.4 breaks genes, and they are counted
    back = reconstruct(model, [row.gene for row in some])
    n_back = sum(d.gene is not None and canonical(d.gene) == row.gene for d, row in zip(back, some, strict=True))
    assert n_back / len(some) == pytest.approx(metrics["exact_reconstruction"])


def test_predictions_do_not_depend_on_the_image(overfitted: tuple[PublishedModel, list[TrainingRow]]) -> None:
    model, _ = overfitted
    images, _ = augmented([PEROVSKITE])
    one, two = predict(model, images)
    assert one == two
    assert one.band_gap >= 0
    assert one.values() == {"formation_energy_per_atom": one.formation_energy_per_atom, "band_gap": one.band_gap}


def test_same_seed_same_model_and_samples(small: PublishedModel, rows: list[TrainingRow]) -> None:
    again = train_published(rows, SMALL)
    assert all(torch.equal(small.weights[name], again.weights[name]) for name in small.weights)
    other = train_published(rows, SMALL.model_copy(update={"seed": 1}))
    assert not torch.equal(small.weights["to_mean.weight"], other.weights["to_mean.weight"])
    genes = [row.gene for row in rows[:5]]
    assert perturb_published(small, genes, seed=3) == perturb_published(again, genes, seed=3)
    assert len(perturb_published(small, genes, seed=3, copies=7)) == 35


def test_transfer_pretrains_then_freezes_the_convolutions(rows: list[TrainingRow], small: PublishedModel) -> None:
    before = pretrain_published(rows, SMALL)
    assert before.card["history"][-1]["step"] == 30
    assert float(before.weights["label_std"][1]) == 1  # no band gap was seen yet
    after = train_published(rows, SMALL, initial=before)
    assert all(torch.equal(after.weights[name], small.weights[name]) for name in small.weights)
    frozen = [name for name in before.weights if name.startswith("convolutions")]
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in frozen)
    assert not torch.equal(before.weights["to_mean.weight"], after.weights["to_mean.weight"])


def test_only_training_rows_with_a_gap_make_the_task(rows: list[TrainingRow], small: PublishedModel) -> None:
    with_gap = [row for row in rows if row.labels.get("band_gap", 0.0) > 0]
    assert small.card["n_used"] == len(with_gap) < len(rows)
    with pytest.raises(ModelError, match="0 of .* rows for the multi-property task"):
        train_published([row for row in rows if row not in with_gap], SMALL.model_copy(update={"transfer": False}))


def test_rows_with_four_elements_are_left_out_and_counted(rows: list[TrainingRow]) -> None:
    four = TrainingRow(Gene.of(1, [(symbol, "a") for symbol in ("Na", "K", "Cl", "O")]), {"band_gap": 1.0})
    config = SMALL.model_copy(update={"n_steps": 2, "multi_property_rows": "all", "transfer": False})
    model = train_published([*rows, four], config)
    assert (model.card["n_rows"], model.card["n_used"]) == (len(rows) + 1, len(rows))
    assert evaluate_published(model, [*rows, four])["n_left_out"] == 1
    with pytest.raises(ModelError, match="at most three elements"):
        evaluate_published(model, [four])


def test_save_and_load(small: PublishedModel, rows: list[TrainingRow], tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    small.save(path)
    loaded = PublishedModel.load(path)
    assert (loaded.config, loaded.card) == (small.config, small.card)
    latent = latent_means(small, [row.gene for row in rows[:9]])
    assert decode(loaded, latent) == decode(small, latent)
    assert predict(loaded, [PEROVSKITE]) == predict(small, [PEROVSKITE])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="can't read model"):
        PublishedModel.load(path)
    with pytest.raises(ModelError, match="can't read model"):
        PublishedModel.load(tmp_path / "none.safetensors")


def test_a_diverged_loss_is_an_error(rows: list[TrainingRow]) -> None:
    with pytest.raises(ModelError, match="diverged"):
        train_published(rows, SMALL.model_copy(update={"learning_rate": 1e30}))
