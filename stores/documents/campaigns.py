"""Campaigns and their rounds: the collections `campaigns` and `rounds`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DateTimeField, DictField, IntField, ListField, StringField

from wyloop.stores.documents.base import StringsField, WyloopDocument

CAMPAIGN_STATES = ("created", "active", "paused", "stopped", "finished")
ROUND_STATES = ("open", "closed")


class CampaignDocument(WyloopDocument):
    """A target with its settings, the rounds asked for, and the lease of who advances it."""

    meta = {"collection": "campaigns", "indexes": [{"fields": ["campaign_id"], "unique": True}]}

    campaign_id = StringField(required=True)
    name = StringField(required=True)
    target = StringsField(required=True)
    settings = DictField()
    definition = DictField()  # as it was given: target, budget, policy, schedule
    state = StringField(required=True, choices=CAMPAIGN_STATES)
    reason = StringField()  # why it is in this state
    rounds_requested = IntField(unit="1", required=True, min_value=0)
    rounds_closed = IntField(unit="1", required=True, min_value=0)
    created_at = DateTimeField(required=True)
    started_at = DateTimeField()
    next_advance_at = DateTimeField()
    lease_owner = StringField()
    lease_run_id = StringField()  # Prefect's flow run of the owner
    lease_expires_at = DateTimeField()
    rev = IntField(unit="1", default=0, min_value=0)  # grows with every write under a lease
    fencing_token = IntField(unit="1", required=True, default=0, min_value=0)


class RoundDocument(WyloopDocument):
    """One turn of a campaign: the steps done, the model used, the funnel."""

    meta = {
        "collection": "rounds",
        "indexes": [
            {"fields": ["round_id"], "unique": True},
            {"fields": ["campaign_id", "number"], "unique": True},
            {"fields": ["model_id"]},
        ],
    }

    round_id = StringField(required=True)
    campaign_id = StringField(required=True)
    number = IntField(unit="1", required=True, min_value=1)
    seed = IntField(unit="1", required=True, min_value=0)
    state = StringField(required=True, choices=ROUND_STATES)
    steps = DictField()
    model_id = StringField()
    snapshot_hash = StringField()
    funnel = ListField(DictField())
    summary = DictField()
    created_at = DateTimeField(required=True)
