"""Crystals of a CSV file as genes with labels, one by one, without a database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wyloop.models.errors import IngestError, WyloopError
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.ingest.csv import REST_OF_FILE, read_csv
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.training import training_labels

if TYPE_CHECKING:
    from wyloop.models.mpvae.data import TrainingRow

PROGRESS_STEP = 50  # rows


@dataclass(frozen=True)
class EncodedRow:
    """One row of the file that has a gene.

    Attributes:
        number: Row of the table, the first after the header being 1.
        identity: What the column of ids says.
        gene: Canonical gene.
        labels: What a model learns, as far as the row has it: formation_energy_per_atom (eV/atom), band_gap (eV),
            is_metal, volume_per_atom (Å^3).
    """

    number: int
    identity: str
    gene: Gene
    labels: dict[str, float]


@dataclass
class Refused:
    """Rows without a gene, with the reason."""

    reasons: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, number: int, identity: str, reason: str) -> None:
        """Note row number, identity and reason."""
        self.reasons.append((number, identity, reason))


def read_rows(
    path: Path, refused: Refused, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Iterator[EncodedRow]:
    """Read and encode the rows of a `.csv` or `.csv.gz` file, as ingest reads them.

    Args:
        path: The file.
        refused: Filled with the rows that have no gene or a label that is no number.
        on_progress: Called with rows read and their total, estimated.

    Raises:
        IngestError: The file can't be read or lacks a needed column.
    """
    tally = Tally()
    for number, row in enumerate(read_csv(path, tally), start=1):
        if isinstance(row, Refusal):
            if row.identity == REST_OF_FILE:  # what is made of a file is made of all of it
                raise IngestError(f"can't read {path} to its end ({row.value}); expected {row.expected}; copy it again")
            refused.add(number, row.identity, f"{row.field} is {row.value}; expected {row.expected}")
        else:
            try:
                yield _encoded(number, row)
            except WyloopError as error:
                refused.add(number, row.source_id, str(error))
        if number % PROGRESS_STEP == 0:
            on_progress(number, max(round(number / (tally.share_read or 1.0)), number))


def training_row(row: EncodedRow) -> "TrainingRow":
    """Return a row as the model takes it."""
    from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

    return TrainingRow(row.gene, row.labels)


def _encoded(number: int, row: SourceStructure) -> EncodedRow:
    known = {
        "formation_energy_per_atom": row.formation_energy_per_atom,
        "band_gap": row.band_gap,
        "band_gap_method": row.band_gap_method,
        "volume_per_atom": row.crystal.volume / row.crystal.nsites,
    }
    return EncodedRow(number, row.source_id, encode(row.crystal), training_labels(known))
