"""Tables that crystal generators write: a column of CIFs, of structures as text, or CrystalFormer's letters and sites.

CrystalFormer's columns, as its public code writes them: L (a, b, c in Å, three angles in degrees), X (fractional
coordinates of one atom of each orbit), A (atomic numbers) and W (places of the Wyckoff letters, 1 for a, 27 for A),
lists padded with 0; G is the space group, or a column spacegroup, or the number in the file's name (output_225.csv).
"""

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.tables import operators, space_group
from wyloop.stores.ingest.crystals import checked_crystal, crystal_of_structure
from wyloop.stores.ingest.csv import MAX_CIF_LENGTH, MAX_FIELD_LENGTH
from wyloop.stores.ingest.intake import refusal, structure_refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import UNREADABLE, opened, repaired

EXPECTED = "a CSV file with a column cif or structure, or CrystalFormer's columns L, X, A and W"
STRUCTURE_COLUMNS = ("cif", "structure", "cif_string", "generated_cif", "relaxed_cif")
IDENTITY_COLUMNS = ("material_id", "id", "name", "index", "")
GROUP_COLUMNS = ("g", "spacegroup", "space_group", "space_group_number", "spg")
LETTERS = ("l", "x", "a", "w")
ATOM_TOLERANCE = 0.05  # of the lattice vectors; nearer images of a sampled site are one atom
MAX_ORBITS = 200
_BROKEN = (csv.Error, *UNREADABLE)
_FAULTS = (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError, AttributeError)


@dataclass(frozen=True)
class LettersRow:
    """A row that says which letters its sites are on."""

    gene: Gene
    crystal: Crystal | None
    """What its coordinates make; None if they make no crystal."""
    identity: str


Row = SourceStructure | LettersRow | Refusal


def read_table(path: Path) -> Iterator[Row]:
    """Yield the crystals of a table, or why a row is none.

    Raises:
        IngestError: It can't be read, or has none of the columns that are known.
    """
    csv.field_size_limit(MAX_FIELD_LENGTH)
    with opened(path, EXPECTED) as file:
        rows = csv.reader(file.text)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
        except _BROKEN as error:
            why = " ".join(str(error).split())
            raise IngestError(f"can't read {path} as CSV ({why}); expected {EXPECTED}; copy it again") from error
        column = next((name for name in STRUCTURE_COLUMNS if name in header), None)
        if column is None and not set(LETTERS) <= set(header):
            shown = ", ".join(header)[:200] or "nothing"
            raise IngestError(f"{path} has the columns {shown}; expected {EXPECTED}; rename one")
        identity = next((header.index(name) for name in IDENTITY_COLUMNS if name in header), None)
        number = 0
        while True:
            try:
                values = next(rows, None)
            except _BROKEN as error:
                why = " ".join(str(error).split()) or "it breaks off"
                yield refusal("rest of the file", "text", why, "readable CSV", "repair the file from here")
                return
            if values is None:
                return
            number += 1
            named = repaired(values[identity]).strip() if identity is not None and identity < len(values) else ""
            name = named or f"{path.name.split('.')[0]}-{number}"
            if len(values) != len(header):
                yield refusal(name, "row", f"{len(values)} columns", f"{len(header)} as in the header", "check quotes")
            elif column is not None:
                yield _structure(values[header.index(column)], column, name)
            else:
                yield _letters(dict(zip(header, values, strict=True)), path, name)


def _structure(text: str, column: str, name: str) -> SourceStructure | Refusal:
    """Read a CIF, or a pymatgen structure as JSON or as Python prints it."""
    if len(text) > MAX_CIF_LENGTH:
        return refusal(name, column, f"{len(text)} characters", f"at most {MAX_CIF_LENGTH}", "check quotes")
    try:
        if text.lstrip().startswith("{"):
            return SourceStructure("import", name, _of_dict(text))
        return SourceStructure("import", name, parse_cif(repaired(text)))
    except StructureError as error:
        return structure_refusal(name, error, field=column)


