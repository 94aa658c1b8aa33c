"""Record the commands that pymongo sends, and ask the server how it would carry each of them out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import monitoring
from pymongo.database import Database
from pymongo.errors import OperationFailure

EXPLAINED = ("find", "aggregate", "count", "distinct", "update", "delete", "findAndModify")
LARGE = (
    "structures", "encodings", "candidates", "calculations", "materials", "hulls", "optimade_structures",
    "fs.files", "fs.chunks", "latents.files", "latents.chunks", "imports",
)  # fmt: skip
"""Collections that grow with the database; the others hold campaigns, rounds, models and the like."""
_OF_THE_SESSION = ("$db", "lsid", "$clusterTime", "$readPreference", "txnNumber", "startTransaction", "autocommit")
_OF_THE_WRITE = ("ordered", "writeConcern", "readConcern", "bypassDocumentValidation", "stmtId")


@dataclass(frozen=True)
class Issued:
    """A command and the function of the stores that sent it."""

    by: str
    command: dict[str, Any]

    @property
    def kind(self) -> str:
        return next(iter(self.command))

    @property
    def collection(self) -> str:
        return str(self.command[self.kind])

    @property
    def reads_one(self) -> bool:
        """Whether it asks for any one document: the first will do."""
        return self.kind == "find" and self.command.get("limit") == 1 and not self.command.get("filter")

    @property
    def reads_all(self) -> bool:
        """Whether it asks for the whole collection: no plan is better than reading it from end to end."""
        if self.kind == "find" and self.command.get("limit") != 1:
            return not self.command.get("filter") and not self.command.get("sort")
        if self.kind == "aggregate":
            return not any(name in stage for stage in self.command["pipeline"][:1] for name in ("$match", "$sort"))
        return False


class Recorder(monitoring.CommandListener):
    """Keeps the commands sent while somebody is named as their sender."""

    def __init__(self) -> None:
        self.by: str | None = None
        self.issued: list[Issued] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.by is None or event.command_name not in EXPLAINED:
            return
        command = {name: value for name, value in event.command.items() if name not in _OF_THE_SESSION}
        if not isinstance(command[event.command_name], str):  # an aggregation over the database itself
            return
        for part in ("updates", "deletes"):
            for one in command.pop(part, ()):
                rest = {name: value for name, value in command.items() if name not in _OF_THE_WRITE}
                self.issued.append(Issued(self.by, {**rest, part: [one]}))
        if event.command_name not in ("update", "delete"):
            self.issued.append(Issued(self.by, {k: v for k, v in command.items() if k not in _OF_THE_WRITE}))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    @contextmanager
    def sender(self, name: str) -> Iterator[None]:
        self.by = name
        try:
            yield
        finally:
            self.by = None


RECORDER = Recorder()
monitoring.register(RECORDER)  # for the clients made from now on; it keeps nothing while nobody is named


def scans(database: "Database[dict[str, Any]]", issued: Issued) -> list[str]:
    """Return the large collections that a command would read from end to end."""
    command = dict(issued.command)
    if issued.kind == "aggregate":
        command["cursor"] = {}
    # only a run tells how $lookup finds its documents; an update is planned, not made
    verbosity = "executionStats" if issued.kind == "aggregate" else "queryPlanner"
    try:
        plan = database.command("explain", command, verbosity=verbosity)
    except OperationFailure as error:
        raise AssertionError(f"{issued.by}: can't explain {command}: {error}") from error
    found = [issued.collection for stage in _stages(plan) if stage.get("stage") == "COLLSCAN"]
    for stage in _stages(plan):
        if int(stage.get("collectionScans", 0)) and "$lookup" in stage:
            found.append(str(stage["$lookup"]["from"]))
        if stage.get("stage") == "EQ_LOOKUP" and stage["strategy"] in ("NestedLoopJoin", "HashJoin"):
            found.append(str(stage["foreignCollection"]).split(".", 1)[1])
    return [name for name in found if name in LARGE]


def _stages(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    if isinstance(value, dict):
        yield value
        for name, part in value.items():
            if name != "rejectedPlans":
                yield from _stages(part)
    elif isinstance(value, list):
        for part in value:
            yield from _stages(part)


def shape(value: Any) -> Any:  # noqa: ANN401
    """Return a command without its values: two of one shape have one plan."""
    if isinstance(value, dict):
        return tuple((name, shape(part)) for name, part in value.items())
    if isinstance(value, list):
        return tuple(sorted({repr(shape(part)) for part in value}))
    return type(value).__name__
