"""Relaxations a second: ours in batches against ASE, one crystal at a time, with chgnet's own calculator.

    python tests/benchmarks/bench_relax.py [--crystals 50] [--batch 12] [--write]

Every crystal is of the starter set with at most eight atoms, its volume disturbed by a fixed seed. ASE's way is what
chgnet ships: `StructOptimizer`, FIRE without symmetry; beside it our optimiser with chgnet's calculator, which tells
what the calculator, the optimiser and the batches each give.
"""

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.flows.worker import pin_threads

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "relaxation.md"
MUST = 3.0


@dataclass(frozen=True)
class Measured:
    """One way to relax all crystals; seconds of wall and of processor time."""

    name: str
    wall: float
    cpu: float
    energies: list[float]
    """eV/atom, nan where it failed."""
    n_steps: int


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=50)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    pin_threads()
    starts = _starts(arguments.crystals)
    from wyloop.models.physics.calculators import one_thread
    from wyloop.models.physics.relax import relax
    from wyloop.models.physics.relax_batched import relax_many

    with one_thread():
        relax(starts[0])  # loads the model
        measured = [
            _measure("ASE, StructOptimizer of chgnet", starts, _plain),
            _measure("our optimiser, chgnet's calculator", starts, _ours_with_theirs),
            _measure("ours, one at a time", starts, lambda all_of_them: [relax(one) for one in all_of_them]),
            _measure(
                f"ours, batches of {arguments.batch}",
                starts,
                lambda all_of_them: relax_many(all_of_them, batch_size=arguments.batch),
            ),
        ]
    text = _told(measured, starts)
    print(text)
    if arguments.write:
        PAGE.write_text(f"# Relaxations a second\n\nMade by `bench_relax.py --write`. {text}", encoding="utf-8")
        print(f"wrote {PAGE}")


def _starts(n: int) -> list[Any]:
    from wyloop.models.crystal import Crystal
    from wyloop.stores.starter.read import starter_set

    rng = np.random.default_rng(0)
    small = [entry.crystal for entry in starter_set() if 2 <= entry.crystal.nsites <= 8]
    return [
        Crystal(one.lattice * (1 + rng.uniform(-0.05, 0.05)), one.species, one.frac_coords)
        for one in (small[place] for place in rng.permutation(len(small))[:n])
    ]


def _measure(name: str, starts: Sequence[Any], function: Callable[[Sequence[Any]], list[Any]]) -> Measured:
    wall, cpu = time.monotonic(), time.process_time()
    found = function(starts)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    energies = [getattr(one, "energy_per_atom", float("nan")) for one in found]
    print(f"{name}: {wall:.1f} s wall, {cpu:.1f} s CPU", flush=True)
    return Measured(name, wall, cpu, energies, sum(getattr(one, "n_steps", 0) for one in found))


@dataclass(frozen=True)
class _Plain:
    energy_per_atom: float
    n_steps: int


def _plain(starts: Sequence[Any]) -> list[_Plain]:
    """Relax with chgnet's StructOptimizer to the same force."""
    from chgnet.model import StructOptimizer

    found = []
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        optimizer = StructOptimizer(use_device="cpu")
        for start in starts:
            result = optimizer.relax(start.to_pymatgen(), fmax=0.05, steps=250, verbose=False)
            path = result["trajectory"]
            found.append(_Plain(float(path.energies[-1]) / start.nsites, len(path.energies) - 1))
    return found


def _ours_with_theirs(starts: Sequence[Any]) -> list[Any]:
    """Relax as we do, but for chgnet's own ASE calculator, which takes a second backward pass for the stress."""
    from chgnet.model.dynamics import CHGNetCalculator

    from wyloop.models.physics.relax import RelaxationSettings, relax_with
    from wyloop.models.wyckoff.encode import standardize

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        calculator = CHGNetCalculator(use_device="cpu")
        return [relax_with(standardize(start), calculator, RelaxationSettings()) for start in starts]


def _told(measured: list[Measured], starts: Sequence[Any]) -> str:
    plain, last = measured[0], measured[-1]
    sizes = f"{len(starts)} crystals of {sum(one.nsites for one in starts) / len(starts):.1f} atoms on average"
    rows = [
        f"| {one.name} | {one.n_steps} | {one.wall:.1f} | {one.cpu:.1f} | {len(starts) / one.cpu:.2f} "
        f"| {plain.cpu / one.cpu:.2f} |"
        for one in measured
    ]
    differences = np.abs(np.array(measured[2].energies) - np.array(last.energies))
    factor = plain.cpu / last.cpu
    verdict = "met" if factor >= MUST else "missed"
    return (
        f"{sizes}, one core, to 0.05 eV/Å, each volume disturbed by up to 15 %. Load {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores: processor time counts.\n\n"
        "| how | steps | wall, s | CPU, s | a CPU second | times ASE |\n| --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + f"\n\nBatches: {factor:.2f} times ASE one at a time (must {MUST:g}: {verdict}). They give what one at a time "
        f"gives: energies differ by at most {np.nanmax(differences) * 1000:.2f} meV/atom, "
        f"{int(np.isfinite(differences).sum())} of {len(starts)} relaxed.\n"
    )


if __name__ == "__main__":
    main()
