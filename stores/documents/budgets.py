"""Budgets and what is charged to them: the collections `budgets` and `reservations`."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from mongoengine import DateTimeField, IntField, StringField

from wyloop.stores.documents.base import FloatField, WyloopDocument

ALL_PROTOCOLS = "all"
RESERVATION_STATES = ("reserved", "dispatched", "settled", "released")


class BudgetDocument(WyloopDocument):
    """What a campaign may spend, and has, on one protocol or on all of them; no limit where none stands."""

    meta = {"collection": "budgets", "indexes": [{"fields": ["campaign_id", "protocol"], "unique": True}]}

    campaign_id = StringField(required=True)
    protocol = StringField(required=True)  # such as gpaw-pbe/1, or all
    jobs_limit = IntField(unit="1", min_value=0)
    core_seconds_limit = FloatField(unit="s", min_value=0)
    deadline = DateTimeField()  # nothing is reserved after it
    jobs_reserved = IntField(unit="1", required=True, default=0, min_value=0)
    jobs_settled = IntField(unit="1", required=True, default=0, min_value=0)
    core_seconds_reserved = FloatField(unit="s", required=True, default=0.0)
    core_seconds_spent = FloatField(unit="s", required=True, default=0.0)


class ReservationDocument(WyloopDocument):
    """One calculation's charge: a calculation has one payer, whoever uses its result."""

    meta = {
        "collection": "reservations",
        "indexes": [
            {"fields": ["calculation_id"], "unique": True},
            {"fields": ["state", "campaign_id"]},
            {"fields": ["round_id", "state"]},
            {"fields": ["campaign_id", "protocol", "state"]},
        ],
    }

    calculation_id = StringField(required=True)
    campaign_id = StringField(required=True)
    round_id = StringField()
    protocol = StringField(required=True)
    state = StringField(required=True, choices=RESERVATION_STATES)
    core_seconds = FloatField(unit="s", required=True, min_value=0)  # most that it may cost
    core_seconds_spent = FloatField(unit="s", min_value=0)
    reason = StringField()
    created_at = DateTimeField(required=True)
