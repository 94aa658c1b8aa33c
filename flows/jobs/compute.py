"""What each kind of calculation computes: plain functions of a stored record, nothing of FireWorks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.bands import BandSettings, band_picture, electronic_bands
from wyloop.models.physics.dft import DFTSettings, dft_reference_energy, dft_relax_and_static
from wyloop.models.physics.failures import CalculationFailedError, Failure, Solver
from wyloop.models.physics.phonons import DFTPhononSettings, PhononSettings, dft_gamma_phonons, gamma_phonons
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import RelaxationSettings, relax_best
from wyloop.models.physics.statics import StaticSettings, dft_static
from wyloop.models.physics.transport import TransportSettings, transport
from wyloop.models.wyckoff.encode import encode
from wyloop.stores import calculation_files, calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store


@dataclass(frozen=True)
class Outcome:
    """What a calculation gives: numbers by name (units in the documents), a crystal, and what speaks against it."""

    result: dict[str, Any]
    crystal: Crystal | None = None
    problems: tuple[str, ...] = ()
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """What is too large for a document."""
    picture: bytes = b""
    """svg."""


def compute(store: Store, record: CalculationRecord, solver: Solver | None = None, log: Path | None = None) -> Outcome:
    """Run the function of the record's kind.

    Args:
        store: The database.
        record: What is asked.
        solver: How DFT goes about it, of a second attempt.
        log: Where DFT writes its text output.

    Raises:
        CalculatorError: The calculator is missing, does not know an element, or failed.
        StructureError: The input is unphysical.
    """
    if record.kind in WITHOUT_DFT:
        return WITHOUT_DFT[record.kind](store, record)
    return WITH_DFT[record.kind](store, record, solver or Solver(), log)


def _crystal_of(store: Store, record: CalculationRecord, protocol_identifier: str) -> tuple[Crystal, dict[str, Any]]:
    """Return crystal and result of the subject's calculation by a protocol, a believed one.

    Raises:
        CalculationFailedError: There is none.
    """
    found = [one for one in calculations.of_subjects(store, [record.subject]) if one.protocol == protocol_identifier]
    good = [one for one in found if one.status == "completed" and one.crystal is not None and not one.is_withheld]
    if not good:
        raise CalculationFailedError(
            f"{record.subject} has no believed result by {protocol_identifier}; expected that job to end well first",
            Failure.BAD_INPUT,
        )
    newest = max(good, key=lambda one: (str(one.finished_at), one.calculation_id))
    assert newest.crystal is not None  # noqa: S101 - chosen so
    return newest.crystal, dict(newest.result)


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


def _dft(store: Store, record: CalculationRecord, solver: Solver, log: Path | None) -> Outcome:
    if record.inputs:
        start = record.inputs[0]
    else:
        relaxed = [one for one in calculations.of_subjects(store, [record.subject]) if one.kind == "relaxation"]
        good = [one for one in relaxed if one.status == "completed" and one.crystal and not one.is_withheld]
        if not good or good[-1].crystal is None:
            raise CalculatorError(f"{record.subject} came without a structure; expected the relaxed one")
        start = good[-1].crystal
    found = dft_relax_and_static(start, DFTSettings(**protocol(record.protocol).settings), solver=solver, log=log)
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


def _reference(_store: Store, record: CalculationRecord, solver: Solver, log: Path | None) -> Outcome:
    settings = DFTSettings(**protocol(record.protocol).settings)
    return Outcome({"energy_per_atom": dft_reference_energy(record.subject, settings, solver=solver, log=log)})


def _static(store: Store, record: CalculationRecord, solver: Solver, log: Path | None) -> Outcome:
    settings = StaticSettings(**protocol(record.protocol).settings)
    crystal, before = _crystal_of(store, record, settings.relaxed_by)
    found = dft_static(crystal, settings, gap=before.get("band_gap"), solver=solver, log=log)
    names = (
        "energy_per_atom", "band_gap", "direct_band_gap", "is_direct", "is_metal", "max_force", "max_stress", "cutoff",
        "smearing", "n_kpoints", "spin_polarized", "magnetic_moment",
    )  # fmt: skip
    result = {name: getattr(found, name) for name in names} | {"kpoint_mesh": list(found.kpoint_mesh)}
    return Outcome(result, found.crystal)


def _dft_phonon(store: Store, record: CalculationRecord, solver: Solver, log: Path | None) -> Outcome:
    settings = DFTPhononSettings(**protocol(record.protocol).settings)
    crystal, before = _crystal_of(store, record, settings.relaxed_by)
    found = dft_gamma_phonons(crystal, settings, gap=before.get("band_gap"), solver=solver, log=log)
    optical = found.lowest_optical_frequency
    result = {
        "frequencies": list(found.frequencies),
        "lowest_optical_frequency": optical if isfinite(optical) else None,
        "tolerance": found.tolerance,
        "is_stable": found.is_stable,
        "is_prescreen": False,
        "n_displacements": found.n_displacements,
    }
    constants = found.force_constants
    return Outcome(result, arrays={} if constants is None else {"force_constants": constants})


def _bands(store: Store, record: CalculationRecord, solver: Solver, log: Path | None) -> Outcome:
    given = dict(protocol(record.protocol).settings)
    static = StaticSettings(**given.pop("static"))
    settings = BandSettings(**given)
    crystal, before = _crystal_of(store, record, settings.relaxed_by)
    found = electronic_bands(crystal, settings, static, gap=before.get("band_gap"), solver=solver, log=log)
    title = f"{encode(found.crystal).formula_pretty} ({encode(found.crystal).space_group_number})"
    result = {
        "band_gap": found.band_gap,
        "direct_band_gap": found.direct_band_gap,
        "is_direct": found.is_direct,
        "is_metal": found.band_gap == 0.0,
        "fermi_level": found.fermi_level,
        "n_path_kpoints": len(found.path_kpoints),
        "n_dense_kpoints": len(found.dense_kpoints),
        "labels": [label for _, label in found.labels],
    }
    return Outcome(result, found.crystal, arrays=found.arrays(), picture=band_picture(found, title))


def _transport(store: Store, record: CalculationRecord) -> Outcome:
    given = protocol(record.protocol).settings
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    settings = TransportSettings(**plain)
    done = [one for one in calculations.of_subjects(store, [record.subject]) if one.protocol == settings.bands_by]
    good = [one for one in done if one.status == "completed" and one.crystal is not None and "arrays" in one.files]
    if not good or good[-1].crystal is None:
        raise CalculationFailedError(f"{record.subject} has no bands by {settings.bands_by}", Failure.BAD_INPUT)
    gap = good[-1].result.get("band_gap")
    if isinstance(gap, float) and gap > settings.max_gap:
        message = f"its gap is {gap:.2f} eV; expected at most {settings.max_gap} eV for thermoelectrics"
        raise CalculationFailedError(message, Failure.BAD_INPUT)
    arrays = calculation_files.arrays_of(store, good[-1].calculation_id)
    fermi_level, n_electrons = arrays["levels"]
    rows = transport(
        good[-1].crystal,
        arrays["dense_kpoints"],
        arrays["dense_eigenvalues"],
        fermi_level=float(fermi_level),
        n_electrons=float(n_electrons),
        settings=settings,
    )
    return Outcome({"rows": [asdict(row) for row in rows]})


def _vasp(_store: Store, record: CalculationRecord) -> Outcome:
    raise CalculationFailedError(
        f"{record.subject} by {record.protocol} is a workflow of atomate2's own jobs; submit it with 'wyloop candidate "
        f"add ... --protocol {record.protocol}' where VASP and its POTCARs are",
        Failure.MACHINE,
    )


WITHOUT_DFT: dict[str, Callable[[Store, CalculationRecord], Outcome]] = {
    "relaxation": _relaxation,
    "phonon": _phonon,
    "transport": _transport,
    "vasp": _vasp,
}
WITH_DFT: dict[str, Callable[[Store, CalculationRecord, Solver, Path | None], Outcome]] = {
    "dft": _dft,
    "reference": _reference,
    "static": _static,
    "dft_phonon": _dft_phonon,
    "bands": _bands,
}
"""Kind of calculation to the function that computes it."""
