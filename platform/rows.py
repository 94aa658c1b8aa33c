"""Crystals of a CSV file as genes with labels, one by one, without a database."""

import csv
import gzip
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wyloop.models.errors import IngestError, WyloopError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.ingest.columns import Columns, find_columns
from wyloop.stores.training import training_labels

if TYPE_CHECKING:
    from wyloop.models.mpvae.data import TrainingRow

MAX_FIELD = 16_000_000  # characters; the csv module's own limit is too small for large CIF files
MISSING = frozenset({"", "nan", "none", "null", "na", "n/a"})
PROGRESS_STEP = 50  # rows


@dataclass(frozen=True)
class EncodedRow:
    """One row of the file that has a gene.

    Attributes:
        number: Row of the table, the first after the header being 1.
        identity: What the column of ids says.
        gene: Canonical gene.
        labels: What a model learns, as far as the row has it: formation_energy_per_atom (eV/atom), band_gap (eV),
            is_metal, volume_per_atom (Å^3).
    """

    number: int
    identity: str
    gene: Gene
    labels: dict[str, float]


@dataclass
class Refused:
    """Rows without a gene, with the reason."""

    reasons: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, number: int, identity: str, reason: str) -> None:
        """Note row number, identity and reason."""
        self.reasons.append((number, identity, reason))


def read_rows(
    path: Path, refused: Refused, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Iterator[EncodedRow]:
    """Read and encode the rows of a `.csv` or `.csv.gz` file; its columns are those that ingest takes.

    Args:
        path: The file.
        refused: Filled with the rows that have no gene or a label that is no number.
        on_progress: Called with bytes read and size of the file on disk.

    Raises:
        IngestError: The file can't be read or lacks a needed column.
    """
    csv.field_size_limit(MAX_FIELD)
    try:
        with path.open("rb") as raw:
            size = path.stat().st_size
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            table = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
            columns = find_columns(next(table, []), path, "mp-pbe", "pbe")
            for number, fields in enumerate((row for row in table if row), start=1):
                identity = fields[columns.identity].strip() if columns.identity < len(fields) else ""
                try:
                    yield _encoded(number, identity, fields, columns)
                except WyloopError as error:
                    refused.add(number, identity, str(error))
                if number % PROGRESS_STEP == 0:
                    on_progress(raw.tell(), size)
            on_progress(size, size)
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise IngestError(f"{path} is no readable CSV file: {error}; expected UTF-8 text with a header") from error
    except OSError as error:  # gzip's BadGzipFile too
        raise IngestError(f"can't read {path}: {error.strerror or error}; expected a .csv or .csv.gz file") from error


def training_row(row: EncodedRow) -> "TrainingRow":
    """Return a row as the model takes it."""
    from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

    return TrainingRow(row.gene, row.labels)


def _encoded(number: int, identity: str, fields: Sequence[str], columns: Columns) -> EncodedRow:
    if len(fields) != columns.n_columns:
        raise IngestError(
            f"{len(fields)} columns; expected {columns.n_columns} as in the header; check quotes and commas"
        )
    crystal = parse_cif(fields[columns.cif])
    known = {
        "formation_energy_per_atom": _number(fields, columns.energy, "formation energy"),
        "band_gap": _number(fields, columns.gap, "band gap"),
        "band_gap_method": columns.gap_method,
        "volume_per_atom": crystal.volume / crystal.nsites,
    }
    return EncodedRow(number, identity, encode(crystal), training_labels(known))


def _number(fields: Sequence[str], column: int | None, name: str) -> float | None:
    text = "" if column is None else fields[column].strip()
    if text.lower() in MISSING:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise IngestError(f"{name} is {text!r}; expected a finite number, or nothing if it is not known")
    return value
