"""The independent judge of generated genes: gradient boosting on composition and space group, not a network.

Its features are made here from pymatgen's periodic table and share nothing with the model's or the screens'. The judge
that counts is trained on the test file only; no sampler may use it. One trained on other rows serves for tuning.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wyloop.models.mpvae.data import GAP_FLOOR, TrainingRow
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS, space_group

N_ELEMENTS = 103
CENTERINGS = "PABCIFR"
NOBLE_CORES = (0, 2, 10, 18, 36, 54, 86)
CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_leaf_nodes": 24,
    "min_samples_leaf": 8,
    "l2_regularization": 1.0,
}
N_ITERATIONS = {"energy": 700, "metal": 300, "gap": 400}


@dataclass(frozen=True)
class Judgement:
    """What the judge expects, shape (n_genes,) each."""

    formation_energy_per_atom: NDArray[np.float64]
    """eV/atom."""
    metal_probability: NDArray[np.float64]
    band_gap: NDArray[np.float64]
    """PBE gap, eV: zero where a metal is likelier than not, else the size."""


class Judge:
    """Three boosted-tree models: formation energy; metal or not; size of the gap of what has one."""

    def __init__(self, rows: Sequence[TrainingRow], *, seed: int = 0) -> None:
        """Train on rows with formation energy and gap; five to ten seconds a thousand rows on one core."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        inputs = features([row.gene for row in rows])
        energy = np.array([row.labels["formation_energy_per_atom"] for row in rows])
        gap = np.array([row.labels["band_gap"] for row in rows])
        has_gap = gap >= GAP_FLOOR
        sizes = {name: {"max_iter": n} for name, n in N_ITERATIONS.items()}
        common = SETTINGS | {"random_state": seed, "max_features": 0.3, "early_stopping": False}
        self.energy = HistGradientBoostingRegressor(**common, **sizes["energy"]).fit(inputs, energy)
        self.metal = HistGradientBoostingClassifier(**common, **sizes["metal"]).fit(inputs, ~has_gap)
        self.gap = HistGradientBoostingRegressor(**common, **sizes["gap"]).fit(inputs[has_gap], gap[has_gap])

    def __call__(self, genes: Sequence[Gene]) -> Judgement:
        """Judge genes."""
        if not genes:
            return Judgement(np.zeros(0), np.zeros(0), np.zeros(0))
        inputs = features(genes)
        metal = self.metal.predict_proba(inputs)[:, 1]
        size = np.clip(self.gap.predict(inputs), 0.0, None)
        return Judgement(self.energy.predict(inputs), metal, np.where(metal > 0.5, 0.0, size))


class KernelJudge:
    """A second judge of another kind on the same features: support vectors with a radial kernel."""

    def __init__(self, rows: Sequence[TrainingRow], *, gamma: float = 0.002, cost: float = 5.0) -> None:
        """Train on rows with formation energy and gap."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC, SVR

        inputs = features([row.gene for row in rows])
        energy = np.array([row.labels["formation_energy_per_atom"] for row in rows])
        gap = np.array([row.labels["band_gap"] for row in rows])
        has_gap = gap >= GAP_FLOOR
        self.energy = make_pipeline(StandardScaler(), SVR(C=cost, epsilon=0.03, gamma=gamma)).fit(inputs, energy)
        self.gapped = make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma)).fit(inputs, has_gap)
        self.gap = make_pipeline(StandardScaler(), SVR(C=cost, epsilon=0.1, gamma=gamma))
        self.gap.fit(inputs[has_gap], gap[has_gap])

    def __call__(self, genes: Sequence[Gene]) -> Judgement:
        """Judge genes; `metal_probability` is 0 or 1."""
        if not genes:
            return Judgement(np.zeros(0), np.zeros(0), np.zeros(0))
        inputs = features(genes)
        has_gap = self.gapped.predict(inputs).astype(bool)
        size = np.clip(self.gap.predict(inputs), 0.0, None)
        return Judgement(self.energy.predict(inputs), (~has_gap).astype(float), np.where(has_gap, size, 0.0))


def hits(target: Target, genes: Sequence[Gene], judged: Judgement) -> NDArray[np.bool_]:
    """Mark the genes that meet a target by the judge's numbers, shape (n,)."""
    return np.array(
        [
            target.matches(values(gene) | {"formation_energy_per_atom": energy, "band_gap": gap})
            for gene, energy, gap in zip(
                genes, judged.formation_energy_per_atom.tolist(), judged.band_gap.tolist(), strict=True
            )
        ],
        dtype=bool,
    )


