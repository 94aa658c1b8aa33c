"""What anything that proposes crystals must be able to do, and what it is asked and answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from wyloop.models.crystal import Crystal
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.funnel import gene_values
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.records import JSON

Known = Callable[[Sequence[str]], set[str]]
"""Says which of some fingerprints must not come; a generator asks of every gene that it comes up with, once each."""


@dataclass(frozen=True)
class Request:
    """What a generator is asked for in a round."""

    target: Target
    n: int
    """Genes wanted; fewer may come."""
    seed: int
    """The same request with the same seed must give the same proposals."""
    known: Known
    rows: Sequence[TrainingRow]
    """Known crystals with their labels; each row is made when it is asked for."""
    checkpoint: Checkpoint
    """The round's model."""
    accept: Callable[[Gene], bool] | None = None
    """A further wish, such as charge neutrality; genes it refuses come last."""
    max_nsites: int = 24
    """Largest primitive cell, atoms."""
    on_progress: Callable[[int, int], None] | None = None

    @property
    def references(self) -> list[Gene]:
        """Genes of the known crystals."""
        return [row.gene for row in self.rows]

    def fits(self, gene: Gene) -> bool:
        """Whether a gene is small enough, and what it alone tells (space group, elements, sizes) meets the target."""
        values = gene_values(gene)
        conditions = (one for one in self.target.conditions if values.get(one.field) is not None)
        return gene.nsites <= self.max_nsites and all(one.accepts(values[one.field]) for one in conditions)

    def chosen(self, genes: Sequence[Gene]) -> list[Gene]:
        """Return the first `n` new ones of distinct genes, those that are not accepted last."""
        known = self.known([gene.fingerprint for gene in genes])
        new = [gene for gene in genes if gene.fingerprint not in known]
        if self.accept is not None:
            accept = self.accept
            new.sort(key=lambda gene: not accept(gene))  # stable
        return new[: self.n]


@dataclass(frozen=True)
class Proposal:
    """One gene that a generator proposes."""

    gene: Gene
    """In its canonical form."""
    crystal: Crystal | None = None
    """The generator's own 3D structure; the first that a relaxation starts from."""
    prediction: Prediction | None = None
    """By the round's model, if the generator has it already."""
    facts: Mapping[str, JSON] = field(default_factory=dict)
    """Where it is from, such as file and row; kept with the candidate."""


@runtime_checkable
class Generator(Protocol):
    """Proposes genes for a target. An entry point of the group `wyloop.generators` is one, or makes one when called."""

    @property
    def name(self) -> str:
        """What a policy calls it, and what candidates keep as their sampler."""

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return at most `request.n` distinct new genes, best first."""
