"""Fixed-length numbers of a gene for the synthesizability model: composition, sites, symmetry."""

import math
import re
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from wyloop.models.screening.charge import best_assignment
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS, space_group, wyckoff_position

N_ELEMENTS = 118
N_TABULATED = 103  # pymatgen knows no electrons beyond
CENTERINGS = "PABCIFR"
FILLED_BLOCKS = {"s": 2.0, "p": 6.0, "d": 10.0, "f": 14.0}
PROPERTIES = (
    "electronegativity",  # Pauling
    "row",
    "group",
    "mendeleev_number",
    "atomic_radius",  # Å
    "ionization_energy",  # eV
    "lowest_oxidation_state",
    "highest_oxidation_state",
    *(f"{block}_electrons" for block in FILLED_BLOCKS),
)
N_COUNTS = 8
N_SYMMETRY = 2 + len(CENTERINGS)
N_CHARGES = 10
N_FEATURES = 5 * len(PROPERTIES) + 2 * (len(PROPERTIES) + 4) + N_COUNTS + N_CHARGES + N_SYMMETRY + N_ELEMENTS


def gene_features(genes: Sequence[Gene]) -> NDArray[np.float32]:
    """Describe genes, the same numbers for every equivalent one.

    Returns:
        Shape (len(genes), N_FEATURES), in mixed units, unscaled: mean, deviation, least, greatest and range of
        `PROPERTIES` over the atoms; the properties, share and sites of the least and the most electronegative element;
        counts; the best oxidation states; space group; atomic share of each element.
    """
    n, width = len(genes), max((len(gene.elements) for gene in genes), default=1)
    numbers = np.zeros((n, width), dtype=int)
    amounts = np.zeros((n, width))
    sites = np.zeros((n, width, 3))
    plain = np.zeros((n, N_COUNTS + N_CHARGES + N_SYMMETRY))
    for place, gene in enumerate(genes):
        size = len(gene.elements)
        numbers[place, :size] = [_atomic_number(element) for element in gene.elements]
        amounts[place, :size] = list(gene.amounts.values())
        sites[place, :size] = _sites(gene)
        plain[place] = (*_counts(gene), *_charges(gene), *_symmetry(gene.space_group_number))
    shares = amounts / amounts.sum(axis=1, keepdims=True)
    one_hot = np.zeros((n, N_ELEMENTS + 1))
    np.put_along_axis(one_hot, numbers, shares, axis=1)
    return np.hstack([*_statistics(numbers, shares, sites), plain, one_hot[:, 1:]]).astype(np.float32)


