"""Crystals from CIF files and folders of them; without labels."""

from collections.abc import Iterable
from pathlib import Path

from wyloop.models.errors import IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.ingest.report import IngestReport, OnProgress, Refusal
from wyloop.stores.ingest.structures import SourceStructure, Written, write_structures

BATCH_SIZE = 500


@translated
def ingest_cif(
    store: Store, paths: Iterable[Path], *, source: str = "cif", on_progress: OnProgress | None = None
) -> IngestReport:
    """Read CIF files, and all `.cif` files below folders, into `structures`; reading them again changes nothing.

    Args:
        store: The database.
        paths: Files and folders; a file's stem is its identity in the source.
        source: Name of the source, half of each identity.
        on_progress: Told the files done and their total.

    Raises:
        IngestError: A path does not exist, or there is no CIF file at all. Nothing was written then.
    """
    files = _files(paths)
    written, refused, batch = Written(), [], []
    first: dict[str, Path] = {}
    for number, file in enumerate(files, start=1):
        problem = ""
        if file.stem in first:
            problem, expected = f"the same name as {first[file.stem]}", "a name of its own"
        else:
            first[file.stem] = file
            try:
                batch.append(SourceStructure(source, file.stem, parse_cif(file.read_text(encoding="utf-8"))))
            except StructureError as error:
                problem, _, expected = str(error).partition("; expected ")
            except (OSError, UnicodeDecodeError) as error:
                problem, expected = f"unreadable ({error})", "UTF-8 text"
        if problem:
            expected = expected or "an ordered crystal"
            refused.append(Refusal(number, str(file), "cif", problem, expected, "correct or remove the file"))
        if len(batch) == BATCH_SIZE:
            written, batch = written + write_structures(store, batch), []
        if on_progress is not None:
            on_progress(number, len(files))
    written += write_structures(store, batch)
    return IngestReport(len(files), written.n_added, written.n_unchanged, written.n_updated, tuple(refused))


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(found for found in path.rglob("*") if found.suffix.lower() == ".cif" and found.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise IngestError(f"{path} is no file or folder; expected CIF files; check the path")
    if not files:
        raise IngestError("no .cif file in the folders given; expected at least one; check the paths")
    return files
