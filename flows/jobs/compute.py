"""What each kind of calculation computes: plain functions of a stored record, nothing of FireWorks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.dft import DFTSettings, dft_reference_energy, dft_relax_and_static
from wyloop.models.physics.phonons import PhononSettings, gamma_phonons
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import RelaxationSettings, relax_best
from wyloop.models.wyckoff.encode import encode
from wyloop.stores import calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store


@dataclass(frozen=True)
class Outcome:
    """What a calculation gives: numbers by name (units in the documents), a crystal, and what speaks against it."""

    result: dict[str, Any]
    crystal: Crystal | None = None
    problems: tuple[str, ...] = ()


def compute(store: Store, record: CalculationRecord) -> Outcome:
    """Run the function of the record's kind.

    Raises:
        CalculatorError: The calculator is missing, does not know an element, or failed.
        StructureError: The input is unphysical.
    """
    return KINDS[record.kind](store, record)


def _relaxation(_store: Store, record: CalculationRecord) -> Outcome:
    settings = RelaxationSettings(**protocol(record.protocol).settings)
    best = relax_best(record.inputs, settings)
    problems = list(best.problems)
    result: dict[str, Any] = {"converged": best.converged, "n_steps": best.n_steps, "volume_ratio": best.volume_ratio}
    if problems:
        return Outcome(result, best.crystal, tuple(problems))
    gene = encode(best.crystal)
    if str(gene) != record.subject:
        problems.append(f"relaxed into another gene: {gene}")
    energy = formation_energy_per_atom(best.energy_per_atom, best.crystal.amounts, reference_energies())
    result |= {
        "energy_per_atom": best.energy_per_atom,
        "formation_energy_per_atom": energy,
        "max_force": best.max_force,
        "max_stress": best.max_stress,
        "shortest_distance_ratio": best.shortest_distance_ratio,
        "space_group_number": gene.space_group_number,
        "fingerprint": str(gene),
        "wall_time": best.wall_time,
    }
    return Outcome(result, best.crystal, tuple(problems))


def _phonon(store: Store, record: CalculationRecord) -> Outcome:
    relaxed = [found for found in calculations.of_subjects(store, [record.subject]) if found.kind == "relaxation"]
    crystal = next((found.crystal for found in relaxed if found.status == "completed"), None)
    if crystal is None:
        raise CalculatorError(f"{record.subject} is not relaxed; expected its relaxation to be completed first")
    phonons = gamma_phonons(crystal, PhononSettings(**protocol(record.protocol).settings))
    optical = phonons.lowest_optical_frequency
    return Outcome(
        {
            "frequencies": list(phonons.frequencies),
            "lowest_optical_frequency": optical if isfinite(optical) else None,  # one atom has no optical branch
            "tolerance": phonons.tolerance,
            "is_stable": phonons.is_stable,
            "is_prescreen": phonons.is_prescreen,
        }
    )


def _dft(_store: Store, record: CalculationRecord) -> Outcome:
    if not record.inputs:
        raise CalculatorError(f"{record.subject} came without a structure; expected the relaxed one")
    start = record.inputs[0]
    found = dft_relax_and_static(start, DFTSettings(**protocol(record.protocol).settings))
    gene = encode(found.crystal)
    problems = () if str(gene) == record.subject else (f"relaxed into another gene: {gene}",)
    result = {
        "energy_per_atom": found.energy_per_atom,
        "band_gap": found.band_gap,
        "is_direct": found.is_direct,
        "is_metal": found.is_metal,
        "max_force": found.max_force,
        "max_stress": found.max_stress,
        "volume_ratio": (found.crystal.volume / found.crystal.nsites) / (start.volume / start.nsites),
        "converged": found.converged,
        "cutoff": found.cutoff,
        "n_kpoints": found.n_kpoints,
        "spin_polarized": found.spin_polarized,
        "space_group_number": gene.space_group_number,
        "fingerprint": str(gene),
        "wall_time": found.wall_time,
    }
    return Outcome(result, found.crystal, problems)


def _reference(_store: Store, record: CalculationRecord) -> Outcome:
    settings = DFTSettings(**protocol(record.protocol).settings)
    return Outcome({"energy_per_atom": dft_reference_energy(record.subject, settings)})


KINDS: dict[str, Callable[[Store, CalculationRecord], Outcome]] = {
    "relaxation": _relaxation,
    "phonon": _phonon,
    "dft": _dft,
    "reference": _reference,
}
