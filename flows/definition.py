"""A campaign as its owner writes it: target, budget, policy and schedule, checked as a whole before anything starts."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wyloop.flows.policy import Policy
from wyloop.models.errors import CampaignError, TargetError
from wyloop.models.physics.protocols import PROTOCOLS
from wyloop.models.targets import Target
from wyloop.stores import budget, campaigns
from wyloop.stores.budget import Limits
from wyloop.stores.campaigns import CampaignRecord
from wyloop.stores.connection import Store
from wyloop.stores.documents.budgets import ALL_PROTOCOLS

MAX_FILE = 1_000_000  # bytes


class ProtocolBudget(BaseModel):
    """The most that may be spent on one protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: int | None = Field(default=None, ge=0)
    core_hours: float | None = Field(default=None, ge=0)


class Budget(BaseModel):
    """The most that a campaign may spend; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=1, ge=1, le=100_000)
    jobs: int | None = Field(default=None, ge=1)
    core_hours: float | None = Field(default=None, gt=0)
    wall_hours: float | None = Field(default=None, gt=0)
    """From the start on; a round under way then is finished."""
    per_protocol: dict[str, ProtocolBudget] = Field(default_factory=dict)

    @field_validator("per_protocol")
    @classmethod
    def _known(cls, given: dict[str, ProtocolBudget]) -> dict[str, ProtocolBudget]:
        for name in given:
            if name not in PROTOCOLS:
                raise ValueError(f"no protocol {name!r}{_nearest(name, PROTOCOLS)}")
        return given

    def limits(self, started_at: datetime | None) -> dict[str, Limits]:
        """Return the limits as the database keeps them."""
        deadline = started_at + timedelta(hours=self.wall_hours) if started_at and self.wall_hours else None
        made = {ALL_PROTOCOLS: Limits(self.jobs, _seconds(self.core_hours), deadline)}
        return made | {
            name: Limits(one.jobs, _seconds(one.core_hours)) for name, one in sorted(self.per_protocol.items())
        }


class Schedule(BaseModel):
    """When the campaign is looked at; without one, at every run of the scheduled flow, which is every minute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: str | None = Field(default=None, max_length=100)
    """As in crontab, in UTC."""
    interval_minutes: float | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> "Schedule":
        if self.cron is not None and self.interval_minutes is not None:
            raise ValueError("both cron and interval_minutes; expected one of them")
        if self.cron is not None:
            _cron(self.cron, datetime.now(UTC))
        return self

    def next_after(self, time: datetime) -> datetime | None:
        """Return when the campaign is to be looked at again; None: whenever the scheduled flow runs."""
        if self.interval_minutes is not None:
            return time + timedelta(minutes=self.interval_minutes)
        return _cron(self.cron, time) if self.cron is not None else None


