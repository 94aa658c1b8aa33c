"""The selection step of a round: which candidates are worth computing, and their 3D structures."""

import logging
import math
from collections import Counter
from collections.abc import Sequence

from wyloop.flows.dispatch import ask_for_screening
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.models.errors import RealizationError
from wyloop.models.screening.funnel import merit
from wyloop.models.wyckoff.realize import realize
from wyloop.stores import candidates
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

DEFAULT_VOLUME = 20.0  # Å^3 an atom, for a candidate without a prediction


def acquisition(candidate: CandidateRecord) -> float:
    """Score a candidate for computation: its merit on the screens and the chance that it is made, per unit of cost.

    Cost grows with the atoms of the primitive cell. The chance that the 3D structure is found falls with the free
    parameters: 100 % with none, 86 % with 3-5, 30 % above 10 with a good force field and ten starts.
    """
    found = math.exp(-candidate.gene.n_free_parameters / 8.0)
    cost = 1.0 + candidate.gene.nsites / 10.0
    return merit(candidate.verdicts) * found / cost


def select_candidates(store: Store, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Rank the candidates that passed, build 3D structures of the best, and mark those as selected.

    Candidates whose structure is not found are marked failed, and the next best takes the place.

    Returns:
        How many were selected and how many could not be built.
    """
    passed = candidates.of_round(store, record.round_id, statuses=("passed",))
    selected = len(candidates.of_round(store, record.round_id, statuses=("selected",)))
    ranked = sorted(passed, key=lambda candidate: (-acquisition(candidate), candidate.candidate_id))
    n_failed = 0
    with progress("building 3D structures") as report:
        for candidate in diverse(ranked, policy):
            if selected >= policy.n_relaxations:
                break
            try:
                starts = realize(
                    candidate.gene,
                    candidate.prediction.volume_per_atom if candidate.prediction else DEFAULT_VOLUME,
                    seed=candidate.seed,
                    n_starts=policy.n_starts,
                )
            except RealizationError as error:
                candidates.set_status(
                    store, [candidate.candidate_id], "failed", reason=str(error), only_from=("passed",)
                )
                n_failed += 1
                continue
            selected += 1
            ask_for_screening(store, candidate, starts, record, policy)
            identity = [candidate.candidate_id]
            candidates.set_status(store, identity, "selected", only_from=("passed",), rank=selected)
            report(selected, policy.n_relaxations)
    logger.info("round %d: selected %d candidates, %d could not be built", record.number, selected, n_failed)
    return {"n_selected": selected, "n_not_built": n_failed}


def diverse(ranked: Sequence[CandidateRecord], policy: Policy) -> list[CandidateRecord]:
    """Thin out a ranking: small enough cells, and only the best few of each chemical system."""
    kept: list[CandidateRecord] = []
    of_chemsys: Counter[str] = Counter()
    for candidate in ranked:
        chemsys = candidate.gene.chemsys
        if candidate.gene.nsites <= policy.max_nsites and of_chemsys[chemsys] < policy.max_per_chemsys:
            of_chemsys[chemsys] += 1
            kept.append(candidate)
    return kept
