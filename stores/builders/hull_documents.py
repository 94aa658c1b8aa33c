"""What hulls the materials of one chemical system make, and what these say of the materials: pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from wyloop.models.screening.hull import Entry, decompose
from wyloop.stores.documents.base import checked
from wyloop.stores.documents.hulls import HullDocument
from wyloop.stores.materials import MethodEnergy
from wyloop.stores.methods import FORCE_FIELD, JUDGES
from wyloop.stores.records import digest, object_id

DIGITS = 10  # of an energy above the hull in eV/atom: what is below is the rounding of the solver

JUDGED = "judged:"
"""Before the id of a material that is held against the hull of another method than its own."""


@dataclass(frozen=True)
class Phase:
    """A material that competes, by one method."""

    identity: str
    amounts: Mapping[str, int]
    formation_energy_per_atom: float
    """eV/atom."""
    last_updated: datetime

    @property
    def entry(self) -> Entry:
        """What the hull is computed of."""
        return Entry(self.amounts, self.formation_energy_per_atom, self.identity)


@dataclass(frozen=True)
class MaterialEnergies:
    """A material of the chemical system, with its energies."""

    material_id: str
    formula_pretty: str
    amounts: Mapping[str, int]
    energies: tuple[MethodEnergy, ...]
    energy_method: str
    """The method that stands for it."""
    last_updated: datetime


@dataclass(frozen=True)
class HullInputs:
    """All that the hulls of one chemical system are made of."""

    chemsys: str
    materials: tuple[MaterialEnergies, ...]
    phases: Mapping[str, tuple[Phase, ...]]
    """Stable materials of the subsystems, by method."""


@dataclass(frozen=True)
class Told:
    """What the hulls say of a material; distance in eV/atom."""

    energies: tuple[MethodEnergy, ...]
    energy_above_hull: float | None
    hull_id: str | None


@dataclass(frozen=True)
class HullOutputs:
    """The hull documents of one chemical system, and what they say of each material."""

    chemsys: str
    hulls: tuple[dict[str, Any], ...]
    told: Mapping[str, Told]


def hull_id(chemsys: str, method: str) -> str:
    """Return the identity of the hull of a chemical system by one method."""
    return f"{chemsys}|{method}"


def hulls_of(inputs: HullInputs) -> HullOutputs:
    """Compute the hulls of a chemical system, one for each method, and hold each material against its own.

    A material that only a force field knows is held against the hulls of `JUDGES` too: the largest distance counts.
    """
    methods = {energy.method for material in inputs.materials for energy in material.energies}
    judges = {judge for material in inputs.materials for judge in JUDGES.get(material.energy_method, ())}
    methods |= {judge for judge in judges if inputs.phases.get(judge)}
    hulls: list[dict[str, Any]] = []
    distances: dict[str, dict[str, float]] = {}
    for method in sorted(methods):
        hull, distances[method] = _hull(inputs, method)
        hulls.append(hull)
    told = {material.material_id: _told(inputs.chemsys, material, distances) for material in inputs.materials}
    return HullOutputs(inputs.chemsys, tuple(hulls), told)


def _hull(inputs: HullInputs, method: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the hull by one method, and the distances to it of its materials and of those that it judges."""
    own = [
        _phase(material, energy)
        for material in inputs.materials
        for energy in material.energies
        if energy.method == method
    ]
    own_ids = {phase.identity for phase in own}
    judged = [
        _phase(material, energy)
        for material in inputs.materials
        for energy in material.energies
        if energy.method == material.energy_method and method in JUDGES.get(energy.method, ())
    ]
    below = {phase.identity: phase for phase in inputs.phases.get(method, ())}
    competitors = [phase.entry for phase in (*own, *(below[identity] for identity in sorted(below)))]
    used: set[str] = set()
    found: dict[bool, dict[str, float]] = {}
    for is_own, phases in ((True, own), (False, judged)):
        found[is_own] = {}
        for phase in phases:
            mixture = decompose(phase.amounts, competitors)
            distance = phase.formation_energy_per_atom - mixture.energy_per_atom
            found[is_own][phase.identity] = round(max(0.0, distance), DIGITS) + 0.0
            used.update(identity for identity, _ in mixture.phases if identity in below)
    newest = max(phase.last_updated for phase in (*own, *judged, *(below[identity] for identity in used)))
    phases = [below[identity] for identity in sorted(used - own_ids)]
    # a crystal that both the judge and we computed is told apart by what it is judged as
    return _document(inputs, method, own, phases, found[True], newest), found[True] | {
        f"{JUDGED}{identity}": distance for identity, distance in found[False].items()
    }


