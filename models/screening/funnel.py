"""Every screen on every candidate: all verdicts are kept, the policy says which of them bind."""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from wyloop.models.errors import GeneError
from wyloop.models.screening.charge import anion_family, charge_neutrality
from wyloop.models.screening.hull import STABILITY_CUTOFF, EntriesByElements, Entry, predicted_stability
from wyloop.models.screening.novelty import distinct, novelty
from wyloop.models.screening.synthesizability import THRESHOLD, synthesizability
from wyloop.models.screening.verdict import Verdict
from wyloop.models.targets import NUMERIC_FIELDS, Condition, Target
from wyloop.models.wyckoff.gene import Gene, canonical

ScreenName = Literal[
    "validity",
    "novelty",
    "charge_neutrality",
    "anion_family",
    "synthesizability",
    "predicted_properties",
    "predicted_stability",
]
SCREENS: tuple[ScreenName, ...] = (
    "validity",
    "novelty",
    "charge_neutrality",
    "anion_family",
    "synthesizability",
    "predicted_properties",
    "predicted_stability",
)
"""In the order in which they run and are counted."""


class PropertyPrediction(Protocol):
    """What the screens need of a model's prediction for one gene."""

    @property
    def formation_energy_per_atom(self) -> float:
        """eV/atom."""

    @property
    def formation_energy_per_atom_std(self) -> float:
        """Standard deviation, eV/atom."""

    @property
    def band_gap(self) -> float:
        """Expected PBE band gap, eV."""

    @property
    def band_gap_std(self) -> float:
        """Standard deviation, eV."""

    @property
    def volume_per_atom(self) -> float:
        """Å^3."""


class ScreeningPolicy(BaseModel):
    """Which screens bind, and their thresholds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    binding: tuple[ScreenName, ...] = (
        "validity",
        "novelty",
        "charge_neutrality",
        "synthesizability",
        "predicted_properties",
        "predicted_stability",
    )
    """Screens that a candidate must pass; the others are recorded only."""
    max_nsites: int = Field(default=24, ge=1)
    """Largest primitive cell, atoms."""
    allow_mixed_valence: bool = True
    synthesizability_threshold: float = Field(default=THRESHOLD, ge=0, le=1)
    hull_cutoff: float = STABILITY_CUTOFF
    """Largest predicted distance to the hull, eV/atom."""

    def composition_wish(self) -> Callable[[Gene], bool] | None:
        """Return what a generator can ask of a gene before any prediction: neutrality, if it binds."""
        if "charge_neutrality" not in self.binding:
            return None
        return lambda gene: charge_neutrality(gene.amounts, allow_mixed_valence=self.allow_mixed_valence).passed


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One screen's share in a batch."""

    screen: str
    is_binding: bool
    n_passed: int
    """Candidates that pass this screen, whatever the others say."""
    n_left: int
    """Candidates that pass this and every earlier binding screen."""


def screen(
    genes: Sequence[Gene],
    predictions: Sequence[PropertyPrediction],
    target: Target,
    known: Container[str],
    entries: Sequence[Entry],
    policy: ScreeningPolicy,
    *,
    known_formulas: Container[str] = (),
) -> list[tuple[Verdict, ...]]:
    """Run all screens on all genes.

    Args:
        genes: Candidates.
        predictions: One for each gene.
        target: What is looked for.
        known: Fingerprints of every known structure and earlier candidate.
        entries: Competing phases, of the method that the formation energies were learnt from.
        policy: Thresholds.
        known_formulas: Reduced formulas of the known structures; they grade the novelty.

    Returns:
        For each gene its verdicts in the order of `SCREENS`.
    """
    competing = EntriesByElements(entries)
    fingerprints = [gene.fingerprint for gene in genes]
    firsts = distinct(fingerprints)
    likenesses = synthesizability(genes, threshold=policy.synthesizability_threshold)
    found: list[tuple[Verdict, ...]] = []
    for gene, prediction, fingerprint, is_first, likeness in zip(
        genes, predictions, fingerprints, firsts, likenesses, strict=True
    ):
        stability = predicted_stability(
            gene.amounts,
            prediction.formation_energy_per_atom,
            competing(gene.amounts),
            cutoff=policy.hull_cutoff,
            uncertainty=prediction.formation_energy_per_atom_std,
        )
        new = novelty(
            fingerprint,
            known if is_first else (fingerprint,),
            formula_pretty=gene.formula_pretty,
            known_formulas=known_formulas,
        )
        found.append(
            (
                validity(gene, max_nsites=policy.max_nsites),
                new,
                charge_neutrality(gene.amounts, allow_mixed_valence=policy.allow_mixed_valence),
                anion_family(gene.amounts),
                likeness,
                predicted_properties(gene, prediction, target, stability.value),
                stability,
            )
        )
    return found


