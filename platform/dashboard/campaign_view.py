"""What people want to see of campaigns: state, what happens next, and what was spent."""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from wyloop.stores import campaigns
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, to_json

STEPS: Mapping[str, str] = {
    "refresh": "encode new structures, bring materials and hulls up to date",
    "train": "fine-tune the model on everything in the database",
    "generate": "generate new genes for the target",
    "screen": "put every gene through every screen",
    "select": "choose the best and build their 3D structures",
    "reserve": "reserve what their jobs may cost in the budget",
    "dispatch": "hand the jobs out",
    "relax": "wait for relaxations and Gamma phonons",
    "collect": "collect results and settle what they cost",
    "validate": "turn usable results into materials",
    "recheck": "compute once more what is implausible, and wait for it",
    "promote": "choose what goes on to DFT, within the budget",
    "dft": "wait for DFT",
    "settle": "collect results of DFT and settle what they cost",
    "write_back": "write results back and update hulls",
    "close": "close the round and report",
}
"""The steps of a round in their order, as people say them."""
MAX_CARDS = 200
_lock = threading.Lock()


@dataclass(frozen=True)
class Card:
    """A campaign at a glance.

    Attributes:
        campaign: The campaign.
        rounds: Its rounds in order.
        next_step: What happens next, in words.
        jobs: Calculations of the open round by status.
        core_seconds: Spent in closed rounds, s.
        n_on_target: Materials that meet every condition by calculated values.
        n_validated: Materials near the hull.
    """

    campaign: CampaignRecord
    rounds: tuple[RoundRecord, ...]
    next_step: str
    jobs: Mapping[str, int]
    core_seconds: float
    n_on_target: int
    n_validated: int

    def as_json(self) -> dict[str, JSON]:
        """Return it for the API; settings and rounds included, who holds the lease is not."""
        campaign = asdict(self.campaign)
        campaign.pop("lease_owner", None)
        campaign.pop("fencing_token", None)
        told = to_json(
            campaign
            | {
                "next_step": self.next_step,
                "jobs": dict(self.jobs),
                "core_seconds": self.core_seconds,
                "n_validated": self.n_validated,
                "n_on_target": self.n_on_target,
            }
        )
        assert isinstance(told, dict)  # noqa: S101 - it is a mapping
        return told


CARDS_LIFE = 1.0  # s; many readers look at the same campaigns
_cards_of: dict[str, tuple[float, list[Card]]] = {}


@translated
def cards(store: Store, *, limit: int = 200) -> list[Card]:
    """Return the campaigns as they were a second ago at most, those at work first, the youngest first."""
    with _lock:
        when, kept = _cards_of.get(store.alias, (-CARDS_LIFE, []))
        if time.monotonic() < when + CARDS_LIFE:
            return kept[:limit]
        order = {"active": 0, "paused": 1}
        found = sorted(campaigns.campaigns(store), key=lambda one: one.created_at, reverse=True)
        found.sort(key=lambda one: (order.get(one.state, 2), one.rounds_closed >= one.rounds_requested))
        made = [card(store, one) for one in found[:MAX_CARDS]]
        _cards_of.clear()  # a process serves one database
        _cards_of[store.alias] = (time.monotonic(), made)
    return made[:limit]


def forget_cards() -> None:
    """Forget the campaigns of a second ago: something changed."""
    with _lock:
        _cards_of.clear()


@translated
def card(store: Store, campaign: CampaignRecord) -> Card:
    """Return one campaign at a glance."""
    rounds = tuple(campaigns.rounds(store, campaign.campaign_id))
    current = next((one for one in rounds if one.state == "open"), None)
    jobs: dict[str, int] = {}
    if current is not None:
        stages: list[dict[str, Any]] = [
            {"$match": {"round_id": {"$eq": current.round_id}}},
            {"$group": {"_id": "$status", "n": {"$sum": 1}}},
            {"$sort": {"_id": 1}},
        ]
        jobs = {row["_id"]: row["n"] for row in store.database["calculations"].aggregate(stages, maxTimeMS=1000)}
    of_campaign = {"campaign_id": {"$eq": campaign.campaign_id}}
    counted = store.database["materials"].aggregate(
        [
            {"$match": of_campaign},
            {
                "$group": {"_id": None}
                | {key: {"$sum": {"$toInt": f"${key}"}} for key in ("is_validated", "meets_target")}
            },
        ],
        maxTimeMS=1000,
    )
    counts = next(iter(counted), {})
    return Card(
        campaign,
        rounds,
        next_step(campaign, current, jobs),
        jobs,
        sum(_number(one.summary.get("core_seconds")) for one in rounds),
        int(counts.get("meets_target", 0)),
        int(counts.get("is_validated", 0)),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def next_step(campaign: CampaignRecord, current: RoundRecord | None, jobs: Mapping[str, int]) -> str:
    """Say what happens next in a campaign."""
    if campaign.state == "stopped":
        return "Stopped: nothing more happens."
    if campaign.state == "finished":
        return f"Finished: {campaign.reason or 'all that was asked for is done'}."
    if campaign.state == "created":
        return "Created: it begins with 'wyloop campaign start'."
    wanted = campaign.rounds_requested
    if current is None:
        if campaign.rounds_closed >= wanted:
            return f"All {wanted} rounds asked for are done; ask for more with 'wyloop discover' or 'wyloop campaign'."
        verb = "starts when the campaign is resumed" if campaign.state == "paused" else "starts at the next turn"
        return f"Round {campaign.rounds_closed + 1} of {wanted} {verb}."
    name = next((step for step in STEPS if step not in current.steps), "close")
    waiting = jobs.get("requested", 0) + jobs.get("running", 0)
    text = f"Round {current.number} of {wanted}: {STEPS[name]}"
    if waiting and name in ("relax", "dft"):
        text += f" ({waiting} of {sum(jobs.values())} jobs to go)"
    return text + (", when the campaign is resumed." if campaign.state == "paused" else ".")


def minutes_of(record: RoundRecord) -> float | None:
    """Return how long a round took, minutes, or has taken until its last step."""
    ends = [step.get("finished_at") for step in record.steps.values()]
    times = [datetime.fromisoformat(end) for end in ends if isinstance(end, str)]
    return (max(times) - record.created_at).total_seconds() / 60 if times else None


def budget_rows(store: Store, campaign_id: str) -> list[dict[str, JSON]]:
    """Return a campaign's budget, plain JSON: the row of all protocols first."""
    from wyloop.stores.budget import budget

    rows = []
    for row in budget(store, campaign_id):
        plain = to_json(asdict(row))
        assert isinstance(plain, dict)  # noqa: S101 - it is a mapping
        rows.append(plain)
    return rows
