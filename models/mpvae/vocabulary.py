"""What the network may say: elements in a fixed order, and the Wyckoff positions of the 230 groups as arrays.

Element ids count from 1 in order of electronegativity (0 is "no element" and "stop"); letters are places in the group's
table. The numbers of elements.json come from make_elements.py beside this module.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import ModelError
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS, letter_indices, space_group

STOP = 0
N_LETTERS = 27  # a to z, and A of space group 47
N_GROUPS = 231  # ITA numbers, 0 unused


@cache
def _table() -> dict[str, dict[str, list[float]]]:
    table: dict[str, dict[str, list[float]]] = json.loads((Path(__file__).parent / "elements.json").read_text())
    return table


@cache
def elements() -> tuple[str, ...]:
    """Element symbols in the order of their ids, most electropositive first."""
    return tuple(_table()["elements"])


@cache
def element_ids() -> dict[str, int]:
    """Map element symbols to ids, 1 to the number of elements."""
    return {symbol: index + 1 for index, symbol in enumerate(elements())}


def element_id(symbol: str) -> int:
    """Look up an element's id.

    Raises:
        ModelError: The network does not know the element.
    """
    try:
        return element_ids()[symbol]
    except KeyError:
        raise ModelError(f"the network does not know element {symbol!r}; expected one from H to Lr") from None


@cache
def element_features() -> NDArray[np.float32]:
    """Descriptors of the elements by id, mean 0 and variance 1; row 0 is zero; shape (n_elements + 1, n)."""
    return _rows_by_id("elements")


@cache
def element_electrons() -> NDArray[np.float32]:
    """Lowest and highest common cation charge, anion charge, odd atomic number or not, valence electrons, by id.

    Shape (n_elements + 1, 5), in electrons; a charge that an element does not take is 0.
    """
    return _rows_by_id("electrons")


def _rows_by_id(name: str) -> NDArray[np.float32]:
    rows = list(_table()[name].values())
    return np.array([[0.0] * len(rows[0]), *rows], dtype=np.float32)


@dataclass(frozen=True)
class PositionTables:
    """The Wyckoff positions of every group as arrays whose first two axes are ITA number and letter, (231, 27)."""

    exists: NDArray[np.bool_]
    multiplicity: NDArray[np.int64]
    """Atoms of one orbit in the primitive cell."""
    is_fixed: NDArray[np.bool_]
    """Without free parameters, so used once at most."""
    n_free_parameters: NDArray[np.int64]
    site_symmetry: NDArray[np.int64]
    """Id of the oriented site-symmetry symbol, from 1."""
    position: NDArray[np.int64]
    """Id of the position itself, from 1."""
    crystal_system: NDArray[np.int64]
    """Shape (231,), 0 to 6."""
    point_group: NDArray[np.int64]
    """Shape (231,), from 0."""
    image_start: NDArray[np.int64]
    """First row in `image_letters` of each group's normalizer images, shape (231,)."""
    n_images: NDArray[np.int64]
    """Shape (231,)."""
    image_letters: NDArray[np.int64]
    """Letter that takes the place of each letter, shape (sum of n_images, 27)."""


@cache
def position_tables() -> PositionTables:
    """Collect the arrays from the tables of `models.wyckoff` (under 0.1 s, once a process)."""
    shape = (N_GROUPS, N_LETTERS)
    multiplicity, free = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    symmetry, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    system, point = np.zeros(N_GROUPS, np.int64), np.zeros(N_GROUPS, np.int64)
    start, n_images, image_rows = np.zeros(N_GROUPS, np.int64), np.ones(N_GROUPS, np.int64), [np.arange(N_LETTERS)]
    groups = [space_group(number) for number in range(1, N_GROUPS)]
    symbols = {s: i + 1 for i, s in enumerate(sorted({p.site_symmetry for g in groups for p in g.positions}))}
    points = {name: i for i, name in enumerate(sorted({g.point_group for g in groups}))}
    for group in groups:
        for index, place in enumerate(group.positions):
            at = (group.number, index)
            multiplicity[at] = place.multiplicity // group.n_centerings
            free[at] = place.n_free_parameters
            symmetry[at] = symbols[place.site_symmetry]
            position[at] = position.max() + 1
        system[group.number] = CRYSTAL_SYSTEMS.index(group.crystal_system)
        point[group.number] = points[group.point_group]
        start[group.number], n_images[group.number] = len(image_rows), len(group.images)
        indices = letter_indices(group.number)
        for image in group.images:
            row = np.arange(N_LETTERS)
            row[: len(image)] = [indices[letter] for letter in image]
            image_rows.append(row)
    exists = position > 0
    fixed = exists & (free == 0)
    return PositionTables(
        exists, multiplicity, fixed, free, symmetry, position, system, point, start, n_images, np.array(image_rows)
    )
