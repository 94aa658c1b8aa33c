"""Workflows by name: a candidate goes through the jobs of a protocol such as `gpaw-gamma/1` and is settled.

Each job sees for itself, when it starts, whether those before it promote the candidate.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from wyloop.flows.authority import claim
from wyloop.flows.dispatch import id_of, request
from wyloop.flows.launchpad import insert_workflow, run_again
from wyloop.flows.policy import Policy
from wyloop.flows.write_back import write_materials
from wyloop.models.crystal import Crystal
from wyloop.models.errors import BudgetError, CalculatorError, CampaignError
from wyloop.models.physics.calculators import check_elements
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.workflows import CATEGORY, Step, Workflow, workflow
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import calculations, campaigns, candidates
from wyloop.stores.budget import dispatch_within, reserve_within
from wyloop.stores.by_hand import add_by_hand
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from fireworks import Firework, LaunchPad
    from pymongo.client_session import ClientSession

logger = logging.getLogger(__name__)

ENDED = ("COMPLETED", "FIZZLED", "DEFUSED", "ARCHIVED")
N_STARTS = 4
VOLUME = 20.0  # Å^3 an atom, of the starts; relaxation finds the true one


@dataclass(frozen=True)
class Added:
    """What `add_candidate` made or found."""

    candidate: CandidateRecord
    calculation_ids: dict[str, str]
    """Job, such as `dft` or `reference O`, to its calculation."""
    n_new_jobs: int


def add_candidate(
    store: Store,
    lpad: "LaunchPad",
    gene: Gene,
    protocol_identifier: str,
    *,
    starts: Sequence[Crystal] = (),
    seed: int = 0,
    priority: int = 500,
    is_forced: bool = False,
    campaign_id: str | None = None,
) -> Added:
    """Make a candidate of a gene and submit what a protocol asks for; what was computed before is not run again.

    By hand it belongs to no campaign, and no budget limits it. For a candidate that a campaign has, that campaign pays.

    A job that stopped without a result, for want of a database say, is made ready again.

    Args:
        store: The database.
        lpad: The LaunchPad.
        gene: In its canonical form.
        protocol_identifier: A workflow, such as `gpaw-gamma/1`.
        starts: Structures to start from; none: built from the gene.
        seed: Of the structures that are built.
        priority: Jobs with a higher one go first; campaigns use up to 1000.
        is_forced: Whether every job runs again, beside the results that are there.
        campaign_id: The campaign that has the gene as a candidate, must be active, and pays; none: by hand.

    Raises:
        CalculatorError: No such workflow, or nothing that runs it.
        CampaignError: The campaign is not active, or the gene is no candidate of it.
        BudgetError: The campaign's budget does not allow all jobs that are new.
        RealizationError: No structure of the gene is found.
    """
    chosen = workflow(protocol_identifier)
    _check(chosen, gene)
    if campaign_id is None:
        candidate = add_by_hand(store, gene, Policy().model_dump(mode="json"), seed=seed)
    else:
        candidate = candidates.candidate(store, candidates.candidate_id(campaign_id, gene.fingerprint))
    asked = _ask(store, candidate, chosen, starts, is_forced=is_forced)
    n_new = _submit(store, lpad, candidate, chosen, asked, priority, is_paid=campaign_id is not None)
    if n_new:
        waiting = ("selected", "passed", "dispatched", "failed", "off_target", "unstable", "validated")
        candidates.set_status(store, [candidate.candidate_id], "dispatched", only_from=waiting)
    return Added(candidates.candidate(store, candidate.candidate_id), asked, n_new)


def _check(chosen: Workflow, gene: Gene) -> None:
    """Refuse, before anything is stored, what no worker could run."""
    from wyloop.models.physics.dft import check_dft_elements

    kinds = {step.kind for step in chosen.steps}
    check_elements(str(protocol(chosen.steps[0].protocol).settings["calculator"]), gene.elements)
    if "dft" in kinds:
        check_dft_elements(gene.elements)
    if "vasp" in kinds:
        from wyloop.flows.vasp import check_vasp

        check_vasp(gene.elements)


def _ask(
    store: Store, candidate: CandidateRecord, chosen: Workflow, starts: Sequence[Crystal], *, is_forced: bool
) -> dict[str, str]:
    asked: dict[str, str] = {}
    subject = str(candidate.gene)
    for step in chosen.steps:
        if step.needs_references:
            for element in candidate.gene.elements:
                asked[f"reference {element}"] = _request(store, candidate, step, "reference", element)
        inputs: Sequence[Crystal] = ()
        if step.kind == "relaxation":
            inputs = starts or _build(candidate)
        asked[step.kind] = _request(store, candidate, step, step.kind, subject, inputs, is_forced=is_forced)
    return asked


def _build(candidate: CandidateRecord) -> list[Crystal]:
    from wyloop.models.wyckoff.realize import realize  # pyxtal: two seconds

    return realize(candidate.gene, VOLUME, seed=candidate.seed, n_starts=N_STARTS)


def _request(
    store: Store,
    candidate: CandidateRecord,
    step: Step,
    kind: str,
    subject: str,
    inputs: Sequence[Crystal] = (),
    *,
    is_forced: bool = False,
) -> str:
    identity = id_of(kind, subject, step.protocol)
    if is_forced:
        found = [one for one in calculations.of_subjects(store, [subject]) if one.calculation_id.startswith(identity)]
        identity = f"{identity}-{len(found) + 1}" if found else identity
    request(
        store, identity, kind, subject, step.protocol,
        candidate_id=candidate.candidate_id, round_id=candidate.round_id, inputs=inputs,
    )  # fmt: skip
    return identity


def _submit(
    store: Store,
    lpad: "LaunchPad",
    candidate: CandidateRecord,
    chosen: Workflow,
    asked: dict[str, str],
    priority: int,
    *,
    is_paid: bool,
) -> int:
    """Submit the jobs that are not there yet and the one that settles the candidate, as one FireWorks workflow.

    Jobs that are there and stopped without a result run again.
    """
    from fireworks import Workflow as FireWorkflow
    from pymongo.errors import BulkWriteError, DuplicateKeyError

    query = {"spec.calculation_id": {"$in": list(asked.values())}}
    found = list(lpad.fireworks.find(query, {"fw_id": 1, "state": 1, "spec.calculation_id": 1}))
    present = {document["spec"]["calculation_id"]: document for document in found}
    running = [one["fw_id"] for one in present.values() if one["state"] not in ENDED]
    stopped = [identity for identity, one in present.items() if one["state"] == "FIZZLED"]
    unfinished = [one.calculation_id for one in calculations.of_ids(store, stopped) if one.status != "completed"]
    n_again = sum(run_again(lpad, identity) for identity in unfinished)
    new = {name: identity for name, identity in asked.items() if identity not in present}
    if not new:
        return n_again
    fireworks = _fireworks(candidate, chosen, new, priority)
    name = f"{candidate.candidate_id} {chosen.identifier}"
    reserve = partial(_reserve, store, candidate, list(new.values()) if is_paid else [])
    try:
        if running:  # jobs of another workflow come first, which only FireWorks itself can link
            with store.client.start_session() as session:
                session.with_transaction(reserve)
            lpad.append_wf(FireWorkflow(fireworks, name=name), _of_one_workflow(lpad, running))
        else:
            insert_workflow(lpad, fireworks, name, reserve)
    except (BulkWriteError, DuplicateKeyError) as error:
        label = candidate.gene.formula_pretty
        raise CalculatorError(f"somebody submits the same jobs of {label} just now; try again") from error
    return len(new) + n_again


def _fireworks(candidate: CandidateRecord, chosen: Workflow, new: dict[str, str], priority: int) -> list["Firework"]:
    """Make the fireworks of new jobs, parents first, the one that settles the candidate last."""
    from fireworks import Firework

    from wyloop.flows.jobs.calculation import CalculationJob, SettleJob
    from wyloop.flows.jobs.vasp import VaspJob

    label = f"{candidate.gene.formula_pretty} {candidate.gene.space_group_number}"
    before = {step.kind: [protocol_kind(chosen, name) for name in step.after] for step in chosen.steps}
    made: dict[str, Any] = {}
    for name, identity in new.items():
        kind = name.partition(" ")[0]
        spec: dict[str, Any] = {"calculation_id": identity, "_category": CATEGORY[kind], "_priority": priority}
        if kind != "reference":
            spec["workflow"] = chosen.identifier
        parents = [made[parent] for parent in before.get(kind, []) if parent in made]
        title = name if kind == "reference" else f"{kind} {label}"
        task = VaspJob(calculation_id=identity) if kind == "vasp" else CalculationJob(calculation_id=identity)
        made[name] = Firework([task], spec=spec, name=title, parents=parents or None)
    spec = {"candidate_id": candidate.candidate_id, "_category": CATEGORY["write_back"], "_priority": priority}
    task = SettleJob(candidate_id=candidate.candidate_id)
    return [*made.values(), Firework([task], spec=spec, name=f"settle {label}", parents=list(made.values()))]


def _reserve(store: Store, candidate: CandidateRecord, calculation_ids: list[str], session: "ClientSession") -> None:
    """Within the transaction that submits jobs, reserve for them in the budget of the candidate's campaign."""
    if not calculation_ids:
        return
    database, campaign_id = session.client[store.name], candidate.campaign_id
    found = database["campaigns"].find_one({"campaign_id": campaign_id}, {"state": 1}, session=session)
    state = "not there" if found is None else found["state"]
    if state != "active":
        raise CampaignError(f"{campaign_id} is {state}; expected it active; see 'wyloop campaign show {campaign_id}'")
    rows = database["calculations"].find({"calculation_id": {"$in": calculation_ids}}, session=session)
    claims = [claim(row["calculation_id"], row["protocol"]) for row in rows]
    if not all(reserve_within(database, session, campaign_id, [claims], round_id=candidate.round_id)):
        raise BudgetError(
            f"the budget of {campaign_id} does not allow {len(claims)} jobs more; expected room for them; "
            f"see 'wyloop campaign budget {campaign_id}'"
        )
    dispatch_within(database, session, calculation_ids)


