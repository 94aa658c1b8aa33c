"""Controls without a model: known crystals with one element swapped, and known prototypes with drawn elements."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wyloop.flows.generators.interface import Proposal, Request
from wyloop.models.wyckoff.gene import Gene, canonical

DRAWS_PER_GENE = 40  # genes drawn at most for each one wanted
_BATCH = 1000


class Substitution:
    """A known crystal with one of its elements replaced, by one that is as frequent in the known crystals."""

    name = "substitution"

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return genes in the order in which they are drawn."""
        return _drawn(request, swaps_all=False)


class Decoration:
    """The prototype of a known crystal with all elements drawn, each as frequent as in the known crystals."""

    name = "random"

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return genes in the order in which they are drawn."""
        return _drawn(request, swaps_all=True)


def _drawn(request: Request, *, swaps_all: bool) -> list[Proposal]:
    references = request.references
    counts = Counter(element for gene in references for element in gene.elements)
    if not references or len(counts) < 2:
        return []
    symbols = sorted(counts)
    shares = np.array([counts[symbol] for symbol in symbols], dtype=float)
    shares /= shares.sum()
    rng = np.random.default_rng(request.seed)
    found: dict[str, Gene] = {}
    seen: set[str] = set()
    for _ in range(max(1, request.n * DRAWS_PER_GENE // _BATCH)):
        drawn: dict[str, Gene] = {}
        for place in rng.integers(len(references), size=_BATCH):
            gene = references[place]
            new = [str(one) for one in rng.choice(symbols, size=len(gene.elements), replace=False, p=shares)]
            if swaps_all:
                names = dict(zip(gene.elements, new, strict=True))
            else:
                names = {str(rng.choice(gene.elements)): new[0]}
            made = _renamed(gene, names)
            if len(made.elements) == len(gene.elements) and made.fingerprint not in seen and request.fits(made):
                drawn[made.fingerprint] = made
        seen |= drawn.keys()
        for gene in request.chosen(list(drawn.values())):
            found[gene.fingerprint] = gene
        if len(found) >= request.n:
            break
    return [Proposal(gene) for gene in list(found.values())[: request.n]]


def _renamed(gene: Gene, names: Mapping[str, str]) -> Gene:
    """Put other elements on the orbits."""
    orbits = [(names.get(element, element), letter) for element, letter in gene.orbits]
    return canonical(Gene.of(gene.space_group_number, orbits))
