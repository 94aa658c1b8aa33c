"""What a campaign learnt: predictions beside what was calculated after them, and the errors round by round."""

from collections.abc import Sequence
from dataclasses import dataclass

from wyloop.stores.campaigns import RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json

MAX_PARITY = 2000


@dataclass(frozen=True)
class Compared:
    """A candidate's predictions beside what was calculated; eV/atom and eV, None where there is none."""

    candidate_id: str
    formula_pretty: str
    round_number: int
    predicted_energy: float
    predicted_energy_std: float
    energy: float | None
    predicted_gap: float
    predicted_gap_std: float
    band_gap: float | None
    meets_target: bool


@translated
def compared(store: Store, campaign_id: str) -> list[Compared]:
    """Return predictions beside calculated values of a campaign's materials, by round, a few thousand at most."""
    fields = {
        "_id": 0, "candidate_id": 1, "formula_pretty": 1, "round_number": 1, "formation_energy_per_atom": 1,
        "band_gap": 1, "meets_target": 1,
    }  # fmt: skip
    found = list(
        store.database["materials"]
        .find({"campaign_id": {"$eq": campaign_id}, "candidate_id": {"$type": "string"}}, fields)
        .sort([("campaign_id", 1), ("round_number", 1)])
        .limit(MAX_PARITY)
        .max_time_ms(2000)
    )
    wanted = {"candidate_id": {"$in": [one["candidate_id"] for one in found]}}
    rows = store.database["candidates"].find(wanted, {"_id": 0, "candidate_id": 1, "prediction": 1})
    predictions = {row["candidate_id"]: row.get("prediction") for row in rows.max_time_ms(2000)}
    made = []
    for one in found:
        told = predictions.get(one["candidate_id"])
        if told is None:
            continue
        made.append(
            Compared(
                one["candidate_id"],
                one["formula_pretty"],
                one.get("round_number") or 0,
                told["formation_energy_per_atom"],
                told["formation_energy_per_atom_std"],
                one.get("formation_energy_per_atom"),
                told["band_gap"],
                told["band_gap_std"],
                one.get("band_gap"),
                one["meets_target"],
            )
        )
    return made


@dataclass(frozen=True)
class Learnt:
    """One point of the learning curves; errors in eV/atom and eV, None where nothing was calculated."""

    round_number: int
    n_materials: int
    n_on_target: int
    energy_mae: float | None
    gap_mae: float | None
    validation_mae: float | None
    model_id: str | None


def learnt(store: Store, rounds: Sequence[RoundRecord], points: Sequence[Compared]) -> list[Learnt]:
    """Return what each round came to: the model's error on what was calculated after it predicted, and the hits."""
    model_ids = [one.model_id for one in rounds if one.model_id]
    fields = {"_id": 0, "model_id": 1, "card.metrics.validation.formation_energy_mae": 1}
    found = store.database["model_versions"].find({"model_id": {"$in": model_ids}}, fields)
    errors = {
        one["model_id"]: one.get("card", {}).get("metrics", {}).get("validation", {}).get("formation_energy_mae")
        for one in found
    }
    curve = []
    for record in rounds:
        own = [point for point in points if point.round_number == record.number]
        energies = [abs(point.predicted_energy - point.energy) for point in own if point.energy is not None]
        gaps = [abs(point.predicted_gap - point.band_gap) for point in own if point.band_gap is not None]
        curve.append(
            Learnt(
                record.number,
                len(own),
                sum(point.meets_target for point in own),
                _mean(energies),
                _mean(gaps),
                errors.get(record.model_id or ""),
                record.model_id,
            )
        )
    return curve


@translated
def best(store: Store, campaign_id: str, *, limit: int = 12) -> list[dict[str, JSON]]:
    """Return a campaign's best materials, plain JSON: those on target first, then those nearest the hull."""
    hidden = {"_id": 0, "crystal": 0, "energies": 0, "structure_ids": 0}
    rows: list[dict[str, JSON]] = []
    for is_on_target in (True, False):
        wanted = {"campaign_id": {"$eq": campaign_id}, "meets_target": is_on_target, "energy_above_hull": {"$ne": None}}
        found = store.database["materials"].find(wanted, hidden, max_time_ms=2000)
        for row in found.sort([("energy_above_hull", 1), ("material_id", 1)]).limit(limit - len(rows)):
            plain = to_json(row)
            assert isinstance(plain, dict)  # noqa: S101 - a document is a mapping
            rows.append(plain)
        if len(rows) >= limit:
            break
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
