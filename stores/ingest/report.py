"""What an ingest did: counts, and every row that was refused with the reason."""

from collections.abc import Callable
from dataclasses import dataclass

OnProgress = Callable[[int, int], None]
"""Called with the number of rows done and their total."""


@dataclass(frozen=True)
class Refusal:
    """One row that was not taken."""

    row: int
    """Number of the row, from 1, the header not counted; of the file in a list of files."""
    identity: str
    field: str
    value: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"row {self.row} ({self.identity}): {self.field} is {self.value}; expected {self.expected}; {self.remedy}"
        )


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows of a file."""

    n_rows: int
    n_added: int
    n_unchanged: int
    n_updated: int
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    """What a user should know of the rows that were taken, such as labels that are missing."""

    @property
    def n_refused(self) -> int:
        """Rows that were not taken."""
        return len(self.refused)
