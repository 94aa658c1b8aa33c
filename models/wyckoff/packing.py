"""The free parameters of a gene as numbers, the crystal they make, and how badly its atoms overlap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.contacts import contact_distance
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.lattices import lattice, lattice_derivatives, shape_bounds
from wyloop.models.wyckoff.tables import operators


@dataclass(frozen=True)
class Packing:
    """A gene at a given volume, ready to be evaluated at any values of its free parameters.

    A parameter vector holds the shape of the lattice first, then the free coordinates of each orbit in turn.
    """

    crystal_system: str
    volume: float
    """Volume of the conventional cell, Å³."""
    species: tuple[str, ...]
    """Element of each atom of the conventional cell, orbit by orbit."""
    linear: NDArray[np.float64]
    """Fractional coordinates by free coordinates, shape (natoms, 3, n_coordinates)."""
    constant: NDArray[np.float64]
    """Fractional coordinates at zero, shape (natoms, 3)."""
    first_atoms: NDArray[np.int64]
    """Index of the first atom of each orbit, shape (n_orbits,)."""
    multiplicities: NDArray[np.float64]
    """Atoms of each orbit, shape (n_orbits,)."""
    contacts: NDArray[np.float64]
    """Contact distance of each orbit's first atom to each atom, shape (n_orbits, natoms), Å."""

    @property
    def n_shape_parameters(self) -> int:
        """Free parameters of the lattice."""
        return len(shape_bounds(self.crystal_system))

    @property
    def n_parameters(self) -> int:
        """Free parameters of the lattice and of all orbits."""
        return self.n_shape_parameters + int(self.linear.shape[2])

    def lattice(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the conventional lattice, vectors as rows, Å."""
        return lattice(self.crystal_system, self.volume, parameters[: self.n_shape_parameters])

    def frac_coords(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fractional coordinates in the conventional cell, shape (natoms, 3)."""
        return np.asarray(self.linear @ parameters[self.n_shape_parameters :] + self.constant)

    def crystal(self, parameters: NDArray[np.float64]) -> Crystal:
        """Return the conventional cell."""
        return Crystal(self.lattice(parameters), self.species, self.frac_coords(parameters) % 1.0)


def packing(gene: Gene, volume_per_atom: float) -> Packing:
    """Prepare a gene at a volume per atom, Å³."""
    n_coordinates, n_atoms = 0, 0
    blocks, species, first_atoms = [], [], []
    for element, letter in gene.orbits:
        maps = operators(gene.space_group_number, letter)
        free = np.flatnonzero(np.abs(maps[:, :, :3]).sum(axis=(0, 1)))
        blocks.append((maps, free, n_coordinates))
        first_atoms.append(n_atoms)
        species += [element] * len(maps)
        n_coordinates += len(free)
        n_atoms += len(maps)
    linear = np.zeros((n_atoms, 3, n_coordinates))
    constant = np.concatenate([maps[:, :, 3] for maps, _, _ in blocks])
    for (maps, free, column), atom in zip(blocks, first_atoms, strict=True):
        linear[atom : atom + len(maps), :, column : column + len(free)] = maps[:, :, free]
    contacts = np.array([[contact_distance(element, other) for other in species] for element, _ in gene.orbits])
    multiplicities = np.array([len(maps) for maps, _, _ in blocks], dtype=float)
    system = gene.space_group.crystal_system
    return Packing(
        system,
        volume_per_atom * n_atoms,
        tuple(species),
        linear,
        constant,
        np.array(first_atoms),
        multiplicities,
        contacts,
    )


@dataclass(frozen=True)
class _Pairs:
    """Pairs of atoms nearer than a reach, from each orbit's first atom."""

    orbits: NDArray[np.int64]
    atoms: NDArray[np.int64]
    offsets: NDArray[np.float64]
    """Fractional, from the atom to the orbit's first atom."""
    vectors: NDArray[np.float64]
    """The same, Cartesian, Å."""
    distances: NDArray[np.float64]


def _pairs(
    problem: Packing, vectors: NDArray[np.float64], coords: NDArray[np.float64], reach: NDArray[np.float64]
) -> _Pairs:
    """List pairs within `reach` (n_orbits, natoms), Å; no atom pairs with itself but with its images."""
    volume = abs(float(np.linalg.det(vectors)))
    heights = volume / np.linalg.norm(np.cross(vectors[[1, 2, 0]], vectors[[2, 0, 1]]), axis=1)
    ranges = [np.arange(-n, n + 1) for n in np.floor(reach.max() / heights + 0.5).astype(int)]
    images = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
    offsets = coords[problem.first_atoms][:, None] - coords
    offsets -= np.rint(offsets)
    cartesian = (offsets @ vectors)[:, :, None] + images @ vectors
    squared = np.einsum("ijkl,ijkl->ijk", cartesian, cartesian)
    squared[np.arange(len(problem.first_atoms)), problem.first_atoms, len(images) // 2] = np.inf
    orbits, atoms, cells = np.nonzero(squared < reach[:, :, None] ** 2)
    distances = np.sqrt(squared[orbits, atoms, cells])
    return _Pairs(orbits, atoms, offsets[orbits, atoms] + images[cells], cartesian[orbits, atoms, cells], distances)


def overlap(problem: Packing, parameters: NDArray[np.float64], scale: float) -> tuple[float, NDArray[np.float64]]:
    """Return a soft overlap energy of the conventional cell and its gradient.

    The energy is the sum over pairs nearer than `scale` times their contact distance of the squared missing part of
    that distance; it is zero where nothing overlaps.

    Returns:
        Energy, dimensionless, and its gradient by the parameters, shape (n_parameters,).
    """
    n_shape = problem.n_shape_parameters
    vectors, coords = problem.lattice(parameters), problem.frac_coords(parameters)
    reach = scale * problem.contacts
    pairs = _pairs(problem, vectors, coords, reach)
    sigma = reach[pairs.orbits, pairs.atoms]
    missing = 1.0 - pairs.distances / sigma
    weights = problem.multiplicities[pairs.orbits]
    energy = float((weights * missing**2).sum())
    slopes = -2.0 * weights * missing / (sigma * np.maximum(pairs.distances, 1e-9))
    forces = slopes[:, None] * pairs.vectors  # by the Cartesian pair vector
    by_offset = forces @ vectors.T
    by_coords = np.zeros_like(coords)
    np.add.at(by_coords, problem.first_atoms[pairs.orbits], by_offset)
    np.subtract.at(by_coords, pairs.atoms, by_offset)
    gradient = np.empty(problem.n_parameters)
    gradient[n_shape:] = np.einsum("ij,ijk->k", by_coords, problem.linear)
    if n_shape:
        by_lattice = pairs.offsets.T @ forces
        derivatives = lattice_derivatives(problem.crystal_system, problem.volume, parameters[:n_shape])
        gradient[:n_shape] = np.einsum("kij,ij->k", derivatives, by_lattice)
    return energy, gradient


def shortest_contact_ratio(problem: Packing, parameters: NDArray[np.float64]) -> float:
    """Return the smallest distance of two atoms over their contact distance, at most 2."""
    reach = 2.0 * problem.contacts
    pairs = _pairs(problem, problem.lattice(parameters), problem.frac_coords(parameters), reach)
    ratios = pairs.distances / problem.contacts[pairs.orbits, pairs.atoms]
    return float(ratios.min(initial=2.0))


def parameter_bounds(problem: Packing) -> NDArray[np.float64]:
    """Return lower and upper bounds, shape (n_parameters, 2): lattices are limited, coordinates periodic and free."""
    bounds = np.tile([-np.inf, np.inf], (problem.n_parameters, 1))
    bounds[: problem.n_shape_parameters] = shape_bounds(problem.crystal_system)
    return bounds
