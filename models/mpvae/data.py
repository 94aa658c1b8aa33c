"""Training rows, and genes as padded integer arrays: what goes into the network and comes out of it."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.config import PROPERTIES
from wyloop.models.mpvae.vocabulary import STOP, element_id, elements
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.tables import letter_indices, space_group

ENERGY, GAP, VOLUME = (PROPERTIES.index(name) for name in PROPERTIES)
IS_METAL = -1
"""Columns of labels; those of further properties stand before the last."""
GAP_FLOOR = 1e-3  # eV; a smaller band gap is none


@dataclass(frozen=True)
class TrainingRow:
    """One crystal to learn from."""

    gene: Gene
    labels: Mapping[str, float]
    """Any of formation_energy_per_atom (eV/atom), band_gap (eV, PBE), is_metal (0 or 1), volume_per_atom (Å^3), and of
    the network's extra properties."""


@dataclass(frozen=True)
class GeneArrays:
    """Genes as arrays, orbits sorted by element id, then letter."""

    space_group: NDArray[np.int64]
    """ITA number, shape (n,)."""
    element: NDArray[np.int64]
    """Element ids, 0 where there is no orbit, shape (n, n_orbits)."""
    letter: NDArray[np.int64]
    """Letters by place in the group's table, shape (n, n_orbits)."""

    @property
    def n_orbits(self) -> NDArray[np.int64]:
        """Orbits of each gene, shape (n,)."""
        counts: NDArray[np.int64] = (self.element != STOP).sum(axis=1)
        return counts

    def take(self, rows: NDArray[np.int64]) -> "GeneArrays":
        """Return some of the rows, cut to the longest of them."""
        longest = int(self.n_orbits[rows].max())
        return GeneArrays(self.space_group[rows], self.element[rows, :longest], self.letter[rows, :longest])


def gene_arrays(genes: Sequence[Gene]) -> GeneArrays:
    """Turn genes into arrays, each in its canonical form.

    Raises:
        ModelError: An element that the network does not know.
    """
    longest = max((len(gene.orbits) for gene in genes), default=1)
    element = np.zeros((len(genes), longest), np.int64)
    letter = np.zeros((len(genes), longest), np.int64)
    for row, gene in enumerate(genes):
        indices = letter_indices(gene.space_group_number)
        pairs = sorted((element_id(symbol), indices[place]) for symbol, place in canonical(gene).orbits)
        element[row, : len(pairs)] = [pair[0] for pair in pairs]
        letter[row, : len(pairs)] = [pair[1] for pair in pairs]
    return GeneArrays(np.array([gene.space_group_number for gene in genes], np.int64), element, letter)


def genes_of(arrays: GeneArrays) -> list[Gene]:
    """Turn arrays back into checked, canonical genes.

    Raises:
        GeneError: A row breaks the tables of its space group; decoded rows never do.
    """
    symbols = ("", *elements())
    genes = []
    for number, element, letter in zip(
        arrays.space_group.tolist(), arrays.element.tolist(), arrays.letter.tolist(), strict=True
    ):
        letters = space_group(number).letters
        orbits = [(symbols[e], letters[w]) for e, w in zip(element, letter, strict=True) if e != STOP]
        genes.append(canonical(Gene.of(number, orbits)))
    return genes


