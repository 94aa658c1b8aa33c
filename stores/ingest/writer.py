"""Batches of structures, one behind the other: the server writes one while the next is read, encoded and made ready."""

import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import TracebackType

from wyloop.models.crystal import Crystal
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.ingest.structures import (
    Gene,
    Row,
    SourceStructure,
    Written,
    hashes_of,
    ready,
    rows_of,
    write_ready,
)

PARALLEL_FROM = 1000
"""Crystals from which starting more processes (two to three seconds) pays."""
Genes = Mapping[str, Gene]


class StructureWriter:
    """Writes batches in their order as `write_structures` does; a few are in memory."""

    def __init__(self, store: Store, *, is_encoding: bool = False) -> None:
        """Prepare to write.

        Args:
            store: The database.
            is_encoding: Find the genes of new structures, and write their encodings with them.
        """
        self.written = Written()
        """What was done, complete when the block ends."""
        self.n_encoded = self.n_not_encodable = 0
        """Genes found here, and crystals that have none."""
        self._store = store
        self._finder = GeneFinder() if is_encoding else None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="structures")
        self._encoded: tuple[list[Row], Callable[[], Genes]] | None = None
        self._last: Future[Written] | None = None

    def write(self, batch: Sequence[SourceStructure], genes: Genes | None = None) -> None:
        """Write a batch; raises what the batch before it has met with.

        Args:
            batch: What the source gives.
            genes: Those that are known already, by structure id.
        """
        rows = list(rows_of(batch, genes))
        if self._finder is None:
            self._submit(rows)
            return
        known = hashes_of(self._store, [row.structure_id for row in rows])
        found = self._finder.start([row for row in rows if row.structure_id not in known and row.gene is None])
        self._submit_encoded()
        self._encoded = rows, found

    def __enter__(self) -> "StructureWriter":
        gc.freeze()  # what is there already would be searched for garbage again and again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._submit_encoded()
                self._wait()
        finally:
            gc.unfreeze()
            self._beside.shutdown()
            if self._finder is not None:
                self._finder.close()

    def _submit_encoded(self) -> None:
        if self._encoded is not None:
            (rows, found), self._encoded = self._encoded, None
            genes = found()
            n_without = sum("refused" in gene for gene in genes.values())
            self.n_encoded += len(genes) - n_without
            self.n_not_encodable += n_without
            self._submit([replace(row, gene=genes.get(row.structure_id, row.gene)) for row in rows])

    def _submit(self, rows: Sequence[Row]) -> None:
        time = now()
        made = [ready(row, time) for row in rows]
        self._wait()
        self._last = self._beside.submit(write_ready, self._store, made)

    def _wait(self) -> None:
        if self._last is not None:
            done, self._last = self._last, None
            self.written += done.result()


class GeneFinder:
    """Finds genes: here at first, and in processes of its own where there are many crystals."""

    def __init__(self) -> None:
        from wyloop.stores.builders.encodings import encoding_fields  # maggma: a second
        from wyloop.stores.builders.run import leave_interrupts, n_cores

        self._encode: Callable[[Crystal], Gene] = encoding_fields
        self._initializer = leave_interrupts
        self._n_cores = n_cores()
        self._n_started = 0
        self._pool: ProcessPoolExecutor | None = None

    def start(self, rows: Sequence[Row]) -> Callable[[], Genes]:
        """Begin with these; return what waits for their genes, by structure id."""
        identities, crystals = [row.structure_id for row in rows], [row.crystal for row in rows]
        if self._pool is None and self._n_cores > 1 and self._n_started >= PARALLEL_FROM:
            # spawn: a forked child would hold the parent's connections and threads
            self._pool = ProcessPoolExecutor(self._n_cores, get_context("spawn"), initializer=self._initializer)
        self._n_started += len(rows)
        if self._pool is None:
            done = dict(zip(identities, map(self._encode, crystals), strict=True))
            return lambda: done
        found = self._pool.map(self._encode, crystals, chunksize=max(1, len(crystals) // (4 * self._n_cores)))
        return lambda: dict(zip(identities, found, strict=True))

    def close(self) -> None:
        """End the processes; what they have not begun is left."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
