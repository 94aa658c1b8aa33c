"""Reading genes that people write: our own form, or the protostructure labels that `Gene.protostructure` writes."""

import re

from wyloop.models.errors import GeneError
from wyloop.models.wyckoff.gene import Gene, canonical

EXPECTED = "expected a form such as '221 O:c Sr:a Ti:b' or 'A3BC_cP5_221_c_a_b:O-Sr-Ti'"
_LETTERS = re.compile(r"(\d*)([A-Za-z])")


def read_gene(text: str) -> Gene:
    """Return the canonical gene of a text.

    Args:
        text: A gene, `225 Cl:b Na:a`, or a protostructure, `AB_cF8_225_a_b:Cl-Na`, elements in its own order.

    Raises:
        GeneError: It is neither, or breaks the tables of its space group.
    """
    label, _, chemsys = text.strip().partition(":")
    parts = label.split("_")
    if len(parts) < 4 or not parts[2].isdecimal():
        return canonical(Gene.parse(text.strip()))
    elements = chemsys.split("-")
    if len(elements) != len(parts) - 3:
        raise GeneError(
            f"protostructure {text!r} names {len(elements)} elements for {len(parts) - 3} groups of letters; {EXPECTED}"
        )
    orbits = [
        orbit for element, letters in zip(elements, parts[3:], strict=True) for orbit in _orbits(element, letters)
    ]
    gene = canonical(Gene.of(int(parts[2]), orbits))
    if gene.protostructure.partition("_")[0] != label.partition("_")[0] and len(set(elements)) == len(elements):
        _check_amounts(text, gene, parts[0], elements)
    return gene


def _orbits(element: str, letters: str) -> list[tuple[str, str]]:
    if not letters or _LETTERS.sub("", letters):
        raise GeneError(f"can't read the Wyckoff letters {letters!r} of {element}; {EXPECTED}")
    return [(element, letter) for count, letter in _LETTERS.findall(letters) for _ in range(int(count or 1))]


def _check_amounts(text: str, gene: Gene, anonymous: str, elements: list[str]) -> None:
    counts = [int(count or 1) for _, count in re.findall(r"([A-Z])(\d*)", anonymous)]
    amounts = [gene.amounts[element] for element in elements]
    if len(counts) != len(amounts) or any(
        n * amounts[0] != m * counts[0] for n, m in zip(counts, amounts, strict=True)
    ):
        raise GeneError(f"protostructure {text!r} says {anonymous}, but its letters make {gene.formula_pretty}")