def validity(gene: Gene, *, max_nsites: int) -> Verdict:
    """Judge whether a gene is canonical, keeps the rules of its space group, and is small enough.

    Returns:
        Value: atoms in the primitive cell; `None` for a gene that breaks the tables.
    """
    try:
        is_canonical = canonical(Gene.of(gene.space_group_number, gene.orbits)) == gene
    except GeneError as error:
        return Verdict("validity", False, None, "1", str(error))
    nsites = gene.nsites
    if not is_canonical:
        return Verdict("validity", False, float(nsites), "1", f"{gene} is not the canonical form")
    fits = nsites <= max_nsites
    reason = f"{nsites} atoms in the primitive cell, at most {max_nsites} allowed"
    return Verdict("validity", fits, float(nsites), "1", reason)


def gene_values(gene: Gene) -> dict[str, object]:
    """Return what a gene alone says of the fields that a target may name."""
    return {
        "space_group_number": gene.space_group_number,
        "nelements": len(gene.elements),
        "nsites": gene.nsites,
        "crystal_system": gene.space_group.crystal_system,
        "formula_pretty": gene.formula_pretty,
        "chemsys": gene.chemsys,
        "elements": gene.elements,
    }


def predicted_properties(
    gene: Gene, prediction: PropertyPrediction, target: Target, distance_to_hull: float | None = None
) -> Verdict:
    """Judge a gene and its predicted properties against the target; fields that nothing predicts are left open.

    Args:
        gene: The candidate.
        prediction: Its predicted properties.
        target: What is looked for.
        distance_to_hull: Predicted, eV/atom.

    Returns:
        Value: the probability that the target is met, by independent Gaussian errors of formation energy and gap.
    """
    spreads = {
        "band_gap": prediction.band_gap_std,
        "formation_energy_per_atom": prediction.formation_energy_per_atom_std,
        "energy_above_hull": prediction.formation_energy_per_atom_std,
    }
    values = gene_values(gene) | {
        "band_gap": max(0.0, prediction.band_gap),
        "formation_energy_per_atom": prediction.formation_energy_per_atom,
        "volume_per_atom": prediction.volume_per_atom,
    }
    if distance_to_hull is not None:
        values["energy_above_hull"] = max(0.0, distance_to_hull)
    probability = 1.0
    missed: list[str] = []
    met: list[str] = []
    for condition in target.conditions:
        value = values.get(condition.field)
        if value is None:
            continue
        said = f"{condition.field} {_said(condition.field, value)}"
        (met if condition.accepts(value) else missed).append(said)
        if isinstance(condition, Condition) and condition.field in spreads and isinstance(value, float):
            probability *= _share_within(condition, value, spreads[condition.field])
        elif not condition.accepts(value):
            probability = 0.0
    reason = f"off target: {', '.join(missed)}" if missed else f"on target: {', '.join(met) or 'nothing asked'}"
    return Verdict("predicted_properties", not missed, probability, "1", reason)


def _said(field: str, value: object) -> str:
    unit = NUMERIC_FIELDS.get(field, "1")
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return text if unit == "1" else f"{text} {unit}"


def _share_within(condition: Condition, mean: float, spread: float) -> float:
    """Integrate a Gaussian over the range of a condition; a range from zero on counts everything below as zero."""
    if not spread > 0:
        return float(condition.accepts(mean))

    def below(end: float) -> float:
        return 0.5 * (1.0 + math.erf((end - mean) / (spread * math.sqrt(2.0))))

    low = -math.inf if condition.low is None else condition.low
    if condition.field != "formation_energy_per_atom" and condition.accepts(0.0):
        low = -math.inf
    return below(math.inf if condition.high is None else condition.high) - below(low)


def is_accepted(verdicts: Sequence[Verdict], policy: ScreeningPolicy) -> bool:
    """Whether a candidate passes every binding screen; a binding screen without a verdict is not passed."""
    passed = {verdict.screen for verdict in verdicts if verdict.passed}
    return passed.issuperset(policy.binding)


def merit(verdicts: Sequence[Verdict], *, energy_scale: float = STABILITY_CUTOFF) -> float:
    """Rank candidates: probability to meet the target x likeness to known crystals x a Boltzmann-like hull factor.

    Args:
        verdicts: Of one candidate, from `screen`.
        energy_scale: Distance above the hull at which the last factor falls to 1/e, eV/atom.

    Returns:
        0 to 1, greater is better.
    """
    values = {verdict.screen: verdict.value for verdict in verdicts}
    distance = values.get("predicted_stability")
    stability = 0.0 if distance is None else math.exp(-max(0.0, distance) / energy_scale)
    return (values.get("predicted_properties") or 0.0) * (values.get("synthesizability") or 0.0) * stability


def funnel_counts(verdicts: Sequence[Sequence[Verdict]], policy: ScreeningPolicy) -> list[FunnelStep]:
    """Count the candidates that pass each screen, alone and after all earlier binding ones."""
    by_screen: list[Mapping[str, bool]] = [{verdict.screen: verdict.passed for verdict in one} for one in verdicts]
    left = by_screen
    steps = []
    for name in SCREENS:
        is_binding = name in policy.binding
        if is_binding:
            left = [one for one in left if one.get(name, False)]
        steps.append(FunnelStep(name, is_binding, sum(one.get(name, False) for one in by_screen), len(left)))
    return steps
