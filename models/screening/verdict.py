"""What a screen says of one candidate."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one screen for one candidate; a rejected candidate is data, so the number and the reason stay."""

    screen: str
    passed: bool
    value: float | None
    """The number that decided; `None` where the screen could not be applied."""
    unit: str
    """Unit of the value, `1` if dimensionless."""
    reason: str
    """One line for a reader."""