def _statistics(
    numbers: NDArray[np.int_], shares: NDArray[np.float64], sites: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Reduce the elements of each gene (padded with number zero) to one row a gene."""
    values = element_properties()[numbers]
    absent = (numbers == 0)[:, :, None]
    mean = np.einsum("ne,nep->np", shares, values)
    deviation = np.sqrt(np.einsum("ne,nep->np", shares, (values - mean[:, None]) ** 2))
    low = np.where(absent, np.inf, values).min(axis=1)
    high = np.where(absent, -np.inf, values).max(axis=1)
    whole = np.concatenate((values, shares[:, :, None], sites), axis=2)
    rows = np.arange(len(numbers))
    order = values[:, :, 0] + 1e-6 * numbers  # by electronegativity, ties by atomic number
    first = np.where(absent[:, :, 0], np.inf, order).argmin(axis=1)
    last = np.where(absent[:, :, 0], -np.inf, order).argmax(axis=1)
    return [mean, deviation, low, high, high - low, whole[rows, first], whole[rows, last]]


def _sites(gene: Gene) -> list[list[float]]:
    """Per element: orbits, mean free parameters an orbit, mean log share of its orbits in the general position."""
    found: dict[str, list[float]] = {element: [0.0, 0.0, 0.0] for element in gene.elements}
    for element, letter in gene.orbits:
        n_free_parameters, log_share = _orbit(gene.space_group_number, letter)
        sums = found[element]
        sums[0] += 1
        sums[1] += n_free_parameters
        sums[2] += log_share
    return [[n_orbits, free / n_orbits, log / n_orbits] for n_orbits, free, log in found.values()]


@cache
def _orbit(number: int, letter: str) -> tuple[int, float]:
    position = wyckoff_position(number, letter)
    return position.n_free_parameters, math.log(position.multiplicity / space_group(number).positions[-1].multiplicity)


def _counts(gene: Gene) -> list[float]:
    amounts = list(gene.amounts.values())
    n_atoms, n_orbits = sum(amounts), len(gene.orbits)
    shares = [amount / n_atoms for amount in amounts]
    group = gene.space_group
    return [
        len(amounts),
        n_orbits,
        math.log(n_atoms / group.n_centerings),
        sum(_orbit(gene.space_group_number, letter)[0] for _, letter in gene.orbits) / n_orbits,
        n_orbits / len(amounts),
        math.log(group.positions[-1].multiplicity / group.n_centerings),
        -sum(share * math.log(share) for share in shares),
        math.log(max(amounts) / math.gcd(*amounts)),
    ]


@cache
def _symmetry(number: int) -> tuple[float, ...]:
    """Number, crystal system and one-hot centring of a space group."""
    group = space_group(number)
    centerings = (float(group.symbol[0] == centering) for centering in CENTERINGS)
    return (number, CRYSTAL_SYSTEMS.index(group.crystal_system), *centerings)


def _charges(gene: Gene) -> tuple[float, ...]:
    """Neutral, score, mixed valence, charge left an atom, anions; mean charge and radius by sign, spread of radii."""
    best = best_assignment(gene.amounts)
    if best is None:
        return (0.0,) * N_CHARGES
    ions = [_ion(label) for label in best.states]
    cations = [ion for ion in ions if ion[0] > 0]
    anions = [ion for ion in ions if ion[0] < 0]
    radii = [radius for _, radius in cations]
    return (
        float(best.net_charge == 0),
        best.score if best.net_charge == 0 else 0.0,
        float(best.is_mixed),
        best.net_charge / gene.n_sites_conventional,
        len(anions),
        *(sum(ion[i] for ion in group) / len(group) for group in (cations, anions) for i in (0, 1)),
        max(radii) / min(radii),
    )


@cache
def _ion(label: str) -> tuple[float, float]:
    """Read a label such as `Fe2+/Fe3+`: mean charge, e, and Shannon's radius, Å (the element's mean if unknown)."""
    from pymatgen.core.periodic_table import Element  # lazy: pymatgen takes a second

    states = [int(digits) * (1 if sign == "+" else -1) for digits, sign in re.findall(r"(\d+)([+-])", label)]
    charge = sum(states) / len(states)
    element = Element(re.sub("[^A-Za-z].*", "", label))
    radius = element.ionic_radii.get(round(charge)) or element.average_ionic_radius or element.atomic_radius or 1.0
    return charge, max(float(radius), 0.1)


@lru_cache(maxsize=200)
def _atomic_number(symbol: str) -> int:
    from pymatgen.core.periodic_table import Element  # lazy: pymatgen takes a second

    return int(Element(symbol).Z)


@cache
def element_properties() -> NDArray[np.float64]:
    """Return `PROPERTIES` by atomic number, shape (119, len(PROPERTIES)); an unknown number is the median of all."""
    from pymatgen.core.periodic_table import Element

    table = np.full((N_ELEMENTS + 1, len(PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every number it does not have
        for number in range(1, N_TABULATED + 1):
            element = Element.from_Z(number)
            states = element.common_oxidation_states or (0,)
            numbers = [
                element.X,
                element.row,
                element.group,
                element.mendeleev_no,
                element.atomic_radius,
                element.ionization_energy,
                min(*states, 0),
                max(*states, 0),
                *_valence_electrons(number),
            ]
            table[number] = [np.nan if value is None else float(value) for value in numbers]
    medians = np.nanmedian(table, axis=0)
    return np.where(np.isnan(table), medians, table)


def _valence_electrons(number: int) -> list[float]:
    """Electrons outside the noble-gas core in each block of `FILLED_BLOCKS`."""
    from pymatgen.core.periodic_table import Element

    core = max(core for core in (0, 2, 10, 18, 36, 54, 86) if core < number)
    inner = {(n, block) for n, block, _ in Element.from_Z(core).full_electronic_structure} if core else set()
    electrons = dict.fromkeys(FILLED_BLOCKS, 0.0)
    for n, block, count in Element.from_Z(number).full_electronic_structure:
        if (n, block) not in inner:
            electrons[block] += count
    return list(electrons.values())
