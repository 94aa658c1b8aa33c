"""Many relaxations at once in one process: each is `relax`'s own, but their energies are computed in batches.

Every crystal has a thread that runs its optimiser and waits for forces; when all wait, one batch is computed. The
results are those of `relax` but for the order of float32 sums. Only CHGNet computes in batches.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError, WyloopError
from wyloop.models.physics.calculators import DEFAULT_CALCULATOR, check_elements, chgnet_results, one_thread
from wyloop.models.physics.relax import Relaxation, RelaxationSettings, relax_with
from wyloop.models.wyckoff.encode import standardize

BATCH_SIZE = 12  # CHGNet is fastest at 8 to 16 small cells


def relax_many(
    crystals: Sequence[Crystal], settings: RelaxationSettings | None = None, *, batch_size: int = BATCH_SIZE
) -> list[Relaxation | WyloopError]:
    """Relax crystals, small ones in batches; one that can't be relaxed has its error in its place.

    Args:
        crystals: Any cells.
        settings: Defaults to `RelaxationSettings()`; its time limit counts for each crystal times the batch.
        batch_size: Crystals under way at once.

    Raises:
        CalculatorError: Another calculator than CHGNet.
    """
    settings = settings or RelaxationSettings()
    if settings.calculator != DEFAULT_CALCULATOR:
        raise CalculatorError(f"calculator {settings.calculator!r} has no batches; expected {DEFAULT_CALCULATOR!r}")
    todo: SimpleQueue[int] = SimpleQueue()
    for place in sorted(range(len(crystals)), key=lambda place: -crystals[place].nsites):
        todo.put(place)
    results: list[Relaxation | WyloopError | None] = [None] * len(crystals)
    patient = replace(settings, time_limit=settings.time_limit * max(1, min(batch_size, len(crystals))))
    meeting = _Meeting(min(batch_size, len(crystals)))

    def work() -> None:
        calculator = _Batched(meeting)
        try:
            while not todo.empty():
                place = todo.get()
                results[place] = _one(crystals[place], calculator, patient)
        finally:
            meeting.leave()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(meeting.n_present)]
    for thread in threads:
        thread.start()
    with one_thread():
        meeting.serve()
    for thread in threads:
        thread.join()
    return [result or CalculatorError("its relaxation was not run") for result in results]


def _one(crystal: Crystal, calculator: Calculator, settings: RelaxationSettings) -> Relaxation | WyloopError:
    try:
        check_elements(settings.calculator, crystal.species)
        return relax_with(standardize(crystal), calculator, settings)
    except WyloopError as error:
        return error


class _Meeting:
    """Where threads leave what they want computed and wait; the one who serves computes it when all wait."""

    def __init__(self, n_present: int) -> None:
        self.n_present = n_present
        self.waiting: list[tuple[Atoms, list[Any]]] = []
        self.changed = threading.Condition()

    def ask(self, atoms: Atoms) -> dict[str, Any]:
        """Return what CHGNet says of a cell, once the others have asked as well."""
        answer: list[Any] = []
        with self.changed:
            self.waiting.append((atoms, answer))
            self.changed.notify_all()
            self.changed.wait_for(lambda: bool(answer))
        if isinstance(answer[0], Exception):
            raise RuntimeError(str(answer[0]))
        told: dict[str, Any] = answer[0]
        return told

    def leave(self) -> None:
        """Ask no more."""
        with self.changed:
            self.n_present -= 1
            self.changed.notify_all()

    def serve(self) -> None:
        """Compute batches until all have left."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.n_present == 0 or len(self.waiting) == self.n_present)
                batch, self.waiting = self.waiting, []
            if not batch:
                return
            answers = chgnet_results([atoms for atoms, _ in batch])
            with self.changed:
                for (_, answer), told in zip(batch, answers, strict=True):
                    answer.append(told)
                self.changed.notify_all()


class _Batched(Calculator):  # type: ignore[misc]  # ASE is only partly typed
    """CHGNet as an ASE calculator that waits for others to ask."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, meeting: _Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate energy (eV), forces (eV/Å) and stress (eV/Å^3)."""
        super().calculate(atoms, properties, system_changes)
        self.results = self.meeting.ask(self.atoms)
