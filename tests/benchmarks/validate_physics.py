"""Known crystals by GPAW and by CHGNet beside the literature: lattice, formation energy, gap, Gamma frequencies.

    python tests/benchmarks/validate_physics.py [--only Si MgO] [--processes 2] [--again] [--write]

Each crystal's and each element's results are kept in build/physics, so that an interrupted run goes on; those of other
settings are computed again. Exit status 1: a must is missed, or something is not computed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from physics_table import CRYSTALS, NOT_COMPUTED, page, print_rows, rows_of

from wyloop.flows.worker import pin_threads

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "physics"
PAGE = ROOT / "docs" / "benchmarks" / "physics.md"
LIMIT = 7200.0  # s, of one DFT calculation
SECONDS = 20.0  # of one quiet core, for a cell of 20 electrons: a relaxation; more electrons go by the power below
POWER = 1.2
PROTOCOLS = ("mlip-screen/1", "gpaw-pbe/1", "gpaw-static/1", "gpaw-gamma/1")


def main() -> None:
    """Run what is not there yet, the cheapest first, then print the table."""
    arguments = _arguments()
    pin_threads()
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = arguments.only or list(CRYSTALS)
    tasks = [*names, *(f"element-{element}" for element in _elements(names))]
    if arguments.again:
        for task in tasks:
            (FOLDER / f"{task}.json").unlink(missing_ok=True)
    missing = sorted((task for task in tasks if "error" in read(task)), key=estimate)
    for task in missing:
        print(f"{task:12} about {estimate(task) / 60:.1f} min", flush=True)
    total = sum(map(estimate, missing)) / arguments.processes
    print(f"to compute: {len(missing)}, about {total / 60:.0f} min on {arguments.processes} quiet cores", flush=True)
    with ProcessPoolExecutor(arguments.processes) as pool:
        for future in as_completed([pool.submit(run, task) for task in missing]):
            print(future.result(), flush=True)
    sys.exit(_report(names, tasks, is_written=arguments.write))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CRYSTALS), help="these crystals")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="calculations at once")
    parser.add_argument("--again", action="store_true", help="compute again what is there")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def _elements(names: list[str]) -> list[str]:
    from wyloop.models.wyckoff.gene import Gene

    return sorted({element for name in names for element in Gene.parse(CRYSTALS[name]["gene"]).elements})


def estimate(task: str) -> float:
    """Estimate the core-seconds of a task on a quiet core: for the order, and for what is printed."""
    from wyloop.models.physics.dft import relative_cost
    from wyloop.models.physics.references import elemental_crystal
    from wyloop.models.wyckoff.gene import Gene

    kind, _, element = task.partition("-")
    if kind == "element":
        return float(SECONDS * relative_cost(elemental_crystal(element).amounts) ** (POWER / 2))
    gene = Gene.parse(CRYSTALS[task]["gene"])
    amounts = {element: n // gene.space_group.n_centerings for element, n in gene.amounts.items()}
    n_freedoms = 1 + gene.n_free_parameters + (gene.space_group.crystal_system != "cubic")
    return float(SECONDS * (3.0 + 2.0 * n_freedoms) * relative_cost(amounts) ** (POWER / 2))


def settings_hash(task: str) -> str:
    """Return what identifies the settings that a task is computed with."""
    from wyloop.models.physics.protocols import protocol

    chosen = ("gpaw-pbe/1",) if task.startswith("element-") else PROTOCOLS
    return " ".join(protocol(one).hash for one in chosen)


def read(task: str) -> dict[str, Any]:
    """Return a task's results, or an `error`: failed, not there, of other settings."""
    path = FOLDER / f"{task}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"error": NOT_COMPUTED}
    if found.get("settings") != settings_hash(task) and "error" not in found:
        return {"error": "computed with other settings"}
    return dict(found)


