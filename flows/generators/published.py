"""The published model as a generator: its own weights, its own sampler; rows that are no genes are lost, as they are.

Source: Yamazaki et al. 2025 (WyCryst+), conditional generation; Zhu et al., Matter 7, 3469 (2024).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from wyloop.flows.generators.interface import Proposal, Request
from wyloop.models.errors import ModelError
from wyloop.models.mpvae.perturb import on_target
from wyloop.models.wyckoff.gene import canonical

logger = logging.getLogger(__name__)


class Published:
    """Noisy copies of the known crystals that meet the target, decoded by the published model."""

    name = "published"

    def __init__(self, weights: Path | None) -> None:
        self._weights = weights

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return what is decoded, in the order of the references; none where no known crystal meets the target.

        Raises:
            ModelError: No weights are given, or they are no published model's.
        """
        from wyloop.models.mpvae.published.encoding import is_encodable
        from wyloop.models.mpvae.published.model import PublishedModel, perturb_published

        if self._weights is None:
            raise ModelError(
                "generator 'published' has no weights; expected a file that PublishedModel.save wrote; name it in "
                "WYLOOP_FLOWS_PUBLISHED_WEIGHTS or take the generator out of the policy"
            )
        model = PublishedModel.load(self._weights)
        references = [gene for gene in on_target(request.rows, request.target) if is_encodable(gene)]
        if not references:
            logger.warning("%s: no known crystal meets '%s'; nothing to perturb", self.name, request.target)
            return []
        decoded = perturb_published(model, references, seed=request.seed)
        genes = (canonical(row.gene) for row in decoded if row.gene is not None)
        distinct = {gene.fingerprint: gene for gene in genes if request.fits(gene)}
        return [Proposal(gene) for gene in request.chosen(list(distinct.values()))]
