"""The selection step of a round: which candidates are worth computing, and their 3D structures."""

import logging
import math
from collections import Counter

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

    Cells are small enough, and each chemical system has its few best only. Candidates whose structure is not found are
    marked failed, and the next best takes the place. Interrupted and repeated, the choice is the same.

    Returns:
        How many were selected and how many could not be built.
    """
    passed = candidates.of_round(store, record.round_id, statuses=("passed",))
    already = candidates.of_round(store, record.round_id, statuses=("selected",))
    of_chemsys = Counter(candidate.gene.chemsys for candidate in already)
    selected, n_failed = len(already), 0
    fitting = [candidate for candidate in passed if candidate.gene.nsites <= policy.max_nsites]
    ranked = sorted(fitting, key=lambda candidate: (-acquisition(candidate), candidate.candidate_id))
    with progress("building 3D structures") as report:
        for candidate in ranked:
            if selected >= policy.n_relaxations:
                break
            if of_chemsys[candidate.gene.chemsys] >= policy.max_per_chemsys:
                continue
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
            of_chemsys[candidate.gene.chemsys] += 1
            ask_for_screening(store, candidate, starts, record, policy)
            identity = [candidate.candidate_id]
            candidates.set_status(store, identity, "selected", only_from=("passed",), rank=selected)
            report(selected, policy.n_relaxations)
    logger.info("round %d: selected %d candidates, %d could not be built", record.number, selected, n_failed)
    return {"n_selected": selected, "n_not_built": n_failed}
