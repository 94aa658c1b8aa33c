"""Our MPVAE as a generator: conditional generation, and the published sampler on the same model."""

import logging
from collections.abc import Sequence

from wyloop.flows.generators.interface import Proposal, Request
from wyloop.models.mpvae.perturb import COPIES, on_target, perturb
from wyloop.models.mpvae.predict import predict
from wyloop.models.mpvae.sample import generate
from wyloop.models.wyckoff.gene import Gene

logger = logging.getLogger(__name__)


class ConditionalMPVAE:
    """Latent vectors near references and from the prior, moved towards the target, then decoded."""

    name = "mpvae"

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return genes by the probability that the model gives them to meet the target."""
        genes = generate(
            request.checkpoint,
            request.target,
            request.n,
            seed=request.seed,
            references=request.references,
            exclude=request.known,
            accept=request.accept,
            on_progress=request.on_progress,
        )
        return with_predictions(request, genes)


class PerturbingMPVAE:
    """Noisy copies of the known crystals that meet the target, decoded by our model."""

    name = "mpvae-perturb"

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return genes by how near the model predicts them to the target; none where no known crystal meets it."""
        references = on_target(request.rows, request.target)
        if not references:
            logger.warning("%s: no known crystal meets '%s'; nothing to perturb", self.name, request.target)
            return []
        genes = perturb(
            request.checkpoint,
            request.target,
            COPIES * len(references),
            seed=request.seed,
            references=references,
            max_atoms=request.max_nsites,
        )
        return with_predictions(request, request.chosen(genes))


def with_predictions(request: Request, genes: Sequence[Gene]) -> list[Proposal]:
    """Return genes as proposals with the predictions of the round's model."""
    predictions = predict(request.checkpoint, genes)
    return [Proposal(gene, prediction=given) for gene, given in zip(genes, predictions, strict=True)]
