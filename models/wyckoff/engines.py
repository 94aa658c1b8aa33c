"""What moyopy or spglib finds in a crystal: the space group, a standard cell, and the letter of every orbit.

moyopy is the engine of all stored genes; spglib is there to check that the gene does not depend on the engine.
"""

import logging
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from moyopy import Cell, HallSymbolEntry, MoyoDataset, Setting
from numpy.typing import NDArray
from pymatgen.core.periodic_table import Element

from wyloop.models.crystal import Crystal, check_physical
from wyloop.models.errors import StructureError

Engine = Literal["moyopy", "spglib"]
MAX_PASSES = 4  # each pass but the last found more symmetry than the one before; two are usual
STANDARD_SETTINGS = ("", "b", "b1", "H", "2", "2abc")  # unique axis b, hexagonal axes, origin choice 2
OTHER_AXES = (
    np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]),
    np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]]),
    np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]]),
)
N_HALL = 530


@dataclass(frozen=True)
class Symmetry:
    """The symmetry of a crystal in its standard setting."""

    number: int
    """ITA number."""
    lattice: NDArray[np.float64]
    """Conventional cell, vectors as rows, shape (3, 3), Å."""
    primitive: Crystal
    """Standard primitive cell, symmetrised."""
    orbits: tuple[tuple[str, str, int], ...]
    """Element, letter and atoms in the primitive cell of each orbit."""


def find_symmetry(crystal: Crystal, symprec: float, engine: Engine = "moyopy") -> Symmetry:
    """Find the symmetry of a crystal from a cell that is standard, primitive and of settled space group.

    Raises:
        StructureError: The cell is unphysical, or no symmetry is found in it.
    """
    if not (math.isfinite(symprec) and symprec > 0.0):
        raise StructureError(f"symprec {symprec}; expected a positive number of Å, such as 0.1")
    check_physical(crystal)
    return _by_moyopy(crystal, symprec) if engine == "moyopy" else _by_spglib(crystal, symprec)


def _by_moyopy(crystal: Crystal, symprec: float) -> Symmetry:
    """Look again in the standard primitive cell until the group is the same.

    On a cell that is not primitive and reduced, moyopy may omit operations, and its orbits then follow another cell.
    """
    cell = Cell(crystal.lattice.tolist(), crystal.frac_coords.tolist(), [_number(s) for s in crystal.species])
    dataset = _dataset(cell, symprec)
    if dataset.symprec < symprec:
        dataset = _from_other_axes(dataset, symprec)
    for _ in range(MAX_PASSES):
        number, cell = dataset.number, dataset.prim_std_cell
        dataset = _dataset(cell, symprec)
        if dataset.number == number:
            break
    else:
        raise StructureError(f"the space group does not settle at symprec {symprec} Å; try another")
    numbers, letters, sizes = cell.numbers, dataset.wyckoffs, Counter(dataset.orbits)
    orbits = tuple((_symbol(numbers[site]), letters[site], size) for site, size in sizes.items())
    return Symmetry(number, np.array(dataset.std_cell.basis), _crystal(dataset.prim_std_cell), orbits)


def _from_other_axes(tightened: MoyoDataset, symprec: float) -> MoyoDataset:
    """Look from other axes when moyopy had to lower its tolerance: at its edge that may be for the cell's sake only."""
    standard = tightened.prim_std_cell
    lattice, coords = np.array(standard.basis), np.array(standard.positions)
    for axes in OTHER_AXES:
        cell = Cell((axes @ lattice).tolist(), (coords @ np.linalg.inv(axes)).tolist(), standard.numbers)
        dataset = _dataset(cell, symprec)
        if dataset.symprec >= symprec:
            return dataset
    return tightened


def _dataset(cell: Cell, symprec: float) -> MoyoDataset:
    _quieten_moyopy()
    try:
        return MoyoDataset(cell, symprec=symprec, setting=Setting.standard())
    except ValueError as error:
        raise StructureError(f"no symmetry found at symprec {symprec} Å ({error}); try a smaller one") from error


def _crystal(cell: Cell) -> Crystal:
    species = tuple(_symbol(number) for number in cell.numbers)
    return Crystal(np.array(cell.basis), species, np.array(cell.positions) % 1.0)


@cache
def _quieten_moyopy() -> None:
    """Drop two warnings that the second pass answers.

    Operations omitted on a cell that is not primitive: of that cell only its standard cell is used. Atoms that
    symmetrising moves by up to symprec: that is what symprec allows.
    """
    known = ("Omitted", "Large displacement during symmetrization")
    logging.getLogger("moyo").addFilter(lambda record: not record.getMessage().startswith(known))


def _by_spglib(crystal: Crystal, symprec: float) -> Symmetry:
    import spglib  # lazy: only the check of the other engine needs it

    cell: Any = (crystal.lattice, crystal.frac_coords, [_number(species) for species in crystal.species])
    number = 0
    for _ in range(MAX_PASSES + 1):
        found = spglib.get_symmetry_dataset(cell, symprec=symprec)
        if found is None:
            raise StructureError(f"spglib finds no symmetry at symprec {symprec} Å; try a smaller one")
        if found.number == number:
            break
        number = found.number
        cell = spglib.standardize_cell(cell, to_primitive=True, symprec=symprec)
        if cell is None:
            raise StructureError(f"spglib finds no standard cell at symprec {symprec} Å; try a smaller one")
    else:
        raise StructureError(f"the space group does not settle at symprec {symprec} Å; try another")
    dataset: Any = spglib.get_symmetry_dataset(cell, symprec=symprec, hall_number=_standard_hall_numbers()[number])
    sizes: Counter[int] = Counter(dataset.crystallographic_orbits.tolist())
    orbits = tuple((_symbol(cell[2][site]), str(dataset.wyckoffs[site]), size) for site, size in sizes.items())
    species = tuple(_symbol(number) for number in cell[2])
    return Symmetry(number, np.array(dataset.std_lattice), Crystal(cell[0], species, cell[1] % 1.0), orbits)


@cache
def _standard_hall_numbers() -> dict[int, int]:
    entries = [HallSymbolEntry(hall_number) for hall_number in range(1, N_HALL + 1)]
    return {entry.number: entry.hall_number for entry in reversed(entries) if str(entry.setting) in STANDARD_SETTINGS}


@cache
def _number(symbol: str) -> int:
    try:
        return int(Element(symbol).Z)
    except ValueError as error:
        raise StructureError(f"unknown element {symbol!r}; expected a chemical symbol") from error


@cache
def _symbol(number: int) -> str:
    return str(Element.from_Z(int(number)).symbol)
