"""Gene to crystals: free parameters such that atoms do not overlap and the space group is the one asked for."""

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.errors import RealizationError, StructureError
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.lattices import random_shape
from wyloop.models.wyckoff.packing import Packing, overlap, packing, parameter_bounds, shortest_contact_ratio

CONTACT_SCALES = (1.0, 0.9, 0.8)  # of the contact distances asked for, start after start
SHORTEST_RATIO = 0.6  # of a contact distance: known crystals with short bonds reach it, overlapping atoms do not
STARTS_PER_CRYSTAL = 3  # before the search for one more crystal is given up
MIN_STARTS = 12  # before a gene is given up
N_SHAKES = 4  # of a minimum that has more symmetry than the gene
SHAKE = 0.2  # Å, first displacement; grows with each shake
SHAKE_SHAPE = 0.03  # first change of the lattice's shape parameters
SHAKE_SCALE = 0.9  # of the contact distances, with each shake: wide contacts pull back to the symmetric minimum
N_TRIALS = 8  # random points looked at before one is minimised
MAX_ITERATIONS = 60


def realize(
    gene: Gene, volume_per_atom: float, *, seed: int, n_starts: int = 4, time_limit: float = 5.0
) -> list[Crystal]:
    """Build crystals of a gene.

    Args:
        gene: The gene, canonical or not.
        volume_per_atom: Å³.
        seed: Seed of the random starts; the same seed gives the same crystals, unless time runs out.
        n_starts: Crystals wanted; a gene without any free parameter has one.
        time_limit: Processor time after which no new start is made, s; a busy machine does not change the result.

    Returns:
        Standard primitive cells whose gene is `canonical(gene)`, the one with the widest contacts first.

    Raises:
        RealizationError: No start kept its distances and its space group.
    """
    if not (np.isfinite(volume_per_atom) and volume_per_atom > 0.0):
        raise RealizationError(f"volume per atom {volume_per_atom!r} for {gene}; expected a positive number of Å^3")
    wanted = canonical(gene)
    deadline = time.thread_time() + time_limit
    search = _Search(wanted, packing(wanted, volume_per_atom), np.random.default_rng(seed), deadline)
    for start in range(max(n_starts * STARTS_PER_CRYSTAL, MIN_STARTS)):
        search.start(CONTACT_SCALES[start % len(CONTACT_SCALES)])
        if len(search.found) == n_starts or not search.problem.n_parameters or search.is_out_of_time:
            break
    if not search.found:
        raise RealizationError(
            f"no crystal of {search.wanted} at {volume_per_atom:.1f} Å^3/atom: its nearest atoms come to "
            f"{search.best_ratio:.2f} of their contact distance (expected {SHORTEST_RATIO}), or it always has more "
            "symmetry; try another volume or gene"
        )
    return [crystal for _, crystal in sorted(search.found, key=lambda pair: -pair[0])]


@dataclass
class _Search:
    """The crystals found so far for one gene."""

    wanted: Gene
    problem: Packing
    rng: np.random.Generator
    deadline: float
    found: list[tuple[float, Crystal]] = field(default_factory=list)
    best_ratio: float = 0.0

    @property
    def is_out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return time.thread_time() > self.deadline

    def start(self, scale: float) -> None:
        """Minimise from a new random point and keep the crystal if its distances and symmetry are right."""
        parameters = _minimise(self.problem, _random_point(self.problem, self.rng, scale), scale, self.deadline)
        for shake in range(N_SHAKES + 1):
            ratio = shortest_contact_ratio(self.problem, parameters)
            self.best_ratio = max(self.best_ratio, ratio)
            if ratio >= SHORTEST_RATIO:
                crystal = _exact(self.wanted, self.problem.crystal(parameters))
                if crystal is not None:
                    self.found.append((ratio, crystal))
                    return
            elif shake == 0:
                return  # the distances of a minimum do not improve by shaking
            if not self.problem.n_parameters or self.is_out_of_time:
                return
            scale *= SHAKE_SCALE
            shaken = _shaken(self.problem, self.rng, parameters, shake + 1)
            parameters = _minimise(self.problem, shaken, scale, self.deadline)


def _random_point(problem: Packing, rng: np.random.Generator, scale: float) -> NDArray[np.float64]:
    """Return the best of a few random points."""
    best, lowest = np.zeros(problem.n_parameters), np.inf
    for _ in range(N_TRIALS if problem.n_parameters else 0):
        point = rng.random(problem.n_parameters)
        point[: problem.n_shape_parameters] = random_shape(problem.crystal_system, rng)
        energy = overlap(problem, point, scale)[0]
        if energy < lowest:
            best, lowest = point, energy
    return best


def _shaken(
    problem: Packing, rng: np.random.Generator, parameters: NDArray[np.float64], strength: int
) -> NDArray[np.float64]:
    n_shape = problem.n_shape_parameters
    spread = np.full(problem.n_parameters, SHAKE / problem.volume ** (1 / 3))
    spread[:n_shape] = SHAKE_SHAPE
    return np.asarray(parameters + strength * spread * rng.normal(size=problem.n_parameters))


def _minimise(problem: Packing, parameters: NDArray[np.float64], scale: float, deadline: float) -> NDArray[np.float64]:
    if not problem.n_parameters:
        return parameters
    from scipy.optimize import minimize  # 0.3 s, and only searches need it

    def stop_in_time(_: NDArray[np.float64]) -> None:
        if time.thread_time() > deadline:
            raise StopIteration

    bounds = parameter_bounds(problem)
    result = minimize(
        lambda point: overlap(problem, point, scale),
        np.clip(parameters, *bounds.T),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=stop_in_time,
        options={"maxiter": MAX_ITERATIONS},
    )
    return np.asarray(result.x)


def _exact(wanted: Gene, crystal: Crystal) -> Crystal | None:
    """Return the standard primitive cell if its gene is the wanted one."""
    try:
        standard = standardize(crystal)
        return standard if encode(standard) == wanted else None
    except StructureError:
        return None