class Definition(BaseModel):
    """A whole campaign."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, min_length=1, max_length=200)
    target: tuple[str, ...] = Field(min_length=1)
    budget: Budget = Budget()
    policy: Policy = Policy()
    schedule: Schedule = Schedule()

    @field_validator("target", mode="before")
    @classmethod
    def _one_text(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @field_validator("target")
    @classmethod
    def _parsed(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(Target.parse(list(given)).texts())
        except TargetError as error:
            raise ValueError(str(error)) from error

    @field_validator("policy")
    @classmethod
    def _protocols(cls, given: Policy) -> Policy:
        for field in ("relaxation_protocol", "phonon_protocol", "dft_protocol"):
            name = str(getattr(given, field))
            if name not in PROTOCOLS:
                raise ValueError(f"{field} {name!r} is unknown{_nearest(name, PROTOCOLS)}")
        return given


def read_definition(path: Path, changes: Mapping[str, Any] | None = None) -> Definition:
    """Read a campaign from a YAML file.

    Args:
        path: The file.
        changes: What replaces entries of the file, by dotted name, such as `budget.jobs`.

    Raises:
        CampaignError: The file can't be read, or an entry is unknown or out of range; the entry is named.
    """
    import yaml  # type: ignore[import-untyped]  # ships no types; not needed to show the help

    try:
        if path.stat().st_size > MAX_FILE:
            raise CampaignError(f"{path} is larger than {MAX_FILE} bytes; expected a campaign of some lines")
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CampaignError(f"can't read {path}: {error.strerror}; expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise CampaignError(f"{path}{line} is not valid YAML; expected lines such as 'target: ...'") from error
    if not isinstance(given, dict):
        raise CampaignError(f"{path} holds no entries; expected at least 'target: 0.5 < band_gap < 2.0'")
    return define(given, changes, where=str(path))


def define(
    given: Mapping[str, Any], changes: Mapping[str, Any] | None = None, *, where: str = "campaign"
) -> Definition:
    """Check a campaign as a whole.

    Raises:
        CampaignError: An entry is unknown or out of range; the entry is named.
    """
    merged: dict[str, Any] = {str(key): value for key, value in given.items()}
    for dotted, value in (changes or {}).items():
        _put(merged, dotted.split("."), value)
    try:
        return Definition.model_validate(merged)
    except ValidationError as error:
        raise CampaignError(f"{where}: {_first(error)}") from error


def create(store: Store, definition: Definition) -> CampaignRecord:
    """Store a campaign that waits to be started, with its budget.

    Raises:
        CampaignError: There is one of the same target and name.
    """
    identity = campaigns.campaign_id(definition.target, definition.name)
    if any(found.campaign_id == identity for found in campaigns.campaigns(store)):
        raise CampaignError(f"{identity} has this target and name already; expected a new one; choose another --name")
    made = campaigns.create_campaign(
        store,
        definition.target,
        definition.policy.model_dump(mode="json"),
        definition.name,
        definition=definition.model_dump(mode="json"),
    )
    budget.set_limits(store, made.campaign_id, definition.budget.limits(None))
    return made


def start(store: Store, campaign_id: str) -> CampaignRecord:
    """Let a campaign begin, or go on after a pause, with the rounds that its budget names.

    Raises:
        CampaignError: No such campaign, or one that was stopped.
    """
    campaigns.set_campaign_state(store, campaign_id, "active", only_from=("created", "active", "paused", "finished"))
    record = campaigns.campaign(store, campaign_id)
    if record.definition:
        wanted = Definition.model_validate(record.definition).budget
        budget.set_limits(store, campaign_id, wanted.limits(record.started_at))
        missing = wanted.rounds - record.rounds_closed
        if missing > 0:
            campaigns.request_rounds(store, campaign_id, missing)
    return campaigns.campaign(store, campaign_id)


def change_budget(store: Store, campaign_id: str, changes: Mapping[str, Any]) -> None:
    """Change limits of a campaign; what is spent counts against the new ones.

    Args:
        store: The database.
        campaign_id: The campaign.
        changes: Dotted name to value, such as `budget.jobs`.

    Raises:
        CampaignError: No such campaign, or a value out of range.
    """
    record = campaigns.campaign(store, campaign_id)
    given = dict(record.definition) or {"target": list(record.target), "policy": record.settings, "name": record.name}
    if not record.definition:
        given["budget"] = {"rounds": max(record.rounds_requested, 1)}
    wanted = define(given, changes, where=campaign_id)
    campaigns.set_definition(store, campaign_id, wanted.model_dump(mode="json"), rounds=wanted.budget.rounds)
    budget.set_limits(store, campaign_id, wanted.budget.limits(record.started_at))


def schedule_of(record: CampaignRecord) -> Schedule:
    """Return the schedule of a campaign."""
    return Schedule.model_validate(record.definition.get("schedule") or {})


def _put(into: dict[str, Any], path: list[str], value: object) -> None:
    *folders, name = path
    for folder in folders:
        inner = into.get(folder)
        into[folder] = dict(inner) if isinstance(inner, Mapping) else {}
        into = into[folder]
    into[name] = value


def _first(error: ValidationError) -> str:
    """Say what is wrong with the first wrong entry in one line, and what was meant."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place) or "campaign"
    if first["type"] == "extra_forbidden":
        known = _fields_at(place[:-1])
        return f"unknown entry {name!r}{_nearest(place[-1], known)}"
    if first["type"] == "missing":
        return f"no {name!r}; expected one; see docs/campaigns.md"
    message = re.sub(r"^Value error, ", "", first["msg"])
    return (
        f"{name} = {first['input']!r}: {message}" if not isinstance(first["input"], Mapping) else f"{name}: {message}"
    )


def _fields_at(place: list[str]) -> list[str]:
    model: type[BaseModel] = Definition
    for part in place:
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if inner is None or not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return list(ProtocolBudget.model_fields) if "per_protocol" in place else []
        model = inner
    return list(model.model_fields)


def _nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(sorted(known))}"


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600.0


def _cron(text: str, time: datetime) -> datetime:
    from cronsim import CronSim, CronSimError  # Prefect's reader of crontab lines

    try:
        return next(CronSim(text, time.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"cron {text!r} is no crontab line; expected five fields such as '0 */2 * * *'") from error
