"""Other descriptions of one crystal, at random, to prove that its gene depends on none of them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal

NOISE = 1e-4  # Å, standard deviation; a thousandth of the tolerance at which symmetry is found
KINDS = ("origin", "normalizer origin", "order of sites", "rotation", "basis", "supercell", "noise", "all at once")
N_SHEARS = 4
ORIGIN_DENOMINATOR = 12  # origins of the normalizers are at quarters and thirds


def descriptions(crystal: Crystal, standard: Crystal, rng: np.random.Generator) -> Iterator[tuple[str, Crystal]]:
    """Yield one random description of each of `KINDS`.

    Args:
        crystal: The crystal as it was given.
        standard: Its standard primitive cell, whose origin the space group fixes up to the normalizer.
        rng: Random numbers.

    Yields:
        The kind, and the same crystal, or with noise one within it.
    """
    yield KINDS[0], shifted(crystal, rng.random(3))
    yield KINDS[1], shifted(standard, rng.integers(ORIGIN_DENOMINATOR, size=3) / ORIGIN_DENOMINATOR)
    yield KINDS[2], reordered(crystal, rng)
    yield KINDS[3], rotated(crystal, rng)
    yield KINDS[4], in_basis(crystal, random_basis(rng))
    yield KINDS[5], supercell(crystal, random_supercell(rng))
    yield KINDS[6], noisy(crystal, rng)
    whole = supercell(shifted(crystal, rng.random(3)), random_supercell(rng))
    yield KINDS[7], noisy(rotated(in_basis(reordered(whole, rng), random_basis(rng)), rng), rng)


def shifted(crystal: Crystal, shift: NDArray[np.float64]) -> Crystal:
    """Move the origin, fractional coordinates of the cell."""
    return Crystal(crystal.lattice, crystal.species, crystal.frac_coords + shift)


def reordered(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Shuffle the sites."""
    order = rng.permutation(crystal.nsites)
    return Crystal(crystal.lattice, tuple(crystal.species[site] for site in order), crystal.frac_coords[order])


def rotated(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Turn the crystal; a proper rotation, for a mirror image may have another space group."""
    turn, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.diag(triangle))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    return Crystal(crystal.lattice @ turn, crystal.species, crystal.frac_coords)


def in_basis(crystal: Crystal, basis: NDArray[np.int64]) -> Crystal:
    """Describe the crystal by other vectors of the same lattice, rows of a matrix of determinant 1."""
    return Crystal(basis @ crystal.lattice, crystal.species, crystal.frac_coords @ np.linalg.inv(basis))


def random_basis(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a right-handed basis of a lattice: shears and a permutation of the axes."""
    basis = np.eye(3, dtype=np.int64)
    for _ in range(N_SHEARS):
        first, second = rng.choice(3, 2, replace=False)
        shear = np.eye(3, dtype=np.int64)
        shear[first, second] = rng.choice([-1, 1])
        basis = shear @ basis
    order = np.eye(3, dtype=np.int64)[rng.permutation(3)]
    return np.asarray(order @ basis * round(float(np.linalg.det(order))))


def supercell(crystal: Crystal, multiples: NDArray[np.int64]) -> Crystal:
    """Describe the crystal by a larger cell, rows of an integer matrix."""
    n_cells = round(abs(float(np.linalg.det(multiples))))
    to_new = np.linalg.inv(multiples)
    grid = np.stack(np.meshgrid(*[np.arange(n_cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = np.unique(np.round(grid @ to_new % 1.0, 6) % 1.0, axis=0)
    coords = (crystal.frac_coords @ to_new + cells[:, None]).reshape(-1, 3)
    return Crystal(multiples @ crystal.lattice, crystal.species * len(cells), coords)


def random_supercell(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a supercell of two or three cells, skewed ones too."""
    multiples = np.eye(3, dtype=np.int64)
    row, size = rng.integers(3), rng.choice([2, 3])
    multiples[row, row] = size
    multiples[row, :row] = rng.integers(size, size=row)
    return multiples


def noisy(crystal: Crystal, rng: np.random.Generator, noise: float = NOISE) -> Crystal:
    """Move every atom and every lattice vector, normally distributed, Å."""
    moves = rng.normal(scale=noise, size=crystal.frac_coords.shape) @ np.linalg.inv(crystal.lattice)
    lattice = crystal.lattice + rng.normal(scale=noise, size=(3, 3))
    return Crystal(lattice, crystal.species, crystal.frac_coords + moves)
