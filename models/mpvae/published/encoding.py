"""Genes of up to three elements as the paper's arrays, and back, with every fault of a decoded array named.

Columns are elements, most electropositive first, padded to three; a column's rows are 103 one-hot elements and "none",
the amount in the conventional cell, the ratio, 92 elemental features, and orbits on each of 26 letters. As published,
position A of space group 47 has no row: such an orbit is lost. Amounts are divided by the largest of the training rows
(the original's are unscaled and drown the rest); the 92 features are binned here from pymatgen's periodic table.

Source: Zhu et al., Matter 7, 3469 (2024); Yamazaki et al. 2025 (WyCryst+); Xie and Grossman, PRL 120, 145301, for bins.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core.periodic_table import Element
from torch import Tensor
from torch.nn.functional import one_hot

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.vocabulary import element_id, elements
from wyloop.models.wyckoff.gene import Gene, images
from wyloop.models.wyckoff.tables import letter_indices, space_group

N_COLUMNS = 3
N_LETTERS = 26
N_SPACE_GROUPS = 230
N_KINDS = 104  # "none", then 103 elements
N_FEATURES = 92
AMOUNT_ROW = N_KINDS
RATIO_ROW = N_KINDS + 1
COUNTS_START = N_KINDS + 2 + N_FEATURES
N_ROWS = COUNTS_START + N_LETTERS  # 224
N_BINS = 10


@dataclass(frozen=True)
class EncodedGenes:
    """Genes as integer arrays, elements in the order of their ids."""

    space_group: NDArray[np.int64]
    """ITA number, shape (n,)."""
    element: NDArray[np.int64]
    """Element ids, 0 where there is none, shape (n, 3)."""
    counts: NDArray[np.int64]
    """Orbits of each element on each letter, shape (n, 3, 26)."""

    def __len__(self) -> int:
        return len(self.space_group)

    def take(self, rows: NDArray[np.int64]) -> "EncodedGenes":
        """Return some of the rows."""
        return EncodedGenes(self.space_group[rows], self.element[rows], self.counts[rows])

    @property
    def amounts(self) -> NDArray[np.float32]:
        """Atoms of each element in the conventional cell, shape (n, 3)."""
        sizes = multiplicities()[self.space_group - 1]
        amounts: NDArray[np.float32] = (self.counts * sizes[:, None]).sum(axis=2).astype(np.float32)
        return amounts


def is_encodable(gene: Gene) -> bool:
    """Whether the published encoding has room for a gene's elements."""
    return len(gene.amounts) <= N_COLUMNS


def encode_genes(genes: Sequence[Gene]) -> EncodedGenes:
    """Turn genes into arrays as they are written; make them canonical or augment them before.

    Raises:
        ModelError: More than three elements, or an element beyond Lr.
    """
    element = np.zeros((len(genes), N_COLUMNS), np.int64)
    counts = np.zeros((len(genes), N_COLUMNS, N_LETTERS), np.int64)
    for row, gene in enumerate(genes):
        if not is_encodable(gene):
            raise ModelError(f"{len(gene.amounts)} elements in {gene}; the published encoding has room for {N_COLUMNS}")
        ids = sorted(element_id(symbol) for symbol in gene.amounts)
        element[row, : len(ids)] = ids
        column = {elements()[identity - 1]: place for place, identity in enumerate(ids)}
        letters = letter_indices(gene.space_group_number)
        for symbol, letter in gene.orbits:
            if letters[letter] < N_LETTERS:
                counts[row, column[symbol], letters[letter]] += 1
    return EncodedGenes(np.array([gene.space_group_number for gene in genes], np.int64), element, counts)


def augmented(genes: Sequence[Gene]) -> tuple[list[Gene], NDArray[np.int64]]:
    """Return every distinct normalizer image of every gene, and which gene each comes from."""
    found = [(image, index) for index, gene in enumerate(genes) for image in images(gene)]
    return [image for image, _ in found], np.array([index for _, index in found], np.int64)


def to_tensors(genes: EncodedGenes, amount_scale: float) -> tuple[Tensor, Tensor]:
    """Lay genes out as the encoder's input.

    Returns:
        The Wyckoff array, shape (n, 3, 224), and space groups from 0, shape (n,), int64.
    """
    element, counts = torch.from_numpy(genes.element), torch.from_numpy(genes.counts).float()
    amounts = torch.from_numpy(genes.amounts)
    ratios = amounts / amounts.sum(dim=1, keepdim=True).clamp(min=1)
    numbers = torch.stack([amounts / amount_scale, ratios], dim=-1)
    kinds = one_hot(element, N_KINDS).float()
    array = torch.cat([kinds, numbers, torch.from_numpy(binned_features())[element], counts], dim=-1)
    return array, torch.from_numpy(genes.space_group - 1)


