"""Crystals of other libraries' objects, checked as those of CIF files are."""

from typing import TYPE_CHECKING

import numpy as np

from wyloop.models.crystal import Crystal, check_physical
from wyloop.models.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.structure import Structure

ISOTOPES = {"D": "H", "T": "H"}


def checked_crystal(lattice: object, species: list[str], frac_coords: object) -> Crystal:
    """Build a crystal from lists and check it.

    Args:
        lattice: Lattice vectors as rows, shape (3, 3), Å.
        species: Element symbol of each site; D and T become H.
        frac_coords: Fractional coordinates, shape (nsites, 3).

    Raises:
        StructureError: Wrong shapes, unknown elements, too many sites, or an unphysical cell.
    """
    known = _symbols()
    species = [ISOTOPES.get(symbol, symbol) for symbol in species]
    unknown = sorted({symbol for symbol in species if symbol not in known})
    if unknown:
        raise StructureError(f"species {', '.join(unknown)[:60]}; expected elements only")
    try:
        matrix = np.array(lattice, dtype=np.float64)
        coords = np.array(frac_coords, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise StructureError("a lattice or coordinates that are no numbers; expected Å and fractions") from error
    if matrix.shape != (3, 3) or len(coords) != len(species):
        raise StructureError(
            f"a lattice of shape {matrix.shape} and {len(coords)} coordinates of {len(species)} sites; expected three "
            "lattice vectors and coordinates of every site"
        )
    crystal = Crystal(matrix, tuple(species), coords)
    check_physical(crystal)
    return crystal


def crystal_of_structure(structure: "Structure") -> Crystal:
    """Take over a pymatgen structure.

    Raises:
        StructureError: It is disordered, holds what is no element, or is unphysical.
    """
    for index, site in enumerate(structure):
        if not site.is_ordered:
            raise StructureError(f"site {index} ({site.species_string}) is disordered; expected one element a site")
    if not all(structure.lattice.pbc):
        raise StructureError("a cell that is not periodic in three directions; expected a bulk crystal")
    species = [str(site.specie.symbol) for site in structure]
    return checked_crystal(structure.lattice.matrix, species, structure.frac_coords)


def crystal_of_atoms(atoms: "Atoms") -> Crystal:
    """Take over ASE's atoms.

    Raises:
        StructureError: No cell, no full periodicity, what is no element, or an unphysical cell.
    """
    cell = np.array(atoms.cell.array)
    if not abs(np.linalg.det(cell)) > 0:
        raise StructureError("atoms without a cell of three vectors; expected a bulk crystal")
    if not all(atoms.pbc):
        raise StructureError("a cell that is not periodic in three directions; expected a bulk crystal")
    return checked_crystal(cell, atoms.get_chemical_symbols(), np.array(atoms.positions) @ np.linalg.inv(cell))


def _symbols() -> frozenset[str]:
    from ase.data import chemical_symbols

    return frozenset(chemical_symbols[1:])
