"""Numbers of a gene for models of few labels: what its elements, their charges, its sites and its symmetry say.

Everything follows from the gene and from tables of the elements; nothing is learnt, and every equivalent gene gives the
same numbers. Groups of columns stay apart, so that a kernel can weigh them.
"""

import math
import re
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from wyloop.models.mpvae.vocabulary import element_features, element_id, elements
from wyloop.models.screening.charge import Assignment, best_assignment
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS, wyckoff_position

CENTERINGS = "PABCIFR"
NOT_FROZEN = ("La", "Ce", "Eu", "Yb")  # every other lanthanoid has its f electrons in the core of common PBE data
OPEN_F = {"Ce": 4, "Eu": 9, "Pa": 5, "U": 6, "Np": 7, "Pu": 8}  # valence electrons with f
VALENCE = {"Eu": 2, "Yb": 2, "Ce": 4, "Th": 4, "Pa": 5, "U": 6, "Np": 7, "Pu": 8}  # of f elements; the others have 3
RIDGE = 3.0  # of the fit that fills gaps in the table of solid state energies
N_CHARGES = 21
N_SITES = 14
N_CACHED = 20_000  # genes; 2 kB each


def describe(genes: Sequence[Gene]) -> NDArray[np.float32]:
    """Describe genes, shape (len(genes), n), in the columns that `groups` names, unscaled."""
    if not genes:
        return np.zeros((0, sum(part.stop - part.start for part in groups().values())), np.float32)
    return np.stack([_row(gene) for gene in genes])


@cache
def groups() -> dict[str, slice]:
    """Return the columns of each group.

    statistics: mean, deviation, least and greatest elemental descriptors over the atoms. ends: descriptors of the most
    and the least electronegative element and the one between them, shares of the first two. charges: electron counts
    and what the best oxidation states say. sites: orbits and their freedom, of all and by element. symmetry: crystal
    system, centring, number. shares: square root of the atomic share of each element.
    """
    n = element_table().shape[1]
    widths = {
        "statistics": 4 * n,
        "ends": 3 * n + 2,
        "charges": N_CHARGES,
        "sites": N_SITES,
        "symmetry": len(CRYSTAL_SYSTEMS) + len(CENTERINGS) + 1,
        "shares": len(elements()),
    }
    stops = np.cumsum(list(widths.values())).tolist()
    return {name: slice(stop - width, stop) for (name, width), stop in zip(widths.items(), stops, strict=True)}


@lru_cache(maxsize=N_CACHED)
def _row(gene: Gene) -> NDArray[np.float32]:
    gene = canonical(gene)
    identities = np.array([element_id(symbol) for symbol in gene.amounts])
    share = np.array(list(gene.amounts.values()), dtype=float)
    share /= share.sum()
    values = element_table()[identities]
    mean = share @ values
    deviation = np.sqrt(share @ (values - mean) ** 2)
    order = np.argsort(identities)  # ids rise with electronegativity
    cation, anion = order[0], order[-1]
    middle = values[order[1]] if len(order) > 2 else (values[cation] + values[anion]) / 2
    roots = np.zeros(len(elements()))
    roots[identities - 1] = np.sqrt(share)
    parts = (
        [mean, deviation, values.min(axis=0), values.max(axis=0)],
        [values[anion], values[cation], middle, share[[anion, cation]]],
        [_charges(gene), _sites(gene, [gene.elements[place] for place in order]), _symmetry(gene), roots],
    )
    return np.concatenate([np.asarray(column, np.float32) for part in parts for column in part])


@cache
def element_table() -> NDArray[np.float64]:
    """Return descriptors by element id, mean 0 and variance 1, shape (n_elements + 1, n); row 0 is zero.

    The network's descriptors; solid state energies by element and by electronegativity, where there is none as a ridge
    fit on the others has it; whether f electrons are frozen in the core.

    Source of the energies: Pelatt et al., doi:10.1021/ja204670s, through SMACT.
    """
    from smact import Element  # lazy: smact brings pandas and pymatgen

    known = element_features()[1:].astype(float)
    more = []
    for symbol in elements():
        element = Element(symbol)
        energies = [math.nan if value is None else float(value) for value in (element.SSE, element.SSEPauling)]
        frozen = 57 <= int(element.number) <= 71 and symbol not in NOT_FROZEN
        more.append([*energies, float(frozen)])
    added = np.array(more)
    for column in added.T[:2]:
        column[:] = _filled(known, column)
    added = (added - added.mean(axis=0)) / added.std(axis=0)
    return np.vstack([np.zeros(known.shape[1] + added.shape[1]), np.hstack([known, added])])


