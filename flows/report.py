"""What a round came to: the funnel, the best materials, a summary; for the database, Prefect and the terminal."""

from dataclasses import dataclass

from wyloop.flows.policy import Policy
from wyloop.models.screening.funnel import funnel_counts
from wyloop.models.targets import Target
from wyloop.stores import calculations, candidates, materials
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord
from wyloop.stores.verdicts import unmet_conditions

N_BEST = 10


@dataclass(frozen=True)
class FunnelRow:
    """One stage of a round and how many candidates reached it."""

    stage: str
    n_candidates: int
    note: str = ""


def funnel(store: Store, record: RoundRecord, policy: Policy) -> list[FunnelRow]:
    """Count how many candidates of a round got how far; each row counts those that passed all rows above too."""
    everyone = candidates.of_round(store, record.round_id)
    rows = [FunnelRow("generated", len(everyone), "distinct valid genes, none seen before")]
    for step in funnel_counts([candidate.verdicts for candidate in everyone], policy.screening):
        name = step.screen.replace("_", " ")
        if step.is_binding:
            rows.append(FunnelRow(name, step.n_left, f"{step.n_passed} pass this screen alone"))
        else:
            rows.append(FunnelRow(f"({name})", step.n_left, f"recorded only; {step.n_passed} would pass"))
    done = [found for found in calculations.of_round(store, record.round_id) if found.status == "completed"]
    of_kind = {kind: sum(found.kind == kind and not found.problems for found in done) for kind in ("relaxation", "dft")}
    relaxed = materials.materials(store, campaign_id=record.campaign_id, round_number=record.number)
    return [
        *rows,
        FunnelRow("selected and built in 3D", sum(found.rank is not None for found in everyone)),
        FunnelRow("relaxed", of_kind["relaxation"], "force field, space group kept, guards passed"),
        FunnelRow("near the hull", sum(found.is_validated for found in relaxed), f"<= {policy.hull_cutoff} eV/atom"),
        FunnelRow("computed by DFT", of_kind["dft"]),
        FunnelRow("on target, all calculated", sum(found.meets_target for found in relaxed)),
    ]


def best_materials(
    store: Store, campaign: CampaignRecord, *, round_number: int | None = None, limit: int = N_BEST
) -> list[MaterialRecord]:
    """Return the best materials of a campaign, nearest the hull first among those of one kind.

    First come those that meet the whole target by calculated values, then the others computed by DFT, then those that
    meet what is calculated so far, then the rest.
    """
    target = Target.parse(campaign.target)
    found = materials.materials(store, campaign_id=campaign.campaign_id, round_number=round_number)
    good = [material for material in found if material.is_validated]

    def order(material: MaterialRecord) -> tuple[bool, bool, int, float, str]:
        hull = material.energy_above_hull if material.energy_above_hull is not None else float("inf")
        n_unmet = len(unmet_conditions(material, target))
        return not material.meets_target, material.band_gap is None, n_unmet, hull, material.material_id

    return sorted(good, key=order)[:limit]


def summarize(store: Store, campaign: CampaignRecord, record: RoundRecord) -> dict[str, object]:
    """Return a round's summary, ready for JSON: funnel, numbers of each step, best materials by id."""
    policy = Policy.model_validate(campaign.settings)
    spent = sum(found.core_seconds or 0.0 for found in calculations.of_round(store, record.round_id))
    return {
        "round_number": record.number,
        "model_id": record.model_id,
        "funnel": [
            {"stage": row.stage, "n": row.n_candidates, "note": row.note} for row in funnel(store, record, policy)
        ],
        "best_materials": [m.material_id for m in best_materials(store, campaign, round_number=record.number)],
        "core_seconds": spent,
    }


MATERIAL_COLUMNS = ("formula", "space group", "E_f pred", "E_f", "E_hull", "gap pred", "gap DFT", "E_f DFT", "phonons")
"""Energies in eV/atom, gaps in eV."""


def material_row(store: Store, material: MaterialRecord) -> dict[str, str]:
    """Return one row of the table of best materials, under `MATERIAL_COLUMNS`."""
    prediction = None
    if material.candidate_id is not None:
        prediction = candidates.candidate(store, material.candidate_id).prediction
    return {
        "formula": material.formula_pretty,
        "space group": str(material.space_group_number),
        "E_f pred": _number(prediction.formation_energy_per_atom if prediction else None),
        "E_f": _number(material.formation_energy_per_atom),
        "E_hull": _number(material.energy_above_hull, 3),
        "gap pred": _number(prediction.band_gap if prediction else None),
        "gap DFT": _number(material.band_gap),
        "E_f DFT": _number(material.dft_formation_energy_per_atom),
        "phonons": (material.phonon_verdict or "-").split(" (")[0],
    }


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
