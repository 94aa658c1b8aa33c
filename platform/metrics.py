"""Numbers of operation: queues, ages, times, failures and latency, for Prometheus, `wyloop status` and `/health`."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LIFE = 5.0  # s; however often it is asked, the database is not
TIME_MS = 2000
QUEUED = ("READY", "RESERVED", "RUNNING")
"""FireWorks states whose age matters: wait for a worker, hang in a queue, run."""
COLLECTIONS = ("structures", "materials", "candidates", "calculations", "model_versions")
MAX_CLASSES = 50
MAX_CLASS_LENGTH = 60


@dataclass(frozen=True)
class Figures:
    """The state of an installation; ages and times in s.

    Attributes:
        is_up: Whether the database answers.
        latency: Time of a ping to the database.
        documents: Collection to its estimated number of documents.
        jobs: FireWorks state to number of jobs.
        oldest: FireWorks state to the age of the job that is longest in it.
        calculations: Kind and status to their number.
        failures: Class of failure to number of calculations that failed so.
        campaigns: State to number of campaigns.
        rounds: Campaign to the time that its last closed round took.
        open_rounds: Campaign to the age of its open round.
    """

    is_up: bool
    latency: float = 0.0
    documents: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, float] = field(default_factory=dict)
    calculations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    campaigns: Mapping[str, int] = field(default_factory=dict)
    rounds: Mapping[str, float] = field(default_factory=dict)
    open_rounds: Mapping[str, float] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, float]]:
        """Return every number under its Prometheus name, as `wyloop status --figures` prints it."""
        found = [("wyloop_up", float(self.is_up)), ("wyloop_database_latency_seconds", self.latency)]
        for name, label, values in self._labelled():
            found += [(f'{name}{{{label}="{key}"}}', float(value)) for key, value in values.items()]
        found += [
            (f'wyloop_calculations{{kind="{kind}",status="{status}"}}', float(n))
            for (kind, status), n in self.calculations.items()
        ]
        return found

    def _labelled(self) -> list[tuple[str, str, Mapping[str, float]]]:
        return [
            ("wyloop_documents", "collection", self.documents),
            ("wyloop_jobs", "state", self.jobs),
            ("wyloop_job_age_seconds", "state", self.oldest),
            ("wyloop_calculation_failures", "class", self.failures),
            ("wyloop_campaigns", "state", self.campaigns),
            ("wyloop_round_duration_seconds", "campaign", self.rounds),
            ("wyloop_open_round_age_seconds", "campaign", self.open_rounds),
        ]


HELP = {
    "wyloop_documents": "Documents of a collection, estimated",
    "wyloop_jobs": "FireWorks jobs by state",
    "wyloop_job_age_seconds": "How long the oldest job is in this state",
    "wyloop_calculation_failures": "Failed calculations by class of failure",
    "wyloop_campaigns": "Campaigns by state",
    "wyloop_round_duration_seconds": "How long the last closed round of a campaign took",
    "wyloop_open_round_age_seconds": "How long the open round of a campaign is open",
}


def figures(store: Store, launchpad_database: str) -> Figures:
    """Read the figures; what a user of the database may not read is left out.

    Args:
        store: The database.
        launchpad_database: Name of FireWorks' database on the same server.
    """
    started = time.perf_counter()
    try:
        store.client.admin.command("ping", maxTimeMS=1000)
    except PyMongoError:
        return Figures(is_up=False)
    latency = time.perf_counter() - started
    jobs, oldest = _or_nothing(lambda: _jobs(store, launchpad_database), ({}, {}))
    closed, opened = _or_nothing(lambda: _rounds(store), ({}, {}))
    return Figures(
        is_up=True,
        latency=latency,
        documents={name: _or_nothing(_counter(store, name), 0) for name in COLLECTIONS},
        jobs=jobs,
        oldest=oldest,
        calculations=_or_nothing(lambda: _calculations(store), {}),
        failures=_or_nothing(lambda: _failures(store), {}),
        campaigns=_or_nothing(lambda: _campaigns(store), {}),
        rounds=closed,
        open_rounds=opened,
    )


def _counter(store: Store, name: str) -> Callable[[], int]:
    return lambda: store.database[name].estimated_document_count(maxTimeMS=TIME_MS)


def _or_nothing(read: Callable[[], Any], nothing: Any) -> Any:  # noqa: ANN401 - what is read
    try:
        return read()
    except PyMongoError:
        return nothing


def _grouped(collection: Any, by: Any, match: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, int]]:  # noqa: ANN401
    stages: list[dict[str, Any]] = [{"$match": dict(match)}] if match else []
    stages += [{"$group": {"_id": by, "n": {"$sum": 1}}}, {"$sort": {"n": -1}}, {"$limit": MAX_CLASSES}]
    for row in collection.aggregate(stages, maxTimeMS=TIME_MS):
        yield row["_id"], int(row["n"])


def _jobs(store: Store, database: str) -> tuple[dict[str, int], dict[str, float]]:
    fireworks = store.client[database]["fireworks"]
    counts = {str(state): n for state, n in _grouped(fireworks, "$state")}
    ages = {}
    for state in QUEUED:
        if counts.get(state):
            first = fireworks.find_one(
                {"state": state}, {"updated_on": 1}, sort=[("updated_on", 1)], max_time_ms=TIME_MS
            )
            ages[state] = _age((first or {}).get("updated_on"))
    return counts, ages


def _calculations(store: Store) -> dict[tuple[str, str], int]:
    by = {"kind": "$kind", "status": "$status"}
    found = _grouped(store.database["calculations"], by)
    return {(str(key.get("kind")), str(key.get("status"))): n for key, n in found}


def _failures(store: Store) -> dict[str, int]:
    """Count failed calculations by what stands before the first colon or digit of their error."""
    head = {"$arrayElemAt": [{"$split": [{"$ifNull": ["$error", "unknown"]}, ":"]}, 0]}
    counts: dict[str, int] = {}
    for text, n in _grouped(store.database["calculations"], head, {"status": "failed"}):
        name = "".join(letter for letter in str(text) if not letter.isdigit())[:MAX_CLASS_LENGTH].strip()
        name = name.replace('"', "'").replace("\\", "/").replace("\n", " ")
        counts[name] = counts.get(name, 0) + n
    return counts


def _campaigns(store: Store) -> dict[str, int]:
    return {str(state): n for state, n in _grouped(store.database["campaigns"], "$state")}


def _rounds(store: Store) -> tuple[dict[str, float], dict[str, float]]:
    fields = {"_id": 0, "campaign_id": 1, "state": 1, "created_at": 1, "last_updated": 1}
    closed: dict[str, float] = {}
    opened: dict[str, float] = {}
    found = store.database["rounds"].find({}, fields).sort("_id", -1).limit(500).max_time_ms(TIME_MS)
    for row in found:
        if row["state"] == "open":
            opened.setdefault(row["campaign_id"], _age(row["created_at"]))
        else:
            closed.setdefault(row["campaign_id"], (row["last_updated"] - row["created_at"]).total_seconds())
    return closed, opened


def _age(value: object) -> float:
    """Return how long ago a time was, s; FireWorks writes some as texts without a zone, in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
    if not isinstance(value, datetime):
        return 0.0
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - aware).total_seconds())


