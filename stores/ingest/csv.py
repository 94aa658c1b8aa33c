"""Crystals from CSV files, plain or gzipped: streamed in batches, bad rows refused with row, value and remedy."""

import csv
import gzip
import io
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from wyloop.models.errors import IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.ingest.columns import Columns, find_columns
from wyloop.stores.ingest.report import IngestReport, OnProgress, Refusal
from wyloop.stores.ingest.structures import SourceStructure, Written, write_structures

BATCH_SIZE = 500
MAX_FIELD_LENGTH = 16_000_000  # characters; a longer CIF is no crystal
_BROKEN = (csv.Error, UnicodeDecodeError, EOFError, zlib.error, OSError)
_MISSING = {"", "nan", "none", "null", "na", "n/a"}


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass
class _Progress:
    """What was read so far."""

    n_rows: int = 0
    written: Written = field(default_factory=Written)
    refused: list[Refusal] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    first_row: dict[str, int] = field(default_factory=dict)


@translated
def ingest_csv(
    store: Store,
    path: Path,
    *,
    source: str | None = None,
    energy_method: str = "mp-pbe",
    gap_method: str = "pbe",
    on_progress: OnProgress | None = None,
) -> IngestReport:
    """Read crystals and labels from a CSV file into `structures`; reading it again changes nothing.

    Columns are found by name (see `columns`): an identity and a CIF are needed, formation energy (eV/atom), band gap
    (eV), space group and citation are taken where they stand. An empty or NaN label is a missing one.

    Args:
        store: The database.
        path: The file, `.csv` or `.csv.gz`.
        source: Name of the source, half of each identity; the file's stem if none.
        energy_method: Method of the formation energies.
        gap_method: Method of the band gaps.
        on_progress: Told the rows done and their total.

    Raises:
        IngestError: The file can't be read, is empty, or lacks a needed column. Nothing was written then.
    """
    source = source or path.name.removesuffix(".gz").removesuffix(".csv")
    total = _count_rows(path) if on_progress is not None else 0
    state = _Progress()
    with _opened(path) as text:
        rows = csv.reader(text)
        columns = find_columns(_header(rows, path), path, energy_method, gap_method)
        batch: list[SourceStructure] = []
        for row in _rows(rows, state):
            try:
                batch.append(_structure(row, columns, source, state))
            except _RefusedError as refused:
                state.refused.append(refused.refusal)
            if len(batch) == BATCH_SIZE:
                state.written += write_structures(store, batch)
                batch = []
            if on_progress is not None and state.n_rows % BATCH_SIZE == 0:
                on_progress(state.n_rows, max(total, state.n_rows))
        state.written += write_structures(store, batch)
    if on_progress is not None:
        on_progress(state.n_rows, max(total, state.n_rows))
    return _report(state)


def _report(state: _Progress) -> IngestReport:
    notes = tuple(f"{name} is missing in {n} of {state.n_rows} rows" for name, n in sorted(state.missing.items()))
    written = state.written
    return IngestReport(
        state.n_rows, written.n_added, written.n_unchanged, written.n_updated, tuple(state.refused), notes
    )


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        with path.open("rb") as raw:
            is_gzip = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                yield text
    except OSError as error:
        reason = error.strerror or str(error)
        raise IngestError(f"can't read {path} ({reason}); expected a CSV file, plain or gzipped; check it") from error


def _header(rows: Iterator[list[str]], path: Path) -> list[str]:
    try:
        header = next(rows, None)
    except _BROKEN as error:
        raise IngestError(f"can't read {path} as CSV ({error}); expected UTF-8 text with a header row") from error
    if not header:
        raise IngestError(f"{path} is empty; expected a CSV file with a header row")
    return header


def _count_rows(path: Path) -> int:
    n_rows = -1
    try:
        with _opened(path) as text:
            for _ in csv.reader(text):
                n_rows += 1
    except (*_BROKEN, IngestError):  # told properly when the rows are read
        pass
    return max(n_rows, 0)


def _rows(rows: Iterator[list[str]], state: _Progress) -> Iterator[list[str]]:
    """Yield the rows; where the file breaks off, the rest is refused as one row and those before it stay."""
    while True:
        try:
            row = next(rows, None)
        except _BROKEN as error:
            state.n_rows += 1
            why = " ".join(str(error).split())
            state.refused.append(
                Refusal(
                    state.n_rows, "rest of the file", "text", why, "readable UTF-8 CSV", "repair the file from here"
                )
            )
            return
        if row is None:
            return
        if row:
            state.n_rows += 1
            yield row


def _structure(row: list[str], columns: Columns, source: str, state: _Progress) -> SourceStructure:
    number = state.n_rows
    identity = row[columns.identity].strip() if columns.identity < len(row) else ""

    def refuse(name: str, value: str, expected: str, remedy: str) -> _RefusedError:
        shown = value if len(value) <= 60 else value[:57] + "..."
        return _RefusedError(Refusal(number, identity or "no id", name, shown, expected, remedy))

    if len(row) != columns.n_columns:
        raise refuse("row", f"{len(row)} columns", f"{columns.n_columns} as in the header", "check quotes and commas")
    if not identity:
        raise refuse("id", "empty", "a name unique in the file", "give the row one")
    if identity in state.first_row:
        first = f"the same as in row {state.first_row[identity]}"
        raise refuse("id", first, "a name unique in the file", "rename or remove one of the rows")
    state.first_row[identity] = number
    try:
        crystal = parse_cif(row[columns.cif])
    except StructureError as error:
        problem, _, expected = str(error).partition("; expected ")
        raise _RefusedError(
            Refusal(number, identity, "cif", problem, expected or "an ordered crystal", "correct or remove the row")
        ) from error
    labels: dict[str, float | None] = {}
    for name, place in (
        ("formation_energy_per_atom", columns.energy),
        ("band_gap", columns.gap),
        ("space_group_number", columns.space_group),
    ):
        text = "" if place is None else row[place].strip()
        labels[name] = None
        if text.lower() in _MISSING:
            if place is not None:
                state.missing[name] += 1
            continue
        value = _number(text)
        if value is None:
            raise refuse(name, text, "a finite number", "correct it, or leave it empty if it is not known")
        if name == "band_gap" and value < 0:
            raise refuse(name, text, "0 eV or more", "correct it, or leave it empty if it is not known")
        if name == "space_group_number" and not (value.is_integer() and 1 <= value <= 230):
            raise refuse(name, text, "a whole number from 1 to 230", "correct it, or leave it empty")
        labels[name] = value
    reported = labels["space_group_number"]
    return SourceStructure(
        source=source,
        source_id=identity,
        crystal=crystal,
        formation_energy_per_atom=labels["formation_energy_per_atom"],
        energy_method=columns.energy_method,
        band_gap=labels["band_gap"],
        band_gap_method=columns.gap_method,
        space_group_number=None if reported is None else int(reported),
        citation=(row[columns.citation].strip() or None) if columns.citation is not None else None,
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