def _of_dict(text: str) -> Crystal:
    from pymatgen.core.structure import Structure  # half a second

    try:
        try:
            content = json.loads(text)
        except ValueError:
            content = ast.literal_eval(text.strip())  # Python's own way of writing it, and nothing else
        return crystal_of_structure(Structure.from_dict(content))
    except _FAULTS as error:
        why = " ".join(str(error).split())[:100]
        raise StructureError(
            f"text that is no structure ({why}); expected a CIF, or a pymatgen structure as a dict"
        ) from error


def _letters(values: Mapping[str, str], path: Path, name: str) -> LettersRow | Refusal:
    try:
        number = _space_group(values, path)
    except StructureError as error:
        return structure_refusal(name, error, field="space group")
    try:
        lists = {key: np.array(ast.literal_eval(values[key]), dtype=np.float64) for key in LETTERS}
        kept = np.flatnonzero(lists["a"])[:MAX_ORBITS]
        elements = _symbols([int(one) for one in lists["a"][kept]])
        places = [int(one) for one in lists["w"][kept]]
        known = space_group(number).letters
        if not places or any(not 1 <= place <= len(known) for place in places):
            raise GeneError(f"letters {places} in space group {number}; expected places from 1 to {len(known)}")
        orbits = [(element, known[place - 1]) for element, place in zip(elements, places, strict=True)]
        gene = canonical(Gene.of(number, orbits))
    except (GeneError, *_FAULTS) as error:
        why = " ".join(str(error).split())[:120]
        return refusal(name, "L, X, A, W", why, "lists of numbers that make a gene", "correct or remove the row")
    return LettersRow(gene, _crystal(number, orbits, lists["l"], lists["x"][kept]), name)


def _space_group(values: Mapping[str, str], path: Path) -> int:
    """Read the space group from the row, or else from the file's name."""
    text = next((values[name] for name in GROUP_COLUMNS if values.get(name)), None)
    if text is None:
        found = re.search(r"(\d+)(?!.*\d)", path.name.split(".csv")[0])
        if found is None:
            raise StructureError(
                f"no space group in the row nor in the name {path.name}; expected a column G or output_225.csv"
            )
        text = found.group(1)
    try:
        number = int(float(text))
    except ValueError:
        number = 0
    if not 1 <= number <= 230:
        raise StructureError(f"space group {text[:20]}; expected a number from 1 to 230")
    return number


def _symbols(numbers: Sequence[int]) -> list[str]:
    from ase.data import chemical_symbols

    if any(not 1 <= number < len(chemical_symbols) for number in numbers):
        raise GeneError(f"atomic numbers {numbers}; expected 1 to {len(chemical_symbols) - 1}")
    return [chemical_symbols[number] for number in numbers]


def _crystal(number: int, orbits: Sequence[tuple[str, str]], cell: Any, sites: Any) -> Crystal | None:  # noqa: ANN401
    """Build the crystal of one row; None where its numbers make none."""
    from pymatgen.core.lattice import Lattice  # half a second

    try:
        lattice = np.array(Lattice.from_parameters(*(float(one) for one in cell)).matrix)
        species: list[str] = []
        coords: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        for (element, letter), site in zip(orbits, sites, strict=True):
            images = _orbit(number, letter, site)
            species += [element] * len(images)
            coords.append(images)
        return checked_crystal(lattice, species, np.concatenate(coords))
    except (StructureError, *_FAULTS):
        return None


def _orbit(number: int, letter: str, site: Any) -> Any:  # noqa: ANN401
    """Return the atoms of an orbit, shape (multiplicity, 3), fractional: the site put onto its position first.

    Any atom of the orbit may be the one that is given, so each symmetry image of it is tried: the one that the
    position's first coordinates move least is the one meant.
    """
    general = operators(number, space_group(number).letters[-1])
    images = general[:, :, :3] @ np.asarray(site, dtype=np.float64) + general[:, :, 3]
    maps = operators(number, letter)
    shifts = images @ maps[0, :, :3].T + maps[0, :, 3] - images
    distances = np.linalg.norm(shifts - np.rint(shifts), axis=1)
    best = images[int(np.argmin(distances))]
    if distances.min() > ATOM_TOLERANCE:
        raise StructureError(f"site {site} is not on position {letter} of space group {number}")
    return (maps[:, :, :3] @ best + maps[:, :, 3]) % 1.0
