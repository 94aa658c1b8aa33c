"""Crystals from JSON: pymatgen's structures and computed entries, tables of them, ASE's databases, OPTIMADE answers."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError, StructureError
from wyloop.stores.ingest.atoms import read_ase_json
from wyloop.stores.ingest.cif import file_refusal
from wyloop.stores.ingest.crystals import checked_crystal, crystal_of_structure
from wyloop.stores.ingest.gpaw import is_runner_result, runner_structure
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal
from wyloop.stores.ingest.optimade_fields import resource_structure
from wyloop.stores.ingest.record import Reading, record
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import UNREADABLE, opened, read_text

EXPECTED = "JSON of pymatgen, ASE, JARVIS, matbench or OPTIMADE"
MAX_LENGTH = 4_000_000_000  # characters
_FAULTS = (KeyError, ValueError, TypeError, IndexError, AttributeError)
Rows = Iterator[SourceStructure | Refusal]


def read_json(path: Path, stem: str, reading: Reading, tally: Tally) -> Rows:
    """Yield the crystals of a JSON file, or of each line of a `.jsonl` file; what is none is refused by itself."""
    if ".jsonl" in path.name.lower():
        yield from _read_lines(path, stem, reading, tally)
        return
    try:
        content = json.loads(read_text(path, EXPECTED, max_length=MAX_LENGTH))
    except IngestError as error:
        yield file_refusal(path, error, "json")
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        yield refusal(str(path), "json", f"not readable ({why})", EXPECTED, "correct or remove the file")
    else:
        yield from rows_of(content, stem, reading, tally, path=path)


def rows_of(content: object, stem: str, reading: Reading, tally: Tally, *, path: Path) -> Rows:
    """Yield the crystals of parsed JSON.

    Args:
        content: One structure, entry or record; a list of them; a mapping from names to them; a matbench table; an
            ASE database; an OPTIMADE answer; a result of our GPAW runner.
        stem: What those without an identity are called after.
        reading: Name of the source and methods.
        tally: Told what is not taken.
        path: The file, for messages.
    """
    if isinstance(content, list):
        for number, item in enumerate(content, start=1):
            tally.share_read = number / len(content)
            yield _row(item, f"{stem}-{number}", reading, tally)
    elif not isinstance(content, dict):
        yield refusal(str(path), "json", str(content)[:40], EXPECTED, "correct or remove the file")
    elif is_runner_result(content):
        yield runner_structure(content, path, stem, reading.source)
    elif "ids" in content and "nextid" in content:
        yield from read_ase_json(content, stem, reading, tally)
    elif {"columns", "data", "index"} <= content.keys():
        yield from _matbench(content, stem, reading, tally)
    elif isinstance(content.get("data"), list) and "meta" in content:
        for number, item in enumerate(content["data"], start=1):
            yield resource_structure(item, f"{stem}-{number}", reading.source, tally)
    elif _has_crystal(content):
        yield _row(content, stem, reading, tally)
    elif content and all(isinstance(value, dict) and _has_crystal(value) for value in content.values()):
        for number, (name, item) in enumerate(content.items(), start=1):
            tally.share_read = number / len(content)
            yield _row(item, name, reading, tally)
    else:
        shown = f"an object with {', '.join(list(content)[:6])[:60] or 'nothing'}"
        yield refusal(str(path), "json", shown, EXPECTED, "correct or remove the file")


def _read_lines(path: Path, stem: str, reading: Reading, tally: Tally) -> Rows:
    try:
        with opened(path, EXPECTED) as file:
            for number, line in enumerate(file.text, start=1):
                tally.share_read = file.share_read()
                if line.strip():
                    try:
                        item = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        why = " ".join(str(error).split())
                        yield refusal(f"{stem}-{number}", "json", why, "one JSON object a line", "correct the line")
                    else:
                        yield _row(item, f"{stem}-{number}", reading, tally)
    except IngestError as error:
        yield file_refusal(path, error, "json")
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or "it breaks off"
        yield refusal(f"rest of {path}", "json", why, EXPECTED, "repair the file from here")


def _matbench(content: Mapping[str, Any], stem: str, reading: Reading, tally: Tally) -> Rows:
    """Yield the rows of a table as matbench's data sets are: columns, index, data."""
    for number, (name, values) in enumerate(zip(content["index"], content["data"], strict=False), start=1):
        tally.share_read = number / len(content["data"])
        if not isinstance(values, list) or len(values) != len(content["columns"]):
            yield refusal(str(name), "row", "of another length", "a value of every column", "correct the table")
            continue
        item = dict(zip(content["columns"], values, strict=True))
        yield _row(item, str(name) if isinstance(name, str) else f"{stem}-{name}", reading, tally)


def _has_crystal(item: Mapping[str, Any]) -> bool:
    return ("lattice" in item and "sites" in item) or isinstance(item.get("structure", item.get("atoms")), dict)


def _row(item: object, fallback: str, reading: Reading, tally: Tally) -> SourceStructure | Refusal:
    if not isinstance(item, dict) or not _has_crystal(item):
        shown = ", ".join(list(item)[:6]) if isinstance(item, dict) else str(item)
        return refusal(fallback, "json", shown[:60] or "nothing", "a structure", "correct or remove the row")
    is_bare = "lattice" in item and "sites" in item
    inner = item if is_bare else item.get("structure") or item["atoms"]
    try:
        crystal = _jarvis(inner) if "lattice_mat" in inner else _pymatgen(inner)
    except StructureError as error:
        return structure_refusal(fallback, error)
    except _FAULTS as error:
        why = f"{type(error).__name__} {' '.join(str(error).split())}"[:120]
        return refusal(fallback, "structure", why, "a structure as pymatgen writes it", "correct or remove the row")
    properties = _scalars(inner.get("properties"))
    for found in () if is_bare else (item.get("parameters"), item.get("data"), item):
        properties |= _scalars(found)
    energy = properties.pop("energy", None)
    if str(item.get("@class", "")).endswith("Entry"):
        properties.pop("correction", None)
    return record(reading, fallback, crystal, properties, tally, energy=energy)


def _pymatgen(fields: dict[str, Any]) -> Crystal:
    from pymatgen.core.structure import Structure  # half a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return crystal_of_structure(Structure.from_dict(fields))


def _jarvis(fields: Mapping[str, Any]) -> Crystal:
    """Read the `atoms` of JARVIS-tools."""
    lattice = np.array(fields["lattice_mat"], dtype=np.float64)
    coords = np.array(fields["coords"], dtype=np.float64)
    if str(fields.get("cartesian", False)).lower() == "true":
        coords = coords @ np.linalg.inv(lattice)
    elements: Sequence[str] = fields["elements"]
    return checked_crystal(lattice, [str(element).strip() for element in elements], coords)


def _scalars(found: object) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, str | int | float)}
