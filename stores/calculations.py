"""Calculations: jobs asked for once, and results that are never overwritten."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId

from wyloop.models.crystal import Crystal
from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import CrystalFields, checked, checked_update, embedded, now
from wyloop.stores.documents.calculations import (
    AttemptFields,
    BandsResult,
    CalculationDocument,
    DFTPhononResult,
    DFTResult,
    PhononResult,
    ReferenceResult,
    RelaxationResult,
    StaticResult,
    TransportFields,
    TransportResult,
    VaspResult,
)
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, crystal_fields, crystal_of, digest, to_json

RESULTS: dict[str, type] = {
    "relax": RelaxationResult,
    "relaxation": RelaxationResult,
    "phonon": PhononResult,
    "dft": DFTResult,
    "reference": ReferenceResult,
    "static": StaticResult,
    "dft_phonon": DFTPhononResult,
    "bands": BandsResult,
    "transport": TransportResult,
    "vasp": VaspResult,
}
"""Kind of calculation to the document that holds its result."""

FILES = ("arrays", "picture", "raw")
"""What a calculation may keep in GridFS."""

LOG_TAIL_LENGTH = 4000
"""Characters kept of a failed job's log, from its end."""


@dataclass(frozen=True)
class CalculationRecord:
    """One job: what was asked, who ran it, what came out."""

    calculation_id: str
    candidate_id: str | None
    round_id: str | None
    kind: str
    subject: str
    """What is computed: the fingerprint of a gene, or the element of a reference."""
    protocol: str
    protocol_hash: str
    inputs: tuple[Crystal, ...] = ()
    """Start structures."""
    status: str = "requested"
    result: dict[str, JSON] = field(default_factory=dict)
    crystal: Crystal | None = None
    fw_id: int | None = None
    host: str | None = None
    core_seconds: float | None = None
    peak_memory_mb: float | None = None
    problems: tuple[str, ...] = ()
    review: str | None = None
    """Of an implausible result: quarantined, accepted or rejected."""
    review_reasons: tuple[str, ...] = ()
    review_note: str | None = None
    reviewed_at: datetime | None = None
    error: str | None = None
    failure: str | None = None
    """Class of a failure, of models/physics/failures.py."""
    attempts: tuple[dict[str, JSON], ...] = ()
    """Attempts before the last: failure, error, changes."""
    files: tuple[str, ...] = ()
    """What it keeps in GridFS: arrays, picture, raw."""
    log_tail: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    code_version: str = ""
    last_updated: datetime | None = None

    @property
    def is_withheld(self) -> bool:
        """Whether its result does not count: it is implausible, and nobody accepted it."""
        if self.review is None:
            return bool(self.problems)
        return self.review != "accepted"


def calculation_id(subject: str, protocol_identifier: str, protocol_hash: str) -> str:
    """Return the identity of a job: the same protocol with the same settings on the same subject."""
    return "calc-" + digest([subject, protocol_identifier, protocol_hash], 16)


@translated
def request_calculation(store: Store, record: CalculationRecord) -> bool:
    """Ask for a calculation. True if it is new; one that is there stays as it is."""
    result_class(record.kind)
    fields = checked(
        CalculationDocument,
        {
            "calculation_id": record.calculation_id,
            "candidate_id": record.candidate_id,
            "round_id": record.round_id,
            "kind": record.kind,
            "subject": record.subject,
            "protocol": record.protocol,
            "protocol_hash": record.protocol_hash,
            "status": "requested",
            "fw_id": record.fw_id,
            "inputs": [_crystal(crystal) for crystal in record.inputs],
        },
    )
    outcome = store.database["calculations"].update_one(
        {"calculation_id": record.calculation_id}, {"$setOnInsert": fields}, upsert=True
    )
    return outcome.upserted_id is not None


@translated
def begin(store: Store, identity: str, *, host: str | None = None, fw_id: int | None = None) -> bool:
    """Mark a calculation as running here. False if it is completed already: then there is nothing to do."""
    fields: dict[str, Any] = {"status": "running", "host": host, "started_at": now(), "error": None, "log_tail": None}
    if fw_id is not None:
        fields["fw_id"] = fw_id
    return _advance(store, identity, fields)


@translated
def complete(
    store: Store,
    identity: str,
    *,
    result: Mapping[str, Any],
    crystal: Crystal | None = None,
    core_seconds: float | None = None,
    peak_memory_mb: float | None = None,
    problems: Sequence[str] = (),
    attempts: Sequence[Mapping[str, Any]] = (),
    files: Mapping[str, ObjectId] | None = None,
) -> bool:
    """Store a result with the attempts before it and its files. False if it was completed before: that stays."""
    kind = calculation(store, identity).kind
    given = {key: value for key, value in result.items() if value is not None}
    if kind == "transport":
        given["rows"] = [embedded(TransportFields, row) for row in given.get("rows", ())]
    fields = {
        "status": "completed",
        "result": embedded(result_class(kind), given),
        "core_seconds": core_seconds,
        "peak_memory_mb": peak_memory_mb,
        "problems": list(problems),
        "error": None,
        "failure": None,
        "attempts": [embedded(AttemptFields, attempt) for attempt in attempts],
        "finished_at": now(),
        **{f"{name}_file": file for name, file in (files or {}).items()},
    }
    if crystal is not None:
        fields["crystal"] = _crystal(crystal)
    return _advance(store, identity, fields)


