import numpy as np
import pytest

from wyloop.models.mpvae.data import TrainingRow, gene_arrays, genes_of
from wyloop.models.mpvae.variation import random_images, varied
from wyloop.models.wyckoff.gene import Gene, canonical, images


def test_random_images_are_the_images_and_come_alike_often() -> None:
    gene = Gene.parse("221 O:c Sr:a Ti:b")
    arrays = random_images(gene_arrays([gene] * 400), np.random.default_rng(0))
    letters = {tuple(row) for row in arrays.letter.tolist()}
    assert len(letters) == len(list(images(gene))) == 2
    shares = np.unique(arrays.letter, axis=0, return_counts=True)[1] / 400
    assert shares == pytest.approx([0.5, 0.5], abs=0.1)
    assert set(genes_of(arrays)) == {canonical(gene)}


def test_variations_are_valid_and_mostly_new(rows: list[TrainingRow]) -> None:
    genes = [row.gene for row in rows] + [Gene.parse("62 Ca:c O:c O:d Ti:b"), Gene.parse("47 Cu:A Cu:A O:a")]
    arrays = gene_arrays(genes * 4)
    made = varied(arrays, np.random.default_rng(0))
    new = genes_of(made)  # refuses what breaks the tables of its space group
    assert all(gene == canonical(gene) and gene.orbits for gene in new)
    before = genes_of(arrays)
    changed = {
        "gene": [a != b for a, b in zip(before, new, strict=True)],
        "elements": [a.elements != b.elements for a, b in zip(before, new, strict=True)],
        "space group": [a.space_group_number != b.space_group_number for a, b in zip(before, new, strict=True)],
        "fewer orbits": [len(a.orbits) > len(b.orbits) for a, b in zip(before, new, strict=True)],
    }
    shares = {name: float(np.mean(values)) for name, values in changed.items()}
    assert shares["gene"] > 0.7
    assert shares["elements"] > 0.5
    assert 0.03 < shares["space group"] < 0.25
    assert 0.02 < shares["fewer orbits"] < 0.5


def test_variations_are_the_same_for_the_same_seed(rows: list[TrainingRow]) -> None:
    arrays = gene_arrays([row.gene for row in rows])
    one, two, other = (genes_of(varied(arrays, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_one_kind_of_element_alone_stays() -> None:
    arrays = gene_arrays([Gene.parse("227 C:a")] * 5)
    assert {gene.elements for gene in genes_of(varied(arrays, np.random.default_rng(0)))} == {("C",)}
