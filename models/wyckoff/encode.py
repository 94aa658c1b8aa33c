"""Crystal to gene: symmetry found by moyopy, letters taken from the standardised primitive cell."""

import logging
import math
from functools import cache

import numpy as np
from moyopy import Cell, MoyoDataset, Setting
from pymatgen.core.periodic_table import Element

from wyloop.models.crystal import Crystal, check_physical
from wyloop.models.errors import GeneError, StructureError
from wyloop.models.wyckoff.gene import Gene, Orbit, canonical
from wyloop.models.wyckoff.tables import space_group, wyckoff_position

SYMPREC = 0.1  # Å
MAX_PASSES = 4  # each pass but the last found more symmetry than the one before; two are usual


def encode(crystal: Crystal, symprec: float = SYMPREC) -> Gene:
    """Find the canonical gene of an ordered crystal.

    Args:
        crystal: Any cell of the crystal.
        symprec: Distance within which atoms count as equivalent, Å; moyopy tightens one that leads to no group.

    Returns:
        The canonical gene; the same for every cell, origin, orientation and order of sites.

    Raises:
        StructureError: The cell is unphysical, or no symmetry is found in it.
    """
    cell, dataset = _standard_dataset(crystal, symprec)
    number, n_centerings = dataset.number, space_group(dataset.number).n_centerings
    letters, numbers = dataset.wyckoffs, cell.numbers
    sizes: dict[int, int] = {}
    for representative in dataset.orbits:
        sizes[representative] = sizes.get(representative, 0) + 1
    orbits: list[Orbit] = []
    for site, size in sizes.items():
        letter, element = letters[site], _symbol(numbers[site])
        multiplicity = wyckoff_position(number, letter).multiplicity
        if size * n_centerings != multiplicity:
            raise StructureError(
                f"an orbit of {size * n_centerings} {element} on position {multiplicity}{letter} of space group "
                f"{number}; expected {multiplicity}: the symmetry is ambiguous at symprec {symprec} Å, try another"
            )
        orbits.append((element, letter))
    try:
        return canonical(Gene.of(number, orbits))
    except GeneError as error:
        raise StructureError(f"{error}: the symmetry is ambiguous at symprec {symprec} Å, try another") from error


def standardize(crystal: Crystal, symprec: float = SYMPREC) -> Crystal:
    """Return the standard primitive cell, lattice and coordinates symmetrised.

    Raises:
        StructureError: The cell is unphysical, or no symmetry is found in it.
    """
    cell = _standard_dataset(crystal, symprec)[1].prim_std_cell
    species = tuple(_symbol(number) for number in cell.numbers)
    return Crystal(np.array(cell.basis), species, np.array(cell.positions) % 1.0)


def _standard_dataset(crystal: Crystal, symprec: float) -> tuple[Cell, MoyoDataset]:
    """Return a cell that is standard, primitive and of settled space group, and the dataset found from it.

    On a cell that is not primitive and reduced, moyopy may omit operations, and its orbits then follow another cell.
    """
    if not (math.isfinite(symprec) and symprec > 0.0):
        raise StructureError(f"symprec {symprec}; expected a positive number of Å, such as {SYMPREC}")
    check_physical(crystal)
    cell = Cell(crystal.lattice.tolist(), crystal.frac_coords.tolist(), [_number(s) for s in crystal.species])
    dataset = _dataset(cell, symprec)
    for _ in range(MAX_PASSES):
        number, cell = dataset.number, dataset.prim_std_cell
        dataset = _dataset(cell, symprec)
        if dataset.number == number:
            return cell, dataset
    raise StructureError(f"the space group does not settle at symprec {symprec} Å; try another")


def _dataset(cell: Cell, symprec: float) -> MoyoDataset:
    _quieten_moyopy()
    try:
        return MoyoDataset(cell, symprec=symprec, setting=Setting.standard())
    except ValueError as error:
        raise StructureError(f"no symmetry found at symprec {symprec} Å ({error}); try a smaller one") from error


@cache
def _quieten_moyopy() -> None:
    """Drop two warnings that the second pass answers.

    Operations omitted on a cell that is not primitive: of that cell only its standard cell is used. Atoms that
    symmetrising moves by up to symprec: that is what symprec allows.
    """
    known = ("Omitted", "Large displacement during symmetrization")
    logging.getLogger("moyo").addFilter(lambda record: not record.getMessage().startswith(known))


@cache
def _number(symbol: str) -> int:
    try:
        return int(Element(symbol).Z)
    except ValueError as error:
        raise StructureError(f"unknown element {symbol!r}; expected a chemical symbol") from error


@cache
def _symbol(number: int) -> str:
    return str(Element.from_Z(number).symbol)
