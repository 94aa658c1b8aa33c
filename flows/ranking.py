"""What ranks the candidates of a round that passed the screens, by the policy's name for it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wyloop.models.acquisition.scores import POLICIES, cost_weight, cost_weights, exploration
from wyloop.models.acquisition.simulation import ASKED
from wyloop.models.acquisition.surrogate import MAX_ROWS, Surrogate
from wyloop.models.screening.funnel import gene_values, merit
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.records import digest
from wyloop.stores.training import SnapshotRows, training_snapshot

MERIT, SURROGATE, GREEDY, RANDOM, EXPLORE = "merit", "surrogate", "greedy", "random", "explore"
MIN_LABELLED = 100  # crystals with every property of the target; with fewer the model that generates knows more
OF_TARGET = "predicted_properties"  # the screen whose value is the probability of meeting the target


def acquisition(candidate: CandidateRecord) -> float:
    """Score a candidate for computation: its merit on the screens and the chance that it is made, per unit of cost."""
    return merit(candidate.verdicts) * cost_weight(candidate.gene)


def scores(
    store: Store, name: str, fitting: Sequence[CandidateRecord], target: Target, record: RoundRecord
) -> list[float]:
    """Score candidates, greater is better; one without a prediction comes last where predictions count.

    Args:
        store: Gives the surrogate its labels.
        name: What the policy calls it, or `explore`.
        fitting: The candidates.
        target: Of the campaign.
        record: The round, whose seed draws what is drawn.
    """
    if name == MERIT:
        return [acquisition(candidate) for candidate in fitting]
    if name == SURROGATE:
        return _by_surrogate(store, fitting, target)
    if name == RANDOM:  # by lot, but the same whichever candidates are left after an interruption
        return [int(digest([record.seed, candidate.candidate_id], 12), 16) for candidate in fitting]
    from wyloop.models.mpvae.aim import Belief  # torch: three seconds

    predicted = [place for place, candidate in enumerate(fitting) if candidate.prediction is not None]
    belief = Belief.of([candidate.prediction for candidate in fitting if candidate.prediction is not None])
    rng = np.random.default_rng(record.seed)
    found = exploration(belief) if name == EXPLORE else POLICIES[name](target, belief, rng)
    if name != GREEDY:  # a control, and its scores are no gains to be weighed by cost
        found = found * cost_weights([fitting[place].gene for place in predicted])
    ranks = [-math.inf] * len(fitting)
    for place, score in zip(predicted, found.tolist(), strict=True):
        ranks[place] = score
    return ranks


def _by_surrogate(store: Store, fitting: Sequence[CandidateRecord], target: Target) -> list[float]:
    """Score by merit, the probability of meeting the target by a surrogate that learns from all labels there are.

    It is what wins when discovery is played back on known data: Gaussian processes, which know new results at once.
    Where the labels are few, or the target asks for nothing that it tells, the probability is the screens' own.
    """
    wanted = [name for name in target.fields if name in ASKED]
    rows = training_snapshot(store).rows
    places = labelled(rows, target, wanted) if wanted else []
    if len(places) < MIN_LABELLED or not fitting:
        return [acquisition(candidate) for candidate in fitting]
    surrogate = Surrogate.fit([rows[place].gene for place in places], [rows.labels_of(place) for place in places])
    belief = surrogate.belief([candidate.gene for candidate in fitting])
    told = POLICIES["probability"](target, belief, np.random.default_rng(0))
    ranks = []
    for candidate, probability in zip(fitting, told.tolist(), strict=True):
        verdicts = tuple(
            replace(verdict, value=probability) if verdict.screen == OF_TARGET else verdict
            for verdict in candidate.verdicts
        )
        ranks.append(acquisition(replace(candidate, verdicts=verdicts)))
    return ranks


def labelled(rows: SnapshotRows, target: Target, wanted: Sequence[str]) -> list[int]:
    """Return places of the rows to learn from: those with every wanted label, at most as many as the surrogate takes.

    Where there are more, those come first that meet what the target asks of a gene alone, by lot among themselves.
    """
    places = [place for place in range(len(rows)) if rows.labels_of(place).keys() >= set(wanted)]
    if len(places) <= MAX_ROWS:
        return places
    shuffled = np.random.default_rng(0).permutation(places).tolist()
    fits = {place: _fits(target, rows[place].gene) for place in shuffled}
    return sorted(sorted(shuffled, key=lambda place: not fits[place])[:MAX_ROWS])


def _fits(target: Target, gene: Gene) -> bool:
    """Whether a gene meets every condition that it can tell itself."""
    values = gene_values(gene)
    return all(
        condition.accepts(values[condition.field]) for condition in target.conditions if condition.field in values
    )
