"""What became of the candidates that were computed: successes, and the failures that a campaign learns from."""

from collections.abc import Iterator
from typing import Any

from wyloop.models.screening.outcomes import Outcome
from wyloop.stores import candidates
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

SUCCEEDED = ("validated", "off_target")
"""Near the hull, whatever the target asks."""
FAILED = ("unstable", "failed")
NOT_TELLING = ("never relaxed", "relaxation failed: CHGNet does not know")
"""Beginnings of reasons for which a failed candidate says nothing about its gene."""


@translated
def outcomes(store: Store) -> list[Outcome]:
    """Return what became of each gene that was computed in any campaign, once each, the newest round's word.

    Failures are genes that could not be built, broke down or changed when relaxed, whose result a person rejected, or
    that ended above the hull's cutoff. What the screens rejected was never computed: to learn from it would only
    repeat the screens, so it is left out.
    """
    found: dict[str, Outcome] = {}
    for record in _computed(store):
        if not (record.status == "failed" and record.reason.startswith(NOT_TELLING)):
            has_succeeded = record.status in SUCCEEDED
            found[record.gene.fingerprint] = Outcome(record.gene, record.verdicts, has_succeeded)
    return list(found.values())


def _computed(store: Store) -> Iterator[candidates.CandidateRecord]:
    """Yield the computed candidates round by round, the oldest first."""
    rounds = store.database["rounds"].find({}, {"round_id": 1, "_id": 0}).sort([("created_at", 1), ("round_id", 1)])
    statuses: tuple[Any, ...] = (*SUCCEEDED, *FAILED)
    for row in rounds:
        yield from candidates.of_round(store, row["round_id"], statuses=statuses)
