"""Relaxations a second: batches against one crystal at a time with the same optimiser, and against chgnet's own.

    python tests/benchmarks/bench_relax.py [--crystals 50] [--batch 12] [--plain N]

Every crystal is of the starter set with at most eight atoms, its volume and positions disturbed by a fixed seed.
"""

import argparse
import contextlib
import io
import time
import warnings

import numpy as np

from wyloop.flows.worker import pin_threads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=50)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--plain", type=int, default=0, help="so many of them with chgnet's StructOptimizer as well")
    arguments = parser.parse_args()
    pin_threads()
    from wyloop.models.crystal import Crystal
    from wyloop.models.errors import WyloopError
    from wyloop.models.physics.calculators import one_thread
    from wyloop.models.physics.relax import relax
    from wyloop.models.physics.relax_batched import relax_many
    from wyloop.stores.starter.read import starter_set

    rng = np.random.default_rng(0)
    small = [entry.crystal for entry in starter_set() if 2 <= entry.crystal.nsites <= 8]
    chosen = [small[place] for place in rng.permutation(len(small))[: arguments.crystals]]
    starts = [
        Crystal(crystal.lattice * (1 + rng.uniform(-0.05, 0.05)), crystal.species, crystal.frac_coords)
        for crystal in chosen
    ]
    with one_thread():
        relax(starts[0])  # loads the model
        alone, alone_cpu = _time(lambda: [relax(start) for start in starts])
        many, many_cpu = _time(lambda: relax_many(starts, batch_size=arguments.batch))
    one_by_one, together = alone[0], many[0]
    steps = sum(found.n_steps for found in one_by_one)
    same = [
        abs(first.energy_per_atom - second.energy_per_atom)
        for first, second in zip(one_by_one, together, strict=True)
        if not isinstance(second, WyloopError)
    ]
    print(f"{len(starts)} crystals, {sum(start.nsites for start in starts) / len(starts):.1f} atoms, {steps} steps")
    print(f"one at a time:  {alone[1]:6.1f} s wall, {alone_cpu:6.1f} s CPU, {len(starts) / alone_cpu:.2f} a CPU second")
    print(
        f"batches of {arguments.batch:2}:  {many[1]:6.1f} s wall, {many_cpu:6.1f} s CPU, {alone_cpu / many_cpu:.2f} x"
    )
    print(f"largest difference of energies: {max(same) * 1000:.2f} meV/atom, {len(same)} of {len(starts)} relaxed")
    if arguments.plain:
        _plain(starts[: arguments.plain])


def _time(function):  # noqa: ANN001, ANN202
    wall, cpu = time.monotonic(), time.process_time()
    result = function()
    return (result, time.monotonic() - wall), time.process_time() - cpu


def _plain(starts) -> None:  # noqa: ANN001
    """Measure chgnet's StructOptimizer (FIRE, no symmetry kept) to the same force on some of the crystals."""
    from chgnet.model import StructOptimizer

    from wyloop.models.physics.relax import relax

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        optimizer = StructOptimizer(use_device="cpu")
        _, plain = _time(
            lambda: [optimizer.relax(s.to_pymatgen(), fmax=0.05, steps=250, verbose=False) for s in starts]
        )
        _, ours = _time(lambda: [relax(start) for start in starts])
    print(f"chgnet's StructOptimizer, {len(starts)} of them: {plain:.1f} s CPU; ours one at a time {ours:.1f} s")


if __name__ == "__main__":
    main()
