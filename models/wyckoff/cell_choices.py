"""Standard cells that are equally short: the letters of a triclinic or monoclinic gene must not depend on the choice.

In these systems a change of axes can keep the standard setting and yet rename the positions (the midpoint of a + c
instead of that of c, say). The shortest cell decides; where several are as short, the gene takes the least of them all.
"""

from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from wyloop.models.wyckoff.tables import TRANSLATION_DENOMINATOR, letter_indices, operators, space_group

SAME_LENGTH = 0.005  # Å; sums of axes nearer than this are equal: a twentieth of the tolerance of positions
SAME_PLACE = 1e-6  # of fractional coordinates
LAST_TRICLINIC, LAST_MONOCLINIC = 2, 15
GENERIC = np.array([0.137, 0.241, 0.319])  # free coordinates of no special position
SHIFTS = np.array(list(product((0.0, 0.25, 0.5, 0.75), repeat=3)))  # of the origin; the first is none

Matrix = NDArray[np.int64]


def cell_choices(number: int, lattice: NDArray[np.float64]) -> frozenset[str]:
    """Return how the letters read in each of the shortest standard cells.

    Args:
        number: ITA number.
        lattice: Any conventional cell of the standard setting, vectors as rows, Å.

    Returns:
        Relabelings as in `SpaceGroup.images`: character i replaces the letter of position i. One that changes nothing,
        alone, in systems above monoclinic and in groups where no change of axes renames a position.
    """
    if number > LAST_MONOCLINIC or _is_indifferent(number):
        return frozenset(("".join(space_group(number).letters),))
    changes = _changes(number)
    lengths = np.linalg.norm(changes @ lattice, axis=2)
    sums = lengths.sum(axis=1)
    shortest = sums <= sums.min() + SAME_LENGTH
    chosen = changes[shortest & _is_ordered(number, lengths)]
    return frozenset(_relabeling(number, tuple(change.ravel().tolist())) for change in chosen)


def relabeled(number: int, relabeling: str, letter: str) -> str:
    """Return the letter that takes the place of a letter."""
    return relabeling[letter_indices(number)[letter]]


def _is_ordered(number: int, lengths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which cells have a <= b <= c, or a <= c where b is the axis of symmetry and a and c are alike."""
    a, b, c = lengths.T
    if number <= LAST_TRICLINIC:
        return np.asarray((a <= b + SAME_LENGTH) & (b <= c + SAME_LENGTH))
    if not _axes_are_alike(number):
        return np.ones(len(lengths), dtype=bool)
    return np.asarray(a <= c + SAME_LENGTH)


@cache
def _axes_are_alike(number: int) -> bool:
    return _origin_shift(number, np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]])) is not None


@cache
def _is_indifferent(number: int) -> bool:
    """Whether no change of axes renames a position more than the normalizer does."""
    if number <= LAST_TRICLINIC:
        return len(space_group(number).letters) == 1
    relabelings = {_relabeling(number, tuple(change.ravel().tolist())) for change in _changes(number)}
    return relabelings <= set(space_group(number).images)


@cache
def _changes(number: int) -> Matrix:
    """List the changes of axes that keep the standard setting, shape (n, 3, 3), rows the new axes."""
    return np.array([change for change in _axes(number) if _origin_shift(number, change) is not None])


def _axes(number: int) -> Iterator[Matrix]:
    """Yield bases of the lattice by short vectors, each axis up to its sign."""
    if number <= LAST_TRICLINIC:
        vectors = [vector for vector in product((-1, 0, 1), repeat=3) if vector > (0, 0, 0)]
        for rows in permutations(vectors, 3):
            matrix = np.array(rows)
            if abs(round(float(np.linalg.det(matrix)))) == 1:
                yield matrix
        return
    plane = [pair for pair in product((-2, -1, 0, 1, 2), repeat=2) if pair > (0, 0)]
    for (ax, az), (cx, cz) in permutations(plane, 2):
        if abs(ax * cz - az * cx) == 1:
            yield np.array([[ax, 0, az], [0, 1, 0], [cx, 0, cz]])


def _origin_shift(number: int, change: Matrix) -> NDArray[np.float64] | None:
    """Find a shift of the origin, new axes, with which the operations in the new axes are the standard ones again."""
    if number <= LAST_TRICLINIC:
        return np.zeros(3)  # any basis will do
    maps = operators(number, space_group(number).letters[-1])
    standard = _as_set(maps[:, :, :3], maps[:, :, 3])
    to_new = np.linalg.inv(change).T
    rotations, translations = to_new @ maps[:, :, :3] @ change.T, maps[:, :, 3] @ to_new.T
    for shift in SHIFTS:
        if _as_set(rotations, translations + shift - rotations @ shift) == standard:
            return np.asarray(shift)
    return None


def _as_set(rotations: NDArray[np.float64], translations: NDArray[np.float64]) -> set[bytes]:
    whole = np.rint(translations * TRANSLATION_DENOMINATOR).astype(np.int64) % TRANSLATION_DENOMINATOR
    rows = np.concatenate((np.rint(rotations).astype(np.int64), whole[:, :, None]), axis=2)
    return {row.tobytes() for row in rows}


@cache
def _relabeling(number: int, axes: tuple[int, ...]) -> str:
    """Find the letter of one point of each position in new axes, given one after the other."""
    change = np.array(axes).reshape(3, 3)
    shift = _origin_shift(number, change)
    assert shift is not None
    to_new = np.linalg.inv(change).T
    letters = space_group(number).letters
    found = []
    for letter in letters:
        first = operators(number, letter)[0]
        point = to_new @ (first[:, :3] @ GENERIC + first[:, 3]) + shift
        found.append(next(other for other in letters if _is_on(number, other, point)))
    return "".join(found)


def _is_on(number: int, letter: str, point: NDArray[np.float64]) -> bool:
    """Whether a point lies on a position; each coordinate of these is either fixed or free."""
    for map_ in operators(number, letter):
        fixed = ~map_[:, :3].any(axis=1)
        offset = point[fixed] - map_[fixed, 3]
        if (np.abs(offset - np.rint(offset)) < SAME_PLACE).all():
            return True
    return False
