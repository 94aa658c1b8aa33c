"""Implausible results: kept apart until a second calculation agrees or a person decides."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wyloop.models.errors import DatabaseError
from wyloop.stores import calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked_update, now
from wyloop.stores.documents.calculations import CalculationDocument
from wyloop.stores.failures import translated

if TYPE_CHECKING:
    from wyloop.models.mpvae.predict import Prediction  # torch: three seconds

METHOD_SPREAD = 0.05
"""eV/atom; a force field and the calculations that the model learnt from differ by this much without any fault.

CHGNet's mean error against its own training method is 0.03 eV/atom.

Source: Deng et al., doi:10.1038/s42256-023-00716-3, table 1.
"""
AGREEMENT = 0.05  # eV/atom, between two calculations of one gene
OTHER_GENE = "relaxed into another gene"
"""A problem that is no doubt about the result: the gene does not hold, and its candidate has failed."""
SECOND_OF = ("relaxation", "dft")
"""Kinds whose result another one of the same kind, by another protocol, can confirm."""


def reasons_to_quarantine(
    record: CalculationRecord, prediction: "Prediction | None" = None, n_sigma: float = 5.0
) -> tuple[str, ...]:
    """Say what speaks against a completed calculation; nothing is said of one that is plausible.

    Args:
        record: The calculation.
        prediction: What the model expected of its gene.
        n_sigma: Standard deviations between the predicted formation energy and the calculated one up to which they
            agree; the deviation is the model's calibrated one and `METHOD_SPREAD`, added in quadrature.
    """
    if record.status != "completed" or any(one.startswith(OTHER_GENE) for one in record.problems):
        return ()
    reasons = list(record.problems)
    if record.result.get("converged") is False and not any("step" in one or "converge" in one for one in reasons):
        reasons.append(f"not converged after {record.result.get('n_steps', 'its')} steps")
    energy = record.result.get("formation_energy_per_atom")
    if record.kind == "relaxation" and prediction is not None and isinstance(energy, int | float):
        spread = math.hypot(prediction.formation_energy_per_atom_std, METHOD_SPREAD)
        distance = abs(energy - prediction.formation_energy_per_atom) / spread
        if distance > n_sigma:
            reasons.append(
                f"formation energy {energy:.3f} eV/atom is {distance:.1f} sigma from the predicted "
                f"{prediction.formation_energy_per_atom:.3f} eV/atom; up to {n_sigma:g} agree"
            )
    return tuple(reasons)


@translated
def quarantine(store: Store, calculation_id: str, reasons: Sequence[str]) -> bool:
    """Keep a completed result apart; one that was reviewed before stays as it is.

    Returns:
        Whether it is newly quarantined.
    """
    if not reasons:
        raise DatabaseError(f"no reason to quarantine {calculation_id}; expected at least one; say why")
    fields = checked_update(CalculationDocument, {"review": "quarantined", "review_reasons": list(reasons)})
    criteria = {"calculation_id": {"$eq": calculation_id}, "status": "completed", "review": None}
    return store.database["calculations"].update_one(criteria, {"$set": fields}).modified_count == 1


def accept(store: Store, calculation_id: str, reason: str) -> bool:
    """Let a quarantined or rejected result count after all; False if it counts already.

    Raises:
        DatabaseError: No such calculation, not completed, never under review, without its crystal, or no reason given.
    """
    return _decide(store, calculation_id, "accepted", reason)


def reject(store: Store, calculation_id: str, reason: str) -> bool:
    """Let a result never count, whatever was decided before; False if it is rejected already.

    Raises:
        DatabaseError: No such calculation, not completed, or no reason given.
    """
    return _decide(store, calculation_id, "rejected", reason)


@translated
def waiting(store: Store, *, candidate_ids: Sequence[str] | None = None) -> list[CalculationRecord]:
    """Return the quarantined calculations, by id; of some candidates if they are named."""
    criteria: dict[str, Any] = {"review": "quarantined"}
    if candidate_ids is not None:
        criteria["candidate_id"] = {"$in": list(candidate_ids)}
    found = store.database["calculations"].find(criteria, {"calculation_id": 1, "_id": 0})
    return calculations.of_ids(store, [row["calculation_id"] for row in found])


@translated
def reviewed(store: Store) -> list[CalculationRecord]:
    """Return every calculation that is or was under review, by id."""
    criteria = {"review": {"$in": ["quarantined", "accepted", "rejected"]}}
    found = store.database["calculations"].find(criteria, {"calculation_id": 1, "_id": 0})
    return calculations.of_ids(store, [row["calculation_id"] for row in found])


def confirmed(store: Store, records: Sequence[CalculationRecord]) -> dict[str, str]:
    """Return those quarantined results that a second calculation of the same gene agrees with, and why, by id.

    A second calculation is of the same kind by another protocol, without a problem of its own; it agrees if its energy
    is the same within `AGREEMENT` and it ended in the same gene.
    """
    subjects = sorted({record.subject for record in records if record.kind in SECOND_OF})
    others = calculations.of_subjects(store, subjects) if subjects else []
    return {
        record.calculation_id: f"{other.calculation_id} by {other.protocol} agrees within {AGREEMENT} eV/atom"
        for record in records
        for other in others
        if other.subject == record.subject and _confirms(other, record)
    }


def _confirms(other: CalculationRecord, record: CalculationRecord) -> bool:
    same_kind = other.kind == record.kind and other.protocol_hash != record.protocol_hash
    if not same_kind or other.status != "completed" or other.problems or other.review == "rejected":
        return False
    if record.crystal is None or record.result.get("fingerprint") != other.result.get("fingerprint"):
        return False
    energies = [one.result.get("energy_per_atom") for one in (record, other)]
    first, second = (one if isinstance(one, int | float) else math.inf for one in energies)
    return abs(first - second) <= AGREEMENT  # inf - inf is no number, and no agreement


@translated
def _decide(store: Store, calculation_id: str, review: str, reason: str) -> bool:
    found = calculations.calculation(store, calculation_id)
    if not reason.strip():
        raise DatabaseError(f"no reason given for {calculation_id}; expected one line; say why it is {review}")
    if found.status != "completed":
        raise DatabaseError(f"{calculation_id} is {found.status}; expected it completed; wait for its job")
    if review == "accepted" and found.review is None:
        raise DatabaseError(f"{calculation_id} is not under review; expected one that 'calculation review' lists")
    has_crystal = found.crystal is not None or found.kind not in SECOND_OF
    if review == "accepted" and not (has_crystal and _has_energy(found)):
        raise DatabaseError(
            f"{calculation_id} has no energy and crystal to count; expected both; reject it or compute it again"
        )
    ended_as = found.result.get("fingerprint")
    if review == "accepted" and ended_as is not None and ended_as != found.subject:
        raise DatabaseError(f"{calculation_id} ended as {ended_as}; expected {found.subject}; reject it")
    fields = checked_update(
        CalculationDocument, {"review": review, "review_note": reason.strip(), "reviewed_at": now()}
    )
    criteria = {"calculation_id": calculation_id, "review": {"$ne": review}}
    return store.database["calculations"].update_one(criteria, {"$set": fields}).modified_count == 1


def _has_energy(record: CalculationRecord) -> bool:
    """Whether there is a number to count; a relaxation that broke down has none."""
    names = {"relaxation": "formation_energy_per_atom", "dft": "energy_per_atom", "reference": "energy_per_atom"}
    return record.kind not in names or isinstance(record.result.get(names[record.kind]), int | float)
