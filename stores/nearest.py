"""Nearest crystals by gene and similar compositions: exact, without comparing with everything.

Chemical systems are taken in the order of the least distance that anything in them can have, and left when that is
more than the farthest neighbour found; systems, formulas and genes are read from one index.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import TargetError
from wyloop.models.wyckoff.distance import (
    STEPS_A_POSITION,
    composition_distance,
    gene_distance,
    mendeleev_number,
)
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.queries import IDENTITY

Searched = Literal["materials", "candidates"]
MAX_NEIGHBOURS = 1000
MAX_IDS = 20
"""Ids listed of one neighbour; others of the same gene or formula are counted as it."""
_SYSTEMS = 1000  # chemical systems in one query


@dataclass(frozen=True)
class Neighbour:
    """What is near: a gene or a reduced formula, its distance, and who has it."""

    distance: float
    formula_pretty: str
    fingerprint: str | None
    """The gene; None for a composition or where there is none."""
    ids: tuple[str, ...]


@translated
def nearest_genes(store: Store, gene: Gene, *, n: int = 10, collection: Searched = "materials") -> list[Neighbour]:
    """Return the n genes nearest to a gene, the nearest first, its own with distance 0 if it is there.

    Distances are those of `gene_distance`: 1 for another Wyckoff position or space group of every atom, 0.1 for every
    place on the Mendeleev scale.
    """
    wanted = canonical(gene)
    nearest = _Nearest(checked_number(n))
    own = f"{wanted.space_group_number} "
    for bound, row in _near(store, collection, wanted.amounts, STEPS_A_POSITION, nearest):
        fingerprint = row.get("fingerprint")
        if fingerprint is None:
            continue
        foreign = 0.0 if fingerprint.startswith(own) else 1.0  # another space group costs 1 in any case
        if bound + foreign > nearest.limit or not nearest.is_new(fingerprint):
            continue
        other = Gene.parse(fingerprint)
        work = composition_distance(wanted.amounts, other.amounts) / STEPS_A_POSITION
        if work + foreign <= nearest.limit:
            nearest.add(gene_distance(wanted, other), fingerprint, row["formula_pretty"])
    return [
        Neighbour(distance, formula, key, _ids(store, collection, {"fingerprint": {"$eq": key}}))
        for distance, key, formula in nearest.found()
    ]


@translated
def similar_compositions(
    store: Store, amounts: Mapping[str, float], *, n: int = 10, collection: Searched = "materials"
) -> list[Neighbour]:
    """Return the n reduced formulas nearest to a composition, the nearest first, its own with distance 0.

    Distances are those of `composition_distance`: places on the Mendeleev scale an atom.

    Args:
        store: The database.
        amounts: Amount of each element, in any unit.
        n: How many.
        collection: Where to look.
    """
    nearest = _Nearest(checked_number(n))
    for _, row in _near(store, collection, amounts, 1.0, nearest):
        formula = row["formula_pretty"]
        if nearest.is_new(formula):
            nearest.add(composition_distance(amounts, _amounts(formula)), formula, formula)
    found = [(distance, formula) for distance, _, formula in nearest.found()]
    return [Neighbour(distance, name, None, _ids(store, collection, _having(name))) for distance, name in found]


class _Nearest:
    """The n nearest of what was looked at; of equal distance, the first by name."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._heap: list[tuple[float, _Reversed, str]] = []
        self._seen: set[str] = set()

    @property
    def limit(self) -> float:
        """Distance beyond which nothing is added."""
        return -self._heap[0][0] if len(self._heap) == self._n else float("inf")

    def is_new(self, key: str) -> bool:
        """Whether a key was never asked for; asks for it."""
        n_seen = len(self._seen)
        self._seen.add(key)
        return len(self._seen) > n_seen

    def add(self, distance: float, key: str, formula: str) -> None:
        """Take it, if it is near enough."""
        entry = (-distance, _Reversed(key), formula)
        if len(self._heap) < self._n:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def found(self) -> list[tuple[float, str, str]]:
        """Return distance, key and formula, the nearest first."""
        return sorted((-distance, str(key), formula) for distance, key, formula in self._heap)


class _Reversed(str):
    """A text that sorts the other way round: in a heap of the farthest, the last by name goes first."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str(self) > str(other)


def _near(
    store: Store, collection: Searched, amounts: Mapping[str, float], scale: float, nearest: _Nearest
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield formulas and genes with the least distance of their system, until none can be nearer than those found."""
    systems = _systems(store, collection)
    bounds = _bounds(amounts, systems) / scale
    order = np.argsort(bounds, kind="stable")
    fields = {"_id": 0, "chemsys": 1, "formula_pretty": 1, "fingerprint": 1}
    for start in range(0, len(order), _SYSTEMS):
        chosen = order[start : start + _SYSTEMS]
        if bounds[chosen[0]] > nearest.limit:
            return
        criteria = {"chemsys": {"$in": [systems[place] for place in chosen]}}
        of_system = {systems[place]: float(bounds[place]) for place in chosen}
        for row in store.database[collection].find(criteria, fields, batch_size=1000):
            yield of_system[row["chemsys"]], row


def _systems(store: Store, collection: Searched) -> list[str]:
    """Return the chemical systems in order; the index is read once a system, not once a document."""
    stages: list[dict[str, Any]] = [{"$sort": {"chemsys": 1}}, {"$group": {"_id": "$chemsys"}}]
    found = store.database[collection].aggregate(stages, batchSize=10_000)
    return sorted(row["_id"] for row in found if row["_id"])


def _bounds(amounts: Mapping[str, float], systems: list[str]) -> NDArray[np.float64]:
    """Return the least distance that a composition of each system can have: every atom goes to the nearest element."""
    elements = [name.split("-") for name in systems]
    lengths = np.array([len(symbols) for symbols in elements])
    places = np.array([mendeleev_number(symbol) for symbols in elements for symbol in symbols])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if systems else lengths
    total = sum(amounts.values())
    bounds = np.zeros(len(systems))
    for symbol, amount in amounts.items() if systems else ():
        steps = np.abs(places - mendeleev_number(symbol))
        bounds += amount / total * np.minimum.reduceat(steps, starts)
    return bounds


def _ids(store: Store, collection: Searched, criteria: Mapping[str, Any]) -> tuple[str, ...]:
    name = IDENTITY[collection]
    found = store.database[collection].find(criteria, {"_id": 0, name: 1}).limit(MAX_IDS)
    return tuple(sorted(row[name] for row in found))


def _having(formula: str) -> dict[str, Any]:
    return {"chemsys": {"$eq": "-".join(sorted(_amounts(formula)))}, "formula_pretty": {"$eq": formula}}


def _amounts(formula: str) -> dict[str, float]:
    from pymatgen.core.composition import Composition  # half a second

    return {str(symbol): float(amount) for symbol, amount in Composition(formula).get_el_amt_dict().items()}


def checked_number(n: int) -> int:
    """Return a number of neighbours that may be asked for.

    Raises:
        TargetError: It is none.
    """
    if not 1 <= n <= MAX_NEIGHBOURS:
        raise TargetError(f"{n} neighbours; expected 1 to {MAX_NEIGHBOURS}")
    return n
