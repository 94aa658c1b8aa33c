"""How hulls are written so that no mark that somebody sets meanwhile is lost, and what they mean for campaigns."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from maggma.stores import MongoStore
from pymongo import DeleteOne, ReplaceOne, UpdateOne

from wyloop.models.screening.hull import STABILITY_CUTOFF
from wyloop.models.targets import Target
from wyloop.stores.builders.hull_documents import Told
from wyloop.stores.builders.run import batches
from wyloop.stores.bulk import insert_new
from wyloop.stores.connection import Store
from wyloop.stores.materials import material_record
from wyloop.stores.verdicts import judge

_MARKS = 5000  # hulls whose marks come off in one command


def write_hulls(
    hulls: MongoStore,
    written: Sequence[dict[str, Any]],
    gone: Sequence[dict[str, Any]],
    before: Mapping[str, dict[str, Any]],
) -> None:
    """Write hulls, and mark those that are to go; one that was marked anew since it was read is built again.

    Args:
        hulls: The collection.
        written: Documents to write.
        gone: Documents of hulls that are to go, as they were read; their mark is set in them too.
        before: The documents that were read, by id.
    """
    insert_new(hulls._collection, [hull for hull in written if hull["hull_id"] not in before])
    operations = [ReplaceOne(_as_read(before[hull["hull_id"]]), hull) for hull in written if hull["hull_id"] in before]
    marks = [UpdateOne(_as_read(hull), {"$set": {"stale": 1}}) for hull in gone]
    if operations or marks:
        hulls._collection.bulk_write([*operations, *marks], ordered=False)
    for hull in gone:
        hull["stale"] = 1


def delete_hulls(hulls: MongoStore, gone: Sequence[Mapping[str, Any]]) -> None:
    """Delete hulls unless somebody marked them since they were read."""
    if gone:
        hulls._collection.bulk_write([DeleteOne(_as_read(hull)) for hull in gone], ordered=False)


def unmark(hulls: MongoStore, marks: Mapping[str, int | None]) -> None:
    """Take the marks off, but for those that somebody renewed meanwhile.

    Args:
        hulls: The collection.
        marks: Mark by hull; None where there is none.
    """
    by_mark: dict[int, list[str]] = defaultdict(list)
    for identity, mark in marks.items():
        if mark is not None:
            by_mark[mark].append(identity)
    for mark, marked in by_mark.items():
        for batch in batches(marked, _MARKS):
            done = {"hull_id": {"$in": batch}, "stale": mark}
            hulls._collection.update_many(done, {"$unset": {"stale": ""}})


def _as_read(hull: Mapping[str, Any]) -> dict[str, Any]:
    return {"hull_id": hull["hull_id"], "stale": hull.get("stale")}


class CampaignJudge:
    """Says what the hulls mean for the campaigns that materials belong to; each campaign is read once."""

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._campaigns: dict[str, tuple[Target, float] | None] = {}

    def __call__(self, told: Mapping[str, Told]) -> dict[str, tuple[bool, bool]]:
        """Return of each material of a campaign whether it is validated, and meets the campaign's target."""
        judged = {}
        for found in self._database["materials"].find({"material_id": {"$in": sorted(told)}}) if told else ():
            record = material_record(found)
            campaign = self._campaign(str(record.campaign_id))
            if campaign is not None:
                one = told[record.material_id]
                record = replace(record, energy_above_hull=one.energy_above_hull, hull_id=one.hull_id)
                judgement = judge(record, *campaign)
                judged[record.material_id] = judgement.is_validated, judgement.meets_target
        return judged

    def _campaign(self, identity: str) -> tuple[Target, float] | None:
        if identity not in self._campaigns:
            found = self._database["campaigns"].find_one({"campaign_id": identity})
            self._campaigns[identity] = None if found is None else (
                Target.parse(found["target"]), found["settings"].get("hull_cutoff", STABILITY_CUTOFF)
            )  # fmt: skip
        return self._campaigns[identity]
