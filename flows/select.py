"""The selection step of a round: which candidates are worth computing, and their 3D structures."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wyloop.flows.dispatch import ask_for_screening
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.flows.ranking import EXPLORE, scores
from wyloop.models.acquisition.batch import Batch, Diversity, Kind
from wyloop.models.acquisition.scores import n_exploring
from wyloop.models.errors import RealizationError
from wyloop.models.targets import Target
from wyloop.models.wyckoff.realize import realize
from wyloop.stores import campaigns, candidates
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from wyloop.models.crystal import Crystal

logger = logging.getLogger(__name__)

DEFAULT_VOLUME = 20.0  # Å^3 an atom, for a candidate without a prediction


def select_candidates(store: Store, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Rank the candidates that passed, build 3D structures of the best, and mark those as selected.

    The policy says what ranks them, and which share of the batch is chosen for what it teaches. Cells are small enough;
    each chemical system has its few best only, each element and prototype its share. Candidates whose structure is not
    found are marked failed, and the next best takes the place. Interrupted and repeated, the choice is the same.

    Returns:
        How many were selected and how many could not be built.
    """
    passed = candidates.of_round(store, record.round_id, statuses=("passed",))
    already = candidates.of_round(store, record.round_id, statuses=("selected",))
    batch = Batch(_diversity(policy))
    for candidate in already:
        batch.add(_kind(candidate, batch.diversity))
    fitting = [candidate for candidate in passed if candidate.gene.nsites <= policy.max_nsites]
    n_exploiting = policy.n_relaxations - n_exploring(policy.n_relaxations, policy.exploration)
    selected, n_failed = len(already), 0
    with progress("building 3D structures") as report:
        for candidate in _in_order(store, record, policy, fitting, n_exploiting, batch):
            if selected >= policy.n_relaxations:
                break
            starts = _built(store, candidate, policy)
            if not starts:
                n_failed += 1
                continue
            selected += 1
            batch.add(_kind(candidate, batch.diversity))
            ask_for_screening(store, candidate, starts, record, policy)
            identity = [candidate.candidate_id]
            candidates.set_status(store, identity, "selected", only_from=("passed",), rank=selected)
            report(selected, policy.n_relaxations)
    logger.info("round %d: selected %d candidates, %d could not be built", record.number, selected, n_failed)
    return {"n_selected": selected, "n_not_built": n_failed}


def _in_order(
    store: Store,
    record: RoundRecord,
    policy: Policy,
    fitting: Sequence[CandidateRecord],
    n_exploiting: int,
    batch: Batch,
) -> Iterator[CandidateRecord]:
    """Yield candidates that have room, best first until the batch holds `n_exploiting`, then those that teach most."""
    target = Target.parse(campaigns.campaign(store, record.campaign_id).target)
    tried: set[str] = set()
    for name, until in ((policy.acquisition, n_exploiting), (EXPLORE, policy.n_relaxations)):
        if len(batch) >= until:
            continue
        ranks = dict(
            zip((one.candidate_id for one in fitting), scores(store, name, fitting, target, record), strict=True)
        )
        for candidate in sorted(fitting, key=lambda one: (-ranks[one.candidate_id], one.candidate_id)):
            if len(batch) >= until:
                break
            if candidate.candidate_id not in tried and batch.has_room(_kind(candidate, batch.diversity)):
                tried.add(candidate.candidate_id)
                yield candidate


def _built(store: Store, candidate: CandidateRecord, policy: Policy) -> "tuple[Crystal, ...]":
    """Build start structures of a candidate, after its generator's own; without any it is marked failed."""
    volume = candidate.prediction.volume_per_atom if candidate.prediction else DEFAULT_VOLUME
    own = () if candidate.crystal is None else (candidate.crystal,)
    try:
        return (*own, *realize(candidate.gene, volume, seed=candidate.seed, n_starts=policy.n_starts))
    except RealizationError as error:
        if own:
            return own
        candidates.set_status(store, [candidate.candidate_id], "failed", reason=str(error), only_from=("passed",))
        return ()


def _diversity(policy: Policy) -> Diversity:
    def most(share: float) -> int | None:
        return None if share >= 1 else max(1, math.floor(share * policy.n_relaxations))

    return Diversity(
        max_per_chemsys=policy.max_per_chemsys,
        max_per_prototype=most(policy.drift.max_prototype_share),
        max_per_element=most(policy.drift.max_element_share),
    )


def _kind(candidate: CandidateRecord, diversity: Diversity) -> Kind:
    """Return what a candidate counts as; its prototype, which is slow, only where that is limited."""
    return Kind(candidate.gene.chemsys) if diversity.max_per_prototype is None else Kind.of(candidate.gene)
