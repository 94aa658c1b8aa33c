"""Files and folders of any kind that we read: told apart by name or content, read one after another."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wyloop.models.errors import IngestError
from wyloop.stores.connection import Store
from wyloop.stores.ingest.atoms import read_ase_sqlite, read_extxyz
from wyloop.stores.ingest.cif import file_refusal, read_cif
from wyloop.stores.ingest.csv import read_csv, source_of
from wyloop.stores.ingest.gpaw import MARK, read_gpaw_log, read_gpw
from wyloop.stores.ingest.intake import Tally, refusal, take_in
from wyloop.stores.ingest.poscar import read_poscar
from wyloop.stores.ingest.record import Reading
from wyloop.stores.ingest.references import relate_energies
from wyloop.stores.ingest.report import IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structure_json import read_json
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import opened
from wyloop.stores.ingest.vasp import read_vasp

KINDS = ("csv", "cif", "poscar", "extxyz", "json", "ase", "vasp", "gpaw")
PACKINGS = (".gz", ".bz2", ".xz")
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".cif": "cif",
    ".poscar": "poscar",
    ".contcar": "poscar",
    ".vasp": "poscar",
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".json": "json",
    ".jsonl": "json",
    ".db": "ase",
    ".gpw": "gpaw",
}
LOG_ENDINGS = (".txt", ".log", ".out")
HEAD_LENGTH = 4000  # characters that tell what a file is

Row = SourceStructure | Refusal


@dataclass(frozen=True)
class Item:
    """One file to read."""

    kind: str
    path: Path
    identity: str
    """What its crystal is called if the file names none."""


@dataclass
class Found:
    """What a walk through files and folders came upon."""

    items: list[Item] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Files of no kind that we read, by ending."""


def ingest_files(
    store: Store,
    paths: Iterable[Path],
    *,
    kind: str | None = None,
    source: str | None = None,
    energy_method: str = "mp-pbe",
    gap_method: str = "pbe",
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
    is_encoding: bool = False,
) -> IngestReport:
    """Read files and folders into `structures`; reading them again changes nothing.

    A folder with a `vasprun.xml` is one VASP calculation, one with `.gpw` files or logs of GPAW holds those; other
    files in it are not read. Everywhere else each file is read by its kind. Formation energies of calculations are
    filled in where their elements were calculated with the same method.

    Args:
        store: The database.
        paths: Files and folders.
        kind: One of KINDS, for files whose names say nothing and to read nothing else of folders.
        source: Name of the source; by default the kind, for tables the file's name.
        energy_method: Method of formation energies that name none.
        gap_method: Method of band gaps that name none.
        on_progress: Told the rows done and their total.
        on_refusal: Told each row that was not taken.
        is_encoding: Encode what is new at once, which spares the encoding builder a second write of each structure.

    Raises:
        IngestError: A path does not exist, there is nothing to read, or a table alone can't be read.
    """
    paths = list(paths)
    found = find_items(paths, kind)
    if not found.items and not found.refused:
        what = f"{kind} file" if kind else "file of a known kind"
        what = "file 'vasprun.xml'" if kind == "vasp" else f".{what}" if kind in ("cif", "json") else what
        raise IngestError(
            f"no {what} in {', '.join(map(str, paths))[:200]}; expected at least one; check the paths"
            f"{_skipped(found.skipped)}"
        )
    is_alone = len(found.items) == 1 and not found.refused
    tally = Tally()
    functionals: set[str] = set()
    rows = _rows(found, tally, source, energy_method, gap_method, is_alone=is_alone)
    noted = _noting(rows, functionals)
    report = take_in(store, noted, tally, on_progress=on_progress, on_refusal=on_refusal, is_encoding=is_encoding)
    notes = list(report.notes)
    if functionals:
        n_related = relate_energies(store, functionals)
        if n_related:
            notes.append(f"formation energies of {n_related} calculations follow from references of their method")
    if found.skipped:
        notes.append(f"not read{_skipped(found.skipped)}")
    return replace(report, notes=tuple(notes))


