"""Generation and screening of a round: new genes of every generator for the target, and every screen's verdict."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from wyloop.flows.generators.imported import Imported
from wyloop.flows.generators.interface import Generator, Proposal, Request
from wyloop.flows.generators.known import Tally
from wyloop.flows.generators.registered import generator, names, shares
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.flows.session import settings
from wyloop.flows.train import OUTCOME_HEAD
from wyloop.models.errors import CampaignError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.predict import Prediction, predict
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.physics.calculators import one_thread
from wyloop.models.screening.funnel import ScreeningPolicy, is_accepted, screen
from wyloop.models.screening.hull import Entry
from wyloop.models.screening.outcomes import OutcomeHead
from wyloop.models.screening.verdict import Verdict
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import candidates, imports, registry
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.competing import hull_entries
from wyloop.stores.connection import Store
from wyloop.stores.training import training_snapshot

logger = logging.getLogger(__name__)

Found = dict[str, tuple[str, Proposal]]
"""Generator and proposal by fingerprint."""


def generate_candidates(
    store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> dict[str, object]:
    """Let every generator propose its share of genes that neither the database nor this campaign has seen.

    A gene belongs to the generator that proposes it first, in the order of the policy; what was imported under other
    names comes after these, in addition to the policy's number.

    Returns:
        How many were proposed, and by generator how many it came up with, were known, or repeated another's.

    Raises:
        CampaignError: The policy names a generator that is not installed and has no imports.
    """
    checkpoint = registry.load_checkpoint(store, str(record.model_id))
    rows = training_snapshot(store).rows
    found: Found = {}
    counts: dict[str, dict[str, int]] = {}
    imported: list[Imported] = []
    for n, source in _sources(store, campaign, record, policy):
        tally = Tally(store, campaign.campaign_id, record.round_id, set(found))
        with progress(f"generating candidates with {source.name}") as report, one_thread():
            # on one thread: the same seed must give the same again
            request = Request(
                Target.parse(campaign.target),
                n,
                record.seed,
                tally,
                rows,
                checkpoint,
                accept=policy.screening.composition_wish(),  # half of what meets the target is not neutral
                on_progress=report,
            )
            proposals = _distinct_new(source.propose(request), tally, n)
        found |= {proposal.gene.fingerprint: (source.name, proposal) for proposal in proposals}
        counts[source.name] = tally.counts(n, len(proposals))
        if isinstance(source, Imported):
            imported.append(source)
    candidates.propose(store, _candidates(campaign, record, checkpoint, found))
    for source in imported:
        source.settle({fingerprint for fingerprint, (name, _) in found.items() if name != source.name})
    logger.info("round %d: proposed %d candidates", record.number, len(found))
    return {"n_proposed": len(found), "generators": counts}


def _sources(
    store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> Iterator[tuple[int, Generator]]:
    """Yield each generator with the number of genes asked for."""
    place = campaign.campaign_id, record.round_id
    ever = imports.importing_generators(store, campaign.campaign_id)
    for name, n in shares(policy.generators, policy.n_candidates).items():
        source = generator(name, settings().published_weights)
        if source is None and name not in ever:
            raise CampaignError(
                f"no generator {name!r}; expected one of {', '.join(names())}, or one whose crystals are imported; "
                f"try: wyloop candidate import FILE --generator {name} --campaign {campaign.campaign_id}"
            )
        if n > 0:
            yield n, source or Imported(name, store, *place)
    for name in imports.importing_generators(store, campaign.campaign_id, round_id=record.round_id):
        if name not in policy.generators:
            waiting = Imported(name, store, *place)
            yield len(imports.imports_for(store, *place, name)), waiting


def _distinct_new(proposals: Sequence[Proposal], tally: Tally, n: int) -> list[Proposal]:
    """Return at most n proposals, each gene once and none that is known, whatever a foreign generator returns."""
    proposals = [replace(one, gene=canonical(one.gene)) for one in proposals]
    unasked = [one.gene.fingerprint for one in proposals if one.gene.fingerprint not in tally.seen]
    if unasked:
        tally(unasked)
    refused = tally.known | tally.duplicates
    distinct = {one.gene.fingerprint: one for one in reversed(proposals)}
    ordered = [one for one in proposals if distinct[one.gene.fingerprint] is one]
    return [one for one in ordered if one.gene.fingerprint not in refused][:n]


def _candidates(
    campaign: CampaignRecord, record: RoundRecord, checkpoint: Checkpoint, found: Found
) -> Iterator[CandidateRecord]:
    """Yield the candidates; of genes with elements that the model does not know there is no prediction."""
    lacking = [
        one.gene
        for _, one in found.values()
        if one.prediction is None and all(symbol in element_ids() for symbol in one.gene.elements)
    ]
    with one_thread():
        predictions: Mapping[Gene, Prediction] = dict(zip(lacking, predict(checkpoint, lacking), strict=True))
    for fingerprint, (name, one) in found.items():
        yield CandidateRecord(
            candidate_id=candidates.candidate_id(campaign.campaign_id, fingerprint),
            campaign_id=campaign.campaign_id,
            round_id=record.round_id,
            round_number=record.number,
            gene=one.gene,
            prediction=one.prediction or predictions.get(one.gene),
            model_id=str(record.model_id),
            sampler=name,
            seed=record.seed,
            status="proposed",
            crystal=one.crystal,
            origin=one.facts,
        )


def screen_candidates(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Put every proposed candidate of the round through every screen and keep each verdict with its number.

    Returns:
        How many were screened and how many passed.
    """
    proposed = candidates.of_round(store, record.round_id, statuses=("proposed",))
    judged = [candidate for candidate in proposed if candidate.prediction is not None]
    genes = [candidate.gene for candidate in judged]
    with progress("screening candidates") as report:
        report(0, len(genes))
        verdicts = screen(
            genes,
            [candidate.prediction for candidate in judged if candidate.prediction is not None],
            Target.parse(campaign.target),
            candidates.known_among(store, [gene.fingerprint for gene in genes]),
            _competing_phases(store, genes),
            policy.screening,
        )
        verdicts = _with_past_outcomes(store, record, genes, verdicts)
        report(len(genes), len(genes))
    screened = [_judged(candidate, given, policy.screening) for candidate, given in zip(judged, verdicts, strict=True)]
    screened += [_unpredicted(candidate) for candidate in proposed if candidate.prediction is None]
    candidates.record_screening(store, screened)
    n_passed = sum(candidate.status == "passed" for candidate in screened)
    logger.info("round %d: %d of %d candidates passed the screens", record.number, n_passed, len(screened))
    return {"n_screened": len(screened), "n_passed": n_passed}


