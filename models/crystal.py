"""A crystal as plain arrays: what travels between encoding, physics and the database."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import StructureError

SHORTEST_DISTANCE = 0.5  # Å; below any bond (H2: 0.74), so nearer atoms are one atom written twice
SMALLEST_HEIGHT = 1.0  # Å between opposite faces of a cell
MAX_SITES = 2000  # of a cell; the check of all distances holds their square in memory

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.structure import Structure


@dataclass(frozen=True)
class Crystal:
    """One ordered crystal. The arrays are not to be changed."""

    lattice: NDArray[np.float64]
    """Lattice vectors as rows, shape (3, 3), Å."""
    species: tuple[str, ...]
    """Element symbol of each site."""
    frac_coords: NDArray[np.float64]
    """Fractional coordinates of each site in this cell, shape (nsites, 3)."""

    @property
    def nsites(self) -> int:
        """Number of sites in this cell."""
        return len(self.species)

    @property
    def volume(self) -> float:
        """Volume of this cell, Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def amounts(self) -> dict[str, int]:
        """Atoms of each element in this cell, elements in alphabetical order."""
        return dict(sorted(Counter(self.species).items()))

    @classmethod
    def from_pymatgen(cls, structure: "Structure") -> "Crystal":
        """Take over an ordered pymatgen structure; oxidation states and magnetic moments are left behind.

        Raises:
            StructureError: A site is disordered, or its one species is no element.
        """
        for index, site in enumerate(structure):
            if not site.is_ordered:
                raise StructureError(f"site {index} ({site.species_string}) is disordered; expected one element a site")
            if not _is_element(site.specie.symbol):
                raise StructureError(f"site {index} ({site.species_string}) is no element; expected a chemical symbol")
        species = tuple(site.specie.symbol for site in structure)
        return cls(np.array(structure.lattice.matrix), species, np.array(structure.frac_coords))

    def to_pymatgen(self) -> "Structure":
        """Return the same crystal as a pymatgen structure."""
        from pymatgen.core.structure import Structure

        return Structure(self.lattice, list(self.species), self.frac_coords)

    @classmethod
    def from_ase(cls, atoms: "Atoms") -> "Crystal":
        """Take over a periodic ASE cell."""
        species = tuple(str(atom.symbol) for atom in atoms)
        return cls(np.array(atoms.cell.array), species, np.array(atoms.cell.scaled_positions(atoms.positions)) % 1.0)

    def to_ase(self) -> "Atoms":
        """Return the same crystal as periodic ASE atoms."""
        from ase import Atoms

        return Atoms(list(self.species), scaled_positions=self.frac_coords, cell=self.lattice, pbc=True)


def check_physical(crystal: Crystal, labels: Sequence[str] | None = None) -> None:
    """Refuse a cell that is not finite, is flat, is huge, or holds two atoms in one place.

    Args:
        crystal: The crystal to look at.
        labels: What to call each site; element and index if not given.

    Raises:
        StructureError: Names what is wrong, and the sites.
    """
    if crystal.nsites == 0:
        raise StructureError("a crystal without sites; expected at least one atom")
    if crystal.nsites > MAX_SITES:
        raise StructureError(f"{crystal.nsites} sites; expected at most {MAX_SITES}")
    for site, symbol in enumerate(crystal.species):
        if not _is_element(symbol):
            name = f"{symbol}{site}" if labels is None else labels[site]
            raise StructureError(f"site {name}: unknown element {symbol!r}; expected a chemical symbol")
    if not (np.isfinite(crystal.lattice).all() and np.isfinite(crystal.frac_coords).all()):
        raise StructureError("a lattice vector or coordinate is not a finite number; expected Å and fractions")
    lattice = crystal.lattice
    coords = crystal.frac_coords
    if _smallest_height(lattice) < SMALLEST_HEIGHT:  # skewed or flat
        lattice = _reduced(lattice)
        coords = coords @ crystal.lattice @ np.linalg.inv(lattice)
    # Rounding finds the nearest image exactly for distances below half the smallest height.
    offsets = coords[:, None] - coords
    cartesian = (offsets - np.rint(offsets)) @ lattice
    squared = np.einsum("ijk,ijk->ij", cartesian, cartesian)
    np.fill_diagonal(squared, np.inf)
    nearest = int(squared.argmin())
    if squared.flat[nearest] < SHORTEST_DISTANCE**2:
        first, second = divmod(nearest, crystal.nsites)
        if labels is None:
            labels = [f"{element}{index}" for index, element in enumerate(crystal.species)]
        raise StructureError(
            f"sites {labels[first]} and {labels[second]} are {squared.flat[nearest] ** 0.5:.3f} Å apart; "
            f"expected at least {SHORTEST_DISTANCE} Å"
        )


@cache
def _is_element(symbol: str) -> bool:
    from pymatgen.core.periodic_table import Element  # lazy: pymatgen takes a second

    return bool(Element.is_valid_symbol(symbol))


def _smallest_height(lattice: NDArray[np.float64]) -> float:
    areas = np.linalg.norm(np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1)
    return float(abs(np.linalg.det(lattice)) / max(areas.max(), 1e-9))


def _reduced(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    from moyopy import minkowski_reduce  # only skewed cells need it

    flat = (
        f"a cell of {abs(np.linalg.det(lattice)):.3g} Å^3 is flat; expected {SMALLEST_HEIGHT} Å or more between faces"
    )
    try:
        reduced = np.array(minkowski_reduce(lattice.tolist())[0])
    except ValueError as error:
        raise StructureError(flat) from error
    if _smallest_height(reduced) < SMALLEST_HEIGHT:
        raise StructureError(flat)
    return reduced
