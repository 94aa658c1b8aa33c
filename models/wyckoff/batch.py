"""Many crystals or genes at once, over processes: order kept, each bounded in time, no failure ends the rest."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from wyloop.models.crystal import Crystal
from wyloop.models.errors import RealizationError, WyloopError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import SYMPREC, encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.realize import realize

TEXTS_A_TASK = 50
SMALL = Gene.parse("186 O:b Zn:b"), 11.9
"""A gene with its volume per atom, Å^3, that loads all that building takes."""
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Realized:
    """What became of one gene."""

    gene: Gene
    crystals: tuple[Crystal, ...]
    """Standard primitive cells, the one with the widest contacts first; none on failure."""
    reason: str
    """Why there are none; empty otherwise."""
    seconds: float
    """Wall time."""
    processor_seconds: float
    """Processor time; none is known of a process that was ended."""


def encode_texts(
    texts: Iterable[str], *, symprec: float = SYMPREC, n_processes: int = 2
) -> Iterator[Gene | WyloopError]:
    """Encode CIF texts over processes.

    Yields:
        For each text, in order, its canonical gene or the error that says why there is none.
    """
    rest = iter(texts)
    tasks = iter(lambda: list(islice(rest, TEXTS_A_TASK)), [])
    for genes, error in run_each(partial(_encode_texts, symprec=symprec), tasks, n_processes=n_processes):
        if genes is None:
            raise WyloopError(f"encoding over {n_processes} processes: {error}; encode with one to find the text")
        yield from genes


def realize_many(
    genes: Sequence[Gene],
    volumes_per_atom: Sequence[float],
    *,
    seed: int,
    n_starts: int = 1,
    time_limit: float = 4.0,
    wall_limit: float = 30.0,
    n_processes: int = 2,
) -> Iterator[Realized]:
    """Build crystals of many genes over processes.

    Args:
        genes: The genes.
        volumes_per_atom: One for each gene, Å^3, such as a model predicts.
        seed: Of all genes: a gene's crystals do not depend on the others.
        n_starts: Crystals wanted of each.
        time_limit: Processor time of one gene, s.
        wall_limit: Wall time of one gene, s; a process that takes longer is ended and replaced.
        n_processes: How many at a time, each with one thread.

    Yields:
        For each gene, in order, what became of it.
    """
    tasks = zip(genes, volumes_per_atom, strict=True)
    work = partial(_realize, seed=seed, n_starts=n_starts, time_limit=time_limit)
    outcomes = run_each(work, tasks, n_processes=n_processes, time_limit=wall_limit, first=SMALL)
    for gene, (done, error) in zip(genes, outcomes, strict=True):
        yield done if done is not None else Realized(gene, (), error, wall_limit, math.nan)


def run_each(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    n_processes: int,
    time_limit: float | None = None,
    first: Any = None,  # noqa: ANN401  # a task, whatever that is
) -> Iterator[tuple[Any, str]]:
    """Call a function of a module on every task, in processes of their own that are replaced when they die.

    Args:
        function: Can be pickled.
        tasks: Can be pickled; taken as they are needed.
        n_processes: At least one.
        time_limit: Wall time of one task, s.
        first: A task that every process does before it counts as up, to load what is loaded lazily.

    Yields:
        For each task, in order: its result and an empty text, or `None` and why there is none.
    """
    rest = enumerate(tasks)
    done: dict[int, tuple[Any, str]] = {}
    workers = [_Worker(function, first) for _ in range(max(1, n_processes))]
    following = 0
    try:
        for worker in workers:
            worker.wait_until_up()
        for worker in workers:
            worker.take(rest)
        while any(worker.place is not None for worker in workers):
            _collect(workers, done, time_limit)
            for worker in workers:
                if worker.place is None:
                    worker.take(rest)
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for worker in workers:
            worker.end()


def _collect(workers: list["_Worker"], done: dict[int, tuple[Any, str]], time_limit: float | None) -> None:
    """Wait for the next results, and replace workers that died or overran."""
    busy = {worker.pipe: worker for worker in workers if worker.place is not None}
    left = None
    if time_limit is not None:
        left = max(0.0, min(worker.began for worker in busy.values()) + time_limit - time.monotonic())
    for pipe in wait(list(busy), left):
        worker = busy[pipe]  # type: ignore[index]  # wait returns what it was given
        assert worker.place is not None
        try:
            done[worker.place] = worker.receive()
        except (EOFError, ConnectionError):
            done[worker.place] = (None, "its process died; it may need more memory than there is")
            worker.replace()
        worker.place = None
    for worker in busy.values():
        if worker.place is not None and time_limit is not None and time.monotonic() > worker.began + time_limit:
            done[worker.place] = (None, f"not done after {time_limit:g} s")
            worker.replace()
            worker.place = None


@dataclass
class _Worker:
    """One process and the pipe to it."""

    function: Callable[[Any], Any]
    first: Any
    place: int | None = None
    """Of the task in hand."""
    began: float = 0.0
    pipe: Connection = field(init=False)
    process: BaseProcess = field(init=False)

    def __post_init__(self) -> None:
        self._start()

    def take(self, tasks: Iterator[tuple[int, Any]]) -> None:
        """Send the next task, if there is one."""
        for place, task in islice(tasks, 1):
            self.place, self.began = place, time.monotonic()
            try:
                self.pipe.send(task)
            except ConnectionError:  # died while idle
                self.replace()
                self.pipe.send(task)

    def receive(self) -> tuple[Any, str]:
        """Return the result of the task in hand."""
        result: tuple[Any, str] = self.pipe.recv()
        return result

    def replace(self) -> None:
        """End the process, however busy, and start another."""
        self.end()
        self._start()
        self.wait_until_up()

    def end(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()

    def _start(self) -> None:
        context = get_context("spawn")  # a forked child would hold the parent's connections and threads
        self.pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(THREADS)  # a child reads them before its first import
        try:
            self.process = context.Process(target=_serve, args=(self.function, self.first, theirs), daemon=True)
            self.process.start()
        finally:
            theirs.close()
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def wait_until_up(self) -> None:
        """Wait for the process's imports, so that they do not count as time of a task."""
        try:
            self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise WyloopError(
                "a process ended before its first task; a script that starts one needs `if __name__ == '__main__':`"
            ) from error


def _serve(function: Callable[[Any], Any], first: object, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    if first is not None:
        function(first)
    pipe.send(None)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((function(task), ""))
        except Exception as error:  # noqa: BLE001  # the one place where a failed task is recorded
            pipe.send((None, f"{type(error).__name__}: {error}"))


def _encode_texts(texts: list[str], *, symprec: float) -> list[Gene | WyloopError]:
    genes: list[Gene | WyloopError] = []
    for text in texts:
        try:
            genes.append(encode(parse_cif(text), symprec))
        except WyloopError as error:
            genes.append(error)
    return genes


def _realize(task: tuple[Gene, float], *, seed: int, n_starts: int, time_limit: float) -> Realized:
    gene, volume_per_atom = task
    wall, processor = time.monotonic(), time.process_time()
    crystals: list[Crystal] = []
    reason = ""
    try:
        crystals = realize(gene, volume_per_atom, seed=seed, n_starts=n_starts, time_limit=time_limit)
    except RealizationError as error:
        reason = str(error)
    return Realized(gene, tuple(crystals), reason, time.monotonic() - wall, time.process_time() - processor)
