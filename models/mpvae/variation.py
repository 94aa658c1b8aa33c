"""Other genes made from known ones: normalizer images with the same labels, and unlabelled variations."""

import numpy as np
from numpy.typing import NDArray

from wyloop.models.mpvae.data import GeneArrays, gene_arrays, genes_of
from wyloop.models.mpvae.vocabulary import STOP, element_features, position_tables

N_SIMILAR = 8  # elements that one may give way to
KEEP_ELEMENT = 0.3
ANY_ELEMENT, OTHER_GROUP, OTHER_LETTERS, FEWER_ORBITS = 0.2, 0.15, 0.5, 0.2
"""Shares of genes that get elements of any kind, another space group, other letters, fewer orbits."""
LETTER_CHANGES, ORBIT_LEAVES = 0.5, 0.3  # probability for each orbit of such a gene


def random_images(arrays: GeneArrays, rng: np.random.Generator) -> GeneArrays:
    """Replace each gene by a random normalizer image of it, uniform over the distinct ones."""
    tables = position_tables()
    chosen = tables.image_start[arrays.space_group] + rng.integers(tables.n_images[arrays.space_group])
    letter = np.take_along_axis(tables.image_letters[chosen], arrays.letter, axis=1)
    return GeneArrays(arrays.space_group, arrays.element, np.where(arrays.element == STOP, 0, letter))


def varied(arrays: GeneArrays, rng: np.random.Generator) -> GeneArrays:
    """Change elements, and in some genes letters, space group or number of orbits, at random; all stay valid."""
    n = len(arrays.space_group)
    element = _other_elements(arrays.element, rng)
    moved = rng.random(n) < OTHER_GROUP
    space_group = np.where(moved, arrays.space_group[rng.permutation(n)], arrays.space_group)
    redrawn = (rng.random(n) < OTHER_LETTERS)[:, None] & (rng.random(element.shape) < LETTER_CHANGES)
    n_letters = position_tables().exists.sum(axis=1)[space_group]
    any_letter = rng.integers(n_letters[:, None], size=element.shape)
    letter = np.where(moved[:, None] | redrawn, any_letter, arrays.letter)
    leaves = (rng.random(n) < FEWER_ORBITS)[:, None] & (rng.random(element.shape) < ORBIT_LEAVES)
    leaves[:, 0] = False
    element = np.where(leaves | _is_taken(space_group, element, letter), STOP, element)
    return gene_arrays(genes_of(GeneArrays(space_group, element, letter)))


def _other_elements(element: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Replace elements by similar ones or, in some genes, by any that occur; the same one throughout a gene."""
    features, present = element_features(), np.unique(element[element != STOP])
    distance = np.linalg.norm(features[:, None] - features[None, present], axis=2)
    similar = present[np.argsort(distance, axis=1)[:, 1 : N_SIMILAR + 1]]
    shape = (len(element), len(features))
    ids = np.arange(len(features))
    if not similar.shape[1]:
        return element
    drawn = similar[ids, rng.integers(similar.shape[1], size=shape)]
    drawn = np.where(rng.random((len(element), 1)) < ANY_ELEMENT, rng.choice(present, shape), drawn)
    mapping = np.where((rng.random(shape) < KEEP_ELEMENT) | (ids == STOP), ids, drawn)
    return np.take_along_axis(mapping, element, axis=1)


def _is_taken(
    space_group: NDArray[np.int64], element: NDArray[np.int64], letter: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Orbits on a position without free parameters that an orbit before them holds."""
    is_fixed = position_tables().is_fixed
    same = (letter[:, :, None] == letter[:, None, :]) & (element != STOP)[:, None, :]
    before = np.tril(np.ones(same.shape[1:], np.bool_), -1)
    taken: NDArray[np.bool_] = (same & before).any(axis=2) & is_fixed[space_group[:, None], letter]
    return taken
