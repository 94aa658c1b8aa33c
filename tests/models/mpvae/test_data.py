import numpy as np
import pytest
from pymatgen.core.periodic_table import Element

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.data import (
    TrainingRow,
    batches,
    dataset,
    gene_arrays,
    genes_of,
    reduced_formula,
    split,
)
from wyloop.models.mpvae.vocabulary import (
    element_electrons,
    element_features,
    element_ids,
    elements,
    position_tables,
)
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.tables import space_group


def test_elements_are_hydrogen_to_lawrencium_from_electropositive_to_electronegative() -> None:
    assert {Element(symbol).Z for symbol in elements()} == set(range(1, 104))
    ids = element_ids()
    assert ids["Cs"] < ids["Na"] < ids["Ti"] < ids["S"] < ids["O"] < ids["F"] < ids["Ne"]
    features = element_features()
    assert features.shape[0] == 104
    spread = features[1:].std(axis=0)
    assert np.abs(features[1:].mean(axis=0)).max() < 1e-3
    assert spread.min() > 0.5  # unknown values stand at the mean, where they add no spread
    assert spread.max() < 1.001
    assert (np.abs(spread - 1) < 0.001).sum() > len(spread) / 2
    assert len(np.unique(features, axis=0)) == 104


def test_electron_counts_are_the_textbook_ones() -> None:
    lowest, highest, anion, is_odd, n_valence = element_electrons().T
    ids = element_ids()
    assert {symbol: (lowest[ids[symbol]], highest[ids[symbol]]) for symbol in ("Na", "Fe", "La", "Ti", "Zn")} == {
        "Na": (1, 1),
        "Fe": (2, 3),
        "La": (3, 3),
        "Ti": (4, 4),
        "Zn": (2, 2),
    }
    assert {symbol: anion[ids[symbol]] for symbol in ("O", "S", "Cl")} == {"O": -2, "S": -2, "Cl": -1}
    assert {symbol: is_odd[ids[symbol]] for symbol in ("Na", "Fe", "Cl", "Si")} == {"Na": 1, "Fe": 0, "Cl": 1, "Si": 0}
    assert {symbol: n_valence[ids[symbol]] for symbol in ("Na", "Si", "O", "Ti")} == {"Na": 1, "Si": 4, "O": 6, "Ti": 4}
    assert not element_electrons()[0].any()


def test_position_tables_agree_with_the_space_groups() -> None:
    tables = position_tables()
    for number in (1, 47, 62, 166, 225, 230):
        group = space_group(number)
        assert tables.exists[number].sum() == len(group.positions)
        for index, position in enumerate(group.positions):
            assert tables.multiplicity[number, index] * group.n_centerings == position.multiplicity
            assert tables.is_fixed[number, index] == (position.n_free_parameters == 0)
        assert tables.n_images[number] == len(group.images)


def test_genes_survive_the_round_trip(rows: list[TrainingRow]) -> None:
    genes = [canonical(row.gene) for row in rows] + [Gene.parse("47 Cu:A Cu:A O:a")]
    assert genes_of(gene_arrays(genes)) == [canonical(gene) for gene in genes]


def test_rows_of_one_formula_fall_on_one_side(rows: list[TrainingRow]) -> None:
    data = dataset(rows, max_orbits=24)
    training, validation = split(data, 0.25, seed=3)
    assert sorted([*training, *validation]) == list(range(len(data)))
    assert {data.formulas[i] for i in training}.isdisjoint(data.formulas[i] for i in validation)
    assert 0.1 < len(validation) / len(data) < 0.4
    # Added rows move no old row to the other side.
    more = dataset([*rows, TrainingRow(Gene.parse("216 As:c Ga:a"), {})], max_orbits=24)
    assert [i for i in split(more, 0.25, seed=3)[1] if i < len(data)] == list(validation)


def test_batches_hold_every_row_once_and_like_lengths_together() -> None:
    lengths = np.array([1, 9, 2, 8, 1, 9, 2, 8] * 10)
    seen = list(batches(lengths, 10, np.random.default_rng(0)))
    assert sorted(np.concatenate(seen)) == list(range(80))
    assert all(lengths[rows].max() - lengths[rows].min() <= 2 for rows in seen)


def test_labels_become_arrays(rows: list[TrainingRow]) -> None:
    gene = rows[0].gene
    labels = [{"band_gap": 0.0}, {"band_gap": 1.5}, {"is_metal": 1.0}, {"formation_energy_per_atom": -1.0}]
    data = dataset([TrainingRow(gene, label) for label in labels], max_orbits=24)
    expected = [
        [np.nan, 0.0, np.nan, 1],
        [np.nan, 1.5, np.nan, 0],
        [np.nan, np.nan, np.nan, 1],
        [-1, np.nan, np.nan, np.nan],
    ]
    np.testing.assert_array_equal(data.labels, np.array(expected, np.float32))
    extra = dataset([TrainingRow(gene, {"density": 5.0})], max_orbits=24, extra_properties=("density",))
    np.testing.assert_array_equal(extra.labels, np.array([[np.nan, np.nan, np.nan, 5.0, np.nan]], np.float32))
    with pytest.raises(ModelError, match="none with at most 1 orbits"):
        dataset([TrainingRow(gene, {})], max_orbits=1)


def test_reduced_formula() -> None:
    assert reduced_formula(Gene.parse("221 O:c Sr:a Ti:b")) == "O3SrTi"
    assert reduced_formula(Gene.parse("227 C:a")) == "C"
