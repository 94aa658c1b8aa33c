"""Generation and screening of a round: distinct new genes for the target, and every screen's verdict on them."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.predict import predict
from wyloop.models.mpvae.sample import generate
from wyloop.models.physics.calculators import one_thread
from wyloop.models.screening.charge import charge_neutrality
from wyloop.models.screening.funnel import ScreeningPolicy, is_accepted, screen
from wyloop.models.screening.hull import Entry
from wyloop.models.screening.verdict import Verdict
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import candidates, registry
from wyloop.stores.builders.hulls import hull_entries
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.training import training_snapshot

logger = logging.getLogger(__name__)

SAMPLER = "mpvae-conditional"


def generate_candidates(
    store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> dict[str, object]:
    """Generate genes that neither the database nor this campaign has seen, and propose them with their predictions.

    Returns:
        How many were proposed.
    """
    target = Target.parse(campaign.target)
    checkpoint = Checkpoint.from_bytes(registry.load_weights(store, str(record.model_id)))
    # What this same round proposed before it was interrupted is made again from the same seed, and kept by `propose`.
    others = candidates.proposed_fingerprints(store, campaign.campaign_id, except_round=record.round_id)
    excluded = candidates.known_fingerprints(store) | others
    references = [row.gene for row in training_snapshot(store).rows]
    # Half of what meets the target by prediction is not neutral: the search finds the weak spots of its own heads.
    is_neutral_wanted = "charge_neutrality" in policy.screening.binding
    with progress("generating candidates") as report, one_thread():  # the same seed must give the same again
        genes = generate(
            checkpoint,
            target,
            policy.n_candidates,
            seed=record.seed,
            references=references,
            exclude=excluded,
            accept=(lambda gene: charge_neutrality(gene.amounts).passed) if is_neutral_wanted else None,
            on_progress=report,
        )
        predictions = predict(checkpoint, genes)
    proposals = [
        CandidateRecord(
            candidate_id=candidates.candidate_id(campaign.campaign_id, gene.fingerprint),
            campaign_id=campaign.campaign_id,
            round_id=record.round_id,
            round_number=record.number,
            gene=gene,
            prediction=prediction,
            verdicts=(),
            model_id=str(record.model_id),
            sampler=SAMPLER,
            seed=record.seed,
            status="proposed",
            reason="",
            rank=None,
        )
        for gene, prediction in zip(genes, predictions, strict=True)
    ]
    candidates.propose(store, proposals)
    logger.info("round %d: proposed %d candidates", record.number, len(proposals))
    return {"n_proposed": len(proposals)}


def screen_candidates(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Put every proposed candidate of the round through every screen and keep each verdict with its number.

    Returns:
        How many were screened and how many passed.
    """
    proposed = candidates.of_round(store, record.round_id, statuses=("proposed",))
    genes = [candidate.gene for candidate in proposed]
    predictions = [candidate.prediction for candidate in proposed if candidate.prediction is not None]
    with progress("screening candidates") as report:
        report(0, len(genes))
        verdicts = screen(
            genes,
            predictions,
            Target.parse(campaign.target),
            candidates.known_among(store, [gene.fingerprint for gene in genes]),
            _competing_phases(store, genes),
            policy.screening,
        )
        report(len(genes), len(genes))
    screened = [
        _judged(candidate, given, policy.screening) for candidate, given in zip(proposed, verdicts, strict=True)
    ]
    candidates.record_screening(store, screened)
    n_passed = sum(candidate.status == "passed" for candidate in screened)
    logger.info("round %d: %d of %d candidates passed the screens", record.number, n_passed, len(screened))
    return {"n_screened": len(screened), "n_passed": n_passed}


def _judged(candidate: CandidateRecord, verdicts: tuple[Verdict, ...], policy: ScreeningPolicy) -> CandidateRecord:
    failed = [verdict for verdict in verdicts if verdict.screen in policy.binding and not verdict.passed]
    if is_accepted(verdicts, policy):
        return replace(candidate, verdicts=verdicts, status="passed", reason="every binding screen passed")
    reason = f"{failed[0].screen}: {failed[0].reason}" if failed else "a binding screen gave no verdict"
    return replace(candidate, verdicts=verdicts, status="rejected", reason=reason)


def _competing_phases(store: Store, genes: Sequence[Gene]) -> list[Entry]:
    of_chemsys = hull_entries(store, {gene.chemsys for gene in genes})
    return list({entry.identity: entry for entries in of_chemsys.values() for entry in entries}.values())