def truly_meets(target: Target, row: TrainingRow) -> bool:
    """Whether a labelled crystal meets a target by its labels."""
    return target.matches(values(row.gene) | dict(row.labels))


def values(gene: Gene) -> dict[str, object]:
    """Return what a gene alone says of the fields a target may name."""
    return {
        "space_group_number": gene.space_group_number,
        "crystal_system": gene.space_group.crystal_system,
        "elements": gene.elements,
        "nelements": len(gene.elements),
        "nsites": gene.nsites,
        "chemsys": gene.chemsys,
    }


def features(genes: Sequence[Gene]) -> NDArray[np.float64]:
    """Describe genes by composition statistics and space group, unscaled, shape (n, n_features)."""
    table = element_table()
    rows = [_row(gene, table) for gene in genes]
    return np.array(rows, dtype=float)


def _row(gene: Gene, table: NDArray[np.float64]) -> NDArray[np.float64]:
    numbers = [_atomic_number(symbol) for symbol in gene.elements]
    amounts = np.array(list(gene.amounts.values()), dtype=float)
    share = amounts / amounts.sum()
    properties = table[numbers]
    mean = share @ properties
    deviation = share @ np.abs(properties - mean)
    order = np.argsort(properties[:, 0] + 1e-6 * np.array(numbers))  # by electronegativity
    anion, cation = order[-1], order[0]
    fractions = np.zeros(N_ELEMENTS + 1)
    fractions[numbers] = share
    divisor = math.gcd(*gene.amounts.values())
    group = space_group(gene.space_group_number)
    norms = [float((share**power).sum() ** (1 / power)) for power in (2, 3, 7)]
    stoichiometry = [len(numbers), amounts.sum() / divisor, *norms]
    symmetry = [
        gene.space_group_number,
        CRYSTAL_SYSTEMS.index(group.crystal_system),
        CENTERINGS.index(group.symbol[0]),
    ]
    return np.concatenate(
        [
            mean,
            deviation,
            properties.min(axis=0),
            properties.max(axis=0),
            np.ptp(properties, axis=0),
            properties[anion],
            properties[cation],
            [share[anion], share[cation], _charge_left(properties, share)],
            stoichiometry,
            symmetry,
            fractions[1:],
        ]
    )


def _charge_left(properties: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    """Return the least charge an atom, e, that common oxidation states leave: most negative against most positive."""
    order = np.argsort(properties[:, 0])
    low, high = properties[:, -2], properties[:, -1]
    best = min(
        abs(share[order[:cut]] @ high[order[:cut]] + share[order[cut:]] @ low[order[cut:]])
        for cut in range(1, len(order) + 1)
    )
    return float(best)


@cache
def _atomic_number(symbol: str) -> int:
    from pymatgen.core.periodic_table import Element

    return int(Element(symbol).Z)


@cache
def element_table() -> NDArray[np.float64]:
    """Return descriptors by atomic number, shape (104, n); electronegativity first; the median where unknown."""
    from pymatgen.core.periodic_table import Element

    table = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every number it does not have
        for number in range(1, N_ELEMENTS + 1):
            element = Element.from_Z(number)
            oxidation = element.common_oxidation_states or element.oxidation_states or (0,)
            listed = [
                element.X,
                number,
                element.row,
                element.group,
                element.mendeleev_no,
                float(element.atomic_mass),
                element.atomic_radius,
                element.ionization_energy,
                element.electron_affinity,
                _number(element.melting_point),
                _number(element.molar_volume),
                _number(element.thermal_conductivity),
                *_valence(number),
                min(*oxidation, 0),
                max(*oxidation, 0),
            ]
            table.append([math.nan if value is None else float(value) for value in listed])
    known = np.array(table)
    known = np.where(np.isnan(known), np.nanmedian(known, axis=0), known)
    return np.vstack([np.zeros(known.shape[1]), known])


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # numbers, numbers with units, or nothing
    except (TypeError, ValueError):
        return math.nan


def _valence(number: int) -> list[float]:
    """Electrons outside the noble-gas core by block, all of them, and places left in the open blocks."""
    from pymatgen.core.periodic_table import Element

    core = max(core for core in NOBLE_CORES if core < number)
    inner = {(n, block) for n, block, _ in Element.from_Z(core).full_electronic_structure} if core else set()
    electrons = dict.fromkeys(CAPACITY, 0.0)
    unfilled = 0.0
    for n, block, count in Element.from_Z(number).full_electronic_structure:
        if (n, block) not in inner:
            electrons[block] += count
            unfilled += CAPACITY[block] - count
    return [*electrons.values(), sum(electrons.values()), unfilled]
