"""The report of a campaign for people: Markdown and HTML with figures, all from what the database holds."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wyloop.flows import report
from wyloop.flows.policy import Policy
from wyloop.models.targets import Condition, Target
from wyloop.stores import budget, calculations, campaigns, candidates, materials, registry
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.funnels import funnel_by_generator
from wyloop.stores.materials import MaterialRecord

BINDING = "("  # stages in brackets are recorded only
Row = Mapping[str, object]


@dataclass(frozen=True)
class Pair:
    """A predicted and a calculated value of one candidate."""

    round_number: int
    predicted: float
    std: float
    calculated: float


@dataclass(frozen=True)
class RoundStory:
    """What one round did and what was learned in it; energies in eV/atom, gaps in eV."""

    number: int
    model_id: str
    is_trained: bool
    n_rows: int | None
    funnel: tuple[tuple[str, int], ...]
    predicted_energies: tuple[float, ...]
    predicted_gaps: tuple[float, ...]
    space_groups: tuple[int, ...]
    n_validated: int
    n_on_target: int
    core_hours: float


@dataclass(frozen=True)
class CampaignStory:
    """All that the report tells."""

    campaign: CampaignRecord
    target: Target
    hull_cutoff: float
    rounds: tuple[RoundStory, ...]
    energies: tuple[Pair, ...]
    """Formation energy by the force field, eV/atom."""
    dft_energies: tuple[Pair, ...]
    """Formation energy by DFT, eV/atom."""
    gaps: tuple[Pair, ...]
    """Band gap by DFT, eV."""
    materials: tuple[MaterialRecord, ...]
    best: tuple[Row, ...]
    generators: tuple[Row, ...]
    budget: tuple[Row, ...]


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    title: str
    text: str = ""
    rows: Sequence[Row] = field(default_factory=tuple)
    figure: Path | None = None


def write_report(store: Store, campaign_id: str, folder: Path) -> list[Path]:
    """Write `report.md`, `report.html` and the figures of a campaign.

    Args:
        store: The database.
        campaign_id: The campaign.
        folder: Made if it is missing; what is there is replaced.

    Returns:
        The files.

    Raises:
        CampaignError: No such campaign.
    """
    from wyloop.flows.report_figures import draw  # matplotlib: half a second

    story = tell(store, campaign_id)
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(story, folder)
    sections = _sections(story, figures)
    title = f"Campaign {story.campaign.name}"
    markdown, page = folder / "report.md", folder / "report.html"
    markdown.write_text(_as_markdown(title, sections), encoding="utf-8")
    page.write_text(_as_html(title, sections), encoding="utf-8")
    return [markdown, page, *figures.values()]


def tell(store: Store, campaign_id: str, *, n_rounds: int | None = None) -> CampaignStory:
    """Collect what the report tells.

    Args:
        store: The database.
        campaign_id: The campaign.
        n_rounds: Only the last rounds; None for all.

    Raises:
        CampaignError: No such campaign.
    """
    campaign = campaigns.campaign(store, campaign_id)
    policy = Policy.model_validate(campaign.settings)
    found = materials.materials(store, campaign_id=campaign_id)
    computed = [candidates.candidate(store, one.candidate_id) for one in found if one.candidate_id is not None]
    of_candidate = {candidate.candidate_id: candidate for candidate in computed}
    pairs = {
        name: tuple(pair for one in found if (pair := _pair(one, of_candidate, *fields)) is not None)
        for name, fields in {
            "energies": ("formation_energy_per_atom", "formation_energy_per_atom"),
            "dft_energies": ("formation_energy_per_atom", "dft_formation_energy_per_atom"),
            "gaps": ("band_gap", "band_gap"),
        }.items()
    }
    rounds = campaigns.rounds(store, campaign_id)[-(n_rounds or 0) :]
    return CampaignStory(
        campaign=campaign,
        target=Target.parse(campaign.target),
        hull_cutoff=policy.hull_cutoff,
        rounds=tuple(_round(store, record, policy, found) for record in rounds),
        energies=pairs["energies"],
        dft_energies=pairs["dft_energies"],
        gaps=pairs["gaps"],
        materials=tuple(found),
        best=tuple(report.material_row(store, one) for one in report.best_materials(store, campaign)),
        generators=tuple(
            {key: value for key, value in one.to_json().items() if not isinstance(value, Mapping)}
            for one in funnel_by_generator(store, campaign_id, hull_cutoff=policy.hull_cutoff)
        ),
        budget=tuple(_budget_rows(store, campaign_id)),
    )


def _pair(
    material: MaterialRecord, of_candidate: Mapping[str, CandidateRecord], predicted: str, calculated: str
) -> Pair | None:
    candidate = of_candidate.get(material.candidate_id or "")
    value = getattr(material, calculated)
    if candidate is None or candidate.prediction is None or value is None:
        return None
    return Pair(
        candidate.round_number,
        float(getattr(candidate.prediction, predicted)),
        float(getattr(candidate.prediction, f"{predicted}_std")),
        float(value),
    )


def _round(store: Store, record: RoundRecord, policy: Policy, found: Sequence[MaterialRecord]) -> RoundStory:
    everyone = candidates.of_round(store, record.round_id)
    predictions = [candidate.prediction for candidate in everyone if candidate.prediction is not None]
    own = [one for one in found if one.round_number == record.number]
    spent = sum(one.core_seconds or 0.0 for one in calculations.of_round(store, record.round_id))
    model = registry.model(store, record.model_id) if record.model_id else None
    stages = [(row.stage, row.n_candidates) for row in report.funnel(store, record, policy)]
    return RoundStory(
        number=record.number,
        model_id=record.model_id or "",
        is_trained=model is not None and model.round_number == record.number,
        n_rows=model.n_rows if model is not None else None,
        funnel=tuple((stage, n) for stage, n in stages if not stage.startswith(BINDING)),
        predicted_energies=tuple(one.formation_energy_per_atom for one in predictions),
        predicted_gaps=tuple(one.band_gap for one in predictions),
        space_groups=tuple(candidate.gene.space_group_number for candidate in everyone),
        n_validated=sum(one.is_validated for one in own),
        n_on_target=sum(one.meets_target for one in own),
        core_hours=spent / 3600,
    )


def _budget_rows(store: Store, campaign_id: str) -> list[Row]:
    return [
        {
            "protocol": row.protocol,
            "jobs": row.jobs_settled,
            "jobs reserved": row.jobs_reserved,
            "most jobs": _or_dash(row.jobs_limit),
            "core-hours": f"{row.core_seconds_spent / 3600:.3f}",
            "most core-hours": "-" if row.core_seconds_limit is None else f"{row.core_seconds_limit / 3600:.3f}",
        }
        for row in budget.budget(store, campaign_id)
    ]


def mean_error(pairs: Sequence[Pair], round_number: int | None = None) -> float | None:
    """Return the mean absolute error of predictions, of one round or all, in the unit of the values."""
    chosen = [one for one in pairs if round_number is None or one.round_number == round_number]
    return sum(abs(one.predicted - one.calculated) for one in chosen) / len(chosen) if chosen else None


def shown_range(target: Target, field_name: str) -> tuple[float | None, float | None]:
    """Return the range that a target allows for a field; None where it is open."""
    found = [one for one in target.conditions if isinstance(one, Condition) and one.field == field_name]
    return (found[0].low, found[0].high) if found else (None, None)


def _sections(story: CampaignStory, figures: Mapping[str, Path]) -> list[Section]:
    campaign = story.campaign
    facts = [
        {"what": "campaign", "value": campaign.campaign_id},
        {"what": "target", "value": " and ".join(campaign.target)},
        {"what": "state", "value": campaign.state + (f" ({campaign.reason})" if campaign.reason else "")},
        {"what": "rounds", "value": f"{campaign.rounds_closed} of {campaign.rounds_requested}"},
        {"what": "code version", "value": campaign.code_version},
    ]
    stable = sum(one.is_validated for one in story.materials)
    on_target = sum(one.meets_target for one in story.materials)
    sections = [
        Section("Campaign", rows=facts),
        Section(
            "Funnel",
            "How many candidates got how far; each bar counts those that passed all above it too.",
            _funnel_rows(story),
            figures.get("funnel"),
        ),
        Section(
            "What was generated",
            "Band gap, formation energy and space group of the candidates as the model predicts them, round by round "
            "(compare figure 2 d-i of the paper); what the target allows is shaded.",
            figure=figures.get("densities"),
        ),
        Section(
            "Predicted against calculated",
            f"Mean absolute errors: {_error(story.energies, 'eV/atom')} for formation energies by the force field, "
            f"{_error(story.dft_energies, 'eV/atom')} by DFT, {_error(story.gaps, 'eV')} for band gaps by DFT.",
            figure=figures.get("parity"),
        ),
        Section(
            "Stability",
            f"{stable} of {len(story.materials)} computed materials lie at most {story.hull_cutoff:g} eV/atom above "
            f"their hull; {on_target} meet every condition of the target by calculated values.",
            figure=figures.get("stability"),
        ),
        Section(
            "What was learned each round", "Errors are those of the round's own predictions, before it learnt from "
            "their results.", _learned_rows(story), figures.get("learned"),
        ),
        Section("Best materials", "Energies in eV/atom, gaps in eV.", story.best),
        Section("By generator", rows=story.generators),
        Section("Budget", rows=story.budget),
    ]  # fmt: skip
    return [one for one in sections if one.text or one.rows]


def _funnel_rows(story: CampaignStory) -> list[Row]:
    stages = list(dict.fromkeys(stage for one in story.rounds for stage, _ in one.funnel))
    return [
        {"stage": stage} | {f"round {one.number}": dict(one.funnel).get(stage, 0) for one in story.rounds}
        for stage in stages
    ]


def _learned_rows(story: CampaignStory) -> list[Row]:
    return [
        {
            "round": one.number,
            "model": one.model_id,
            "trained": "yes" if one.is_trained else "no",
            "training rows": _or_dash(one.n_rows),
            "error of E_f, eV/atom": _number(mean_error(story.energies, one.number)),
            "error of gap, eV": _number(mean_error(story.gaps, one.number)),
            "near the hull": one.n_validated,
            "on target": one.n_on_target,
            "core-hours": f"{one.core_hours:.3f}",
        }
        for one in story.rounds
    ]


def _error(pairs: Sequence[Pair], unit: str) -> str:
    error = mean_error(pairs)
    return "none calculated" if error is None else f"{error:.3f} {unit} ({len(pairs)} materials)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _or_dash(value: object) -> object:
    return "-" if value is None else value


def _as_markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for one in sections:
        parts.append(f"## {one.title}")
        if one.text:
            parts.append(one.text)
        if one.rows:
            names = list(one.rows[0])
            lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in one.rows)]
            parts.append("\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines))
        if one.figure is not None:
            parts.append(f"![{one.title}]({one.figure.name})")
    return "\n\n".join(parts) + "\n"


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left}svg{max-width:100%;height:auto}"
)


def _as_html(title: str, sections: Sequence[Section]) -> str:
    """Return one page that needs no other file: figures stand in it as SVG."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for one in sections:
        parts.append(f"<h2>{html.escape(one.title)}</h2>")
        if one.text:
            parts.append(f"<p>{html.escape(one.text)}</p>")
        if one.rows:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in one.rows[0])
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in one.rows[0]) + "</tr>"
                for row in one.rows
            )
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        if one.figure is not None:
            drawn = one.figure.read_text(encoding="utf-8")
            parts.append(f"<figure>{drawn[drawn.index('<svg') :]}</figure>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