class Recent:
    """Figures that are read again after a few seconds only."""

    def __init__(self, store: Store, launchpad_database: str) -> None:
        self._store, self._database = store, launchpad_database
        self._lock = threading.Lock()
        self._found: tuple[float, Figures] | None = None

    def __call__(self) -> Figures:
        """Return the figures of now, or of a few seconds ago."""
        with self._lock:
            if self._found is None or time.monotonic() > self._found[0] + LIFE:
                found = figures(self._store, self._database)
                self._found = (time.monotonic(), found)
            return self._found[1]


class _Collector:
    """What Prometheus' client asks at a scrape."""

    def __init__(self, read: Callable[[], Figures]) -> None:
        self._read = read

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        found = self._read()
        yield GaugeMetricFamily("wyloop_up", "Whether the database answers", value=float(found.is_up))
        if not found.is_up:
            return
        yield GaugeMetricFamily(
            "wyloop_database_latency_seconds", "Time of a ping to the database", value=found.latency
        )
        for name, label, values in found._labelled():
            family = GaugeMetricFamily(name, HELP[name], labels=[label])
            for key, value in values.items():
                family.add_metric([key], float(value))
            yield family
        family = GaugeMetricFamily("wyloop_calculations", "Calculations by kind and status", labels=["kind", "status"])
        for (kind, status), n in found.calculations.items():
            family.add_metric([kind, status], float(n))
        yield family


def exposition(read: Callable[[], Figures]) -> bytes:
    """Return the figures in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(read))
    return bytes(generate_latest(registry))
