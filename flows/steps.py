"""The steps of a round in their order: plain functions that may be repeated; what is recorded is not run again."""

from collections.abc import Callable, Mapping
from contextlib import suppress

from wyloop.flows import artifacts, charges, report
from wyloop.flows.authority import current
from wyloop.flows.dispatch import ask_for, ask_for_screening, chain
from wyloop.flows.generate import generate_candidates, screen_candidates
from wyloop.flows.launchpad import submit_all
from wyloop.flows.physics import promoted, relax_candidates, run_dft
from wyloop.flows.policy import Policy
from wyloop.flows.progress import progress
from wyloop.flows.recheck import recheck_quarantined
from wyloop.flows.select import select_candidates
from wyloop.flows.session import launchpad as open_launchpad
from wyloop.flows.train import start_model, train_model
from wyloop.flows.write_back import write_materials
from wyloop.models.errors import CalculatorError
from wyloop.models.physics.protocols import protocol
from wyloop.stores import budget, campaigns, candidates, registry
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.calculations import calculation_id
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord
from wyloop.stores.status import exact_counts
from wyloop.stores.training import training_snapshot

Step = Callable[[Store, CampaignRecord, RoundRecord, Policy], dict[str, object]]
"""Does what it says for a round; returns what it did, in numbers. It may raise `JobsUnderWayError`."""

BEYOND = "beyond the campaign's budget"
WITH_MATERIAL = ("unstable", "off_target", "validated")
ENDS = ("failed", "quarantined", *WITH_MATERIAL)
"""Statuses that a candidate which was taken on may end with. What a step tells is counted in the database when it is
done, not on the way: so it is the same after an interruption."""


def refresh_data(store: Store, _campaign: CampaignRecord, _record: RoundRecord, _policy: Policy) -> dict[str, object]:
    """Encode every structure that is new or changed, and bring materials and hulls up to date."""
    with progress("encoding structures") as update:
        build_encodings(store, on_progress=update)
    with progress("telling materials apart") as update:
        build_materials(store, on_progress=update)
    with progress("building hulls") as update:
        build_hulls(store, on_progress=update)
    found = exact_counts(store, ("structures", "encodings", "materials", "hulls"))
    return {f"n_{name}": n for name, n in found.items()}


