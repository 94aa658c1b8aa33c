"""Crystals that ASE knows: frames of extended XYZ, and rows of its databases in JSON and SQLite."""

import io
import json
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wyloop.models.crystal import MAX_SITES
from wyloop.models.errors import IngestError, StructureError
from wyloop.stores.ingest.cif import file_refusal
from wyloop.stores.ingest.crystals import crystal_of_atoms
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal
from wyloop.stores.ingest.record import Reading, record
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import UNREADABLE, opened, repaired

if TYPE_CHECKING:
    from ase import Atoms

XYZ = "an extended XYZ file with a Lattice in every frame"
SQLITE = "a database of ASE"
MAX_LINE = 100_000  # characters
_FRAME_FAULTS = (ValueError, KeyError, IndexError, TypeError, OSError, AttributeError)


def read_extxyz(path: Path, stem: str, reading: Reading, tally: Tally) -> Iterator[SourceStructure | Refusal]:
    """Yield the frames of an extended XYZ file one by one; `info` holds the labels.

    A frame that names no identity is called after the file and its number.
    """
    try:
        with opened(path, XYZ) as file:
            for number in range(1, 1_000_000_000):
                frame = _next_frame(file.text)
                if frame is None:
                    return
                tally.share_read = file.share_read()
                if isinstance(frame, StructureError):  # where the next one begins is unknown
                    yield structure_refusal(f"rest of {path}", frame, field="frame", what="file from here")
                    return
                yield _frame(frame, f"{stem}-{number}", reading, tally)
    except IngestError as error:
        yield file_refusal(path, error, "extxyz")
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or "it breaks off"
        yield refusal(f"rest of {path}", "extxyz", why, XYZ, "repair the file from here")


def read_ase_json(
    content: Mapping[str, Any], stem: str, reading: Reading, tally: Tally
) -> Iterator[SourceStructure | Refusal]:
    """Yield the rows of an ASE database in JSON.

    Args:
        content: The parsed file: rows by number, `ids` and `nextid`.
        stem: What rows without a unique id are called after.
        reading: Name of the source and methods.
        tally: Told what is not taken.
    """
    from ase import Atoms
    from ase.io.jsonio import decode

    for number in content["ids"]:
        fallback = f"{stem}-{number}"
        try:
            row = decode(json.dumps(content[str(number)]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=row["pbc"])
        except _FRAME_FAULTS as error:
            yield refusal(fallback, "row", _first(error), "atoms with a cell", "correct or remove the row")
            continue
        properties = {**_scalars(row.get("data")), **_scalars(row.get("key_value_pairs"))}
        yield _of_atoms(atoms, str(row.get("unique_id") or fallback), properties, row.get("energy"), reading, tally)


def read_ase_sqlite(path: Path, stem: str, reading: Reading, tally: Tally) -> Iterator[SourceStructure | Refusal]:
    """Yield the rows of an ASE database in an SQLite file."""
    from ase.db import connect

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            n_rows = database.execute("SELECT COUNT(*) FROM systems").fetchone()[0]  # ASE would make the table
    except sqlite3.Error as error:
        yield refusal(str(path), "db", _first(error), SQLITE, "check or remove the file")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = connect(str(path), type="db", use_lock_file=False).select()
    for number in range(1, n_rows + 1):
        try:
            row = next(rows, None)
            if row is None:
                return
            atoms = row.toatoms()
        except (*_FRAME_FAULTS, sqlite3.Error) as error:
            yield refusal(f"rest of {path}", "row", _first(error), "atoms with a cell", "repair the database")
            return
        tally.share_read = number / n_rows
        properties = {**_scalars(row.data), **_scalars(row.key_value_pairs)}
        yield _of_atoms(atoms, str(row.unique_id or f"{stem}-{row.id}"), properties, row.get("energy"), reading, tally)


def _next_frame(text: Any) -> str | StructureError | None:  # noqa: ANN401 - a text stream
    line = "\n"
    while line and not line.strip():
        line = text.readline(MAX_LINE)
    if not line:
        return None
    try:
        n_sites = int(line)
    except ValueError:
        return StructureError(f"a frame begins with {line.strip()[:40]!r}; expected a number of atoms")
    if not 0 < n_sites <= MAX_SITES:
        return StructureError(f"a frame of {n_sites} atoms; expected 1 to {MAX_SITES}")
    lines = list(islice(iter(lambda: text.readline(MAX_LINE), ""), n_sites + 1))
    if len(lines) != n_sites + 1:
        return StructureError(f"a frame that ends after {max(len(lines) - 1, 0)} of {n_sites} atoms; expected all")
    return repaired(line + "".join(lines)).replace("\r\n", "\n")


def _frame(frame: str, fallback: str, reading: Reading, tally: Tally) -> SourceStructure | Refusal:
    from ase.io import read

    if "lattice=" not in frame.split("\n", 2)[1].lower():
        return refusal(fallback, "frame", "without a Lattice", "a crystal with its cell", "remove the frame")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = read(io.StringIO(frame), format="extxyz")
    except _FRAME_FAULTS as error:
        return refusal(fallback, "frame", _first(error), "extended XYZ", "correct or remove the frame")
    energy = None if atoms.calc is None else atoms.calc.results.get("energy")
    return _of_atoms(atoms, fallback, _scalars(atoms.info), energy, reading, tally)


def _of_atoms(
    atoms: "Atoms", fallback: str, properties: dict[str, Any], energy: object, reading: Reading, tally: Tally
) -> SourceStructure | Refusal:
    try:
        crystal = crystal_of_atoms(atoms)
    except StructureError as error:
        return structure_refusal(fallback, error)
    return record(reading, fallback, crystal, properties, tally, energy=energy)


def _scalars(found: object) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in found.items() if getattr(value, "ndim", 0) == 0}


def _first(error: Exception) -> str:
    text = " ".join(str(error).split()) or "it breaks off"
    return text[:120] if not isinstance(error, KeyError) else f"no {text}"
