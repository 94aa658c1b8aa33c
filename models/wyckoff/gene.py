"""A gene: a space group and the elements on its Wyckoff letters, canonical under the Euclidean normalizer."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd

from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element

from wyloop.models.errors import GeneError
from wyloop.models.wyckoff.tables import SpaceGroup, letter_indices, space_group, wyckoff_position

Orbit = tuple[str, str]
"""Element symbol and Wyckoff letter."""
EXCHANGED = (15, "abcd", "cdab")  # space group, letters and what takes their place in labels


@dataclass(frozen=True)
class Gene:
    """The elements on the Wyckoff positions of a space group: no lattice, no coordinates.

    Make one with `Gene.of` (checked and sorted) and bring it to its canonical form with `canonical`. A letter
    appears once for every orbit on it; a position without free parameters holds one orbit at most.
    """

    space_group_number: int
    orbits: tuple[Orbit, ...]

    @classmethod
    def of(cls, space_group_number: int, orbits: Iterable[Orbit]) -> "Gene":
        """Check the orbits against the tables and sort them by element, then letter.

        Raises:
            GeneError: No orbit, an unknown element, or a position without free parameters used twice.
            WyckoffLetterError: The space group has no such letter.
        """
        orbits = tuple(orbits)
        if not orbits:
            raise GeneError(f"a gene of space group {space_group_number} without orbits; expected at least one")
        for element, letter in orbits:
            if not Element.is_valid_symbol(element):
                raise GeneError(f"unknown element {element!r}; expected a chemical symbol")
            wyckoff_position(space_group_number, letter)
        for letter, n_orbits in Counter(letter for _, letter in orbits).items():
            if n_orbits > 1 and wyckoff_position(space_group_number, letter).n_free_parameters == 0:
                raise GeneError(
                    f"position {letter} of space group {space_group_number} used {n_orbits} times; "
                    "it has no free parameter, so it holds one orbit"
                )
        return cls(space_group_number, _sorted_orbits(space_group_number, orbits))

    @classmethod
    def parse(cls, text: str) -> "Gene":
        """Read the form that `str(gene)` writes, for example `221 O:c Sr:a Ti:b`; the result is not made canonical.

        Raises:
            GeneError: The text has another form, or breaks the tables.
        """
        number, *parts = text.split() or [""]
        pairs = [tuple(part.split(":")) for part in parts]
        if not number.isdecimal() or any(len(pair) != 2 for pair in pairs):
            raise GeneError(f"can't read gene {text!r}; expected a form such as '221 O:c Sr:a Ti:b'")
        return cls.of(int(number), [(pair[0], pair[1]) for pair in pairs])

    def __str__(self) -> str:
        return f"{self.space_group_number} {self.wyckoff_sequence}"

    @property
    def wyckoff_sequence(self) -> str:
        """Species with letters, one `element:letter` an orbit, for example `O:c Sr:a Ti:b`."""
        return " ".join(f"{element}:{letter}" for element, letter in self.orbits)

    @property
    def fingerprint(self) -> str:
        """The identity of the canonical gene as text; equal if and only if the genes are the same."""
        return str(canonical(self))

    @property
    def space_group(self) -> SpaceGroup:
        """The tables of the gene's space group."""
        return space_group(self.space_group_number)

    @cached_property
    def amounts(self) -> dict[str, int]:
        """Atoms of each element in the conventional cell, elements in alphabetical order."""
        amounts: Counter[str] = Counter()
        for element, letter in self.orbits:
            amounts[element] += wyckoff_position(self.space_group_number, letter).multiplicity
        return dict(sorted(amounts.items()))

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols in alphabetical order."""
        return tuple(self.amounts)

    @property
    def chemsys(self) -> str:
        """Chemical system, for example `O-Sr-Ti`."""
        return "-".join(self.amounts)

    @property
    def n_sites_conventional(self) -> int:
        """Atoms in the conventional cell."""
        return sum(self.amounts.values())

    @property
    def nsites(self) -> int:
        """Atoms in the primitive cell."""
        return self.n_sites_conventional // self.space_group.n_centerings

    @property
    def n_free_parameters(self) -> int:
        """Free positional parameters of all orbits."""
        return sum(wyckoff_position(self.space_group_number, letter).n_free_parameters for _, letter in self.orbits)

    @property
    def composition(self) -> Composition:
        """Composition of the conventional cell."""
        return Composition(self.amounts)

    @property
    def formula_pretty(self) -> str:
        """Reduced formula as the Materials Project writes it."""
        return _formula_pretty(tuple(self.amounts.items()))

    @property
    def protostructure(self) -> str:
        """AFLOW-style label as Wren and Matbench Discovery write it, `A3BC_cP5_221_c_a_b:O-Sr-Ti`.

        Elements in alphabetical order; of all images under the normalizer the label takes the one with the least sum
        of letters, each counted once an element, then the first as text. It is not always that of `canonical`, which
        counts a letter as often as it is used.

        Source: Goodall et al., doi:10.1126/sciadv.abn4117; Mehl et al., doi:10.1016/j.commatsci.2017.01.017.
        """
        divisor = gcd(*self.amounts.values())
        counts = [amount // divisor for amount in self.amounts.values()]
        anonymous = "".join(f"{chr(65 + i)}{count if count > 1 else ''}" for i, count in enumerate(counts))
        letters = min(_label_letters(image) for start in _label_starts(self) for image in images(start))[1]
        return f"{anonymous}_{_pearson_symbol(self)}_{self.space_group_number}_{letters}:{self.chemsys}"


def _label_starts(gene: Gene) -> tuple[Gene, ...]:
    """Return the gene, and in C2/c that with a, b and c, d exchanged: Wren's table counts other axes as the same."""
    if gene.space_group_number != EXCHANGED[0]:
        return (gene,)
    letters = str.maketrans(*EXCHANGED[1:])
    return gene, Gene.of(
        gene.space_group_number, [(element, letter.translate(letters)) for element, letter in gene.orbits]
    )


