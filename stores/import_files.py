"""Files that crystal generators write, read row by row: what each form is, docs/generators.md says."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode, standardize
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.import_tables import LettersRow, read_table
from wyloop.stores.ingest.atoms import read_extxyz
from wyloop.stores.ingest.cif import MAX_LENGTH, read_cif
from wyloop.stores.ingest.files import find_items
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal
from wyloop.stores.ingest.poscar import read_poscar
from wyloop.stores.ingest.record import Reading
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structure_json import read_json
from wyloop.stores.ingest.structures import SourceStructure

KINDS = ("csv", "cif", "poscar", "extxyz", "json")
ZIP = b"PK\x03\x04"
MAX_MEMBERS = 1_000_000  # files in an archive


@dataclass(frozen=True)
class GeneratedRow:
    """One crystal of a file, as its gene and, if it has one, its 3D structure."""

    gene: Gene
    crystal: Crystal | None
    """Symmetrised, in the standard primitive cell."""
    file: str
    identity: str


def read_generated(path: Path, symprec: float) -> Iterator[GeneratedRow | Refusal]:
    """Yield the crystals of a file, an archive of CIFs or a folder, or why a row is none.

    Args:
        path: CSV, extxyz, JSON, CIF, POSCAR, a zip of CIFs, or a folder of these.
        symprec: Distance within which atoms count as equivalent, Å.

    Raises:
        IngestError: There is no such file, or it is of no form that is known.
    """
    if path.is_file() and _starts_with(path, ZIP):
        for identity, found in _archived(path):
            yield found if isinstance(found, Refusal) else _row(found, path.name, identity, symprec)
        return
    items = find_items([path])
    yield from items.refused
    known = [item for item in items.items if item.kind in KINDS]
    if not known:
        raise IngestError(
            f"no generated crystals in {path}; expected CSV, extxyz, CIF, POSCAR or JSON files, a zip of CIFs, or a "
            "folder of these; check the path"
        )
    for item in known:
        name = item.path.name
        if item.kind == "csv":
            for row in read_table(item.path):
                yield _lettered(row, name, symprec) if isinstance(row, LettersRow) else _of(row, name, symprec)
        else:
            for one in _structures(item.kind, item.path, item.identity):
                yield _of(one, name, symprec)


def _structures(kind: str, path: Path, identity: str) -> Iterator[SourceStructure | Refusal]:
    reading, tally = Reading("import"), Tally()
    if kind == "cif":
        return read_cif(path, identity, "import")
    if kind == "poscar":
        return read_poscar(path, identity, "import")
    return (
        read_extxyz(path, identity, reading, tally) if kind == "extxyz" else read_json(path, identity, reading, tally)
    )


def _of(row: SourceStructure | Refusal, file: str, symprec: float) -> GeneratedRow | Refusal:
    return row if isinstance(row, Refusal) else _row(row.crystal, file, row.source_id, symprec)


def _row(crystal: Crystal, file: str, identity: str, symprec: float) -> GeneratedRow | Refusal:
    try:
        gene = encode(crystal, symprec)
        return GeneratedRow(gene, _symmetrised(crystal, gene, symprec), file, identity)
    except (StructureError, GeneError) as error:
        return structure_refusal(identity, StructureError(str(error)))


def _lettered(row: LettersRow, file: str, symprec: float) -> GeneratedRow | Refusal:
    """Take the gene that the coordinates make; where they make no crystal, the one that the letters name."""
    found = None if row.crystal is None else _row(row.crystal, file, row.identity, symprec)
    return found if isinstance(found, GeneratedRow) else GeneratedRow(row.gene, None, file, row.identity)


def _symmetrised(crystal: Crystal, gene: Gene, symprec: float) -> Crystal:
    """Return the standard primitive cell if it still has the gene, else the crystal as it came."""
    try:
        standard = standardize(crystal, symprec)
        return standard if encode(standard) == gene else crystal
    except (StructureError, GeneError):
        return crystal


def _archived(path: Path) -> Iterator[tuple[str, Crystal | Refusal]]:
    """Yield the crystals of a zip of CIFs, by the stem of each file; other files in it are passed over."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.lower().endswith(".cif")]
            if not members or len(members) > MAX_MEMBERS:
                raise IngestError(
                    f"{path} holds {len(members)} CIF files; expected 1 to {MAX_MEMBERS}; check the archive"
                )
            for member in members:
                identity = PurePosixPath(member.filename).stem
                yield identity, _member(archive, member, identity)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        why = " ".join(str(error).split())[:100]
        raise IngestError(
            f"can't read {path} as a zip archive ({why}); expected one of CIF files; copy it again"
        ) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, identity: str) -> Crystal | Refusal:
    if member.file_size > MAX_LENGTH:  # told before it is unpacked
        return refusal(identity, "cif", f"{member.file_size} bytes", f"at most {MAX_LENGTH}", "remove the file")
    try:
        return parse_cif(archive.read(member).decode("utf-8", errors="replace"))
    except StructureError as error:
        return structure_refusal(identity, error, field="cif", what="file")
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:  # damaged, or with a password
        return refusal(identity, "cif", " ".join(str(error).split())[:80], "a readable file", "pack the archive again")


def _starts_with(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError as error:
        raise IngestError(f"can't read {path} ({error.strerror}); expected a file of crystals; check it") from error