@translated
def fail(
    store: Store,
    identity: str,
    *,
    error: str,
    failure: str | None = None,
    attempts: Sequence[Mapping[str, Any]] = (),
    log_tail: str = "",
    core_seconds: float | None = None,
) -> bool:
    """Record why a calculation failed, and what it cost. False if it was completed before: the result stays."""
    fields: dict[str, Any] = {"status": "failed", "error": error, "finished_at": now(), "core_seconds": core_seconds}
    fields["log_tail"] = log_tail[-LOG_TAIL_LENGTH:]
    fields |= {"failure": failure, "attempts": [embedded(AttemptFields, attempt) for attempt in attempts]}
    return _advance(store, identity, fields)


@translated
def set_firework(store: Store, identity: str, fw_id: int) -> bool:
    """Note which FireWorks job computes it. False if it is completed."""
    return _advance(store, identity, {"fw_id": fw_id})


@translated
def calculation(store: Store, identity: str) -> CalculationRecord:
    """Return one calculation.

    Raises:
        DatabaseError: No calculation has this id.
    """
    found = store.database["calculations"].find_one({"calculation_id": {"$eq": identity}})
    if found is None:
        raise DatabaseError(f"no calculation {identity!r}; expected an id that was requested before")
    return _record(found)


@translated
def of_ids(store: Store, identities: Iterable[str]) -> list[CalculationRecord]:
    """Return the calculations with these ids, those that exist, by id."""
    found = store.database["calculations"].find({"calculation_id": {"$in": list(identities)}})
    return [_record(row) for row in found.sort("calculation_id", 1)]


@translated
def of_subjects(store: Store, subjects: Iterable[str]) -> list[CalculationRecord]:
    """Return the calculations of these subjects, whoever asked for them, by subject and id."""
    found = store.database["calculations"].find({"subject": {"$in": list(subjects)}})
    return [_record(row) for row in found.sort([("subject", 1), ("calculation_id", 1)])]


@translated
def of_candidates(store: Store, identities: Iterable[str]) -> list[CalculationRecord]:
    """Return the calculations of candidates, by candidate and id."""
    found = store.database["calculations"].find({"candidate_id": {"$in": list(identities)}})
    return [_record(row) for row in found.sort([("candidate_id", 1), ("calculation_id", 1)])]


@translated
def of_round(store: Store, round_id: str, *, statuses: Sequence[str] | None = None) -> list[CalculationRecord]:
    """Return the calculations of a round, by candidate and id."""
    criteria: dict[str, Any] = {"round_id": {"$eq": round_id}}
    if statuses is not None:
        criteria["status"] = {"$in": list(statuses)}
    found = store.database["calculations"].find(criteria)
    return [_record(row) for row in found.sort([("candidate_id", 1), ("calculation_id", 1)])]


def result_class(kind: str) -> type:
    """Return the document of a kind's result.

    Raises:
        DatabaseError: No such kind.
    """
    if kind not in RESULTS:
        raise DatabaseError(f"calculation of kind {kind!r}; expected one of {', '.join(RESULTS)}")
    return RESULTS[kind]


def _advance(store: Store, identity: str, fields: dict[str, Any]) -> bool:
    update = {"$set": checked_update(CalculationDocument, fields)}
    outcome = store.database["calculations"].update_one(
        {"calculation_id": identity, "status": {"$ne": "completed"}}, update
    )
    if outcome.matched_count == 0:
        calculation(store, identity)  # raises if there is none
    return outcome.matched_count == 1


def _plain(attempt: dict[str, Any]) -> dict[str, JSON]:
    told = to_json(attempt)
    return told if isinstance(told, dict) else {}


def _crystal(crystal: Crystal | None) -> CrystalFields | None:
    return None if crystal is None else embedded(CrystalFields, crystal_fields(crystal))


def _record(found: dict[str, Any]) -> CalculationRecord:
    result = to_json(found.get("result") or {})
    crystal = found.get("crystal")
    return CalculationRecord(
        calculation_id=found["calculation_id"],
        candidate_id=found.get("candidate_id"),
        round_id=found.get("round_id"),
        kind=found["kind"],
        subject=found["subject"],
        protocol=found["protocol"],
        protocol_hash=found["protocol_hash"],
        inputs=tuple(crystal_of(fields) for fields in found.get("inputs") or ()),
        status=found["status"],
        result=result if isinstance(result, dict) else {},
        crystal=None if crystal is None else crystal_of(crystal),
        fw_id=found.get("fw_id"),
        host=found.get("host"),
        core_seconds=found.get("core_seconds"),
        peak_memory_mb=found.get("peak_memory_mb"),
        problems=tuple(found.get("problems") or ()),
        review=found.get("review"),
        review_reasons=tuple(found.get("review_reasons") or ()),
        review_note=found.get("review_note"),
        reviewed_at=found.get("reviewed_at"),
        error=found.get("error"),
        failure=found.get("failure"),
        attempts=tuple(_plain(attempt) for attempt in found.get("attempts") or ()),
        files=tuple(name for name in FILES if found.get(f"{name}_file") is not None),
        log_tail=found.get("log_tail"),
        started_at=found.get("started_at"),
        finished_at=found.get("finished_at"),
        code_version=found["code_version"],
        last_updated=found["last_updated"],
    )
