"""The one way into the database: rows of any source are told apart, written in batches, counted and reported."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace

from wyloop.models.errors import StructureError
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.ingest.columns import Labels
from wyloop.stores.ingest.report import MAX_KEPT, IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.writer import StructureWriter

BATCH_SIZE = 500
MAX_NAMES_SHOWN = 12
PROGRESS_INTERVAL = 0.2  # s


@dataclass
class Tally:
    """What a reader tells besides its rows."""

    share_read: float = 0.0
    """How much of its input it has read, from 0 to 1."""
    missing: Counter[str] = field(default_factory=Counter)
    """Labels that the source has, but not for every row."""
    ignored: dict[str, None] = field(default_factory=dict)
    """Names of what was not taken, in order."""
    notes: list[str] = field(default_factory=list)
    n_decimal_commas: int = 0

    def add_labels(self, labels: Labels) -> None:
        """Count what one row lacks."""
        self.missing.update(labels.missing)
        self.n_decimal_commas += labels.has_decimal_comma


def refusal(identity: str, field: str, value: str, expected: str, remedy: str) -> Refusal:
    """Return a refusal whose row is numbered when it is taken in."""
    return Refusal(0, identity, field, value, expected, remedy)


def structure_refusal(identity: str, error: StructureError, *, field: str = "structure", what: str = "row") -> Refusal:
    """Return the refusal of a row whose crystal is at fault."""
    problem, _, expected = str(error).partition("; expected ")
    return refusal(identity, field, problem, expected or "an ordered crystal", f"correct or remove the {what}")


@translated
def take_in(
    store: Store,
    rows: Iterable[SourceStructure | Refusal],
    tally: Tally,
    *,
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
    n_before: int = 0,
    is_encoding: bool = False,
) -> IngestReport:
    """Write the rows of a reader into `structures`; memory does not grow with their number.

    Args:
        store: The database.
        rows: Read one by one as they come; a second row of one identity is refused.
        tally: Filled by the reader meanwhile.
        on_progress: Told the rows done and their total, estimated from the share of the input read.
        on_refusal: Told each row that was not taken.
        n_before: Rows of earlier parts of the same source, which count in the numbers of refused rows.
        is_encoding: Find the genes of new structures while reading goes on, and write their encodings with them; what
            was there and changed is left to the encoding builder.
    """
    n_rows = 0
    told_at = time.monotonic()
    batch: list[SourceStructure] = []
    refused = _Refused(n_before, on_refusal)
    with closing(FirstRows()) as seen, StructureWriter(store, is_encoding=is_encoding) as writer:
        for row in rows:
            n_rows += 1
            if isinstance(row, Refusal):
                refused.add(row, n_rows)
            elif (first := seen.first_row(row.structure_id, n_rows)) != n_rows:
                refused.add_namesake(row, n_rows, first)
            else:
                batch.append(row)
            if len(batch) == BATCH_SIZE:
                writer.write(batch)
                batch = []
            if on_progress is not None and time.monotonic() - told_at > PROGRESS_INTERVAL:
                told_at = time.monotonic()
                on_progress(n_rows, max(round(n_rows / (tally.share_read or 1.0)), n_rows))
        writer.write(batch)
    written = writer.written
    if on_progress is not None:
        on_progress(n_rows, n_rows)
    return IngestReport(
        n_rows,
        written.n_added,
        written.n_unchanged,
        written.n_updated,
        tuple(refused.kept),
        notes_of(tally, n_rows),
        n_refused_more=refused.n_refused - len(refused.kept),
        n_encoded=writer.n_encoded,
        n_not_encodable=writer.n_not_encodable,
    )


@dataclass
class _Refused:
    """Rows that were not taken: all counted and told, the first ones kept."""

    n_before: int
    on_refusal: OnRefusal | None
    n_refused: int = 0
    kept: list[Refusal] = field(default_factory=list)

    def add(self, found: Refusal, row: int) -> None:
        """Count a refusal, numbered by its row."""
        self.n_refused += 1
        numbered = replace(found, row=self.n_before + row)
        if len(self.kept) < MAX_KEPT:
            self.kept.append(numbered)
        if self.on_refusal is not None:
            self.on_refusal(numbered)

    def add_namesake(self, structure: SourceStructure, row: int, first: int) -> None:
        """Refuse a second row of one identity."""
        why, remedy = f"the same as in row {self.n_before + first}", "rename or remove one of the two"
        self.add(refusal(structure.source_id, "id", why, "a name unique in its source", remedy), row)


def notes_of(tally: Tally, n_rows: int) -> tuple[str, ...]:
    """Return what a user should know of the rows that were taken."""
    notes = [f"{name} is missing in {n} of {n_rows} rows" for name, n in sorted(tally.missing.items())]
    if tally.ignored:
        names = list(tally.ignored)
        more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
        notes.append(f"not taken: {', '.join(name[:40] for name in names[:MAX_NAMES_SHOWN])}{more}")
    if tally.n_decimal_commas:
        notes.append(f"decimal commas were read as points in {tally.n_decimal_commas} rows")
    return (*notes, *tally.notes)


class FirstRows:
    """The first row of each identity, in a temporary SQLite file: a set in memory would grow with the input."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # "": temporary, on disk beyond its cache
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE seen (identity TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first_row(self, identity: str, number: int) -> int:
        """Return the row in which an identity came first: `number`, if it is new."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (identity, number))
        if added.rowcount == 1:
            return number
        found = self._database.execute("SELECT number FROM seen WHERE identity = ?", (identity,)).fetchone()
        return int(found[0])

    def close(self) -> None:
        """Remove the temporary file."""
        self._database.close()
