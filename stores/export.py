"""Rows of a query to files: CSV that can be ingested again, JSON lines, or one CIF file a crystal."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.queries import COLUMNS, IDENTITY
from wyloop.stores.records import JSON, crystal_fields, crystal_of

Format = Literal["csv", "cif", "jsonl"]

_BATCH = 500


@translated
def export(store: Store, rows: Iterable[Mapping[str, JSON]], fmt: Format, out: Path) -> int:
    """Write rows of `query` with their crystals; candidates have none, so they are left out of CIF files.

    Args:
        store: The database.
        rows: Rows with `id` and `collection`; a few hundred are in memory at a time.
        fmt: csv and jsonl make one file, cif a folder with one file a crystal.
        out: The file or folder; it is made, with the folders above it.

    Returns:
        How many crystals or rows were written.

    Raises:
        IngestError: The place can't be written.
    """
    writers = {"csv": _csv, "cif": _cif, "jsonl": _jsonl}
    if fmt not in writers:
        raise IngestError(f"export format {fmt!r}; expected one of {', '.join(writers)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return writers[fmt](_with_crystals(store, rows), out)
    except OSError as error:
        raise IngestError(f"can't write {out} ({error.strerror}); expected a writable place; choose another") from error


def _with_crystals(
    store: Store, rows: Iterable[Mapping[str, JSON]]
) -> Iterator[tuple[Mapping[str, JSON], Crystal | None]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        crystals: dict[tuple[str, str], Crystal] = {}
        for collection in ("structures", "materials"):
            identity = IDENTITY[collection]
            wanted = [row["id"] for row in batch if row["collection"] == collection]
            for found in store.database[collection].find({identity: {"$in": wanted}}):
                crystals[collection, found[identity]] = crystal_of(found.get("crystal", found))
        for row in batch:
            yield row, crystals.get((str(row["collection"]), str(row["id"])))


@contextmanager
def _whole(out: Path) -> Iterator[TextIO]:
    """Open a file that appears whole or not at all: a full disk leaves the one that was there."""
    temporary = out.with_name(out.name + ".part")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield file
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(rows: Iterator[tuple[Mapping[str, JSON], Crystal | None]], out: Path) -> int:
    n_written = 0
    with _whole(out) as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", *COLUMNS[1:], "cif"])
        for row, crystal in rows:
            values = [row.get(column) for column in COLUMNS]
            texts = ["-".join(map(str, value)) if isinstance(value, list) else value for value in values]
            writer.writerow([*texts, "" if crystal is None else write_cif(crystal)])
            n_written += 1
    return n_written


def _jsonl(rows: Iterator[tuple[Mapping[str, JSON], Crystal | None]], out: Path) -> int:
    n_written = 0
    with _whole(out) as file:
        for row, crystal in rows:
            line = dict(row) | ({} if crystal is None else crystal_fields(crystal))
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            n_written += 1
    return n_written


def _cif(rows: Iterator[tuple[Mapping[str, JSON], Crystal | None]], out: Path) -> int:
    out.mkdir(exist_ok=True)
    n_written = 0
    for row, crystal in rows:
        if crystal is not None:
            name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in str(row["id"]))
            with _whole(out / f"{row.get('formula_pretty', 'crystal')}_{name}.cif") as file:
                file.write(write_cif(crystal))
            n_written += 1
    return n_written