def run(task: str) -> str:
    """Compute a crystal or an element, write its file, and return what to print."""
    from wyloop.models.errors import WyloopError

    pin_threads()
    if "error" not in read(task):
        return f"{task}: there by now"  # another process of this script was faster
    times: dict[str, float] = {}
    found: dict[str, Any] = {"settings": settings_hash(task), "core_seconds": times}
    started = time.monotonic()
    try:
        if task.startswith("element-"):
            _compute_element(task.removeprefix("element-"), found, times)
        else:
            _compute_crystal(task, found, times)
    except WyloopError as error:
        found["error"] = str(error)
    found |= {"wall_seconds": round(time.monotonic() - started, 1), "load": os.getloadavg()[1]}
    (FOLDER / f"{task}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    state = found.get("error", "done")
    return f"{task}: {state}, {sum(times.values()):.0f} core-seconds, {found['wall_seconds']:.0f} s"


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    try:
        yield
    finally:
        times[name] = round(time.process_time() - started, 1)


def _compute_element(element: str, found: dict[str, Any], times: dict[str, float]) -> None:
    from wyloop.models.physics.dft import DFTSettings, dft_reference_energy

    with _timed(times, "reference"):
        found["energy_per_atom"] = dft_reference_energy(element, replace(DFTSettings(), time_limit=LIMIT))


def _compute_crystal(name: str, found: dict[str, Any], times: dict[str, float]) -> None:
    from wyloop.models.physics.dft import DFTSettings, dft_relax_and_static
    from wyloop.models.physics.phonons import DFTPhononSettings, dft_gamma_phonons
    from wyloop.models.physics.statics import StaticSettings, dft_static

    converged, known = replace(StaticSettings(), time_limit=LIMIT), CRYSTALS[name]
    with _timed(times, "chgnet"):
        start, found["chgnet"] = _by_chgnet(name)
    with _timed(times, "relaxation"):
        light = dft_relax_and_static(start, replace(DFTSettings(), time_limit=LIMIT))
    with _timed(times, "static"):
        static = dft_static(light.crystal, converged, gap=light.band_gap)
    ours = found["gpaw"] = {
        **_lengths(light.crystal),
        "energy_per_atom": light.energy_per_atom,
        "amounts": dict(light.crystal.amounts),
        "gap": static.band_gap,
        "light_gap": light.band_gap,
        "mesh": list(static.kpoint_mesh),
        "cutoff": static.cutoff,
        "max_force": light.max_force,
        "max_stress": light.max_stress,
    }
    if "direct_gap_at" in known:
        with _timed(times, "static at the published lattice"):
            at_published = _scaled(light.crystal, known["direct_gap_at"] / ours["a"])
            ours["direct_gap"] = dft_static(at_published, converged, gap=light.band_gap).direct_band_gap
    with _timed(times, "phonons"):
        phonons = dft_gamma_phonons(light.crystal, replace(DFTPhononSettings(), time_limit=LIMIT), gap=light.band_gap)
    ours["optical"] = phonons.lowest_optical_frequency
    ours["frequencies"] = [round(float(one), 3) for one in phonons.frequencies]
    ours["is_stable"] = phonons.is_stable


def _by_chgnet(name: str) -> tuple[Any, dict[str, Any]]:
    from wyloop.models.physics.phonons import gamma_phonons
    from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
    from wyloop.models.physics.relax import relax_best
    from wyloop.models.wyckoff.gene import Gene, canonical
    from wyloop.models.wyckoff.realize import realize

    gene = canonical(Gene.parse(CRYSTALS[name]["gene"]))
    relaxed = relax_best(realize(gene, 12.0, seed=0, n_starts=4))
    phonons = gamma_phonons(relaxed.crystal)
    energy = formation_energy_per_atom(relaxed.energy_per_atom, relaxed.crystal.amounts, reference_energies())
    return relaxed.crystal, {
        **_lengths(relaxed.crystal),
        "formation_energy": energy,
        "optical": phonons.lowest_optical_frequency,
        "is_stable": phonons.is_stable,
        "problems": list(relaxed.problems),
    }


def _lengths(crystal: Any) -> dict[str, float]:  # noqa: ANN401  # Crystal, imported where it is made
    """Return a and c of the conventional cell, Å."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    lattice = SpacegroupAnalyzer(crystal.to_pymatgen(), 0.01).get_conventional_standard_structure().lattice
    return {"a": float(lattice.a), "c": float(lattice.c)}


def _scaled(crystal: Any, factor: float) -> Any:  # noqa: ANN401  # as above
    return type(crystal)(crystal.lattice * factor, crystal.species, crystal.frac_coords)


def _report(names: list[str], tasks: list[str], *, is_written: bool) -> int:
    """Print the table and the cost, write the page if asked, and return the exit status."""
    results = {task: read(task) for task in tasks}
    references = {
        task.removeprefix("element-"): found["energy_per_atom"]
        for task, found in results.items()
        if "energy_per_atom" in found
    }
    rows = [row for name in names for row in rows_of(name, results[name], references)]
    print_rows(rows)
    done = {task: found for task, found in results.items() if "core_seconds" in found}
    core = {task: sum(found["core_seconds"].values()) for task, found in done.items()}
    wall = {task: found["wall_seconds"] for task, found in done.items()}
    loads = [found["load"] for found in done.values()] or [0.0]
    core_minutes, wall_minutes = sum(core.values()) / 60, sum(wall.values()) / 60
    remarks = [
        f"{core_minutes:.0f} core-minutes in all; the calculations' wall times add up to {wall_minutes:.0f} minutes",
        f"at a load of {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores.",
    ]
    print(*remarks)
    if is_written:
        costs = [["task", "core-seconds", "wall, s"]]
        costs += [[task, f"{core[task]:.0f}", f"{wall[task]:.0f}"] for task in sorted(done, key=lambda one: -core[one])]
        PAGE.write_text(page(rows, costs, remarks), encoding="utf-8")
        print(f"wrote {PAGE}")
    is_whole = all("error" not in found for found in results.values())
    return int(not is_whole or any(row["must"] == "missed" for row in rows))


if __name__ == "__main__":
    main()
