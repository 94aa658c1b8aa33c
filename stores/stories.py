"""The whole story of a candidate: the lineage from the model that proposed it to what it became."""

from typing import Any

from wyloop.models.errors import CampaignError
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json

_IS_COMPUTED = {"$not": {"$regexMatch": {"input": "$$this.material_id", "regex": "^m-[0-9a-f]+-"}}}
"""A known crystal of the same gene is another material: its id ends in that of its first structure."""
_IN_TIME = {"started_at": 1, "calculation_id": 1}


@translated
def story(store: Store, identity: str) -> dict[str, JSON]:
    """Return a candidate's whole lineage by one aggregation, ready for JSON.

    It holds the candidate's fields, and under `campaign`, `round`, `model` (with its snapshot's hash), `calculations`,
    `material` and `hull` the documents it came from and led to; null where there is none.

    Raises:
        CampaignError: No candidate has this id.
    """
    stages: list[dict[str, Any]] = [
        {"$match": {"candidate_id": {"$eq": identity}}},
        _lookup("campaigns", "campaign_id", "campaign_id", "campaign"),
        _lookup("rounds", "round_id", "round_id", "round"),
        _lookup("model_versions", "model_id", "model_id", "model"),
        _lookup("calculations", "fingerprint", "subject", "calculations"),  # whoever asked for them first
        _lookup("materials", "fingerprint", "fingerprint", "material"),
        {"$set": {"material": {"$filter": {"input": "$material", "cond": _IS_COMPUTED}}}},
        _lookup("hulls", "material.hull_id", "hull_id", "hull"),
        {"$set": {key: {"$first": f"${key}"} for key in ("campaign", "round", "model", "material", "hull")}},
        {"$set": {"calculations": {"$sortArray": {"input": "$calculations", "sortBy": _IN_TIME}}}},
        {"$unset": "calculations.inputs"},
    ]
    rows = list(store.database["candidates"].aggregate(stages))
    if not rows:
        raise CampaignError(f"no candidate {identity!r}; expected an id such as those in the candidates table")
    told = to_json(rows[0])
    assert isinstance(told, dict)  # noqa: S101 - a document is a mapping
    for key in ("campaign", "round", "model", "material", "hull"):
        told.setdefault(key, None)
    return told


def _lookup(collection: str, local: str, foreign: str, name: str) -> dict[str, Any]:
    return {"$lookup": {"from": collection, "localField": local, "foreignField": foreign, "as": name}}
