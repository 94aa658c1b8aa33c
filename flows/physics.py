"""The physics steps of a round: force-field screening of the selected, DFT of the best; neither waits, both look."""

import logging
from collections import Counter
from typing import TYPE_CHECKING

from wyloop.flows.dispatch import (
    FINISHED,
    ask_for,
    ask_for_screening,
    chain,
    n_unfinished,
    screening_ids,
    submit_chain,
    submit_references,
)
from wyloop.flows.launchpad import states, submit_all
from wyloop.flows.policy import Policy
from wyloop.flows.ranking import acquisition
from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.dft import SUPPORTED_ELEMENTS, find_gpaw, relative_cost
from wyloop.stores import calculations, candidates, materials
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord, material_id

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

COSTLY = 4.0  # relative cost, one to two minutes on one core; what costs more waits until nothing cheaper is left


class JobsUnderWayError(Exception):
    """A step can't end yet: jobs of the round are still to finish. Not a failure; the next look goes on from here."""

    def __init__(self, n_done: int, n_total: int) -> None:
        super().__init__(f"{n_done} of {n_total} calculations finished")
        self.n_done = n_done
        self.n_total = n_total


def relax_candidates(store: Store, lpad: "LaunchPad", record: RoundRecord, policy: Policy) -> dict[str, object]:
    """See whether relaxation and phonon pre-screen of every selected candidate have finished; submit what is missing.

    Raises:
        JobsUnderWayError: Jobs are still to finish.
    """
    chosen = candidates.of_round(store, record.round_id, statuses=("selected", "dispatched"))
    # Another campaign may have asked for the same ones first: what counts is the candidate's, not the round's.
    wanted = {candidate.candidate_id: screening_ids(candidate, policy) for candidate in chosen}
    identities = [identity for ids in wanted.values() for identity in ids.values()]
    done = {found.calculation_id for found in calculations.of_ids(store, identities) if found.status in FINISHED}
    known = done | states(lpad, identities).keys()
    lacking = [one for one in chosen if not known.issuperset(wanted[one.candidate_id].values())]
    submit_all(lpad, [chain(one, ask_for_screening(store, one, (), record, policy), "screening") for one in lacking])
    candidates.set_status(store, wanted, "dispatched", only_from=("selected",))
    return _finished(store, lpad, identities)


def run_dft(store: Store, lpad: "LaunchPad", record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Promote the best relaxed candidates to DFT, with the elemental references they need; see whether all finished.

    The choice is made once and recorded by the calculations asked for; without GPAW nothing is promoted.

    Raises:
        JobsUnderWayError: Jobs are still to finish.
    """
    if policy.n_dft == 0:
        return {"n_promoted": 0, "reason": "no DFT asked for"}
    try:
        find_gpaw()
    except CalculatorError as error:
        return {"n_promoted": 0, "reason": str(error)}
    asked = [found for found in calculations.of_round(store, record.round_id) if found.kind == "dft"]
    if not asked:
        for candidate, material in promoted(store, record, policy):
            _ask_for_dft(store, candidate, material.crystal, record, policy)
        asked = [found for found in calculations.of_round(store, record.round_id) if found.kind == "dft"]
    elements = sorted({element for found in asked for element in found.inputs[0].amounts})
    identities = submit_references(store, lpad, elements, policy.dft_protocol, record)
    for found in asked:
        if found.candidate_id is not None:
            candidate = candidates.candidate(store, found.candidate_id)
            submit_chain(lpad, candidate, {"dft": found.calculation_id}, policy.dft_protocol)
    identities += [found.calculation_id for found in asked]
    return {"n_promoted": len(asked), **_finished(store, lpad, identities)}


def promoted(store: Store, record: RoundRecord, policy: Policy) -> list[tuple[CandidateRecord, MaterialRecord]]:
    """Choose the candidates for DFT: on target and near the hull by the force field, small, affordable, best first."""
    chosen: list[tuple[bool, float, str, CandidateRecord, MaterialRecord]] = []
    for candidate in candidates.of_round(store, record.round_id, statuses=("validated",)):
        material = materials.material(store, material_id(candidate.gene.fingerprint))
        fits = candidate.gene.nsites <= policy.max_nsites_dft and SUPPORTED_ELEMENTS.issuperset(candidate.gene.elements)
        if fits and material.band_gap is None:
            is_unstable = (material.phonon_verdict or "").startswith("unstable")
            # Each degree of freedom beside the volume costs about as much again as the volume.
            n_freedoms = 1 + candidate.gene.n_free_parameters + (candidate.gene.space_group.crystal_system != "cubic")
            cost = n_freedoms * relative_cost(material.crystal.amounts)
            score = acquisition(candidate) * (0.1 if is_unstable else 1.0) / cost
            chosen.append((cost > COSTLY, -score, candidate.candidate_id, candidate, material))
    chosen.sort(key=lambda entry: entry[:3])
    # One prototype's errors are alike: another one is tried before the next of the same.
    seen: Counter[str] = Counter()
    turns = []
    for place, (is_costly, _, _, candidate, material) in enumerate(chosen):
        prototype = candidate.gene.protostructure.split(":")[0]
        turns.append((is_costly, seen[prototype], place, candidate, material))
        seen[prototype] += 1
    turns.sort(key=lambda entry: entry[:3])
    return [(candidate, material) for *_, candidate, material in turns[: policy.n_dft]]


def _ask_for_dft(
    store: Store, candidate: CandidateRecord, crystal: Crystal, record: RoundRecord, policy: Policy
) -> str:
    identity, subject = candidate.candidate_id, str(candidate.gene)
    return ask_for(store, "dft", subject, policy.dft_protocol, record, candidate_id=identity, inputs=(crystal,))


def _finished(store: Store, lpad: "LaunchPad", calculation_ids: list[str]) -> dict[str, object]:
    unfinished = n_unfinished(store, lpad, calculation_ids)
    if unfinished:
        raise JobsUnderWayError(len(calculation_ids) - unfinished, len(calculation_ids))
    records = calculations.of_ids(store, calculation_ids)
    return {
        "n_calculations": len(records),
        "n_failed": sum(found.status == "failed" for found in records),
        "core_seconds": sum(found.core_seconds or 0.0 for found in records),
    }
