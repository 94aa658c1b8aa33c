"""Which element and which letter may come next, so that every decoded gene is valid.

Orbits come sorted by element id, then letter. A letter must exist in the space group, a position without free
parameters holds one orbit, and the primitive cell has room for a bounded number of atoms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wyloop.models.mpvae.vocabulary import N_LETTERS, STOP, elements, position_tables

NO_LIMIT = 10_000  # atoms; more than any crystal here


@dataclass(frozen=True)
class Limits:
    """What decoded genes must be; an empty set means no condition."""

    space_groups: frozenset[int] = frozenset()
    """ITA numbers allowed."""
    allowed: frozenset[int] = frozenset()
    """Ids of the elements allowed."""
    required: frozenset[int] = frozenset()
    """Ids of the elements that must occur."""
    min_elements: int = 1
    max_elements: int = 8
    max_atoms: int = 24
    """Most atoms in the primitive cell."""


@dataclass
class State:
    """Genes half written, one a row."""

    space_group: Tensor
    used: Tensor
    """Letters that hold an orbit, shape (n, 27)."""
    room: Tensor
    """Atoms of the primitive cell still free, shape (n,)."""
    element: Tensor
    """Element of the last orbit, 0 at the start, shape (n,)."""
    letter: Tensor
    """Letter of the last orbit, shape (n,)."""
    n_elements: Tensor
    missing: Tensor
    """Required elements that have not come yet, shape (n, n_elements + 1)."""


class Grammar(nn.Module):
    """The tables as tensors, and the masks made from them."""

    exists: Tensor
    multiplicity: Tensor
    is_fixed: Tensor

    def __init__(self) -> None:
        super().__init__()
        tables = position_tables()
        self.register_buffer("exists", torch.from_numpy(tables.exists), persistent=False)
        self.register_buffer("multiplicity", torch.from_numpy(tables.multiplicity), persistent=False)
        self.register_buffer("is_fixed", torch.from_numpy(tables.is_fixed), persistent=False)

    def open_letters(self, space_group: Tensor, used: Tensor, room: Tensor) -> Tensor:
        """Letters that can hold one more orbit, shape (..., 27), bool."""
        fits = self.multiplicity[space_group] <= room.unsqueeze(-1)
        return self.exists[space_group] & fits & ~(used & self.is_fixed[space_group])

    def space_group_mask(self, limits: Limits) -> Tensor:
        """Space groups that are allowed and have an orbit small enough, shape (231,), bool."""
        smallest = torch.where(self.exists, self.multiplicity, NO_LIMIT).amin(dim=1)
        mask = smallest <= limits.max_atoms
        if limits.space_groups:
            wanted = torch.zeros_like(mask)
            wanted[list(limits.space_groups)] = True
            mask &= wanted
        mask[0] = False
        return mask

    def start(self, space_group: Tensor, limits: Limits) -> State:
        """Return the state of genes of which only the space group is known."""
        n = len(space_group)
        zeros = torch.zeros_like(space_group)
        missing = torch.zeros(len(elements()) + 1, dtype=torch.bool, device=space_group.device)
        missing[list(limits.required)] = True
        return State(
            space_group,
            torch.zeros(n, N_LETTERS, dtype=torch.bool, device=space_group.device),
            torch.full_like(space_group, limits.max_atoms),
            zeros,
            zeros,
            zeros,
            missing.expand(n, -1),
        )

    def advance(self, state: State, element: Tensor, letter: Tensor) -> State:
        """Return the state after one more orbit on every row; rows that stopped (element 0) must not be used again."""
        placed = torch.nn.functional.one_hot(element, state.missing.shape[1]).bool()
        return State(
            state.space_group,
            state.used | torch.nn.functional.one_hot(letter, N_LETTERS).bool(),
            state.room - self.multiplicity[state.space_group, letter],
            element,
            letter,
            state.n_elements + (element != state.element).long(),
            state.missing & ~placed,
        )

    def element_mask(self, state: State, open_letters: Tensor, limits: Limits) -> Tensor:
        """Elements that may come next; column 0 is "stop". At least one column of a row is true.

        Where limits and room contradict each other the gene may stop: it is valid, but misses the limits.
        """
        n_columns = state.missing.shape[1]
        mask = order_mask(state.element, state.letter, open_letters, n_columns)
        if limits.allowed:
            allowed = torch.zeros(n_columns, dtype=torch.bool, device=mask.device)
            allowed[list(limits.allowed)] = True
            mask &= allowed
        ids = torch.arange(n_columns, device=mask.device)
        is_new = ids > state.element.unsqueeze(1)
        mask &= ~(is_new & (state.n_elements >= limits.max_elements).unsqueeze(1))
        next_missing = torch.where(state.missing, ids, n_columns).amin(dim=1)
        mask &= ids <= next_missing.unsqueeze(1)
        n_missing = state.missing.sum(dim=1)
        crowded = state.n_elements + n_missing >= limits.max_elements
        mask &= ~(is_new & ~state.missing & (crowded & (n_missing > 0)).unsqueeze(1))
        mask[:, STOP] = (n_missing == 0) & (state.n_elements >= max(1, limits.min_elements))
        mask[:, STOP] |= ~mask.any(dim=1) & (state.n_elements > 0)
        return mask


def order_mask(last_element: Tensor, last_letter: Tensor, open_letters: Tensor, n_columns: int) -> Tensor:
    """Elements that keep the order and have a letter left, shape (..., n_columns); "stop" once there is an orbit."""
    ids = torch.arange(n_columns, device=last_element.device)
    letters = torch.arange(N_LETTERS, device=last_element.device)
    last = last_element.unsqueeze(-1)
    again = (open_letters & (letters >= last_letter.unsqueeze(-1))).any(dim=-1, keepdim=True)
    mask = ((ids > last) & open_letters.any(dim=-1, keepdim=True)) | ((ids == last) & again)
    mask[..., STOP] = last_element != STOP
    return mask


def letter_mask(last_element: Tensor, last_letter: Tensor, element: Tensor, open_letters: Tensor) -> Tensor:
    """Letters that the next orbit, of a known element, may take, shape (..., 27)."""
    letters = torch.arange(N_LETTERS, device=element.device)
    is_same = (element == last_element).unsqueeze(-1)
    return open_letters & (~is_same | (letters >= last_letter.unsqueeze(-1)))
