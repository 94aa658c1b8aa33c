"""Conventional lattices of the seven crystal systems at a given volume, by their free shape parameters."""

import math

import numpy as np
from numpy.typing import NDArray

DERIVATIVE_STEP = 1e-5

_LONG_AXIS = (-math.log(4.0), math.log(16.0))  # c/a of one unique axis: layered polytypes are long
_AXIS = (-math.log(5.0), math.log(5.0))
_NEXT_AXIS = (0.0, math.log(4.5))  # b/a and c/b of a reduced cell
_BETA = (0.0, math.radians(45.0))
_ANGLE = (-math.radians(30.0), math.radians(30.0))  # of a reduced cell
_SHAPE_BOUNDS = {
    "cubic": (),
    "tetragonal": (_LONG_AXIS,),
    "trigonal": (_LONG_AXIS,),
    "hexagonal": (_LONG_AXIS,),
    "orthorhombic": (_AXIS, _AXIS),
    "monoclinic": (_AXIS, _AXIS, _BETA),
    "triclinic": (_NEXT_AXIS, _NEXT_AXIS, _ANGLE, _ANGLE, _ANGLE),
}
_RANDOM_SHARE = 0.35  # of the way to a bound, standard deviation of random shapes


def shape_bounds(crystal_system: str) -> NDArray[np.float64]:
    """Return the lower and upper bound of each free parameter of a lattice of fixed volume, shape (n, 2)."""
    return np.array(_SHAPE_BOUNDS[crystal_system], dtype=float).reshape(-1, 2)


def random_shape(crystal_system: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the shape parameters of a sensible lattice, shape (n,)."""
    lower, upper = shape_bounds(crystal_system).T
    steps = rng.normal(size=len(lower)) * _RANDOM_SHARE
    steps = np.where(lower == 0.0, np.abs(steps), steps)
    return np.asarray(np.clip(np.where(steps < 0, -lower, upper) * steps, lower, upper))


def lattice(crystal_system: str, volume: float, shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Build a conventional lattice in the standard setting (unique axis b, hexagonal axes).

    Args:
        crystal_system: Lower-case name.
        volume: Volume of the cell, Å³.
        shape: Logarithms of the axis ratios (c/a alone; b/a and c/a; b/a and c/b if triclinic), then angles minus
            90 degrees in radians (beta alone, or alpha, beta, gamma); shape (n,), within `shape_bounds`.

    Returns:
        Lattice vectors as rows, shape (3, 3), Å.
    """
    ratios, angles = (0.0, 0.0), (0.0, 0.0, 0.0)
    if crystal_system in ("tetragonal", "trigonal", "hexagonal"):
        ratios = (0.0, shape[0])
        if crystal_system != "tetragonal":
            angles = (0.0, 0.0, math.pi / 6)
    elif crystal_system != "cubic":
        ratios = (shape[0], shape[1])
        if crystal_system == "monoclinic":
            angles = (0.0, shape[2], 0.0)
        elif crystal_system == "triclinic":
            ratios = (shape[0], shape[0] + shape[1])
            angles = (shape[2], shape[3], shape[4])
    cosines = [-math.sin(angle) for angle in angles]
    sine = math.sqrt(1.0 - cosines[2] ** 2)
    tilt = (cosines[0] - cosines[1] * cosines[2]) / sine
    height = math.sqrt(max(1.0 - cosines[1] ** 2 - tilt**2, 1e-4))
    unit = np.array([[1.0, 0.0, 0.0], [cosines[2], sine, 0.0], [cosines[1], tilt, height]])
    vectors = unit * np.exp([[0.0], [ratios[0]], [ratios[1]]])
    return np.asarray(vectors * (volume / np.linalg.det(vectors)) ** (1 / 3))


def lattice_derivatives(crystal_system: str, volume: float, shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differentiate the lattice by its shape parameters (central differences of a closed form).

    Returns:
        Shape (n, 3, 3), Å per unit of the parameter.
    """
    derivatives = np.zeros((len(shape), 3, 3))
    for index in range(len(shape)):
        step = np.zeros(len(shape))
        step[index] = DERIVATIVE_STEP
        upper = lattice(crystal_system, volume, shape + step)
        lower = lattice(crystal_system, volume, shape - step)
        derivatives[index] = (upper - lower) / (2 * DERIVATIVE_STEP)
    return derivatives
