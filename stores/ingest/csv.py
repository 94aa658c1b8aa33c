"""Crystals from CSV files, plain or packed: streamed in batches, bad rows refused with row, value and remedy."""

import csv
from collections.abc import Iterator
from pathlib import Path

from wyloop.models.errors import IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.stores.connection import Store
from wyloop.stores.ingest.columns import Columns, Properties, ValueRefusedError, find_columns, read_labels
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal, take_in
from wyloop.stores.ingest.report import IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import UNREADABLE, is_utf8, opened, repaired

EXPECTED = "a CSV file, plain or gzipped"
SEPARATORS = ",;\t|"
REST_OF_FILE = "rest of the file"
"""What a refusal is called that stands for all rows from a broken place on."""
MAX_FIELD_LENGTH = 16_000_000  # characters; a field that long is a quote that was never closed
MAX_CIF_LENGTH = 400_000  # characters, some thousand sites
MAX_HEADER_LENGTH = 1_000_000  # characters
_BROKEN = (csv.Error, *UNREADABLE)


def ingest_csv(
    store: Store,
    path: Path,
    *,
    source: str | None = None,
    energy_method: str = "mp-pbe",
    gap_method: str = "pbe",
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
    is_encoding: bool = False,
) -> IngestReport:
    """Read crystals and labels from a CSV file into `structures`; reading it again changes nothing.

    Columns are found by name (see `columns`): an identity and a CIF are needed, formation energy (eV/atom), band gap
    (eV), space group, citation and the names of the methods are taken where they stand. Commas, semicolons, tabs or
    bars part the columns. An empty or NaN label is a missing one.

    Args:
        store: The database.
        path: The file, `.csv` or `.csv.gz`.
        source: Name of the source, half of each identity; the file's stem if none.
        energy_method: Method of the formation energies.
        gap_method: Method of the band gaps.
        on_progress: Told the rows done and their total.
        on_refusal: Told each row that was not taken.
        is_encoding: Encode what is new at once, which spares the encoding builder a second write of each structure.

    Raises:
        IngestError: The file can't be read, is empty, or lacks a needed column. Nothing was written then.
    """
    tally = Tally()
    rows = read_csv(path, tally, source=source, energy_method=energy_method, gap_method=gap_method)
    return take_in(store, rows, tally, on_progress=on_progress, on_refusal=on_refusal, is_encoding=is_encoding)


def source_of(path: Path) -> str:
    """Return the name that a table gives its source: that of the file without its endings."""
    name = path.name
    for ending in (".gz", ".bz2", ".xz", ".csv", ".tsv", ".txt"):
        name = name.removesuffix(ending)
    return name


def read_csv(
    path: Path, tally: Tally, *, source: str | None = None, energy_method: str = "mp-pbe", gap_method: str = "pbe"
) -> Iterator[SourceStructure | Refusal]:
    """Yield the rows of a file as crystals with labels, or why not; see `ingest_csv`.

    Where the file breaks off, the rest is refused as one row and those before it stay.
    """
    csv.field_size_limit(MAX_FIELD_LENGTH)
    source = source or source_of(path)
    separator = _separator(path)
    with opened(path, EXPECTED) as file:
        rows = csv.reader(file.text, delimiter=separator)
        columns = find_columns(_header(rows, path), path, energy_method, gap_method)
        tally.ignored |= dict.fromkeys(columns.properties.ignored)
        while True:
            try:
                row = next(rows, None)
            except _BROKEN as error:
                why = " ".join(str(error).split()) or "it breaks off"
                yield refusal(REST_OF_FILE, "text", why, "readable CSV", "repair the file from here")
                return
            if row is None:
                return
            tally.share_read = file.share_read()
            if any(row):
                yield _structure(row, columns, source, tally, has_comma=separator != ",")


def _separator(path: Path) -> str:
    """Return what parts the columns: that with which the header names what we need, else the most columns."""
    with opened(path, EXPECTED) as file:
        try:
            line = file.text.readline(MAX_HEADER_LENGTH)
        except _BROKEN as error:
            raise _unreadable(path, error) from error
    line = line.strip("\r\n")
    if not line.strip():
        raise IngestError(f"{path} is empty; expected a CSV file with a header row")
    if not is_utf8(line) or "\0" in line:
        raise IngestError(
            f"can't read {path} as CSV (its first line is no text in UTF-8); expected UTF-8 text with a header row"
        )

    def merit(separator: str) -> tuple[bool, int]:
        try:
            header = next(csv.reader([line], delimiter=separator))
            find_columns(header, path, "", "")
        except (IngestError, csv.Error, StopIteration):
            return False, line.count(separator)
        return True, len(header)

    return max(SEPARATORS, key=merit)


def _header(rows: Iterator[list[str]], path: Path) -> list[str]:
    try:
        return next(rows, [])
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> IngestError:
    why = " ".join(str(error).split()) or "it breaks off"
    return IngestError(f"can't read {path} as CSV ({why}); expected UTF-8 text with a header row; copy it again")


def _structure(
    row: list[str], columns: Columns, source: str, tally: Tally, *, has_comma: bool
) -> SourceStructure | Refusal:
    identity = row[columns.identity].strip() if columns.identity < len(row) else ""
    fault = _row_fault(row, identity, columns)
    if fault is not None:
        return fault
    try:
        crystal = parse_cif(repaired(row[columns.cif]))
    except StructureError as error:
        return structure_refusal(identity, error, field="cif")
    places = columns.places
    try:
        labels = read_labels(columns.properties, lambda name: row[places[name]], may_have_commas=has_comma)
    except ValueRefusedError as error:
        return refusal(identity, error.field, error.value, error.expected, error.remedy)
    tally.add_labels(labels)
    return SourceStructure(
        source,
        identity,
        crystal,
        labels.formation_energy_per_atom,
        labels.energy_method,
        labels.band_gap,
        labels.band_gap_method,
        labels.space_group_number,
        labels.citation,
    )


def _row_fault(row: list[str], identity: str, columns: Columns) -> Refusal | None:
    name = repaired(identity) or "no id"
    if len(row) != columns.n_columns:
        expected = f"{columns.n_columns} as in the header"
        return refusal(name, "row", f"{len(row)} columns", expected, "check quotes and separators")
    if not identity:
        return refusal(name, "id", "empty", "a name unique in the file", "give the row one")
    if len(row[columns.cif]) > MAX_CIF_LENGTH:
        length = f"{len(row[columns.cif])} characters"
        return refusal(name, "cif", length, f"at most {MAX_CIF_LENGTH}", "check quotes, or remove the row")
    for column in _texts(columns.properties):
        if not is_utf8(row[columns.places[column]]):
            shown = repaired(row[columns.places[column]])[:60]
            return refusal(name, column, f"{shown} in another encoding", "UTF-8", "save the file as UTF-8")
    return None


def _texts(found: Properties) -> list[str]:
    names = (found.identity, found.citation, found.own_energy_method, found.own_gap_method)
    return [name for name in names if name is not None]
