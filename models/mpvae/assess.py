"""How generated genes differ from the data: distances between distributions, and how many families there are."""

from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from math import gcd

from wyloop.models.wyckoff.gene import Gene

Shares = Mapping[Hashable, float]
Kind = Callable[[Gene], Sequence[Hashable]]


def drift(genes: Sequence[Gene], data: Sequence[Gene]) -> dict[str, float]:
    """Compare generated genes with the crystals that they should look like.

    Returns:
        `space_group_chi_squared`: Pearson's sum of (p - q)^2 / q over the space groups of the data, p and q the shares
        among genes and data; `space_group_outside`: share of genes in a group that the data does not have.
        `space_group_chi_squared_symmetric`: sum of (p - q)^2 / (p + q), 0 to 2. Total variation (half the sum of
        |p - q|, 0 to 1) of crystal systems, of elements (by occurrence in a gene), of stoichiometries (such as 1:1:3)
        and of numbers of elements.

    Source: Kazeev et al., arXiv:2503.02407, for chi-squared of the space groups as a measure of generators; it gives no
    treatment of groups that only one side has, hence the three figures.
    """
    made, known = (shares(gene.space_group_number for gene in side) for side in (genes, data))
    return {
        "space_group_chi_squared": sum((made.get(k, 0.0) - q) ** 2 / q for k, q in known.items()),
        "space_group_chi_squared_symmetric": sum(
            (made.get(k, 0.0) - known.get(k, 0.0)) ** 2 / (made.get(k, 0.0) + known.get(k, 0.0))
            for k in {*made, *known}
        ),
        "space_group_outside": sum(p for k, p in made.items() if k not in known),
        "crystal_system_tv": _between(genes, data, lambda gene: [gene.space_group.crystal_system]),
        "element_tv": _between(genes, data, lambda gene: list(gene.elements)),
        "stoichiometry_tv": _between(genes, data, lambda gene: [stoichiometry(gene)]),
        "n_elements_tv": _between(genes, data, lambda gene: [len(gene.elements)]),
    }


def total_variation(one: Shares, other: Shares) -> float:
    """Half the sum of the absolute differences of shares, 0 to 1."""
    return 0.5 * sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in {*one, *other})


def shares(values: Iterable[Hashable]) -> dict[Hashable, float]:
    """Count values as shares of all."""
    counts = Counter(values)
    total = counts.total()
    return {value: count / total for value, count in counts.items()}


def stoichiometry(gene: Gene) -> tuple[int, ...]:
    """Amounts of the reduced formula in rising order."""
    divisor = gcd(*gene.amounts.values())
    return tuple(sorted(amount // divisor for amount in gene.amounts.values()))


def prototype(gene: Gene) -> str:
    """The protostructure without its elements: what a gene shares with others of its family."""
    return gene.protostructure.partition(":")[0]


def families(genes: Sequence[Gene]) -> dict[str, int]:
    """Count distinct prototypes, chemical systems and formulas."""
    return {
        "n_prototypes": len({prototype(gene) for gene in genes}),
        "n_chemical_systems": len({gene.chemsys for gene in genes}),
        "n_formulas": len({gene.formula_pretty for gene in genes}),
    }


def novelty_shares(genes: Sequence[Gene], known: Container[str]) -> dict[str, float]:
    """Share of distinct genes among all, and of genes that are not known among the distinct (canonical genes)."""
    distinct = {str(gene) for gene in genes}
    return {
        "unique": len(distinct) / max(1, len(genes)),
        "novel": sum(name not in known for name in distinct) / max(1, len(distinct)),
    }


def _between(genes: Sequence[Gene], data: Sequence[Gene], kind: Kind) -> float:
    return total_variation(*(shares(value for gene in side for value in kind(gene)) for side in (genes, data)))
