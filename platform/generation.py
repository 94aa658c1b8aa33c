"""Genes for a target from a model file, screened, without a database."""

from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from wyloop.models.mpvae.aim import probability_of_target
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.predict import Prediction, predict
from wyloop.models.mpvae.sample import MAX_ATOMS, generate
from wyloop.models.screening.funnel import ScreeningPolicy, is_accepted, screen
from wyloop.models.screening.hull import Entry
from wyloop.models.screening.verdict import Verdict
from wyloop.models.targets import Target
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.starter.read import starter_set

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Proposal:
    """A gene with what the model and the screens say of it."""

    gene: Gene
    prediction: Prediction
    verdicts: tuple[Verdict, ...]
    probability: float
    """That the predicted properties meet the target, by the model's own uncertainty."""
    is_accepted: bool
    """Whether every binding screen passed it."""

    def to_json(self) -> dict[str, Any]:
        """Return the proposal as plain JSON: energies in eV/atom, gaps in eV, volumes in Å^3 per atom."""
        gene = self.gene
        return {
            "formula_pretty": gene.formula_pretty,
            "space_group_number": gene.space_group_number,
            "protostructure": gene.protostructure,
            "wyckoff_sequence": gene.wyckoff_sequence,
            "nsites": gene.nsites,
            "fingerprint": gene.fingerprint,
            "predictions": asdict(self.prediction),
            "probability_of_target": self.probability,
            "accepted": self.is_accepted,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def propose(
    checkpoint: Checkpoint,
    target: Target,
    n: int,
    *,
    seed: int,
    max_atoms: int = MAX_ATOMS,
    exclude: Container[str] = (),
    on_progress: OnProgress | None = None,
) -> Iterator[Proposal]:
    """Generate genes, best first, and put each through every screen; what is known, and the hull, is the starter set.

    Args:
        checkpoint: The model.
        target: What the genes should be.
        n: Genes wanted; fewer come if the model finds no more.
        seed: The same seed gives the same genes.
        max_atoms: Most atoms in the primitive cell.
        exclude: Fingerprints of genes that must not come.
        on_progress: Told the genes found and `n`.

    Raises:
        TargetError: No gene can meet the target.
    """
    policy = ScreeningPolicy.model_validate({"max_nsites": max_atoms})
    genes = generate(
        checkpoint,
        target,
        n,
        seed=seed,
        exclude=exclude,
        max_atoms=max_atoms,
        accept=policy.composition_wish(),
        on_progress=on_progress,
    )
    predictions = predict(checkpoint, genes)
    known = {encode(entry.crystal).fingerprint for entry in starter_set()}
    phases = [
        Entry(entry.crystal.amounts, entry.formation_energy_per_atom, entry.structure_id) for entry in starter_set()
    ]
    verdicts = screen(genes, predictions, target, known, phases, policy)
    for gene, prediction, given in zip(genes, predictions, verdicts, strict=True):
        probability = probability_of_target(target, prediction)
        yield Proposal(gene, prediction, given, probability, is_accepted(given, policy))
