"""The starter set: known crystals relaxed with CHGNet, some with measured band gaps, that fill an empty database.

Made by make_starter_set.py from prototypes.csv, compounds.csv and band_gaps.csv beside it.
"""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal

PATH = Path(__file__).with_name("starter_set.json.gz")


@dataclass(frozen=True)
class StarterEntry:
    """One crystal of the starter set."""

    structure_id: str
    """Such as `starter-NaCl-225`."""
    crystal: Crystal
    """Standard primitive cell, relaxed with CHGNet within its space group."""
    formula_pretty: str
    space_group_number: int
    energy_per_atom: float
    """eV/atom, on CHGNet's scale."""
    formation_energy_per_atom: float
    """eV/atom, from the elements by CHGNet."""
    band_gap: float | None
    """Measured gap, eV. It is not a PBE gap: use it only to tell insulators from metals, if above 1 eV."""
    band_gap_method: str | None
    """`experiment` wherever there is a gap."""
    band_gap_temperature: float | None
    """K; None where the source gives none."""
    citation: str | None
    """Where the band gap was published."""
    prototype: str
    provenance: str
    """How the crystal was made, in words."""


@cache
def starter_set() -> tuple[StarterEntry, ...]:
    """Return every entry of the starter set, sorted by structure_id."""
    return tuple(
        StarterEntry(
            crystal=Crystal(np.array(row.pop("lattice")), tuple(row.pop("species")), np.array(row.pop("frac_coords"))),
            **row,
        )
        for row in _content()["entries"]
    )


def starter_header() -> dict[str, Any]:
    """Return the header: counts, versions, units, and how the set compares with PBE data."""
    header: dict[str, Any] = _content()["header"]
    return header


def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(PATH.read_bytes()))
    return content