def _label_letters(gene: Gene) -> tuple[int, str]:
    """Return the sum of the letters, `a` = 1 and `A` = 0, and the letters of each element with their numbers."""
    of_element: dict[str, Counter[str]] = {}
    for element, letter in gene.orbits:
        of_element.setdefault(element, Counter())[letter] += 1
    parts = []
    total = 0
    for element in gene.elements:
        used = sorted(of_element[element].items())
        parts.append("".join(f"{count if count > 1 else ''}{letter}" for letter, count in used))
        total += sum(0 if letter == "A" else ord(letter) - ord("a") + 1 for letter, _ in used)
    return total, "_".join(parts)


@lru_cache(maxsize=100_000)
def _formula_pretty(amounts: tuple[tuple[str, int], ...]) -> str:
    return Composition(dict(amounts)).reduced_formula


def _pearson_symbol(gene: Gene) -> str:
    system = gene.space_group.crystal_system
    family = {"triclinic": "a", "trigonal": "h", "hexagonal": "h"}.get(system, system[0])
    centering = gene.space_group.symbol[0]
    return f"{family}{'C' if centering in 'ABC' else centering}{gene.n_sites_conventional}"


def _sorted_orbits(space_group_number: int, orbits: Iterable[Orbit]) -> tuple[Orbit, ...]:
    indices = letter_indices(space_group_number)
    return tuple(sorted(orbits, key=lambda orbit: (orbit[0], indices[orbit[1]])))


def images(gene: Gene) -> Iterator[Gene]:
    """Yield every distinct gene that the Euclidean normalizer makes of this one, itself included (augmentation).

    Source: Yamazaki et al. 2025 (WyCryst+), Wyckoff augmentation.
    """
    indices = letter_indices(gene.space_group_number)
    seen: set[tuple[Orbit, ...]] = set()
    for image in gene.space_group.images:
        orbits = _sorted_orbits(
            gene.space_group_number, ((element, image[indices[letter]]) for element, letter in gene.orbits)
        )
        if orbits not in seen:
            seen.add(orbits)
            yield Gene(gene.space_group_number, orbits)


@lru_cache(maxsize=200_000)
def canonical(gene: Gene) -> Gene:
    """Return the one representative of a gene's class under the Euclidean normalizer: the image of least `rank`."""
    return min(images(gene), key=rank)


def rank(gene: Gene) -> tuple[int, list[int]]:
    """Return what orders genes of one space group: the sum of their letter indices, then the letter indices."""
    indices = letter_indices(gene.space_group_number)
    places = [indices[letter] for _, letter in gene.orbits]
    return sum(places), places
