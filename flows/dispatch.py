"""Dispatch of physics: which calculations a candidate needs, asked for once, submitted once, waited for by looking."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wyloop.flows.launchpad import MAX_LAUNCHES, Job, run_again, states, submit
from wyloop.flows.policy import Policy
from wyloop.models.crystal import Crystal
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.workflows import CATEGORY as CATEGORY
from wyloop.stores import calculations
from wyloop.stores.calculations import CalculationRecord, calculation_id
from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import LaunchPad

logger = logging.getLogger(__name__)

FINISHED = ("completed", "failed")
REFERENCE_PRIORITY = 2000  # elements are shared by candidates, so they go first


def ask_for(
    store: Store,
    kind: str,
    subject: str,
    protocol_identifier: str,
    record: RoundRecord,
    *,
    candidate_id: str | None = None,
    inputs: Sequence[Crystal] = (),
) -> str:
    """Ask for one calculation: (subject, protocol) is its identity, so asking twice makes one.

    Args:
        store: The database.
        kind: relaxation, phonon, dft or reference.
        subject: Fingerprint of the candidate's gene, or the element of a reference.
        protocol_identifier: Such as `mlip-screen/1`.
        record: The round that asks.
        candidate_id: The candidate, if it is for one.
        inputs: Start structures.

    Returns:
        The calculation's id.
    """
    identity = id_of(kind, subject, protocol_identifier)
    request(
        store, identity, kind, subject, protocol_identifier,
        candidate_id=candidate_id, round_id=record.round_id, inputs=inputs,
    )  # fmt: skip
    return identity


def request(
    store: Store,
    identity: str,
    kind: str,
    subject: str,
    protocol_identifier: str,
    *,
    candidate_id: str | None,
    round_id: str | None,
    inputs: Sequence[Crystal],
) -> None:
    """Record that a calculation of this identity is wanted; arguments as `ask_for` has them."""
    chosen = protocol(protocol_identifier)
    wanted = CalculationRecord(
        calculation_id=identity,
        candidate_id=candidate_id,
        round_id=round_id,
        kind=kind,
        subject=subject,
        protocol=chosen.identifier,
        protocol_hash=chosen.hash,
        inputs=tuple(inputs),
    )
    calculations.request_calculation(store, wanted)


def id_of(kind: str, subject: str, protocol_identifier: str) -> str:
    """Return the id that a calculation has, asked for or not."""
    chosen = protocol(protocol_identifier)
    return calculation_id(f"{kind} {subject}", chosen.identifier, chosen.hash)


def screening_ids(candidate: CandidateRecord, policy: Policy) -> dict[str, str]:
    """Return what `ask_for_screening` asks for."""
    protocols = {"relaxation": policy.relaxation_protocol, "phonon": policy.phonon_protocol}
    return {kind: id_of(kind, str(candidate.gene), name) for kind, name in protocols.items()}


def ask_for_screening(
    store: Store, candidate: CandidateRecord, starts: Sequence[Crystal], record: RoundRecord, policy: Policy
) -> dict[str, str]:
    """Ask for the force-field relaxation of a candidate and the phonon pre-screen after it.

    Returns:
        Kind of calculation to its id, in the order in which they run.
    """
    subject, identity = str(candidate.gene), candidate.candidate_id
    return {
        "relaxation": ask_for(
            store, "relaxation", subject, policy.relaxation_protocol, record, candidate_id=identity, inputs=starts
        ),
        "phonon": ask_for(store, "phonon", subject, policy.phonon_protocol, record, candidate_id=identity),
    }


def submit_chain(
    lpad: "LaunchPad", candidate: CandidateRecord, calculation_ids: dict[str, str], protocol_identifier: str
) -> bool:
    """Submit a candidate's calculations as one workflow, one after the other, unless it is there.

    Args:
        lpad: The LaunchPad.
        candidate: Gives name and priority.
        calculation_ids: Kind of calculation to its id, in the order in which they must run.
        protocol_identifier: For the workflow's name.

    Returns:
        Whether the workflow is new.
    """
    return submit(lpad, *chain(candidate, calculation_ids, protocol_identifier))


def chain(
    candidate: CandidateRecord, calculation_ids: dict[str, str], protocol_identifier: str
) -> tuple[list[Job], str]:
    """Return the jobs of a candidate's calculations, in their order, and the workflow's name."""
    label = f"{candidate.gene.formula_pretty} {candidate.gene.space_group_number}"
    jobs = [
        Job(identity, f"{kind} {label}", CATEGORY[kind], priority=1000 - (candidate.rank or 0))
        for kind, identity in calculation_ids.items()
    ]
    return jobs, f"{candidate.candidate_id} {protocol_identifier}"


def submit_references(
    store: Store, lpad: "LaunchPad", elements: Sequence[str], protocol_identifier: str, record: RoundRecord
) -> list[str]:
    """Ask for the elemental references of a method that the database does not hold yet, one job an element.

    Returns:
        The ids of all of them, computed already or not.
    """
    identities = []
    for element in elements:
        identity = ask_for(store, "reference", element, protocol_identifier, record)
        identities.append(identity)
        if calculations.calculation(store, identity).status not in FINISHED:
            job = Job(identity, f"reference {element}", CATEGORY["reference"], priority=REFERENCE_PRIORITY)
            submit(lpad, [job], name=f"reference {element} {protocol_identifier}")
    return identities


def n_unfinished(store: Store, lpad: "LaunchPad", calculation_ids: Sequence[str]) -> int:
    """Count the calculations still to come; jobs that FireWorks gave up without a result are given another try.

    A job that was taken off the list because the one before it failed is finished.
    """
    records = {record.calculation_id: record for record in calculations.of_ids(store, calculation_ids)}
    of_job = states(lpad, calculation_ids)
    unfinished = 0
    for identity, record in records.items():
        state = of_job.get(identity, "")
        if record.status in FINISHED or state == "DEFUSED":
            continue
        if state == "FIZZLED" and not run_again(lpad, identity):
            calculations.fail(store, identity, error=f"its job stopped {MAX_LAUNCHES} times without a result")
            continue
        if state == "WAITING" and _parent_failed(lpad, identity, records):
            continue
        unfinished += 1
    return unfinished


def _parent_failed(lpad: "LaunchPad", identity: str, records: dict[str, CalculationRecord]) -> bool:
    own = lpad.fireworks.find_one({"spec.calculation_id": identity}, {"fw_id": 1})
    workflow = lpad.workflows.find_one({"nodes": own["fw_id"]}, {"parent_links": 1})
    parents = (workflow or {}).get("parent_links", {}).get(str(own["fw_id"]), [])
    found = lpad.fireworks.find({"fw_id": {"$in": parents}}, {"spec.calculation_id": 1})
    names = [parent["spec"]["calculation_id"] for parent in found]
    return any(name in records and records[name].status == "failed" for name in names)
