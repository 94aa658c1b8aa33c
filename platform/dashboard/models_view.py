"""Model versions with their metrics, and what came of each."""

from typing import Any

from wyloop.models.errors import ModelError
from wyloop.platform.dashboard.candidate_view import NotFoundError
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.model_outcome import came_of
from wyloop.stores.records import to_json

MAX_LISTED = 200
METRICS = {
    "formation_energy_mae": "formation energy, mean absolute error, eV/atom",
    "band_gap_mae": "band gap, mean absolute error, eV",
    "volume_mape": "volume, mean relative error",
    "formation_energy_ece": "formation energy, calibration error",
    "exact_reconstruction": "genes exactly reconstructed",
}


@translated
def listed(store: Store) -> list[dict[str, Any]]:
    """Return model versions, the youngest first, each with its metrics; the card's long parts are left out."""
    fields = {"_id": 0, "card.history": 0, "card.config": 0, "weights_file": 0, "snapshot_file": 0}
    found = store.database["model_versions"].find({}, fields).sort("_id", -1).limit(MAX_LISTED).max_time_ms(2000)
    in_use = model_in_use(store)
    rows = []
    for one in found:
        plain = to_json(one)
        assert isinstance(plain, dict)  # noqa: S101 - a document is a mapping
        rows.append(plain | {"metrics": metrics(one.get("card") or {}), "is_in_use": one["model_id"] == in_use})
    return rows


@translated
def shown(store: Store, identity: str) -> dict[str, Any]:
    """Return a model version with its card, and under `came_of` what came of it.

    Raises:
        NotFoundError: No model has this id.
    """
    found = store.database["model_versions"].find_one(
        {"model_id": {"$eq": identity}}, {"_id": 0, "weights_file": 0, "snapshot_file": 0}
    )
    if found is None:
        raise NotFoundError(f"no model {identity[:80]!r}; expected an id such as those in the table of models")
    plain = to_json(found)
    assert isinstance(plain, dict)  # noqa: S101 - a document is a mapping
    try:
        outcome = came_of(store, identity)
    except ModelError as error:
        raise NotFoundError(str(error)) from error
    return plain | {
        "metrics": metrics(found.get("card") or {}),
        "metrics_before": metrics(found.get("card") or {}, "validation_before"),
        "came_of": outcome,
        "is_in_use": identity == model_in_use(store),
    }


def metrics(card: dict[str, Any], part: str = "validation") -> dict[str, float]:
    """Return the numbers of a model card that people compare."""
    found = (card.get("metrics") or {}).get(part) or {}
    return {name: float(found[name]) for name in METRICS if isinstance(found.get(name), int | float)}


def model_in_use(store: Store) -> str | None:
    """Return the promoted model; None where the shipped one is in use."""
    found = store.database["promotions"].find_one({}, {"model_id": 1}, sort=[("number", -1)])
    return None if found is None else found.get("model_id")
