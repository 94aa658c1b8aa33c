"""What the calculated values of a material mean for a campaign's target."""

from dataclasses import dataclass

from wyloop.models.targets import Target
from wyloop.stores.materials import MaterialRecord


@dataclass(frozen=True)
class Judgement:
    """The end of a material's candidate, and why."""

    status: str
    reason: str
    is_validated: bool
    """Whether it is near the hull."""
    meets_target: bool
    """Whether every condition of the target is met by a calculated value."""


def judge(material: MaterialRecord, target: Target, hull_cutoff: float) -> Judgement:
    """Decide what a material means for a target, its hull distance known.

    Args:
        material: The material.
        target: What its campaign looks for.
        hull_cutoff: Most that it may lie above its hull, eV/atom.
    """
    missing = [field for field in target.fields if material.values().get(field) is None]
    unmet = unmet_conditions(material, target)
    distance = material.energy_above_hull
    is_validated = distance is not None and distance <= hull_cutoff
    if not is_validated:
        status, reason = "unstable", f"{distance} eV/atom above hull {material.hull_id}; cutoff {hull_cutoff}"
    elif unmet:
        status, reason = "off_target", "calculated values miss " + ", ".join(unmet)
    else:
        status = "validated"
        reason = f"not calculated: {', '.join(missing)}" if missing else "every condition met by calculated values"
    return Judgement(status, reason, is_validated, status == "validated" and not missing)


def unmet_conditions(material: MaterialRecord, target: Target) -> list[str]:
    """Return the conditions that a material's calculated values miss; what is not calculated misses none.

    A formation energy by DFT counts besides the force field's: both must fit.
    """
    values = material.values()
    unmet = [
        condition.texts[0]
        for condition in target.conditions
        if values.get(condition.field) is not None and not condition.accepts(values[condition.field])
    ]
    by_dft = material.dft_formation_energy_per_atom
    if by_dft is not None:
        unmet += [
            f"{condition.texts[0]} by DFT ({by_dft:.3f} eV/atom)"
            for condition in target.conditions
            if condition.field == "formation_energy_per_atom" and not condition.accepts(by_dft)
        ]
    return unmet