def find_items(paths: Sequence[Path], kind: str | None = None) -> Found:
    """Walk through files and folders and tell what there is to read, in order of their names.

    Raises:
        IngestError: A path does not exist.
    """
    found = Found()
    for path in paths:
        if path.is_dir():
            _walk(path, kind, found)
        elif path.exists():
            _add_file(path, kind, found)
        else:
            raise IngestError(
                f"{path} is no file or folder; expected files or folders, a kind such as csv or optimade before them; "
                "check the path"
            )
    _refuse_namesakes(found)
    return found


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name; None if the name says nothing."""
    name = _unpacked_name(path)
    if re.match(r"^(POSCAR|CONTCAR)\b|^(POSCAR|CONTCAR)[_-]", name):
        return "poscar"
    if re.match(r"^vasprun.*\.xml$", name):
        return "vasp"
    return ENDINGS.get(Path(name).suffix.lower())


def sniffed_kind(path: Path) -> str | None:
    """Return the kind of a file by its first lines; None if they say nothing.

    Raises:
        IngestError: It can't be read.
    """
    with opened(path, "a file of a known kind") as file:
        try:
            head = file.text.read(HEAD_LENGTH)
        except (OSError, EOFError, ValueError):
            return None
    if MARK in head:
        return "gpaw"
    if re.search(r"^data_\S*", head, re.MULTILINE) and re.search(r"^_\w+", head, re.MULTILINE):
        return "cif"
    if head.lstrip().startswith(("{", "[")):
        return "json"
    if "<modeling>" in head:
        return "vasp"
    if re.match(r"\s*\d+\s*\n.*Lattice=", head):
        return "extxyz"
    return None


def _walk(root: Path, kind: str | None, found: Found) -> None:
    def unreadable(error: OSError) -> None:
        found.refused.append(
            refusal(
                str(error.filename), "folder", error.strerror or "unreadable", "a folder to read", "check its owner"
            )
        )

    for folder, subfolders, names in os.walk(root, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        _add_folder(root, Path(folder), sorted(name for name in names if not name.startswith(".")), kind, found)


def _add_folder(root: Path, folder: Path, names: list[str], kind: str | None, found: Found) -> None:
    kinds = {name: kind_of(folder / name) for name in names}
    vaspruns = [name for name in names if kinds[name] == "vasp"]
    gpws = [name for name in names if kinds[name] == "gpaw"]
    logs = [name for name in names if kinds[name] is None and not gpws and _is_gpaw_log(folder / name)]
    relative = str(folder.relative_to(root).as_posix())
    place = root.resolve().name if relative == "." else relative
    is_run = bool(kind in (None, "vasp") and vaspruns) or bool(kind in (None, "gpaw") and (gpws or logs))
    for name in names if is_run else ():
        if kinds[name] not in (None, "poscar", "vasp", "gpaw"):
            found.skipped[f"{Path(name).suffix.lower()} beside a calculation"] += 1
    if kind in (None, "vasp") and vaspruns:
        # the last of several runs: relax2 after relax1
        exact = [name for name in vaspruns if _unpacked_name(Path(name)) == "vasprun.xml"]
        found.items.append(Item("vasp", folder / (exact or vaspruns)[-1], place))
    elif kind in (None, "gpaw") and (gpws or logs):
        runs = gpws or logs
        for name in runs:
            found.items.append(Item("gpaw", folder / name, place if len(runs) == 1 else f"{place}/{_stem(name)}"))
    else:
        has_contcar = any(_unpacked_name(Path(name)) == "CONTCAR" and (folder / name).stat().st_size for name in names)
        for name in names:
            is_start = has_contcar and _unpacked_name(Path(name)) == "POSCAR"
            if kinds[name] is None or is_start or kind not in (None, kinds[name]):
                found.skipped[Path(name).suffix.lower() or name] += 1
            elif kinds[name] in ("vasp", "gpaw"):
                found.skipped[name] += 1  # another kind of run stands beside
            else:
                found.items.append(Item(str(kinds[name]), folder / name, _identity(folder / name, place)))


def _add_file(path: Path, kind: str | None, found: Found) -> None:
    try:
        known = kind or kind_of(path) or sniffed_kind(path)
    except IngestError as error:
        found.refused.append(file_refusal(path, error, "file"))
        return
    if known is None:
        raise IngestError(
            f"{path} is of no kind that its name or first lines tell; expected one of {', '.join(KINDS)}; "
            "say which, as in 'wyloop db ingest cif PATH'"
        )
    place = path.resolve().parent.name or path.name
    found.items.append(Item(known, path, place if known in ("vasp", "gpaw") else _identity(path, place)))


def _identity(path: Path, place: str) -> str:
    """Return what a file's crystal is called: the file's stem; that of its folder where it is a plain POSCAR."""
    name = _unpacked_name(path)
    if name in ("POSCAR", "CONTCAR"):
        return place
    if kind_of(path) == "poscar" and name.startswith(("POSCAR", "CONTCAR")):
        return re.sub(r"^(POSCAR|CONTCAR)[._-]", "", name)
    return _stem(name)


def _refuse_namesakes(found: Found) -> None:
    first: dict[tuple[str, str], Path] = {}
    kept = []
    once = {item.path.resolve(): item for item in reversed(found.items)}  # a file may be named beside its folder
    for item in reversed(once.values()):
        other = first.setdefault((item.kind, item.identity), item.path)
        if other is item.path or item.kind == "csv":
            kept.append(item)
        else:
            why = f"the same name as {other}"
            found.refused.append(refusal(str(item.path), item.kind, why, "a name of its own", "rename the file"))
    found.items = kept


def _rows(
    found: Found, tally: Tally, source: str | None, energy_method: str, gap_method: str, *, is_alone: bool
) -> Iterator[Row]:
    yield from found.refused
    for number, item in enumerate(found.items):
        own = source or (source_of(item.path) if item.kind == "csv" else item.kind)
        inner = Tally(missing=tally.missing, ignored=tally.ignored)
        try:
            for row in _read(item, Reading(own, energy_method, gap_method), inner):
                tally.share_read = (number + inner.share_read) / len(found.items)
                yield row
        except IngestError as error:  # of a table, whose header is wrong
            if is_alone:
                raise
            yield file_refusal(item.path, error, item.kind)
        tally.ignored, tally.n_decimal_commas = inner.ignored, tally.n_decimal_commas + inner.n_decimal_commas
        tally.share_read = (number + 1) / len(found.items)


def _read(item: Item, reading: Reading, tally: Tally) -> Iterator[Row]:
    path, identity, source = item.path, item.identity, reading.source
    if item.kind == "csv":
        methods = {"energy_method": reading.energy_method, "gap_method": reading.gap_method}
        return read_csv(path, tally, source=source, **methods)
    if item.kind in ("cif", "poscar", "vasp"):
        read = {"cif": read_cif, "poscar": read_poscar, "vasp": read_vasp}[item.kind]
        return read(path, identity, source)
    if item.kind == "gpaw":
        return (read_gpw if path.suffix == ".gpw" else read_gpaw_log)(path, identity, source)
    return {"extxyz": read_extxyz, "json": read_json, "ase": read_ase_sqlite}[item.kind](path, identity, reading, tally)


def _noting(rows: Iterator[Row], functionals: set[str]) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, SourceStructure) and row.functional is not None:
            functionals.add(row.functional)
        yield row


def _is_gpaw_log(path: Path) -> bool:
    if path.suffix.lower() not in LOG_ENDINGS:
        return False
    try:
        return sniffed_kind(path) == "gpaw"
    except IngestError:
        return False


def _unpacked_name(path: Path) -> str:
    name = path.name
    for packing in PACKINGS:
        name = name.removesuffix(packing)
    return name


def _stem(name: str) -> str:
    plain = _unpacked_name(Path(name))
    return Path(plain).stem if Path(plain).suffix.lower() in (*ENDINGS, *LOG_ENDINGS) else plain


def _skipped(skipped: Counter[str]) -> str:
    if not skipped:
        return ""
    shown = ", ".join(f"{n} {ending}" for ending, n in skipped.most_common(8))
    return f" ({sum(skipped.values())} other files: {shown})"
