"""Stable, unique and novel: relaxed crystals against the hull and the crystals of the data."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sun_data import Row, crystals

from wyloop.models.crystal import Crystal
from wyloop.models.physics.references import formation_energy_per_atom
from wyloop.models.screening.hull import Entry, distances_to_hull
from wyloop.models.screening.novelty import novelty_of_structure
from wyloop.models.wyckoff.matching import matching_groups

Formula = tuple[tuple[str, int], ...]


def formation_energies(
    relaxed: Sequence[Crystal], energies: Sequence[float], references: Mapping[str, float]
) -> list[float]:
    """Return formation energies from energies of the same calculator as the references, all in eV/atom."""
    return [
        formation_energy_per_atom(energy, crystal.amounts, references)
        for crystal, energy in zip(relaxed, energies, strict=True)
    ]


def distances_above(relaxed: Sequence[Crystal], energies: Sequence[float], data: Sequence[Row]) -> NDArray[np.float64]:
    """Return how far formation energies lie above the hull of the data (below it: negative), shape (n,), eV/atom."""
    entries = [Entry(row["amounts"], row["formation_energy_per_atom"], row["name"]) for row in data]
    pairs = [(crystal.amounts, energy) for crystal, energy in zip(relaxed, energies, strict=True)]
    return np.array(distances_to_hull(pairs, entries) if pairs else [], dtype=float)


def unique_and_novel(relaxed: Sequence[Crystal], data: Sequence[Row]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the first of each group of matching crystals, and those that match none of the data."""
    by_formula: dict[Formula, list[int]] = {}
    for place, crystal in enumerate(relaxed):
        by_formula.setdefault(formula(crystal.amounts), []).append(place)
    of_data = {row["name"]: formula(row["amounts"]) for row in data}
    known: dict[Formula, dict[str, Crystal]] = {}
    for name, crystal in crystals([name for name, kind in of_data.items() if kind in by_formula]).items():
        known.setdefault(of_data[name], {})[name] = crystal
    is_unique, is_novel = np.zeros(len(relaxed), bool), np.zeros(len(relaxed), bool)
    for kind, places in by_formula.items():
        for group in matching_groups([relaxed[place] for place in places]):
            is_unique[places[group[0]]] = True
        for place in places:
            is_novel[place] = novelty_of_structure(relaxed[place], known.get(kind, {})).passed
    return is_unique, is_novel


def formula(amounts: Mapping[str, int]) -> Formula:
    """Return the reduced formula."""
    divisor = int(np.gcd.reduce(list(amounts.values())))
    return tuple(sorted((element, n // divisor) for element, n in amounts.items()))
