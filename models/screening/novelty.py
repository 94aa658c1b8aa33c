"""Whether a gene is new: to what is known, and among the candidates of its own batch."""

from collections.abc import Container, Iterable

from wyloop.models.screening.verdict import Verdict


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