def stable_phases(hull: Mapping[str, Any]) -> list[Phase]:
    """Return the materials of a hull's own chemical system that lie on it, below the elements at zero."""
    elements = hull["chemsys"].split("-")
    return [
        Phase(
            entry["identity"],
            {element: int(amount) for element, amount in zip(elements, entry["amounts"], strict=True)},
            entry["formation_energy_per_atom"],
            entry["last_updated"],
        )
        for entry in hull["entries"]
        if entry["energy_above_hull"] == 0 and entry["formation_energy_per_atom"] < 0
    ]


def _phase(material: MaterialEnergies, energy: MethodEnergy) -> Phase:
    return Phase(material.material_id, material.amounts, energy.formation_energy_per_atom, material.last_updated)


def _document(
    inputs: HullInputs,
    method: str,
    own: Sequence[Phase],
    phases: Sequence[Phase],
    distances: Mapping[str, float],
    last_updated: datetime,
) -> dict[str, Any]:
    identity = hull_id(inputs.chemsys, method)
    formulas = {material.material_id: material.formula_pretty for material in inputs.materials}
    elements = inputs.chemsys.split("-")
    entries = [
        {
            "identity": phase.identity,
            "formula_pretty": formulas[phase.identity],
            "amounts": np.array([phase.amounts[element] for element in elements], dtype=np.float64),
            "formation_energy_per_atom": phase.formation_energy_per_atom,
            "energy_above_hull": distances[phase.identity],
            "last_updated": phase.last_updated,
        }
        for phase in own
    ]
    content = [[_content(phase) for phase in one] for one in (own, phases)]
    fields = {
        "hull_id": identity,
        "chemsys": inputs.chemsys,
        "method": method,
        "input_hash": digest([*content, last_updated.isoformat()], 32),
        "n_entries": len(entries),
        "entries": entries,
        "phases": [phase.identity for phase in phases],
        "last_updated": last_updated,
    }
    return {"_id": object_id(identity), **checked(HullDocument, fields)}


def _content(phase: Phase) -> list[object]:
    return [
        phase.identity,
        dict(phase.amounts),
        phase.formation_energy_per_atom,
        phase.last_updated.isoformat(),
    ]


def _told(chemsys: str, material: MaterialEnergies, distances: Mapping[str, Mapping[str, float]]) -> Told:
    energies = tuple(
        replace(
            energy,
            energy_above_hull=distances[energy.method][material.material_id],
            hull_id=hull_id(chemsys, energy.method),
        )
        for energy in material.energies
    )
    main = next((energy for energy in energies if energy.method == material.energy_method), None)
    if "-" not in chemsys and material.energy_method == FORCE_FIELD:
        # all that an element competes with is its reference state: DFT's own hull is complete and has the word
        main = next((energy for energy in energies if energy.method != FORCE_FIELD), main)
    if main is None or main.energy_above_hull is None:
        return Told(energies, None, None)
    judged = [(main.energy_above_hull, main.method)]
    for judge in JUDGES.get(main.method, ()):
        if judge in distances:
            judged.append((distances[judge][f"{JUDGED}{material.material_id}"], judge))
    distance, method = max(judged, key=lambda one: one[0])  # the first of equal ones: its own
    return Told(energies, distance, hull_id(chemsys, method))
