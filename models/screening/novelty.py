"""Whether a gene is new: to what is known, and among its own batch; and, once relaxed, whether the crystal is."""

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING

from wyloop.models.crystal import Crystal
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.matching import ANGLE_TOLERANCE, LENGTH_TOLERANCE, SITE_TOLERANCE

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher


def novelty(
    fingerprint: str, known: Container[str], *, formula_pretty: str = "", known_formulas: Container[str] = ()
) -> Verdict:
    """Judge a gene by its canonical fingerprint; the formula only grades it.

    Args:
        fingerprint: `gene.fingerprint`.
        known: Fingerprints of every known structure and earlier candidate.
        formula_pretty: Reduced formula of the gene.
        known_formulas: Reduced formulas of the known structures.

    Returns:
        Value 1 for a new gene of a new formula, 0.5 for a new gene of a known formula (a polymorph), 0 for a known one.
    """
    if fingerprint in known:
        return Verdict("novelty", False, 0.0, "1", f"gene {fingerprint} is known")
    if formula_pretty in known_formulas:
        return Verdict("novelty", True, 0.5, "1", f"new gene of the known formula {formula_pretty}")
    return Verdict("novelty", True, 1.0, "1", "new gene")


def distinct(fingerprints: Iterable[str]) -> list[bool]:
    """Mark the first appearance of every fingerprint in a batch with true, its repetitions with false."""
    seen: set[str] = set()
    marks = []
    for fingerprint in fingerprints:
        marks.append(fingerprint not in seen)
        seen.add(fingerprint)
    return marks


def novelty_of_structure(crystal: Crystal, known: Mapping[str, Crystal]) -> Verdict:
    """Judge a relaxed crystal against known ones by structure matching.

    Relaxation can turn a new gene into a known crystal, and one crystal can have two genes at the edge of a tolerance.

    Args:
        crystal: Relaxed.
        known: Crystals by what names them; those of another reduced formula are passed over.

    Returns:
        Value: the root mean square distance to the nearest known crystal that matches, as a share of the mean distance
        between atoms, (V/n)^(1/3); 1 if none does.
    """
    candidates = {name: other for name, other in known.items() if is_same_formula(crystal, other)}
    distances = {name: match_distance(crystal, other) for name, other in candidates.items()}
    matched = {name: distance for name, distance in distances.items() if distance is not None}
    if matched:
        name = min(matched, key=lambda one: (matched[one], one))
        reason = f"the relaxed crystal is {name}, {matched[name]:.3f} of the atomic distance apart"
        return Verdict("novelty_of_structure", False, matched[name], "1", reason)
    reason = f"matches none of {len(candidates)} known crystals of its formula"
    return Verdict("novelty_of_structure", True, 1.0, "1", reason)


def is_same_crystal(first: Crystal, second: Crystal) -> bool:
    """Whether two crystals match as the Materials Project counts it: any cell, origin and volume."""
    return is_same_formula(first, second) and match_distance(first, second) is not None


def is_same_formula(first: Crystal, second: Crystal) -> bool:
    """Whether two crystals have one reduced formula."""
    if first.amounts.keys() != second.amounts.keys():
        return False
    return all(first.amounts[e] * second.nsites == second.amounts[e] * first.nsites for e in first.amounts)


def match_distance(first: Crystal, second: Crystal) -> float | None:
    """Return the root mean square distance of two matching crystals over (V/n)^(1/3); `None` if they do not match."""
    found = _matcher().get_rms_dist(first.to_pymatgen(), second.to_pymatgen())  # type: ignore[no-untyped-call]
    return None if found is None else float(found[0])


def _matcher() -> "StructureMatcher":
    from pymatgen.analysis.structure_matcher import StructureMatcher  # half a second

    return StructureMatcher(ltol=LENGTH_TOLERANCE, stol=SITE_TOLERANCE, angle_tol=ANGLE_TOLERANCE)