class Batch(NamedTuple):
    """Tensors of some genes."""

    space_group: Tensor
    """Shape (n,), int64."""
    element: Tensor
    """Shape (n, n_orbits), int64."""
    letter: Tensor
    """Shape (n, n_orbits), int64."""

    @classmethod
    def of(cls, arrays: GeneArrays) -> "Batch":
        """Copy arrays to tensors."""
        return cls(
            torch.from_numpy(arrays.space_group), torch.from_numpy(arrays.element), torch.from_numpy(arrays.letter)
        )

    def take(self, rows: NDArray[Any] | Tensor) -> "Batch":
        """Return some of the genes, cut to the longest of them."""
        element, letter = self.element[rows], self.letter[rows]
        longest = int((element != STOP).sum(dim=1).max()) if len(element) else 1
        return Batch(self.space_group[rows], element[:, :longest], letter[:, :longest])

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device."""
        return Batch(self.space_group.to(device), self.element.to(device), self.letter.to(device))


@dataclass(frozen=True)
class Dataset:
    """Genes with their labels as arrays."""

    genes: GeneArrays
    labels: NDArray[np.float32]
    """The network's properties in their order, then metal (1) or not (0); NaN where unknown; shape (n, n + 1)."""
    formulas: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.formulas)

    def take(self, rows: NDArray[np.int64]) -> "Dataset":
        """Return some of the rows."""
        return Dataset(self.genes.take(rows), self.labels[rows], tuple(self.formulas[row] for row in rows))

    def with_unlabelled(self, genes: GeneArrays) -> "Dataset":
        """Return these rows and, after them, genes without labels."""
        width = max(self.genes.element.shape[1], genes.element.shape[1])
        parts = (self.genes, genes)

        def joined(name: str) -> NDArray[np.int64]:
            return np.concatenate(
                [np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in (getattr(p, name) for p in parts)]
            )

        space_group = np.concatenate([part.space_group for part in parts])
        unknown = np.full((len(genes.space_group), self.labels.shape[1]), np.nan, np.float32)
        labels = np.concatenate([self.labels, unknown])
        formulas = (*self.formulas, *[""] * len(genes.space_group))
        return Dataset(GeneArrays(space_group, joined("element"), joined("letter")), labels, formulas)

    @property
    def digest(self) -> str:
        """SHA-256 over genes and labels, to recognise the same data when a run is resumed."""
        arrays = (self.genes.space_group, self.genes.element, self.genes.letter, self.labels)
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def dataset(rows: Sequence[TrainingRow], *, max_orbits: int, extra_properties: Sequence[str] = ()) -> Dataset:
    """Collect rows as arrays; rows with more orbits are left out.

    Raises:
        ModelError: No row is left, or a label is unknown, infinite or out of range.
    """
    kept = [row for row in rows if len(row.gene.orbits) <= max_orbits]
    if not kept:
        raise ModelError(f"{len(rows)} training rows, none with at most {max_orbits} orbits; expected at least one")
    names = (*PROPERTIES, *extra_properties, "is_metal")
    labels = np.full((len(kept), len(names)), np.nan, np.float32)
    for index, row in enumerate(kept):
        for name, value in row.labels.items():
            labels[index, _label_column(name, value, row.gene, names)] = value
    gap, is_metal = labels[:, GAP], labels[:, IS_METAL]
    labels[:, IS_METAL] = np.where(np.isnan(is_metal) & ~np.isnan(gap), (gap < GAP_FLOOR).astype(np.float32), is_metal)
    return Dataset(gene_arrays([row.gene for row in kept]), labels, tuple(reduced_formula(row.gene) for row in kept))


def reduced_formula(gene: Gene) -> str:
    """Write elements in alphabetical order with the smallest whole amounts, for example `O3SrTi`."""
    divisor = math.gcd(*gene.amounts.values())
    return "".join(f"{e}{n // divisor if n > divisor else ''}" for e, n in gene.amounts.items())


def _label_column(name: str, value: float, gene: Gene, names: Sequence[str]) -> int:
    if name not in names:
        raise ModelError(f"unknown label {name!r} of {gene}; expected some of {', '.join(names)}")
    lowest = {"volume_per_atom": 1e-6, "band_gap": 0.0, "is_metal": 0.0}.get(name, -np.inf)
    highest = 1.0 if name == "is_metal" else np.inf
    if np.isinf(value) or value < lowest or value > highest:
        raise ModelError(f"label {name} = {value} of {gene}; expected a finite number from {lowest} to {highest}")
    return names.index(name)


def split(data: Dataset, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw training and validation rows; all rows of one formula fall on the same side.

    The side depends on formula and seed only, so the same compound stays on its side when rows are added.
    """
    sides = {
        formula: int.from_bytes(hashlib.sha256(f"{seed}:{formula}".encode()).digest()[:8], "big") / 2**64 < fraction
        for formula in set(data.formulas)
    }
    is_validation = np.array([sides[formula] for formula in data.formulas])
    rows = np.arange(len(data))
    if is_validation.all() or len(data) < 2:
        return rows, rows[:0]
    return rows[~is_validation], rows[is_validation]


def batches(
    n_orbits: NDArray[np.int64], batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield rows in batches of like numbers of orbits, shuffled when a generator is given."""
    jitter = rng.random(len(n_orbits)) * 1.5 if rng else np.zeros(len(n_orbits))
    order = np.argsort(n_orbits + jitter, kind="stable")
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if rng:
        rng.shuffle(chunks)
    yield from chunks
