"""Crystals from CIF files and folders of them; without labels."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from wyloop.models.errors import IngestError, StructureError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.stores.connection import Store
from wyloop.stores.ingest.intake import refusal, structure_refusal
from wyloop.stores.ingest.report import IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import read_text

MAX_LENGTH = 4_000_000  # characters; files of journals carry reflections and figures behind the sites


def ingest_cif(
    store: Store,
    paths: Iterable[Path],
    *,
    source: str = "cif",
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
) -> IngestReport:
    """Read CIF files, and all `.cif` files below folders, into `structures`; reading them again changes nothing.

    Args:
        store: The database.
        paths: Files and folders; a file's stem is its identity in the source.
        source: Name of the source, half of each identity.
        on_progress: Told the files done and their total.
        on_refusal: Told each file that was not taken.

    Raises:
        IngestError: A path does not exist, or there is no CIF file at all. Nothing was written then.
    """
    from wyloop.stores.ingest.files import ingest_files

    return ingest_files(store, paths, kind="cif", source=source, on_progress=on_progress, on_refusal=on_refusal)


def read_cif(path: Path, identity: str, source: str) -> Iterator[SourceStructure | Refusal]:
    """Yield the crystal of a CIF file, or why there is none."""
    try:
        crystal = parse_cif(read_text(path, "a CIF", max_length=MAX_LENGTH))
    except StructureError as error:
        yield structure_refusal(str(path), error, field="cif", what="file")
    except IngestError as error:
        yield file_refusal(path, error, "cif")
    else:
        yield SourceStructure(source, identity, crystal)


def file_refusal(path: Path, error: IngestError, field: str) -> Refusal:
    """Return the refusal of a whole file among several."""
    problem, _, rest = str(error).partition("; expected ")
    expected, _, remedy = rest.partition("; ")
    return refusal(str(path), field, problem, expected or "a readable file", remedy or "correct or remove the file")
