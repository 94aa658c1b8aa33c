"""What an ingest did: counts, and every row that was refused with the reason."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wyloop.models.errors import IngestError

OnProgress = Callable[[int, int], None]
"""Called with the number of rows done and their total, which is an estimate until the end."""

MAX_KEPT = 10_000
"""Refusals that a report holds in memory; `refusals_to` writes all to a file as they come."""


@dataclass(frozen=True)
class Refusal:
    """One row that was not taken."""

    row: int
    """Number of the row, from 1, the header not counted; of the file or record where there are several."""
    identity: str
    field: str
    value: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"row {self.row} ({self.identity}): {self.field} is {self.value}; expected {self.expected}; {self.remedy}"
        )


OnRefusal = Callable[[Refusal], None]


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows of a file."""

    n_rows: int
    n_added: int
    n_unchanged: int
    n_updated: int
    refused: tuple[Refusal, ...] = ()
    """The first MAX_KEPT."""
    notes: tuple[str, ...] = ()
    """What a user should know of the rows that were taken, such as labels that are missing."""
    n_refused_more: int = 0
    """Refused after those in `refused`."""
    n_encoded: int = 0
    """Written with their genes; the encoding builder finds the others."""
    n_not_encodable: int = 0
    """Written, and known to have no gene."""

    @property
    def n_refused(self) -> int:
        """Rows that were not taken."""
        return len(self.refused) + self.n_refused_more


@contextmanager
def refusals_to(path: Path | None) -> Iterator[OnRefusal | None]:
    """Open a CSV file for the rows that are refused, whole at every moment; none: nothing to call.

    Raises:
        IngestError: The file can't be written.
    """
    if path is None:
        yield None
        return
    names = [one.name for one in fields(Refusal)]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            file.flush()

            def write(refusal: Refusal) -> None:
                table.writerow(asdict(refusal))
                file.flush()

            yield write
    except OSError as error:
        if error.filename != str(path):
            raise
        raise IngestError(
            f"can't write {path} ({error.strerror}); expected a file in a folder that exists; choose another --report"
        ) from error
