"""Energies of the elements, the zero of formation energies: reference crystals and CHGNet's table of energies."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from ase.spacegroup import crystal as spacegroup_crystal

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.wyckoff.encode import standardize

SIMPLE_PROTOTYPES = ("bcc", "diamond", "fcc", "hcp")


def elemental_crystal(element: str) -> Crystal:
    """Return the standard primitive cell of an element's reference crystal, as published.

    That is the ground state, or where noted in elemental_crystals.json a cheaper phase close to it: molecular solids
    of H2, N2, O2, F2 and the halogens, rhombohedral S6.

    Raises:
        CalculatorError: There is no reference crystal of the element.

    Source: elemental_crystals.json names one for every entry; for the others ase.data.reference_states (Ashcroft and
        Mermin, Solid State Physics, 1976).
    """
    entry = _published_crystals().get(element)
    if entry is not None:
        sites = entry["sites"]
        atoms = spacegroup_crystal(
            [element] * len(sites),
            basis=sites,
            spacegroup=entry["space_group_number"],
            setting=entry.get("setting", 1),
            cellpar=entry["cell"],
        )
        return standardize(Crystal.from_ase(atoms), symprec=0.01)
    state = reference_states[atomic_numbers[element]] if element in atomic_numbers else None
    if state is None or state["symmetry"] not in SIMPLE_PROTOTYPES:
        raise CalculatorError(
            f"no reference crystal of {element!r}; expected an element up to Pu but Po, At, Rn, Fr, Ra"
        )
    return standardize(Crystal.from_ase(bulk(element)), symprec=0.01)


def reference_energies() -> dict[str, float]:
    """Return CHGNet's energy of every supported element in its reference state, eV/atom.

    The energies are on the Materials Project's corrected scale, as CHGNet's are. elemental_references.json says of
    each whether it was relaxed or fitted.
    """
    return {element: float(entry["energy_per_atom"]) for element, entry in _references()["elements"].items()}


def formation_energy_per_atom(
    energy_per_atom: float, amounts: Mapping[str, int], references: Mapping[str, float]
) -> float:
    """Return the energy of formation from the elements, eV/atom.

    Args:
        energy_per_atom: Energy of the compound, eV/atom.
        amounts: Atoms of each element in any number of formula units.
        references: Energy of each element by the same method, eV/atom.

    Raises:
        CalculatorError: An element has no reference.
    """
    missing = sorted(set(amounts) - set(references))
    if missing:
        raise CalculatorError(f"no reference energy of {', '.join(missing)}; calculate it with the same method first")
    n_atoms = sum(amounts.values())
    return energy_per_atom - sum(n * references[element] for element, n in amounts.items()) / n_atoms


@cache
def _published_crystals() -> dict[str, Any]:
    text = Path(__file__).with_name("elemental_crystals.json").read_text(encoding="utf-8")
    crystals: dict[str, Any] = json.loads(text)["crystals"]
    return crystals


@cache
def _references() -> dict[str, Any]:
    text = Path(__file__).with_name("elemental_references.json").read_text(encoding="utf-8")
    references: dict[str, Any] = json.loads(text)
    return references
