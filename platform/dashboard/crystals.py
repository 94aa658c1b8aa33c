"""Crystals as the page draws them: atoms with their images on the faces of the cell, bonds, and the cell's edges."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import TargetError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.records import JSON

MAX_ATOMS = 600
MAX_CELLS = 4
ON_FACE = 0.02  # of the cell's edge: an atom so near a face is drawn on the opposite one too
BOND = 1.2  # of the sum of the covalent radii
_CORNERS = [np.array(corner, dtype=np.float64) for corner in product((0, 1), repeat=3)]


def drawing(crystal: Crystal, *, cells: int = 1) -> dict[str, JSON]:
    """Return what a viewer draws, plain JSON, lengths in Å.

    Args:
        crystal: The crystal.
        cells: How many cells along each edge.

    Returns:
        `atoms` (element, xyz, colour, radius), `bonds` (pairs of indices), `edges` of the first cell, `cif`, and `note`
        if not all could be drawn.

    Raises:
        TargetError: The number of cells is none that can be drawn.
    """
    from ase.data import atomic_numbers, covalent_radii  # a tenth of a second
    from ase.data.colors import jmol_colors

    if not 1 <= cells <= MAX_CELLS:
        raise TargetError(f"{cells} cells; expected 1 to {MAX_CELLS}")
    while cells > 1 and crystal.nsites * cells**3 > MAX_ATOMS:
        cells -= 1
    species, places = _with_images(crystal, cells)
    is_cut = len(species) > MAX_ATOMS
    species, places = species[:MAX_ATOMS], places[:MAX_ATOMS]
    xyz = places @ crystal.lattice
    numbers = np.array([atomic_numbers.get(symbol, 0) for symbol in species])
    radii = np.array([covalent_radii[number] for number in numbers])
    atoms: list[JSON] = [
        {
            "element": symbol,
            "xyz": [round(float(value), 4) for value in at],
            "colour": "#" + "".join(f"{round(float(part) * 255):02x}" for part in jmol_colors[number]),
            "radius": round(float(radius), 3),
        }
        for symbol, at, number, radius in zip(species, xyz, numbers, radii, strict=True)
    ]
    edges: list[JSON] = [
        [list(map(float, np.round(one @ crystal.lattice, 4))), list(map(float, np.round(other @ crystal.lattice, 4)))]
        for place, one in enumerate(_CORNERS)
        for other in _CORNERS[place + 1 :]
        if np.abs(one - other).sum() == 1
    ]
    return {
        "atoms": atoms,
        "bonds": _bonds(xyz, radii, species),
        "edges": edges,
        "cells": cells,
        "cif": write_cif(crystal),
        "note": f"the first {MAX_ATOMS} atoms are drawn" if is_cut else "",
    }


def cell_of(crystal: Crystal) -> Mapping[str, Any]:
    """Return edges (Å), angles (degrees), volume (Å^3) and number of atoms of a crystal's cell."""
    a, b, c = crystal.lattice
    lengths = [float(np.linalg.norm(edge)) for edge in (a, b, c)]

    def angle(one: Any, other: Any) -> float:  # noqa: ANN401 - vectors
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    return {
        "lengths": lengths,
        "angles": [angle(b, c), angle(a, c), angle(a, b)],
        "volume": crystal.volume,
        "nsites": crystal.nsites,
    }


def _with_images(crystal: Crystal, cells: int) -> tuple[list[str], Any]:
    """Return elements and fractional coordinates of all atoms in so many cells, faces included on both sides."""
    inside = crystal.frac_coords % 1.0
    inside = np.where(inside > 1.0 - 1e-4, 0.0, inside)
    species: list[str] = []
    places = []
    for symbol, place in zip(crystal.species, inside, strict=True):
        ranges = []
        for value in place:
            shifts = list(range(cells))
            if value < ON_FACE:
                shifts.append(cells)
            if value > 1.0 - ON_FACE:
                shifts.append(-1)
            ranges.append(shifts)
        for shift in product(*ranges):
            species.append(symbol)
            places.append(place + np.array(shift))
    return species, np.array(places)


def _bonds(xyz: Any, radii: Any, species: list[str]) -> list[JSON]:  # noqa: ANN401 - arrays
    distances = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    near = (distances < BOND * (radii[:, None] + radii[None])) & (distances > 0.4)
    is_compound = len(set(species)) > 1
    found: list[JSON] = []
    for one, other in zip(*np.nonzero(np.triu(near, 1)), strict=True):
        if not is_compound or species[one] != species[other]:
            found.append([int(one), int(other)])
    return found[: 6 * MAX_ATOMS]
