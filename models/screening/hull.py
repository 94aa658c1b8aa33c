"""Distances to the convex hull of formation energies; all energies of one hull must come from one method.

The elements, at 0 eV/atom, always belong to the hull. `distance_to_hull` is signed: the formation energy minus the
energy of the best mixture of competing phases, negative for a compound that would be a new ground state.
`energy_above_hull` is the distance to the hull with the compound itself added, so never below zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from wyloop.models.screening.verdict import Verdict

Amounts = Mapping[str, int]
TOLERANCE = 1e-10  # eV/atom; a smaller gain is rounding
MAX_PIVOTS = 500
STABILITY_CUTOFF = 0.1  # eV/atom above the hull, the usual window of metastable compounds


@dataclass(frozen=True)
class Entry:
    """One competing phase."""

    amounts: Amounts
    """Atoms of each element, any multiple of the formula."""
    formation_energy_per_atom: float
    """eV/atom."""
    identity: str = ""
    """Whatever names the phase to the caller."""


@dataclass(frozen=True)
class Decomposition:
    """The mixture of lowest energy at a composition."""

    energy_per_atom: float
    """Energy of the hull there, eV/atom, elements at zero."""
    phases: tuple[tuple[str, float], ...]
    """Identity of each phase (an element's symbol for an element) and its share of the atoms."""


def hull_energy(amounts: Amounts, entries: Sequence[Entry]) -> float:
    """Return the energy of the best mixture of entries and elements at a composition, eV/atom, at most zero."""
    return decompose(amounts, entries).energy_per_atom


def distance_to_hull(amounts: Amounts, formation_energy_per_atom: float, entries: Sequence[Entry]) -> float:
    """Return the signed distance of a compound to the hull of the entries, eV/atom.

    Leave the compound's own entry out of the entries: with it the distance is never negative.
    """
    return formation_energy_per_atom - hull_energy(amounts, entries)


def energy_above_hull(amounts: Amounts, formation_energy_per_atom: float, entries: Sequence[Entry]) -> float:
    """Return the distance of a compound to the hull of the entries and itself, eV/atom, never negative."""
    return max(0.0, distance_to_hull(amounts, formation_energy_per_atom, entries))


def distances_to_hull(compounds: Sequence[tuple[Amounts, float]], entries: Sequence[Entry]) -> list[float]:
    """Return the signed distance of each (amounts, formation energy in eV/atom), of any chemical systems, eV/atom."""
    index = EntriesByElements(entries)
    return [distance_to_hull(amounts, energy, index(amounts)) for amounts, energy in compounds]


class EntriesByElements:
    """Entries found by the elements of a composition: those with no other element, the lowest of each composition."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        lowest: dict[tuple[tuple[str, float], ...], Entry] = {}
        for entry in entries:
            n_atoms = sum(entry.amounts.values())
            key = tuple(sorted((element, round(n / n_atoms, 8)) for element, n in entry.amounts.items() if n))
            if key not in lowest or entry.formation_energy_per_atom < lowest[key].formation_energy_per_atom:
                lowest[key] = entry
        self._by_elements: dict[tuple[str, ...], list[Entry]] = {}
        for key, entry in lowest.items():
            self._by_elements.setdefault(tuple(element for element, _ in key), []).append(entry)
        self._cache: dict[tuple[str, ...], list[Entry]] = {}

    def __call__(self, amounts: Amounts) -> list[Entry]:
        """Return the entries within the elements of a composition."""
        wanted = tuple(sorted(element for element, n in amounts.items() if n))
        if wanted not in self._cache:
            subsets = chain.from_iterable(combinations(wanted, size) for size in range(1, len(wanted) + 1))
            self._cache[wanted] = [entry for subset in subsets for entry in self._by_elements.get(subset, [])]
        return self._cache[wanted]


def decompose(amounts: Amounts, entries: Sequence[Entry]) -> Decomposition:
    """Find the mixture of entries and elements of lowest energy at a composition.

    A linear programme over the atomic shares of the phases, by the revised simplex method started from the elements;
    Bland's rule once progress stalls. Entries with other elements are left out.
    """
    symbols = sorted(element for element, n in amounts.items() if n)
    places = {symbol: place for place, symbol in enumerate(symbols)}
    target = np.array([amounts[symbol] for symbol in symbols], dtype=float)
    target /= target.sum()
    phases = [e for e in entries if all(element in places for element, n in e.amounts.items() if n)]
    columns = np.zeros((len(symbols), len(symbols) + len(phases)))
    columns[:, : len(symbols)] = np.eye(len(symbols))
    energies = np.zeros(columns.shape[1])
    for column, entry in enumerate(phases, start=len(symbols)):
        n_atoms = sum(entry.amounts.values())
        energies[column] = entry.formation_energy_per_atom
        for element, n in entry.amounts.items():
            if n:
                columns[places[element], column] = n / n_atoms
    basis, shares = _simplex(columns, energies, target)
    names = symbols + [entry.identity for entry in phases]
    mixture = sorted((names[column], float(share)) for column, share in zip(basis, shares, strict=True) if share > 1e-9)
    return Decomposition(float(energies[basis] @ shares), tuple(mixture))


def _simplex(
    columns: NDArray[np.float64], energies: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[list[int], NDArray[np.float64]]:
    """Minimise `energies @ x` with `columns @ x = target`, `x >= 0`; the first columns are the unit matrix.

    Returns:
        The basic columns and their values, shape (n_elements,).
    """
    basis = list(range(len(target)))
    shares = target.copy()
    for pivot in range(MAX_PIVOTS):
        matrix = columns[:, basis]
        gains = energies - np.linalg.solve(matrix.T, energies[basis]) @ columns
        gains[basis] = 0.0
        is_stalled = pivot >= MAX_PIVOTS // 2  # then Bland's rule, which can't cycle
        entering = int(np.argmax(gains < -TOLERANCE)) if is_stalled else int(np.argmin(gains))
        if gains[entering] >= -TOLERANCE:
            break
        direction = np.linalg.solve(matrix, columns[:, entering])
        ratios = np.full(len(basis), np.inf)
        leaves = direction > 1e-9
        ratios[leaves] = shares[leaves] / direction[leaves]
        least = ratios.min()
        ties = [place for place in range(len(basis)) if ratios[place] <= least + 1e-12]
        leaving = min(ties, key=lambda place: basis[place]) if is_stalled else ties[0]
        basis[leaving] = entering
        shares = np.maximum(np.linalg.solve(columns[:, basis], target), 0.0)
    return basis, shares


def predicted_stability(
    amounts: Amounts,
    formation_energy_per_atom: float,
    entries: Sequence[Entry],
    *,
    cutoff: float = STABILITY_CUTOFF,
    uncertainty: float = 0.0,
) -> Verdict:
    """Judge a predicted formation energy against the hull.

    Args:
        amounts: Atoms of each element.
        formation_energy_per_atom: Prediction, eV/atom.
        entries: Competing phases of the same method.
        cutoff: Largest distance to the hull that passes, eV/atom.
        uncertainty: Standard deviation of the prediction, eV/atom, given in the reason.

    Returns:
        Value: the signed distance to the hull without the compound, eV/atom.
    """
    hull = decompose(amounts, entries)
    distance = formation_energy_per_atom - hull.energy_per_atom
    spread = f" ± {uncertainty:.3f}" if uncertainty else ""
    phases = " + ".join(name for name, _ in hull.phases)
    reason = f"{distance:+.3f}{spread} eV/atom from {phases}; at most {cutoff:+.3f}"
    return Verdict("predicted_stability", bool(distance <= cutoff), distance, "eV/atom", reason)


EntryLookup = Callable[[Amounts], Sequence[Entry]]
"""Composition to its competing phases, such as `EntriesByElements(entries)`."""
