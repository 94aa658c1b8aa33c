"""Embeddings: Wyckoff positions, space groups, and the orbits of a gene with its composition and electron count."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wyloop.models.mpvae.data import Batch
from wyloop.models.mpvae.vocabulary import (
    N_GROUPS,
    N_LETTERS,
    element_electrons,
    element_features,
    elements,
    position_tables,
)

N_COUNTS = 2
N_BALANCE = 9
FULL_SHELL = 8  # electrons


class PositionEmbedding(nn.Module):
    """A vector for every Wyckoff position of every group, shape (231, 27, width)."""

    site_symmetry: Tensor
    position: Tensor
    numbers: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        tables = position_tables()
        self.register_buffer("site_symmetry", torch.from_numpy(tables.site_symmetry), persistent=False)
        self.register_buffer("position", torch.from_numpy(tables.position), persistent=False)
        numbers = torch.stack(
            [
                torch.from_numpy(tables.multiplicity).clamp(min=1).float().log(),
                torch.from_numpy(tables.n_free_parameters).float(),
            ],
            dim=-1,
        )
        self.register_buffer("numbers", numbers, persistent=False)
        self.of_symmetry = nn.Embedding(int(tables.site_symmetry.max()) + 1, width)
        self.of_position = nn.Embedding(int(tables.position.max()) + 1, width)
        self.of_letter = nn.Embedding(N_LETTERS, width)
        self.of_numbers = nn.Linear(2, width)
        nn.init.normal_(self.of_position.weight, std=0.1)

    def forward(self, space_group: Tensor, letter: Tensor) -> Tensor:
        """Embed positions given by ITA number and letter, any common shape."""
        embedded: Tensor = (
            self.of_symmetry(self.site_symmetry[space_group, letter])
            + self.of_position(self.position[space_group, letter])
            + self.of_letter(letter)
            + self.of_numbers(self.numbers[space_group, letter])
        )
        return embedded


class GroupEmbedding(nn.Module):
    """A vector for every space group from its number, point group and crystal system."""

    point_group: Tensor
    crystal_system: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        tables = position_tables()
        self.register_buffer("point_group", torch.from_numpy(tables.point_group), persistent=False)
        self.register_buffer("crystal_system", torch.from_numpy(tables.crystal_system), persistent=False)
        self.of_number = nn.Embedding(N_GROUPS, width)
        self.of_point_group = nn.Embedding(int(tables.point_group.max()) + 1, width)
        self.of_system = nn.Embedding(int(tables.crystal_system.max()) + 1, width)

    def forward(self, space_group: Tensor) -> Tensor:
        """Embed ITA numbers."""
        embedded: Tensor = (
            self.of_number(space_group)
            + self.of_point_group(self.point_group[space_group])
            + self.of_system(self.crystal_system[space_group])
        )
        return embedded


@dataclass(frozen=True)
class EmbeddedGenes:
    """Genes as vectors."""

    orbits: Tensor
    """Shape (n, n_orbits, width)."""
    whole: Tensor
    """Space group, composition and electron count, shape (n, width)."""
    present: Tensor
    """Where there is an orbit, shape (n, n_orbits), bool."""
    fraction: Tensor
    """Share of each orbit in the atoms, shape (n, n_orbits)."""


class GeneEmbedding(nn.Module):
    """A vector for every orbit of a gene and one for the whole, blind to the order of the orbits."""

    features: Tensor
    electrons: Tensor
    multiplicity: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.from_numpy(element_features()), persistent=False)
        self.register_buffer("electrons", torch.from_numpy(element_electrons()), persistent=False)
        self.register_buffer("multiplicity", torch.from_numpy(position_tables().multiplicity), persistent=False)
        n_features = self.features.shape[1]
        self.of_element = nn.Embedding(len(elements()) + 1, width)
        self.of_features = nn.Linear(n_features, width)
        self.of_position = PositionEmbedding(width)
        self.of_group = GroupEmbedding(width)
        self.of_amounts = nn.Linear(2, width)
        self.of_composition = nn.Linear(4 * n_features + N_COUNTS + N_BALANCE, width)

    def forward(self, batch: Batch) -> EmbeddedGenes:
        """Embed genes."""
        present = batch.element > 0
        multiplicity = self.multiplicity[batch.space_group.unsqueeze(1), batch.letter].float() * present
        n_atoms = multiplicity.sum(dim=1, keepdim=True)
        fraction = multiplicity / n_atoms
        features = self.features[batch.element]
        amounts = torch.stack([fraction, multiplicity.clamp(min=1).log()], dim=-1)
        group = self.of_group(batch.space_group)
        orbits = (
            self.of_element(batch.element)
            + self.of_features(features)
            + self.of_position(batch.space_group.unsqueeze(1).expand_as(batch.letter), batch.letter)
            + self.of_amounts(amounts)
            + group.unsqueeze(1)
        )
        composition = [_statistics(features, fraction, present, n_atoms), self._balance(batch.element, multiplicity)]
        return EmbeddedGenes(orbits, group + self.of_composition(torch.cat(composition, dim=1)), present, fraction)

    def _balance(self, element: Tensor, multiplicity: Tensor) -> Tensor:
        """Charges and electrons of the primitive cell, shape (n, 9).

        The most electronegative element (ids count in that order) takes electrons, the others give them.
        """
        lowest_cation, highest_cation, anion, is_odd, n_valence = self.electrons[element].unbind(dim=-1)
        takes = (element == element.amax(dim=1, keepdim=True)) & (element > 0)
        lowest = (torch.where(takes, anion, lowest_cation) * multiplicity).sum(dim=1)
        highest = (torch.where(takes, anion, highest_cation) * multiplicity).sum(dim=1)
        n_atoms = multiplicity.sum(dim=1)
        electrons = (n_valence * multiplicity).sum(dim=1)
        excess = electrons / (takes * multiplicity).sum(dim=1) - FULL_SHELL
        columns = (
            lowest / n_atoms,
            highest / n_atoms,
            (lowest <= 0) & (highest >= 0),
            lowest == 0,
            highest == 0,
            (is_odd * multiplicity).sum(dim=1) % 2,
            excess.clamp(-FULL_SHELL, FULL_SHELL) / 4,
            excess == 0,
            electrons / n_atoms / 4 - 1,
        )
        return torch.stack([column.float() for column in columns], dim=1)


def _statistics(features: Tensor, fraction: Tensor, present: Tensor, n_atoms: Tensor) -> Tensor:
    """Mean, mean deviation, least and greatest of the elemental descriptors over the atoms, and two counts."""
    weight = fraction.unsqueeze(-1)
    mean = (features * weight).sum(dim=1)
    deviation = ((features - mean.unsqueeze(1)).abs() * weight).sum(dim=1)
    absent = ~present.unsqueeze(-1)
    least = features.masked_fill(absent, torch.inf).amin(dim=1)
    greatest = features.masked_fill(absent, -torch.inf).amax(dim=1)
    counts = torch.cat([n_atoms.log(), present.sum(dim=1, keepdim=True).float().log()], dim=1)
    return torch.cat([mean, deviation, least, greatest, counts], dim=1)
