"""Candidates: proposed genes with predictions, verdicts and a status."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CampaignError
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.bulk import insert_new
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import CrystalFields, checked, checked_update, embedded
from wyloop.stores.documents.candidates import CANDIDATE_STATUSES, CandidateDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, crystal_fields, crystal_of, digest

if TYPE_CHECKING:
    from wyloop.models.mpvae.predict import Prediction  # torch: three seconds

SCREENED = ("proposed", "rejected", "passed")
"""Statuses that screening may still change; a later one is never taken back by it."""

_BATCH = 1000
_LOOKED_UP = 5000  # fingerprints in one query


@dataclass(frozen=True)
class CandidateRecord:
    """A gene proposed in a round, with what model and screens say of it."""

    candidate_id: str
    campaign_id: str
    round_id: str
    round_number: int
    gene: Gene
    prediction: "Prediction | None" = None
    verdicts: tuple[Verdict, ...] = ()
    model_id: str | None = None
    sampler: str = "mpvae"
    seed: int = 0
    status: str = "proposed"
    reason: str = ""
    rank: int | None = None
    crystal: Crystal | None = None
    """The generator's own 3D structure, the first one that a relaxation starts from."""
    origin: Mapping[str, JSON] = field(default_factory=dict)
    """What the generator says of where it is from, such as file and row."""
    code_version: str = ""
    last_updated: datetime | None = None


def candidate_id(campaign_id: str, fingerprint: str) -> str:
    """Return the identity of a gene in a campaign: proposed twice, it is the same candidate."""
    return "c-" + digest([campaign_id, fingerprint], 12)


@translated
def propose(store: Store, records: Iterable[CandidateRecord]) -> int:
    """Insert the candidates that are not there yet; what is there stays as it is.

    Returns:
        How many are new.
    """
    n_new = 0
    for batch in _batches(records):
        n_new += len(batch) - len(insert_new(store.database["candidates"], [_fields(record) for record in batch]))
    return n_new


@translated
def record_screening(store: Store, records: Iterable[CandidateRecord]) -> int:
    """Store predictions, verdicts, rank and status of screened candidates; those past screening stay as they are.

    Returns:
        How many documents changed.
    """
    n_changed = 0
    for batch in _batches(records):
        operations = []
        for record in batch:
            fields = _fields(record)
            update = {key: fields.get(key) for key in ("verdicts", "status", "reason", "rank", "last_updated")}
            if record.prediction is not None:
                update["prediction"] = fields["prediction"]
            identity = {"candidate_id": record.candidate_id, "status": {"$in": list(SCREENED)}}
            operations.append(UpdateOne(identity, {"$set": update}))
        n_changed += store.database["candidates"].bulk_write(operations, ordered=False).modified_count
    return n_changed


@translated
def of_round(
    store: Store, round_id: str, *, statuses: Sequence[str] | None = None, limit: int | None = None
) -> list[CandidateRecord]:
    """Return a round's candidates, best rank first, unranked ones last."""
    criteria: dict[str, Any] = {"round_id": {"$eq": round_id}}
    if statuses is not None:
        criteria["status"] = {"$in": list(statuses)}
    stages: list[dict[str, Any]] = [
        {"$match": criteria},
        {"$set": {"order": {"$ifNull": ["$rank", 2**31]}}},
        {"$sort": {"order": 1, "candidate_id": 1}},
    ]
    if limit is not None:
        stages.append({"$limit": limit})
    return [_record(found) for found in store.database["candidates"].aggregate(stages, allowDiskUse=True)]


@translated
def of_gene(store: Store, fingerprint: str, *, statuses: Sequence[str]) -> list[CandidateRecord]:
    """Return the candidates of a gene in any campaign, those with one of some statuses, by id."""
    criteria = {"fingerprint": {"$eq": fingerprint}, "status": {"$in": list(statuses)}}
    return [_record(found) for found in store.database["candidates"].find(criteria).sort("candidate_id", 1)]


@translated
def candidate(store: Store, identity: str) -> CandidateRecord:
    """Return one candidate.

    Raises:
        CampaignError: No candidate has this id.
    """
    found = store.database["candidates"].find_one({"candidate_id": {"$eq": identity}})
    if found is None:
        raise CampaignError(f"no candidate {identity!r}; expected an id such as those in the candidates table")
    return _record(found)


@translated
def set_status(
    store: Store,
    identities: Iterable[str],
    status: str,
    *,
    reason: str = "",
    only_from: Sequence[str] | None = None,
    rank: int | None = None,
) -> int:
    """Set the status (and the rank, if given) of candidates, of those in certain statuses if `only_from` names them.

    Returns:
        How many documents changed.
    """
    differs = [{"status": {"$ne": status}}, {"reason": {"$ne": reason}}]
    criteria: dict[str, Any] = {"candidate_id": {"$in": list(identities)}, "$or": differs}
    if only_from is not None:
        criteria["status"] = {"$in": list(only_from)}
    if status not in CANDIDATE_STATUSES:
        raise CampaignError(f"candidate status {status!r}; expected one of {', '.join(CANDIDATE_STATUSES)}")
    fields: dict[str, Any] = {"status": status, "reason": reason} | ({} if rank is None else {"rank": rank})
    update = checked_update(CandidateDocument, fields)
    return store.database["candidates"].update_many(criteria, {"$set": update}).modified_count