def train_by_rule(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Train a model if the campaign's rule says so, else go on with its last one, or the one that it starts from."""
    before = [found for found in campaigns.rounds(store, campaign.campaign_id) if found.number < record.number]
    last = next((found.model_id for found in reversed(before) if found.model_id is not None), None)
    if _wants_training(store, record, policy, last):
        return train_model(store, record, policy)
    return {"model_id": last or start_model(store, record), "is_trained": False}


def _wants_training(store: Store, record: RoundRecord, policy: Policy, last: str | None) -> bool:
    rule = policy.retraining
    if rule.every_rounds == 0 or (record.number - 1) % rule.every_rounds != 0:
        return False
    if last is None or rule.new_labels == 0:
        return True
    n_known = registry.model(store, last).n_rows or 0
    return len(training_snapshot(store).rows) - n_known >= rule.new_labels


def screen(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Put every proposed candidate through every screen."""
    told = screen_candidates(store, campaign, record, policy)
    found = candidates.funnel(store, record.round_id)
    return told | {"n_screened": found["rejected"] + found["passed"], "n_passed": found["passed"]}


def select(store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Choose which candidates are worth computing, and build their 3D structures."""
    told = select_candidates(store, record, policy)
    found = candidates.funnel(store, record.round_id)
    return told | {"n_selected": found["selected"], "n_not_built": found["failed"]}


def reserve_screening(
    store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> dict[str, object]:
    """Reserve the jobs of the selected candidates, best first; those that the budget does not allow are set back."""
    selected = candidates.of_round(store, record.round_id, statuses=("selected",))
    wanted = [ask_for_screening(store, candidate, (), record, policy) for candidate in selected]
    protocols = {"relaxation": policy.relaxation_protocol, "phonon": policy.phonon_protocol}
    chains = [{identity: protocols[kind] for kind, identity in one.items()} for one in wanted]
    granted = charges.reserve_chains(store, record, chains)
    refused = [one.candidate_id for one, is_granted in zip(selected, granted, strict=True) if not is_granted]
    if refused:
        candidates.set_status(store, refused, "passed", reason=BEYOND, only_from=("selected",))
    beyond = [
        found
        for found in candidates.of_round(store, record.round_id, statuses=("passed",))
        if found.reason == BEYOND  # those of an interrupted attempt as well
    ]
    return {"n_reserved": sum(granted), "n_beyond_budget": len(beyond)}


def dispatch_screening(
    store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy
) -> dict[str, object]:
    """Submit the jobs of every selected candidate, once each."""
    chosen = candidates.of_round(store, record.round_id, statuses=("selected", "dispatched"))
    chains = [chain(one, ask_for_screening(store, one, (), record, policy), "screening") for one in chosen]
    submit_all(open_launchpad(), chains)
    identities = [one.candidate_id for one in chosen]
    candidates.set_status(store, identities, "dispatched", only_from=("selected",))
    return {"n_dispatched": len(chosen)}


def relax(store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """See whether the force-field jobs of the round have all ended."""
    return relax_candidates(store, open_launchpad(), record, policy)


def collect(store: Store, campaign: CampaignRecord, record: RoundRecord, _policy: Policy) -> dict[str, object]:
    """Settle what the jobs that ended cost."""
    charges.collect(store, open_launchpad(), campaign.campaign_id)
    found = budget.states_of_round(store, record.round_id)
    return {f"n_{state}": found.get(state, 0) for state in ("settled", "released")}


def write_back(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Make materials of the round's results, update the hulls, and give the candidates their ends."""
    told = write_materials(store, campaign, record, policy)
    found = candidates.funnel(store, record.round_id)
    ends = {f"n_{status}": found[status] for status in ENDS if found[status]}
    told = {key: value for key, value in told.items() if key not in {f"n_{status}" for status in ENDS}}
    return told | {"n_materials": sum(found[status] for status in WITH_MATERIAL)} | ends


def recheck(store: Store, campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """See whether second calculations of what waits in quarantine have all ended, and what they confirm."""
    return recheck_quarantined(store, open_launchpad(), campaign, record, policy)


def promote(store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Choose which relaxed candidates go on to DFT, reserve for them and their elements, and ask for them."""
    if policy.n_dft == 0:
        return {"n_promoted": 0}
    with suppress(CalculatorError):
        from wyloop.models.physics.dft import find_gpaw

        find_gpaw()
        chosen = _fit_for_dft(store, record, policy)
        chains = [_dft_chain(candidate, material, policy) for candidate, material in chosen]
        granted = charges.reserve_chains(store, record, chains)
        for (candidate, material), is_granted in zip(chosen, granted, strict=True):
            if is_granted:
                identity, subject = candidate.candidate_id, str(candidate.gene)
                inputs = (material.crystal,)
                ask_for(store, "dft", subject, policy.dft_protocol, record, candidate_id=identity, inputs=inputs)
        return {"n_promoted": sum(granted), "n_beyond_budget": len(granted) - sum(granted)}
    return {"n_promoted": 0}


def _fit_for_dft(store: Store, record: RoundRecord, policy: Policy) -> list[tuple[CandidateRecord, MaterialRecord]]:
    rules = policy.promotion
    limit = policy.hull_cutoff if rules.max_energy_above_hull is None else rules.max_energy_above_hull
    everyone = promoted(store, record, policy.model_copy(update={"n_dft": policy.n_relaxations}))
    fit = [
        (candidate, material)
        for candidate, material in everyone
        if (material.energy_above_hull is None or material.energy_above_hull <= limit)
        and not (rules.needs_stable_phonons and (material.phonon_verdict or "unstable").startswith("unstable"))
    ]
    return fit[: policy.n_dft]


def _dft_chain(candidate: CandidateRecord, material: MaterialRecord, policy: Policy) -> dict[str, str]:
    chosen = protocol(policy.dft_protocol)
    subjects = [f"dft {candidate.gene}", *(f"reference {element}" for element in sorted(material.crystal.amounts))]
    return {calculation_id(subject, chosen.identifier, chosen.hash): chosen.identifier for subject in subjects}


def dft(store: Store, _campaign: CampaignRecord, record: RoundRecord, policy: Policy) -> dict[str, object]:
    """Submit the DFT jobs that were asked for, once each, and see whether all have ended."""
    n_promoted = (record.steps.get("promote") or {}).get("counts") or {}
    has_none = isinstance(n_promoted, Mapping) and n_promoted.get("n_promoted") == 0
    if policy.n_dft and has_none and isinstance(n_promoted, Mapping) and "n_beyond_budget" in n_promoted:
        return {"n_promoted": 0, "reason": BEYOND if n_promoted["n_beyond_budget"] else "no candidate fits"}
    return run_dft(store, open_launchpad(), record, policy)


def close(store: Store, campaign: CampaignRecord, record: RoundRecord, _policy: Policy) -> dict[str, object]:
    """Close the round with its summary and show it in Prefect."""
    acting = current()
    summary = report.summarize(store, campaign, record)
    artifacts.publish(store, campaign, record, summary)
    token = acting.token if acting is not None else None
    campaigns.close_round(store, record.round_id, summary, step="close", token=token)
    return {}


STEPS: dict[str, Step] = {
    "refresh": refresh_data,
    "train": train_by_rule,
    "generate": generate_candidates,
    "screen": screen,
    "select": select,
    "reserve": reserve_screening,
    "dispatch": dispatch_screening,
    "relax": relax,
    "collect": collect,
    "validate": write_back,
    "recheck": recheck,
    "promote": promote,
    "dft": dft,
    "settle": collect,
    "write_back": write_back,
    "close": close,
}
"""The steps of a round in their order."""