def _filled(inputs: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    is_known = ~np.isnan(values)
    rows, centre = inputs[is_known], values[is_known].mean()
    normal = rows.T @ rows + RIDGE * np.eye(inputs.shape[1])
    fitted = inputs @ np.linalg.solve(normal, rows.T @ (values[is_known] - centre)) + centre
    return np.where(is_known, values, fitted)


@cache
def _facts(symbol: str) -> tuple[int, int, bool, bool]:
    """Atomic number, group, and whether a transition metal without f electrons, or a metal."""
    from pymatgen.core.periodic_table import Element  # lazy: pymatgen takes a second

    element = Element(symbol)
    is_f = element.is_lanthanoid or element.is_actinoid
    return int(element.Z), int(element.group), bool(element.is_transition_metal and not is_f), bool(element.is_metal)


@cache
def valence_electrons(symbol: str) -> int:
    """Electrons of an atom that can take part in bonds: outer s, p and d; of f elements as PBE data count them."""
    number, group, _, _ = _facts(symbol)
    if 57 <= number <= 71 or 89 <= number <= 103:
        return VALENCE.get(symbol, 3)
    return group if group <= 12 else group - 10


def _charges(gene: Gene) -> list[float]:
    n_atoms = gene.n_sites_conventional
    electrons = {symbol: valence_electrons(symbol) * amount for symbol, amount in gene.amounts.items()}
    total = sum(electrons.values())
    of_cell = total / gene.space_group.n_centerings
    given = sum(count for symbol, count in electrons.items() if _facts(symbol)[3])
    taken = sum(
        (8 - valence_electrons(symbol)) * amount
        for symbol, amount in gene.amounts.items()
        if valence_electrons(symbol) >= 4 and not _facts(symbol)[3]
    )
    plain = [total / n_atoms, float(round(of_cell) % 2), of_cell % 2, (given - taken) / n_atoms]
    best = best_assignment(gene.amounts)
    if best is None:
        return plain + [0.0] * (N_CHARGES - len(plain))
    shares = {symbol: amount / n_atoms for symbol, amount in gene.amounts.items()}
    return [*plain, *_of_assignment(best, shares, n_atoms)]


def _of_assignment(best: Assignment, shares: dict[str, float], n_atoms: int) -> list[float]:
    """What the oxidation states say: neutrality, open and closed shells of cations, anions, and levels of both."""
    states = dict(_charge(label) for label in best.states)
    cations = {symbol: charge for symbol, charge in states.items() if charge > 0}
    anions = {symbol: charge for symbol, charge in states.items() if charge < 0}
    shells = np.array([_shell(symbol, charge) for symbol, charge in cations.items()])
    weights = np.array([shares[symbol] for symbol in cations])
    full = sum(
        shares[symbol]
        for symbol, charge in anions.items()
        if abs(charge - (-1 if symbol == "H" else valence_electrons(symbol) - 8)) < 0.1
    )
    table = element_table()
    low = table[[element_id(symbol) for symbol in cations]]
    high = table[[element_id(symbol) for symbol in anions]]
    of_anions = np.array([shares[symbol] for symbol in anions])
    polarity = of_anions @ high[:, 0] / of_anions.sum() - weights @ low[:, 0] / weights.sum()
    return [
        float(best.net_charge == 0),
        best.score if best.net_charge == 0 else 0.0,
        float(best.is_mixed),
        abs(best.net_charge) / n_atoms,
        *(weights @ shells),
        max(cations.values()),
        float(polarity),
        full,
        float(of_anions.sum()),
        float(low[:, -3].min() - high[:, -3].max()),
        float(low[:, -2].min() - high[:, -2].max()),
        float(len(anions)),
    ]


@lru_cache(maxsize=10_000)
def _charge(label: str) -> tuple[str, float]:
    """Read a label such as `Fe2+/Fe3+`: the element and its mean charge, e."""
    states = [int(digits) * (1 if sign == "+" else -1) for digits, sign in re.findall(r"(\d+)([+-])", label)]
    return re.sub("[^A-Za-z].*", "", label), sum(states) / len(states)


def _shell(symbol: str, charge: float) -> tuple[float, float, float, float, float, float]:
    """Whether the d shell is open, its electrons, whether empty, whether full; whether a lone pair, whether open f."""
    number, group, is_transition_metal, _ = _facts(symbol)
    lone_pair = float(13 <= group <= 16 and number > 12 and abs(charge - (group - 12)) < 0.1)
    open_f = float(OPEN_F.get(symbol, charge) - charge > 0.5)
    if not is_transition_metal:
        return 0.0, 0.0, 0.0, 0.0, lone_pair, open_f
    n_d = max(0.0, min(10.0, group - charge))
    is_empty, is_full = n_d < 0.5, n_d > 9.5
    return float(not is_empty and not is_full), n_d, float(is_empty), float(is_full), lone_pair, open_f


def _sites(gene: Gene, by_electronegativity: Sequence[str]) -> list[float]:
    """Orbits, atoms, freedom; of first, last, middle element orbits, freedom, log share of the general position."""
    group = gene.space_group
    general = group.positions[-1].multiplicity
    found: dict[str, list[tuple[float, float]]] = {}
    for symbol, letter in gene.orbits:
        position = wyckoff_position(gene.space_group_number, letter)
        found.setdefault(symbol, []).append((position.multiplicity, position.n_free_parameters))

    def of(symbol: str) -> list[float]:
        atoms, free = np.array(found[symbol]).T
        weights = atoms / atoms.sum()
        return [len(atoms), float(weights @ free), float(weights @ np.log(atoms / general))]

    n_orbits = len(gene.orbits)
    middle = of(by_electronegativity[1]) if len(by_electronegativity) > 2 else [0.0] * 3
    return [
        n_orbits,
        math.log(gene.nsites),
        gene.n_free_parameters / n_orbits,
        math.log(general / group.n_centerings),
        n_orbits / len(by_electronegativity),
        *of(by_electronegativity[0]),
        *of(by_electronegativity[-1]),
        *middle,
    ]


def _symmetry(gene: Gene) -> list[float]:
    group = gene.space_group
    system = [float(group.crystal_system == name) for name in CRYSTAL_SYSTEMS]
    centering = [float(group.symbol[0] == name) for name in CENTERINGS]
    return [*system, *centering, gene.space_group_number / 100]
