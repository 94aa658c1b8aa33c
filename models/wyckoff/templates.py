"""Start structures of a gene from known crystals of its prototype: their elements exchanged, their volume set.

Where a known crystal of other elements occupies the same positions, its free parameters are near those of the gene:
one such start is worth many random ones of `realize`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import permutations

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.models.wyckoff.gene import Gene, canonical

MAX_ELEMENTS = 5  # the orders of more are too many to try
PLACEHOLDERS = ("H", "He", "Li", "Be", "B")
Order = tuple[str, ...]
"""The elements of a gene in the order in which a prototype names them."""


def prototype(gene: Gene) -> tuple[str, tuple[Order, ...]]:
    """Return what genes of one prototype share, and every order of the gene's elements that leads to it.

    It is the least text of all canonical genes that have placeholders for elements; it is empty, without an order,
    where there are more than `MAX_ELEMENTS`.
    """
    elements = gene.elements
    if len(elements) > MAX_ELEMENTS:
        return "", ()
    texts: dict[str, list[Order]] = {}
    for order in permutations(elements):
        names = dict(zip(order, PLACEHOLDERS, strict=False))
        renamed = Gene.of(gene.space_group_number, [(names[element], letter) for element, letter in gene.orbits])
        texts.setdefault(str(canonical(renamed)), []).append(order)
    least = min(texts)
    return least, tuple(texts[least])


class Templates:
    """Known crystals, found by prototype."""

    def __init__(self, crystals: Iterable[tuple[Gene, Crystal]]) -> None:
        """Sort crystals, given with their genes, by prototype; only the first of a gene counts."""
        self._known: dict[str, dict[str, tuple[Order, Crystal]]] = {}
        for gene, crystal in crystals:
            label, orders = prototype(gene)
            if orders:
                self._known.setdefault(label, {}).setdefault(str(gene), (orders[0], crystal))

    def starts(self, gene: Gene, volume_per_atom: float, n: int) -> list[Crystal]:
        """Return at most n crystals of a gene, from the known ones of the chemically nearest elements first.

        Args:
            gene: The gene, canonical or not. Known crystals of the gene itself count like any other.
            volume_per_atom: Å^3.
            n: How many at most.

        Returns:
            Standard primitive cells whose gene is `canonical(gene)`; none if its prototype is not known.
        """
        label, orders = prototype(gene)
        atoms = gene.amounts
        choices = [
            (_distance(known, order, [atoms[element] for element in order]), name, order)
            for name, (known, _) in self._known.get(label, {}).items()
            for order in orders
        ]
        made: list[Crystal] = []
        used: set[str] = set()
        for _, name, order in sorted(choices):
            if len(made) == n:
                break
            if name not in used:
                used.add(name)
                known, crystal = self._known[label][name]
                start = exchanged(crystal, dict(zip(known, order, strict=True)), volume_per_atom)
                if start is not None and encode(start) == canonical(gene):
                    made.append(start)
        return made


def exchanged(crystal: Crystal, elements: Mapping[str, str], volume_per_atom: float) -> Crystal | None:
    """Put other elements in the places of a crystal's and scale its cell; None if that is no crystal.

    Args:
        crystal: The known one.
        elements: Each of its elements to the one that takes its place.
        volume_per_atom: Å^3.
    """
    scale = (volume_per_atom * crystal.nsites / crystal.volume) ** (1 / 3)
    species = tuple(elements[symbol] for symbol in crystal.species)
    try:
        return standardize(Crystal(crystal.lattice * scale, species, crystal.frac_coords))
    except StructureError:
        return None


def _distance(first: Sequence[str], second: Sequence[str], weights: Sequence[int]) -> float:
    """Return how far the elements are apart on the chemical scale, on average over the atoms."""
    apart = sum(weight * abs(_place(a) - _place(b)) for a, b, weight in zip(first, second, weights, strict=True))
    return apart / sum(weights)


@lru_cache(maxsize=200)
def _place(symbol: str) -> float:
    """Return the place of an element on Mendeleev's scale, on which elements of one group are neighbours.

    Source: Villars et al., doi:10.1016/j.jallcom.2003.08.060, table 1, as pymatgen has it.
    """
    from pymatgen.core.periodic_table import Element

    return float(Element(symbol).mendeleev_no)