def from_tensors(array: Tensor, space_group_logits: Tensor) -> EncodedGenes:
    """Read what the decoder wrote: likeliest element of each column, counts rounded, likeliest space group."""
    counts = array[:, :, COUNTS_START:].round().clamp(min=0).long()
    element = array[:, :, :N_KINDS].argmax(dim=-1)
    return EncodedGenes(space_group_logits.argmax(dim=1).numpy() + 1, element.numpy(), counts.numpy())


def without_foreign_letters(genes: EncodedGenes) -> EncodedGenes:
    """Drop orbits on letters that the space group does not have, as the original decoder does without a word."""
    exists = multiplicities()[genes.space_group - 1] > 0
    return EncodedGenes(genes.space_group, genes.element, genes.counts * exists[:, None])


@dataclass(frozen=True)
class DecodedGene:
    """What came out of the decoder: a gene, or the first fault that makes it none."""

    gene: Gene | None
    fault: str | None


def decoded_genes(genes: EncodedGenes) -> list[DecodedGene]:
    """Check decoded arrays against the tables; nothing is repaired, faults are named."""
    return [
        _decoded(int(number), element.tolist(), counts)
        for number, element, counts in zip(genes.space_group, genes.element, genes.counts, strict=True)
    ]


def _decoded(number: int, element: list[int], counts: NDArray[np.int64]) -> DecodedGene:
    positions = space_group(number).positions
    used = [(identity, column) for identity, column in zip(element, counts, strict=True) if identity]
    total = counts.sum(axis=0)
    fixed = [letter for letter, place in enumerate(positions[:N_LETTERS]) if place.n_free_parameters == 0]
    faults = {
        "no element": not used,
        "an element twice": len({identity for identity, _ in used}) < len(used),
        "orbits without an element": int(counts.sum()) > sum(int(column.sum()) for _, column in used),
        "an element without orbits": any(not column.any() for _, column in used),
        "a letter that the space group does not have": bool(total[len(positions) :].any()),
        "a position without free parameters used twice": bool((total[fixed] > 1).any()),
    }
    fault = next((name for name, is_found in faults.items() if is_found), None)
    if fault is not None:
        return DecodedGene(None, fault)
    orbits = [
        (elements()[identity - 1], positions[letter].letter)
        for identity, column in used
        for letter in np.repeat(np.arange(N_LETTERS), column).tolist()
    ]
    return DecodedGene(Gene.of(number, orbits), None)


@cache
def multiplicities() -> NDArray[np.int64]:
    """Atoms of one orbit in the conventional cell by space group (from 0) and letter, shape (230, 26)."""
    table = np.zeros((N_SPACE_GROUPS, N_LETTERS), np.int64)
    for row in range(N_SPACE_GROUPS):
        sizes = [position.multiplicity for position in space_group(row + 1).positions[:N_LETTERS]]
        table[row, : len(sizes)] = sizes
    return table


@cache
def binned_features() -> NDArray[np.float32]:
    """Features of the elements by id: group, period and block one-hot, six properties in ten bins each, three scaled.

    Shape (104, 92); row 0 is zero, and so are the bins of what is unknown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns once for every unknown value
        atoms = [Element(symbol) for symbol in elements()]
        columns = [
            [float(atom.X) for atom in atoms],
            [float(atom.atomic_radius or math.nan) for atom in atoms],
            [float(atom.average_ionic_radius or math.nan) for atom in atoms],
            [float(atom.ionization_energy or math.nan) for atom in atoms],
            [math.nan if atom.electron_affinity is None else float(atom.electron_affinity) for atom in atoms],
            [math.log(float(atom.atomic_mass)) for atom in atoms],
        ]
        scaled = [[atom.max_oxidation_state / 8, atom.min_oxidation_state / 4, float(atom.is_metal)] for atom in atoms]
    parts = [
        np.eye(18)[[atom.group - 1 for atom in atoms]],
        np.eye(7)[[atom.row - 1 for atom in atoms]],
        np.eye(4)[["spdf".index(atom.block) for atom in atoms]],
        *[_bins(np.array(column)) for column in columns],
        np.array(scaled, float),
    ]
    features = np.concatenate(parts, axis=1)
    return np.concatenate([np.zeros((1, N_FEATURES)), features]).astype(np.float32)


def _bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.nanmin(values), np.nanmax(values)
    place = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low) * N_BINS, 0, N_BINS - 1).astype(int)
    return np.where(np.isnan(values)[:, None], 0.0, np.eye(N_BINS)[place])


def fault_shares(decoded: Sequence[DecodedGene]) -> dict[str, float]:
    """Return the share of decoded rows with each first fault."""
    counts = Counter(row.fault for row in decoded if row.fault is not None)
    return {name: count / len(decoded) for name, count in counts.most_common()}
