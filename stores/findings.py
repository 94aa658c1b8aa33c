"""What a look at the database found wrong: one finding a document, in kinds that say whether mending is safe."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MAX_KEPT = 100
"""Findings kept of each kind in a report; the counts are of all."""


class Level(StrEnum):
    """How bad a finding is."""

    FAULT = "fault"  # breaks a schema, an identity or a reference
    STALE = "stale"  # derived, and behind what it is derived from
    NOTE = "note"  # allowed, worth knowing


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its level, what to do about it, and whether `--repair` does it without losing anything."""

    name: str
    level: Level
    remedy: str
    is_safe_to_repair: bool


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    kind: str
    level: str
    collection: str
    identity: str
    what: str
    remedy: str
    is_safe_to_repair: bool


@dataclass(frozen=True)
class CheckReport:
    """What was found: the first findings of each kind, and the number of all."""

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    n_documents: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.level == Level.NOTE for finding in self.findings)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that are more than notes."""
        return tuple(finding for finding in self.findings if finding.level != Level.NOTE)


@dataclass
class Collected:
    """Findings as they come, the first of each kind kept."""

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, found: Iterable[Finding]) -> None:
        """Count findings, keep the first ones of each kind."""
        for finding in found:
            self.counts[finding.kind] += 1
            if self.counts[finding.kind] <= MAX_KEPT:
                self.findings.append(finding)


def _kinds() -> Iterator[Kind]:
    fault, stale, note = Level.FAULT, Level.STALE, Level.NOTE
    rebuild = "rebuild it: 'wyloop db check --repair'"
    yield Kind("document_of_older_schema", fault, "migrate it: 'wyloop db check --repair'", True)
    yield Kind("document_breaks_schema", fault, "correct or remove it by hand, after a backup", False)
    yield Kind("derived_document_breaks_schema", fault, rebuild, True)
    yield Kind("index_missing", fault, "make it: 'wyloop db check --repair'", True)
    yield Kind("index_with_other_options", fault, "make it anew: 'wyloop db check --repair'", True)
    yield Kind("identity_not_unique", fault, "remove all but one by hand, after a backup", False)
    yield Kind("index_unknown", note, "drop it if nobody needs it: it slows every write", False)
    yield Kind("encoding_without_structure", fault, "drop it: 'wyloop db check --repair'", True)
    yield Kind("encoding_stale", stale, rebuild, True)
    yield Kind("structures_not_encoded", note, "'wyloop db check --repair' encodes them", True)
    yield Kind("candidate_without_campaign", fault, "restore the campaign from a backup", False)
    yield Kind("candidate_without_round", fault, "restore the round from a backup", False)
    yield Kind("candidate_without_model", fault, "restore the model version from a backup", False)
    yield Kind("candidate_validated_without_material", fault, "run the campaign's write-back again", False)
    yield Kind("round_without_campaign", fault, "restore the campaign from a backup", False)
    yield Kind("round_without_model", fault, "restore the model version from a backup", False)
    yield Kind(
        "rounds_contradict_campaign", fault, "look at 'wyloop campaign show'; correct rounds_closed by hand", False
    )
    yield Kind(
        "budget_contradicts_reservations", fault, "stop the campaign, and compare 'wyloop campaign budget'", False
    )
    yield Kind("model_without_campaign", fault, "restore the campaign from a backup", False)
    yield Kind("calculation_completed_without_result", fault, "set its status to requested to run it again", False)
    yield Kind("calculation_unused", note, "keep it: a candidate of the same gene will use it", False)
    yield Kind("material_without_calculation", fault, "restore the calculation from a backup", False)
    yield Kind("material_without_hull", stale, rebuild, True)
    yield Kind("structure_of_other_gene", stale, rebuild, True)
    yield Kind("structure_of_other_material", stale, rebuild, True)
    yield Kind("structures_not_in_materials", note, "'wyloop db check --repair' builds their materials", True)
    yield Kind("material_stale", stale, rebuild, True)
    yield Kind("materials_not_in_hulls", note, "'wyloop db check --repair' builds their hulls", True)
    yield Kind("hull_stale", stale, rebuild, True)
    yield Kind("optimade_view_stale", stale, rebuild, True)
    yield Kind("crystals_not_in_optimade_view", note, "'wyloop db check --repair' builds their entries", True)
    yield Kind("file_missing", fault, "restore the file from a backup, or train the model again", False)
    yield Kind("file_incomplete", fault, "restore the file from a backup, or train the model again", False)
    yield Kind("file_without_owner", fault, "drop it: 'wyloop db check --repair'", True)
    yield Kind("chunk_without_file", fault, "drop it: 'wyloop db check --repair'", True)
    yield Kind("file_being_written", note, "look again in an hour: somebody may be storing it now", False)


KINDS: dict[str, Kind] = {kind.name: kind for kind in _kinds()}


def finding(kind: str, collection: str, identity: object, what: str) -> Finding:
    """Return a finding of a kind."""
    known = KINDS[kind]
    return Finding(kind, known.level, collection, str(identity), what, known.remedy, known.is_safe_to_repair)
