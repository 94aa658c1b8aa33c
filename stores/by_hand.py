"""Candidates that a person adds: a campaign of their own that is never advanced, each in a closed round of its own."""

from collections.abc import Mapping
from typing import Any

from pymongo.client_session import ClientSession

from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import candidates
from wyloop.stores.campaigns import RoundRecord, campaign_id, create_campaign, round_id, round_record
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, checked_update, now
from wyloop.stores.documents.campaigns import CampaignDocument, RoundDocument
from wyloop.stores.failures import translated

NAME = "added by hand"
TARGET = ("energy_above_hull <= 0.1",)
SAMPLER = "by hand"


@translated
def add_by_hand(store: Store, gene: Gene, settings: Mapping[str, Any], *, seed: int = 0) -> CandidateRecord:
    """Make a candidate of a gene, or return the one that was made before.

    Args:
        store: The database.
        gene: In its canonical form.
        settings: The policy by which it is judged, plain JSON.
        seed: Of its start structures.
    """
    campaign = campaign_id(TARGET, NAME)
    identity = candidates.candidate_id(campaign, gene.fingerprint)
    if store.database["candidates"].find_one({"candidate_id": identity}, {"_id": 1}) is None:
        create_campaign(store, TARGET, dict(settings), NAME, definition={})
        record = _closed_round(store, campaign)
        made = CandidateRecord(
            candidate_id=identity,
            campaign_id=campaign,
            round_id=record.round_id,
            round_number=record.number,
            gene=gene,
            sampler=SAMPLER,
            seed=seed,
            status="selected",
        )
        candidates.propose(store, [made])
    return candidates.candidate(store, identity)


def _closed_round(store: Store, campaign: str) -> RoundRecord:
    """Open and close a round in one transaction; the campaign is stopped, so that nobody advances it."""
    made: list[str] = []

    def write(session: ClientSession) -> None:
        stopped = checked_update(CampaignDocument, {"state": "stopped", "reason": "its candidates are added by hand"})
        found = store.database["campaigns"].find_one_and_update(
            {"campaign_id": campaign},
            {"$set": stopped, "$inc": {"rounds_requested": 1, "rounds_closed": 1}},
            session=session,
        )
        number = (found or {}).get("rounds_closed", 0) + 1
        fields = {
            "round_id": round_id(campaign, number),
            "campaign_id": campaign,
            "number": number,
            "seed": number,
            "state": "closed",
            "created_at": now(),
        }
        store.database["rounds"].insert_one(checked(RoundDocument, fields), session=session)
        made[:] = [fields["round_id"]]

    with store.client.start_session() as session:
        session.with_transaction(write)
    return round_record(store, made[0])
