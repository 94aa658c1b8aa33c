"""How far two compositions, or two genes, are apart: the least work that moves the atoms of one onto the other's."""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core.periodic_table import Element

from wyloop.models.wyckoff.gene import Gene, images
from wyloop.models.wyckoff.tables import wyckoff_position

STEPS_A_POSITION = 10.0
"""Places on the Mendeleev scale that count as much as another Wyckoff position."""
N_NUMBERED = 103  # elements with a Mendeleev number


@lru_cache(maxsize=200)
def mendeleev_number(symbol: str) -> float:
    """Return an element's place on the Mendeleev scale: like elements are neighbours, He is 1 and H 103.

    Elements after lawrencium have none and follow in the order of their atomic numbers.

    Source: Pettifor, doi:10.1016/0038-1098(84)90765-8, as pymatgen has it.
    """
    element = Element(symbol)
    return float(element.Z) if element.Z > N_NUMBERED else float(element.mendeleev_no)


def composition_distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the element mover's distance of two compositions, in places on the Mendeleev scale an atom.

    It is a metric on reduced formulas: 0 for the same one, 1 between NaCl and the salt whose cation is next to Na at
    twice the distance; at most 102.

    Args:
        one: Amount of each element, in any unit.
        other: The same of the other composition.

    Source: Hargreaves et al., doi:10.1021/acs.chemmater.0c03381, on Pettifor's scale; on a line the least work is the
    area between the cumulative distributions.
    """
    changes: dict[float, float] = {}
    for amounts, sign in ((one, 1.0), (other, -1.0)):
        total = sum(amounts.values())
        for symbol, amount in amounts.items():
            place = mendeleev_number(symbol)
            changes[place] = changes.get(place, 0.0) + sign * amount / total
    places = sorted(changes)
    carried = np.cumsum([changes[place] for place in places])[:-1]
    return float(np.abs(carried) @ np.diff(places))


def gene_distance(one: Gene, other: Gene) -> float:
    """Return how far two genes are apart: 0 if and only if they are the same.

    To move an atom costs a tenth of the places between the two elements on the Mendeleev scale, and 1 if it comes to
    another Wyckoff position; every position of another space group is another one. The distance is the least cost of
    an atom over all ways to move them, and over the images of one gene under the Euclidean normalizer. It is a metric.
    """
    work = composition_distance(one.amounts, other.amounts) / STEPS_A_POSITION
    if one.space_group_number != other.space_group_number:
        return work + 1.0
    shares = _shares(one)
    of_images = [_shares(image) for image in images(other)]
    # elements and letters moved apart from each other cost no more than together
    bounds = [work + _moved(_letters(shares), _letters(image)) for image in of_images]
    least = np.inf
    for place in np.argsort(bounds, kind="stable"):
        if bounds[place] < least:
            least = min(least, _least_cost(shares, of_images[place]))
    return float(least)


def _letters(shares: Mapping[tuple[str, str], float]) -> dict[str, float]:
    letters: dict[str, float] = {}
    for (_, letter), share in shares.items():
        letters[letter] = letters.get(letter, 0.0) + share
    return letters


def _moved(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the share of the atoms that has to change its letter."""
    return 0.5 * sum(abs(one.get(letter, 0.0) - other.get(letter, 0.0)) for letter in {*one, *other})


def _shares(gene: Gene) -> dict[tuple[str, str], float]:
    """Return the share of the atoms on each element and letter."""
    counts: Counter[tuple[str, str]] = Counter()
    for element, letter in gene.orbits:
        counts[element, letter] += wyckoff_position(gene.space_group_number, letter).multiplicity
    total = sum(counts.values())
    return {key: count / total for key, count in counts.items()}


def _least_cost(one: Mapping[tuple[str, str], float], other: Mapping[tuple[str, str], float]) -> float:
    """Solve the transport problem between two distributions over elements and letters, exactly."""
    from scipy.optimize import linprog  # a third of a second

    cost = np.array([[_step(a, b) for b in other] for a in one])
    n, m = cost.shape
    leaves = np.kron(np.eye(n), np.ones(m))
    arrives = np.kron(np.ones(n), np.eye(m))
    amounts: NDArray[np.float64] = np.concatenate([list(one.values()), list(other.values())])
    # one of the equations follows from the others
    solved = linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives])[:-1], b_eq=amounts[:-1], method="highs")
    return max(0.0, float(solved.fun))


def _step(one: tuple[str, str], other: tuple[str, str]) -> float:
    places = abs(mendeleev_number(one[0]) - mendeleev_number(other[0]))
    return places / STEPS_A_POSITION + (one[1] != other[1])