def protocol_kind(chosen: Workflow, protocol_identifier: str) -> str:
    """Return the kind of job that a workflow runs by a protocol."""
    return next(step.kind for step in chosen.steps if step.protocol == protocol_identifier)


def _of_one_workflow(lpad: "LaunchPad", fw_ids: list[int]) -> list[int]:
    """Return those of the jobs that are in the same workflow as the last of them: FireWorks links no others."""
    found = lpad.workflows.find_one({"nodes": fw_ids[-1]}, {"nodes": 1})
    return [fw_id for fw_id in fw_ids if fw_id in (found or {"nodes": []})["nodes"]]


def hold_back(store: Store, identity: str, workflow_identifier: str) -> str | None:
    """Return why a job of a workflow must not start: a verdict before it does not promote the candidate."""
    record = calculations.calculation(store, identity)
    chosen = workflow(workflow_identifier)
    step = next(step for step in chosen.steps if step.protocol == record.protocol)
    of_subject = calculations.of_subjects(store, [record.subject])
    for wanted in step.after:
        kind = protocol_kind(chosen, wanted)
        done = [one for one in of_subject if one.protocol == wanted and one.kind == kind]
        good = [one for one in done if one.status == "completed" and not one.is_withheld]
        if not good:
            said = "; ".join([*(done[-1].problems or ()), done[-1].error or ""]).strip("; ") if done else ""
            return f"not started: {wanted} did not promote it{': ' + said if said else ''}"
        for name, value in step.only_if.get(wanted, {}).items():
            if good[-1].result.get(name) != value:
                return f"not started: {wanted} says {name} is {good[-1].result.get(name)}; expected {value}"
    return None


def settle(store: Store, candidate_id: str) -> str:
    """Make the material of a candidate's calculations, and give the candidate its end; repeated, nothing changes.

    Returns:
        The candidate's status.
    """
    candidate = candidates.candidate(store, candidate_id)
    campaign = campaigns.campaign(store, candidate.campaign_id)
    record = campaigns.round_record(store, candidate.round_id)
    write_materials(store, campaign, record, Policy.model_validate(campaign.settings))
    return candidates.candidate(store, candidate_id).status
