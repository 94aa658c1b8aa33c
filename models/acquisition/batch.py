"""A batch of candidates: the best by score, not all of one kind, and nothing that is known already."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import CampaignError
from wyloop.models.screening.novelty import distinct
from wyloop.models.wyckoff.gene import Gene

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Diversity:
    """How many of one kind a batch may hold, and how much a candidate loses for each like one in it."""

    max_per_chemsys: int | None = None
    max_per_prototype: int | None = None
    max_per_element: int | None = None
    """Candidates that hold any one element."""
    penalty: float = 0.0
    """Share of the score lost for being of one chemical system or prototype with one in the batch, 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("max_per_chemsys", "max_per_prototype", "max_per_element"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CampaignError(f"{name} {value}; expected at least 1, or nothing for no limit")
        if not 0.0 <= self.penalty <= 1.0:
            raise CampaignError(f"penalty {self.penalty}; expected a number from 0 to 1")


@dataclass(frozen=True)
class Kind:
    """What makes two candidates alike."""

    chemsys: str
    prototype: str = ""

    @classmethod
    def of(cls, gene: Gene) -> "Kind":
        """Return chemical system and prototype of a gene."""
        return cls(gene.chemsys, gene.protostructure.split(":")[0])


@dataclass
class Batch:
    """What a batch holds by kind; it says whether one more fits."""

    diversity: Diversity
    _of_chemsys: Counter[str] = field(default_factory=Counter)
    _of_prototype: Counter[str] = field(default_factory=Counter)
    _of_element: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self._of_chemsys.total()

    def add(self, kind: Kind) -> None:
        """Count one more of a kind."""
        self._of_chemsys[kind.chemsys] += 1
        self._of_element.update(kind.chemsys.split("-"))
        if kind.prototype:
            self._of_prototype[kind.prototype] += 1

    def has_room(self, kind: Kind) -> bool:
        """Whether one more of a kind keeps the quotas."""
        limits = self.diversity
        counts = [(limits.max_per_chemsys, self._of_chemsys[kind.chemsys])]
        if kind.prototype:
            counts.append((limits.max_per_prototype, self._of_prototype[kind.prototype]))
        counts += [(limits.max_per_element, self._of_element[element]) for element in kind.chemsys.split("-")]
        return all(limit is None or count < limit for limit, count in counts)

    def likeness(self, kind: Kind) -> int:
        """Candidates in the batch of the same chemical system, and those of the same prototype, added up."""
        return self._of_chemsys[kind.chemsys] + self._of_prototype[kind.prototype]


def choose(
    scores: Array,
    kinds: Sequence[Kind],
    n: int,
    diversity: Diversity | None = None,
    *,
    already: Iterable[Kind] = (),
) -> list[int]:
    """Choose a batch, one after the other: the greatest score, less the penalty for what is alike, that has room.

    Args:
        scores: Greater is better, at least zero where there is a penalty; shape (m,).
        kinds: Of the candidates.
        n: How many at most.
        diversity: Quotas and penalty; without it the `n` of the greatest scores, ties by place.
        already: Kinds that the batch holds before.

    Returns:
        Places of the chosen candidates, in the order of choice.

    Raises:
        CampaignError: Scores and kinds differ in number.
    """
    if len(scores) != len(kinds):
        raise CampaignError(f"{len(scores)} scores for {len(kinds)} candidates; expected one for each")
    batch = Batch(diversity or Diversity())
    for kind in already:
        batch.add(kind)
    left = np.argsort(-scores, kind="stable").tolist()
    keep = 1.0 - batch.diversity.penalty
    chosen: list[int] = []
    while left and len(chosen) < n:
        best, best_score = -1, -np.inf
        for place in left:
            if scores[place] <= best_score:
                break  # the rest, sorted, is no better even without a penalty
            if batch.has_room(kinds[place]):
                score = scores[place] * keep ** batch.likeness(kinds[place])
                if score > best_score:
                    best, best_score = place, score
        if best < 0:
            break
        chosen.append(best)
        left.remove(best)
        batch.add(kinds[best])
    return chosen


def first_times(fingerprints: Sequence[str], known: Container[str] = ()) -> NDArray[np.bool_]:
    """Mark what appears for the first time, here and in what is known: only that counts as found, shape (n,)."""
    marks = zip(distinct(fingerprints), fingerprints, strict=True)
    return np.array([is_first and fingerprint not in known for is_first, fingerprint in marks], dtype=bool)
