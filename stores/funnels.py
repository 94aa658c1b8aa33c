"""The funnel of a campaign by generator: what each proposed and what became of it, under one protocol for all."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.materials import material_id
from wyloop.stores.records import JSON, to_json

RELAXED = ("unstable", "off_target", "validated")
"""Statuses of candidates whose relaxation is completed and counts."""
TAKEN_ON = ("selected", "dispatched", "failed", "quarantined", *RELAXED)
HULL_CUTOFF = 0.1  # eV/atom
ON_HULL = 1e-6  # eV/atom, the rounding of the hull's solver
_BATCH = 2000


@dataclass(frozen=True)
class GeneratorFunnel:
    """What one generator proposed in a campaign or a round, and what became of it; all are numbers of genes."""

    generator: str
    n_proposed: int = 0
    """Distinct genes of each round that it came up with, known and repeated ones included."""
    n_unique: int = 0
    """Of these, not proposed by another generator of the same round before."""
    n_novel: int = 0
    """Of these, neither in the database nor proposed in an earlier round."""
    n_candidates: int = 0
    """Handed in as candidates, its share of the rounds."""
    passed_screen: Mapping[str, int] = field(default_factory=dict)
    """Candidates that pass a screen, whatever the others say, by screen in their order."""
    n_passed: int = 0
    """Candidates that passed every binding screen, those taken on included."""
    n_selected: int = 0
    """Taken on for computation; those whose 3D structure was not found are among them."""
    n_relaxed: int = 0
    """Relaxation completed and believed."""
    n_near_hull: int = 0
    """Energy above hull at most the cutoff."""
    n_stable: int = 0
    """On the hull."""
    n_validated: int = 0
    """Near the hull, and no calculated value misses the target."""
    n_on_target: int = 0
    """Validated, and every condition of the target is met by a calculated value."""
    n_quarantined: int = 0
    """Results that wait for a second calculation or a person."""

    def to_json(self) -> dict[str, JSON]:
        """Return it as plain JSON."""
        made = to_json(asdict(self))
        return made if isinstance(made, dict) else {}


@translated
def funnel_by_generator(
    store: Store, campaign_id: str, *, round_number: int | None = None, hull_cutoff: float = HULL_CUTOFF
) -> list[GeneratorFunnel]:
    """Return the funnel of each generator of a campaign, by name.

    Rounds of older versions recorded no proposals besides their candidates: these count as proposed, unique and novel.

    Args:
        store: The database.
        campaign_id: The campaign.
        round_number: One round; none: all.
        hull_cutoff: Largest energy above hull of a material that counts as near the hull, eV/atom.
    """
    criteria: dict[str, Any] = {"campaign_id": {"$eq": campaign_id}}
    if round_number is not None:
        criteria["round_number"] = round_number
    numbers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    of_round: dict[tuple[str, int], int] = defaultdict(int)
    for row in _by_status(store, criteria):
        found, n = numbers[row["_id"]["sampler"]], row["n"]
        of_round[row["_id"]["sampler"], row["_id"]["round_number"]] += n
        found["n_candidates"] += n
        status = row["_id"]["status"]
        found["n_passed"] += n * (status == "passed" or status in TAKEN_ON)
        found["n_selected"] += n * (status in TAKEN_ON)
        found["n_relaxed"] += n * (status in RELAXED)
        found["n_validated"] += n * (status == "validated")
        found["n_quarantined"] += n * (status == "quarantined")
    _add_proposals(store, criteria, numbers, of_round)
    _add_materials(store, criteria, numbers, hull_cutoff)
    screens = _by_screen(store, criteria)
    names = sorted(numbers)
    return [GeneratorFunnel(name, passed_screen=screens.get(name, {}), **numbers[name]) for name in names]


def _by_status(store: Store, criteria: dict[str, Any]) -> Iterator[dict[str, Any]]:
    key = {name: f"${name}" for name in ("sampler", "round_number", "status")}
    yield from store.database["candidates"].aggregate(
        [{"$match": criteria}, {"$group": {"_id": key, "n": {"$sum": 1}}}]
    )


def _by_screen(store: Store, criteria: dict[str, Any]) -> dict[str, dict[str, int]]:
    stages: list[dict[str, Any]] = [
        {"$match": criteria},
        {"$project": {"sampler": 1, "verdicts.screen": 1, "verdicts.passed": 1}},
        {"$unwind": {"path": "$verdicts", "includeArrayIndex": "place"}},
        {
            "$group": {
                "_id": {"sampler": "$sampler", "screen": "$verdicts.screen"},
                "place": {"$min": "$place"},
                "n": {"$sum": {"$cond": ["$verdicts.passed", 1, 0]}},
            }
        },
        {"$sort": {"place": 1, "_id.screen": 1}},
    ]
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in store.database["candidates"].aggregate(stages, allowDiskUse=True):
        found[row["_id"]["sampler"]][row["_id"]["screen"]] = row["n"]
    return found


def _add_proposals(
    store: Store,
    criteria: dict[str, Any],
    numbers: dict[str, dict[str, int]],
    of_round: Mapping[tuple[str, int], int],
) -> None:
    """Count what the rounds recorded of proposals that were known or repeated besides the candidates."""
    rounds = {"campaign_id": criteria["campaign_id"]}
    if "round_number" in criteria:
        rounds["number"] = criteria["round_number"]
    recorded: set[tuple[str, int]] = set()
    for row in store.database["rounds"].find(rounds, {"number": 1, "steps.generate": 1}):
        counts = ((row.get("steps") or {}).get("generate") or {}).get("counts") or {}
        for name, counted in (counts.get("generators") or {}).items():
            recorded.add((name, row["number"]))
            found, n_proposed = numbers[name], int(counted["n_proposed"])
            found["n_proposed"] += n_proposed
            found["n_unique"] += n_proposed - int(counted["n_duplicates"])
            found["n_novel"] += n_proposed - int(counted["n_duplicates"]) - int(counted["n_known"])
    for (name, number), n in of_round.items():
        if (name, number) not in recorded:
            for field_name in ("n_proposed", "n_unique", "n_novel"):
                numbers[name][field_name] += n


def _add_materials(
    store: Store, criteria: dict[str, Any], numbers: dict[str, dict[str, int]], hull_cutoff: float
) -> None:
    """Count what became of the relaxed candidates, whoever asked for the calculation first."""
    relaxed = criteria | {"status": {"$in": list(RELAXED)}}
    rows = store.database["candidates"].find(relaxed, {"fingerprint": 1, "sampler": 1, "status": 1, "_id": 0})
    of_material = {material_id(row["fingerprint"]): row for row in rows}
    fields = {"material_id": 1, "energy_above_hull": 1, "meets_target": 1, "_id": 0}
    wanted = sorted(of_material)
    for start in range(0, len(wanted), _BATCH):
        chosen = {"material_id": {"$in": wanted[start : start + _BATCH]}}
        for material in store.database["materials"].find(chosen, fields):
            candidate = of_material[material["material_id"]]
            found, distance = numbers[candidate["sampler"]], material.get("energy_above_hull")
            found["n_near_hull"] += distance is not None and distance <= hull_cutoff
            found["n_stable"] += distance is not None and distance <= ON_HULL
            found["n_on_target"] += candidate["status"] == "validated" and bool(material.get("meets_target"))
