"""Prototypes of crystals, and crystals made by putting the elements of a compound on the sites of one.

The sites come from pymatgen's copy of the AFLOW prototype library, or from a space group, Wyckoff letters and free
parameters in prototypes.csv; compounds.csv says which compound takes which prototype. Volumes come from atomic radii.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.tables import operators, space_group

HERE = Path(__file__).parent
SITE = re.compile(r"(?P<role>\w+):(?P<letter>\w)(?:\((?P<coordinates>[^)]*)\))?")


@dataclass(frozen=True)
class Prototype:
    """A crystal structure whose sites wait for elements."""

    name: str
    space_group_number: int
    aflow: str
    """Label in the AFLOW library (Mehl et al., doi:10.1016/j.commatsci.2017.01.017), empty if the sites are our own."""
    strukturbericht: str
    roles: tuple[str, ...]
    """Names of the element places: the elements of the library's crystal, or letters of our own."""
    sites: str
    """Places on Wyckoff positions with their free parameters, such as `A:a X:e(0.235,0,0)`, empty with `aflow`."""
    c_over_a: float
    b_over_a: float

    @property
    def source(self) -> str:
        """Where the sites come from, in words."""
        if self.aflow:
            return f"AFLOW prototype {self.aflow} in pymatgen's library"
        return f"space group {self.space_group_number} with {self.sites} and c/a {self.c_over_a}, PyXtal's tables"


@cache
def prototypes() -> dict[str, Prototype]:
    """Read every prototype, by name."""
    with (HERE / "prototypes.csv").open(newline="") as file:
        return {
            row["prototype"]: Prototype(
                name=row["prototype"],
                space_group_number=int(row["space_group_number"]),
                aflow=row["aflow"],
                strukturbericht=row["strukturbericht"],
                roles=tuple(row["roles"].split()),
                sites=row["sites"],
                c_over_a=float(row["c_over_a"] or 1.0),
                b_over_a=float(row["b_over_a"] or 1.0),
            )
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True)
class Compound:
    """A known compound: a prototype and the element on each of its places."""

    prototype: Prototype
    elements: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Text that names the compound and its prototype."""
        return f"{self.prototype.name}-{'-'.join(self.elements)}"


def compounds() -> list[Compound]:
    """Read the compounds in the order of compounds.csv."""
    with (HERE / "compounds.csv").open(newline="") as file:
        return [
            Compound(prototypes()[row["prototype"]], tuple(row["elements"].split())) for row in csv.DictReader(file)
        ]


def decorate(prototype: Prototype, elements: Sequence[str]) -> Crystal:
    """Put elements on the places of a prototype and scale it until the closest atoms touch.

    Args:
        prototype: Where the atoms sit.
        elements: One element a role of the prototype, in the order of its roles; an element may take several.

    Returns:
        A cell whose closest pair of atoms is as far apart as the sum of their covalent radii.

    Raises:
        StructureError: The number of elements is not the number of roles.
    """
    if len(elements) != len(prototype.roles):
        raise StructureError(
            f"{len(elements)} elements ({' '.join(elements)}) for prototype {prototype.name}; "
            f"expected one for each of {' '.join(prototype.roles)}"
        )
    bare = _library_crystal(prototype) if prototype.aflow else _own_crystal(prototype)
    element = dict(zip(prototype.roles, elements, strict=True))
    return _scaled(Crystal(bare.lattice, tuple(element[role] for role in bare.species), bare.frac_coords))


def _library_crystal(prototype: Prototype) -> Crystal:
    # A second to import; pymatgen leaves it out of the names that it exports on purpose.
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY  # type: ignore[attr-defined]

    for entry in AFLOW_PROTOTYPE_LIBRARY:
        tags: dict[str, Any] = entry["tags"]
        if tags["aflow"] != prototype.aflow or prototype.strukturbericht not in ("", tags["strukturbericht"]):
            continue
        crystal = Crystal.from_pymatgen(entry["snl"].structure)
        if set(crystal.species) == set(prototype.roles):
            return crystal
    raise StructureError(
        f"pymatgen's AFLOW library has no {prototype.aflow} {prototype.strukturbericht} of "
        f"{' '.join(prototype.roles)}; correct prototypes.csv"
    )


def _own_crystal(prototype: Prototype) -> Crystal:
    number = prototype.space_group_number
    species: list[str] = []
    frac_coords: list[NDArray[np.float64]] = []
    for site in SITE.finditer(prototype.sites):
        xyz = np.array([float(x) for x in (site["coordinates"] or "0,0,0").split(",")])
        maps = operators(number, site["letter"])
        orbit = (maps[:, :, :3] @ xyz + maps[:, :, 3]) % 1.0
        species += [site["role"]] * len(orbit)
        frac_coords.append(orbit)
    lattice = np.diag([1.0, prototype.b_over_a, prototype.c_over_a])
    if space_group(number).crystal_system in ("trigonal", "hexagonal"):
        lattice[1] = [-0.5, np.sqrt(0.75), 0.0]
    return Crystal(lattice, tuple(species), np.concatenate(frac_coords))


def _scaled(crystal: Crystal) -> Crystal:
    """Scale until the closest atoms are as far apart as the sum of their covalent radii (Cordero et al., in ASE)."""
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in crystal.species])
    images = np.array(list(product(range(-2, 3), repeat=3)))
    differences = crystal.frac_coords[:, None] - crystal.frac_coords[None]
    vectors = (differences[:, :, None] + images) @ crystal.lattice  # (nsites, nsites, n_images, 3), any unit
    distances = np.linalg.norm(vectors, axis=-1)
    ratios = distances / (radii[:, None] + radii)[:, :, None]
    return Crystal(crystal.lattice / ratios[distances > 1e-6].min(), crystal.species, crystal.frac_coords)
