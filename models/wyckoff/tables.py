"""The Wyckoff positions of the 230 space groups and how their Euclidean normalizers permute them.

The numbers are in tables.json and operators.npz, written by make_tables.py beside this module.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import GeneError, WyckoffLetterError

HERE = Path(__file__).parent
TRANSLATION_DENOMINATOR = 24
CRYSTAL_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
LAST_OF_SYSTEM = (2, 15, 74, 142, 167, 194, 230)  # ITA numbers


@dataclass(frozen=True, slots=True)
class WyckoffPosition:
    """One Wyckoff position of a space group in its standard (ITA) setting."""

    letter: str
    multiplicity: int
    """Atoms of one orbit in the conventional cell."""
    site_symmetry: str
    """Oriented site-symmetry symbol."""
    n_free_parameters: int


@dataclass(frozen=True, slots=True)
class SpaceGroup:
    """One space group as the rest of the code needs it."""

    number: int
    symbol: str
    point_group: str
    n_centerings: int
    """Lattice points of the conventional cell."""
    positions: tuple[WyckoffPosition, ...]
    """In the order of their letters, most special first."""
    images: tuple[str, ...]
    """Every distinct action of the Euclidean normalizer: character i replaces the letter of position i."""

    @property
    def letters(self) -> tuple[str, ...]:
        """Wyckoff letters in table order, `a` first."""
        return tuple(position.letter for position in self.positions)

    @property
    def crystal_system(self) -> str:
        """Name of the crystal system, lower case."""
        return CRYSTAL_SYSTEMS[next(i for i, last in enumerate(LAST_OF_SYSTEM) if self.number <= last)]


@cache
def _raw() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((HERE / "tables.json").read_text())
    return raw


@cache
def space_group(number: int) -> SpaceGroup:
    """Look up a space group.

    Args:
        number: ITA number, 1 to 230.

    Raises:
        GeneError: The number is out of range.

    Source: International Tables for Crystallography A, through PyXtal (doi:10.1016/j.cpc.2020.107810).
    """
    if not 1 <= number <= 230:
        raise GeneError(f"no space group {number!r}; expected an ITA number from 1 to 230")
    raw = _raw()[str(number)]
    positions = tuple(WyckoffPosition(*position) for position in raw["positions"])
    return SpaceGroup(number, raw["symbol"], raw["point_group"], raw["centering"], positions, tuple(raw["images"]))


@cache
def letter_indices(number: int) -> dict[str, int]:
    """Map each Wyckoff letter of a space group to its place in the table, `a` = 0."""
    return {letter: index for index, letter in enumerate(space_group(number).letters)}


def wyckoff_position(number: int, letter: str) -> WyckoffPosition:
    """Look up one Wyckoff position.

    Raises:
        WyckoffLetterError: The space group has no such letter.
    """
    index = letter_indices(number).get(letter) if 1 <= number <= 230 else None
    if index is None:
        letters = "".join(space_group(number).letters)
        raise WyckoffLetterError(f"no Wyckoff letter {letter!r} in space group {number}; expected one of {letters}")
    return space_group(number).positions[index]


@cache
def _operator_archive() -> dict[str, NDArray[np.int8]]:
    with np.load(HERE / "operators.npz") as archive:
        return dict(archive.items())


@cache
def operators(number: int, letter: str) -> NDArray[np.float64]:
    """Return the coordinate triplets of a Wyckoff position as affine maps of (x, y, z).

    Returns:
        Shape (multiplicity, 3, 4): fractional coordinates in the conventional cell are
        `maps[:, :, :3] @ xyz + maps[:, :, 3]`.

    Raises:
        WyckoffLetterError: The space group has no such letter.
    """
    wyckoff_position(number, letter)
    maps = _operator_archive()[f"{number}_{letter}"].astype(float)
    maps[:, :, 3] /= TRANSLATION_DENOMINATOR
    maps.setflags(write=False)
    return maps
