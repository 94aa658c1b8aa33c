"""What came of a model: the lineage of a candidate, followed the other way round."""

from typing import Any

from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json
from wyloop.stores.registry import unknown


@translated
def came_of(store: Store, model_id: str) -> dict[str, JSON]:
    """Return by one aggregation what came of a model, ready for JSON.

    It holds `campaigns`, `rounds`, `children` (models fine-tuned from it), and counts: `candidates` by status,
    `calculations` by kind and status (of its candidates), and of `materials` all, validated and on target.

    Raises:
        ModelError: No model has this id.
    """
    stages: list[dict[str, Any]] = [{"$match": {"model_id": {"$eq": model_id}}}, *_parts()]
    rows = list(store.database["model_versions"].aggregate(stages))
    if not rows:
        raise unknown(model_id)
    row = rows[0]
    materials = row["materials"][0] if row["materials"] else {"n": 0, "is_validated": 0, "meets_target": 0}
    campaigns = {part["campaign_id"] for part in row["rounds"]} | {row.get("campaign_id")}
    names = {"n": "all", "is_validated": "validated", "meets_target": "on target"}
    return {
        "campaigns": to_json(sorted(name for name in campaigns if name)),
        "rounds": [part["round_id"] for part in row["rounds"]],
        "children": [part["model_id"] for part in row["children"]],
        "candidates": _counts(row["candidates"]),
        "calculations": _counts(row["calculations"]),
        "materials": {shown: materials[name] for name, shown in names.items()},
    }


def _parts() -> list[dict[str, Any]]:
    count = {"$sum": 1}
    jobs = {"from": "calculations", "localField": "candidate_id", "foreignField": "candidate_id", "as": "job"}
    kind = {"$concat": ["$job.kind", " ", "$job.status"]}
    judged = {name: {"$sum": {"$cond": [f"${name}", 1, 0]}} for name in ("is_validated", "meets_target")}
    of_candidates: list[dict[str, Any]] = [{"$project": {"candidate_id": 1}}, {"$lookup": jobs}, {"$unwind": "$job"}]
    parts: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
        "rounds": ("rounds", "model_id", [{"$sort": {"round_id": 1}}]),
        "children": ("model_versions", "parent_id", [{"$sort": {"model_id": 1}}]),
        "candidates": ("candidates", "model_id", [{"$group": {"_id": "$status", "n": count}}]),
        "calculations": ("candidates", "model_id", [*of_candidates, {"$group": {"_id": kind, "n": count}}]),
        "materials": ("materials", "model_id", [{"$group": {"_id": None, "n": count} | judged}]),
    }
    return [
        {
            "$lookup": {
                "from": collection,
                "localField": "model_id",
                "foreignField": foreign,
                "pipeline": pipeline,
                "as": name,
            }
        }
        for name, (collection, foreign, pipeline) in parts.items()
    ]


def _counts(groups: list[dict[str, Any]]) -> dict[str, JSON]:
    return {str(group["_id"]): int(group["n"]) for group in sorted(groups, key=lambda group: str(group["_id"]))}
