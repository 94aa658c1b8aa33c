"""Crystals from VASP's POSCAR and CONTCAR files; without labels."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError, StructureError
from wyloop.stores.ingest.cif import file_refusal
from wyloop.stores.ingest.crystals import crystal_of_structure
from wyloop.stores.ingest.intake import structure_refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import read_text

EXPECTED = "a POSCAR with a line of element symbols"
MAX_LENGTH = 4_000_000  # characters


def read_poscar(path: Path, identity: str, source: str) -> Iterator[SourceStructure | Refusal]:
    """Yield the crystal of a POSCAR file, or why there is none."""
    try:
        crystal = parse_poscar(read_text(path, EXPECTED, max_length=MAX_LENGTH))
    except StructureError as error:
        yield structure_refusal(str(path), error, field="poscar", what="file")
    except IngestError as error:
        yield file_refusal(path, error, "poscar")
    else:
        yield SourceStructure(source, identity, crystal)


def parse_poscar(text: str) -> Crystal:
    """Read the text of a POSCAR.

    Raises:
        StructureError: It can't be read, names no elements (as VASP 4 wrote it), or its crystal is unphysical.
    """
    from pymatgen.io.vasp.inputs import Poscar  # half a second

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says what we check: distances, names of elements
            poscar = Poscar.from_str(text)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        why = " ".join(str(error).split())[:120] or "it breaks off"
        raise StructureError(f"not a POSCAR ({why}); expected {EXPECTED}") from error
    if not poscar.true_names:
        raise StructureError(f"a POSCAR without element symbols; expected {EXPECTED}")
    return crystal_of_structure(poscar.structure)