def _with_past_outcomes(
    store: Store, record: RoundRecord, genes: Sequence[Gene], verdicts: list[tuple[Verdict, ...]]
) -> list[tuple[Verdict, ...]]:
    """Add what the round's model learned of failures, if it learned anything; it never binds."""
    card = registry.model(store, str(record.model_id)).card.get(OUTCOME_HEAD)
    head = OutcomeHead.from_json(card) if isinstance(card, dict) else None
    if head is None or not head.is_used or not genes:
        return verdicts
    return [(*given, more) for given, more in zip(verdicts, head.verdicts(genes, verdicts), strict=True)]


def _judged(candidate: CandidateRecord, verdicts: tuple[Verdict, ...], policy: ScreeningPolicy) -> CandidateRecord:
    failed = [verdict for verdict in verdicts if verdict.screen in policy.binding and not verdict.passed]
    if is_accepted(verdicts, policy):
        return replace(candidate, verdicts=verdicts, status="passed", reason="every binding screen passed")
    reason = f"{failed[0].screen}: {failed[0].reason}" if failed else "a binding screen gave no verdict"
    return replace(candidate, verdicts=verdicts, status="rejected", reason=reason)


def _unpredicted(candidate: CandidateRecord) -> CandidateRecord:
    unknown = [symbol for symbol in candidate.gene.elements if symbol not in element_ids()]
    return replace(candidate, status="rejected", reason=f"the model does not know {', '.join(unknown)}")


def _competing_phases(store: Store, genes: Sequence[Gene]) -> list[Entry]:
    of_chemsys = hull_entries(store, {gene.chemsys for gene in genes})
    return list({entry.identity: entry for entries in of_chemsys.values() for entry in entries}.values())