@translated
def ends(store: Store, identities: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return status and reason of these candidates, by id."""
    fields = {"_id": 0, "candidate_id": 1, "status": 1, "reason": 1}
    found = store.database["candidates"].find({"candidate_id": {"$in": list(identities)}}, fields)
    return {row["candidate_id"]: (row["status"], row.get("reason") or "") for row in found}


@translated
def known_among(store: Store, fingerprints: Iterable[str]) -> set[str]:
    """Return those of these fingerprints that an encoded structure or a material has, read from indexes alone."""
    wanted = sorted(set(fingerprints))
    found: set[str] = set()
    for name in ("encodings", "materials"):
        for start in range(0, len(wanted), _LOOKED_UP):
            criteria = {"fingerprint": {"$in": wanted[start : start + _LOOKED_UP]}}
            rows = store.database[name].find(criteria, {"fingerprint": 1, "_id": 0}, batch_size=_LOOKED_UP)
            found.update(row["fingerprint"] for row in rows)
    return found


@translated
def proposed_among(
    store: Store, campaign_id: str, fingerprints: Iterable[str], *, except_round: str | None = None
) -> set[str]:
    """Return those of these fingerprints that were proposed in a campaign before, or in all its rounds but one."""
    wanted = sorted(set(fingerprints))
    found: set[str] = set()
    for start in range(0, len(wanted), _LOOKED_UP):
        criteria: dict[str, Any] = {
            "campaign_id": {"$eq": campaign_id},
            "fingerprint": {"$in": wanted[start : start + _LOOKED_UP]},
        }
        if except_round is not None:
            criteria["round_id"] = {"$ne": except_round}
        rows = store.database["candidates"].find(criteria, {"fingerprint": 1, "_id": 0}, batch_size=_LOOKED_UP)
        found.update(row["fingerprint"] for row in rows)
    return found


@translated
def funnel(store: Store, round_id: str) -> dict[str, int]:
    """Count a round's candidates by status; every status is there, the empty ones with 0."""
    stages: list[dict[str, Any]] = [
        {"$match": {"round_id": {"$eq": round_id}}},
        {"$group": {"_id": "$status", "n": {"$sum": 1}}},
    ]
    counted = {row["_id"]: row["n"] for row in store.database["candidates"].aggregate(stages)}
    return {status: counted.get(status, 0) for status in CANDIDATE_STATUSES}


def _batches(records: Iterable[CandidateRecord]) -> Iterable[list[CandidateRecord]]:
    batch: list[CandidateRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _fields(record: CandidateRecord) -> dict[str, Any]:
    gene = record.gene
    fields = {
        "candidate_id": record.candidate_id,
        "campaign_id": record.campaign_id,
        "round_id": record.round_id,
        "round_number": record.round_number,
        "fingerprint": gene.fingerprint,
        "space_group_number": gene.space_group_number,
        "wyckoff_sequence": gene.wyckoff_sequence,
        "formula_pretty": gene.formula_pretty,
        "chemsys": gene.chemsys,
        "elements": list(gene.elements),
        "nelements": len(gene.elements),
        "nsites": gene.nsites,
        "verdicts": [_plain(verdict) for verdict in record.verdicts],
        "model_id": record.model_id,
        "sampler": record.sampler,
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "rank": record.rank,
    }
    if record.origin:
        fields["origin"] = dict(record.origin)
    if record.crystal is not None:
        fields["crystal"] = embedded(CrystalFields, crystal_fields(record.crystal))
    if record.prediction is not None:
        prediction = _plain(record.prediction)
        extra = prediction.pop("extra")
        fields["prediction"] = prediction | (
            {"extra": {name: list(pair) for name, pair in extra.items()}} if extra else {}
        )
    return checked(CandidateDocument, fields)


def _plain(record: "Verdict | Prediction") -> dict[str, Any]:
    """Return the fields of a flat record; `asdict` copies deeply, at ten times the time."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _record(found: dict[str, Any]) -> CandidateRecord:
    from wyloop.models.mpvae.predict import Prediction  # torch: three seconds

    prediction = dict(found.get("prediction") or {})
    extra = {name: (value, std) for name, (value, std) in prediction.pop("extra", {}).items()}
    return CandidateRecord(
        candidate_id=found["candidate_id"],
        campaign_id=found["campaign_id"],
        round_id=found["round_id"],
        round_number=found["round_number"],
        gene=Gene.parse(f"{found['space_group_number']} {found['wyckoff_sequence']}"),
        prediction=Prediction(**prediction, extra=extra) if prediction else None,
        verdicts=tuple(_verdict(verdict) for verdict in found.get("verdicts") or []),
        model_id=found.get("model_id"),
        sampler=found["sampler"],
        seed=found["seed"],
        status=found["status"],
        reason=found.get("reason") or "",
        rank=found.get("rank"),
        crystal=None if found.get("crystal") is None else crystal_of(found["crystal"]),
        origin=found.get("origin") or {},
        code_version=found["code_version"],
        last_updated=found["last_updated"],
    )


def _verdict(fields: dict[str, Any]) -> Verdict:
    return Verdict(
        screen=fields["screen"],
        passed=fields["passed"],
        value=fields.get("value"),
        unit=fields.get("unit") or "",
        reason=fields.get("reason") or "",
    )
