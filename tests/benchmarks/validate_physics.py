"""Known crystals by GPAW and by CHGNet beside the literature: lattice, formation energy, gap, Gamma frequencies.

    python tests/benchmarks/validate_physics.py [--only Si MgO] [--processes 2] [--again] [--write]

Each crystal's results are kept in build/physics, so that an interrupted run goes on. Exit status 1: a must is missed.
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

from wyloop.flows.worker import pin_threads

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "physics"
PAGE = ROOT / "docs" / "benchmarks" / "physics.md"
LITERATURE = json.loads(Path(__file__).with_name("physics_literature.json").read_text(encoding="utf-8"))
CRYSTALS: dict[str, dict[str, Any]] = LITERATURE["crystals"]
SECONDS_OF_SILICON = 90.0  # of one quiet core: relaxation, static calculation, phonons
FASTEST_FIRST = 8  # valence electrons of silicon's cell
MUST = {"a": 0.01, "c": 0.01, "gap": 0.15, "formation_energy": 0.25, "optical": 0.05}
OPTICAL_MUST = ("Si", "GaAs")
LIMIT = 5400.0  # s, of one DFT calculation
COLUMNS = ("crystal", "type", "quantity", "GPAW", "CHGNet", "literature", "source", "must")


def main() -> None:
    """Run what is not there yet, then print the table."""
    arguments = _arguments()
    pin_threads()
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = sorted(arguments.only or CRYSTALS, key=lambda name: -estimate(name))
    if arguments.again:
        for name in names:
            (FOLDER / f"{name}.json").unlink(missing_ok=True)
    missing = [name for name in names if not (FOLDER / f"{name}.json").exists()]
    for name in names:
        state = f"about {estimate(name) / 60:.0f} min" if name in missing else "there"
        print(f"{name:8} {state}", flush=True)
    total = sum(map(estimate, missing)) / arguments.processes
    print(f"to compute: {len(missing)} crystals, about {total / 60:.0f} min on {arguments.processes} quiet cores")
    _elements(missing, arguments.processes)
    with ProcessPoolExecutor(arguments.processes) as pool:
        for future in as_completed([pool.submit(compute, name) for name in missing]):
            name, seconds = future.result()
            print(f"{name}: {seconds:.0f} s", flush=True)
    rows = [row for name in names for row in table(name)]
    _print(rows)
    if arguments.write:
        _write(rows)
    sys.exit(any(row["must"] == "missed" for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CRYSTALS), help="these crystals")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="crystals at once")
    parser.add_argument("--again", action="store_true", help="compute again what is there")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def estimate(name: str) -> float:
    """Estimate the core-seconds of a crystal on a quiet core, from the few runs seen."""
    from wyloop.models.physics.dft import relative_cost
    from wyloop.models.physics.statics import HARD_ELEMENTS
    from wyloop.models.wyckoff.gene import Gene

    gene = Gene.parse(CRYSTALS[name]["gene"])
    amounts = {element: n // gene.space_group.n_centerings for element, n in gene.amounts.items()}
    n_freedoms = 1 + gene.n_free_parameters + (gene.space_group.crystal_system != "cubic")
    cost = relative_cost(amounts) * (20.0 / FASTEST_FIRST) ** 2
    hardness = 1.5 if not HARD_ELEMENTS.isdisjoint(amounts) else 1.0
    return float(SECONDS_OF_SILICON * hardness * n_freedoms * max(1.0, cost) ** 0.6)


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    times[name] = round(time.process_time() - started, 1)


def _elements(names: list[str], processes: int) -> None:
    """Compute the reference energies of all elements, each once; they are kept as well."""
    from wyloop.models.wyckoff.gene import Gene

    elements = {element for name in names for element in Gene.parse(CRYSTALS[name]["gene"]).elements}
    missing = sorted(element for element in elements if not (FOLDER / f"element-{element}.json").exists())
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(_reference, element) for element in missing]):
            print(f"reference {future.result()}", flush=True)


def _reference(element: str) -> str:
    from wyloop.models.physics.dft import DFTSettings, dft_reference_energy

    energy = dft_reference_energy(element, replace(DFTSettings(), time_limit=LIMIT))
    (FOLDER / f"element-{element}.json").write_text(json.dumps({"energy_per_atom": energy}) + "\n", encoding="utf-8")
    return element


def compute(name: str) -> tuple[str, float]:
    """Compute one crystal by both methods, write its file, and return its name and time, core-seconds."""
    from wyloop.models.errors import WyloopError
    from wyloop.models.physics.dft import DFTSettings, dft_relax_and_static
    from wyloop.models.physics.phonons import DFTPhononSettings, dft_gamma_phonons
    from wyloop.models.physics.references import formation_energy_per_atom
    from wyloop.models.physics.statics import StaticSettings, dft_static

    pin_threads()
    times: dict[str, float] = {}
    found: dict[str, Any] = {"crystal": name}
    try:
        with _timed(times, "chgnet"):
            start, found["chgnet"] = _by_chgnet(name)
        with _timed(times, "relaxation"):
            light = dft_relax_and_static(start, replace(DFTSettings(), time_limit=LIMIT))
        own = {element: _energy(element) for element in light.crystal.amounts}
        with _timed(times, "static"):
            static = dft_static(light.crystal, replace(StaticSettings(), time_limit=LIMIT), gap=light.band_gap)
        with _timed(times, "phonons"):
            phonons = dft_gamma_phonons(light.crystal, replace(DFTPhononSettings(), time_limit=LIMIT))
        found["gpaw"] = {
            **_lengths(light.crystal),
            "formation_energy": formation_energy_per_atom(light.energy_per_atom, light.crystal.amounts, own),
            "gap": static.band_gap,
            "direct_gap": static.direct_band_gap,
            "light_gap": light.band_gap,
            "mesh": list(static.kpoint_mesh),
            "cutoff": static.cutoff,
            "optical": phonons.lowest_optical_frequency,
            "frequencies": [round(float(one), 3) for one in phonons.frequencies],
            "is_stable": phonons.is_stable,
            "max_force": light.max_force,
            "max_stress": light.max_stress,
        }
    except WyloopError as error:
        found["error"] = str(error)
    found["core_seconds"] = times
    text = json.dumps(found, indent=1) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
    return name, sum(times.values())


def _energy(element: str) -> float:
    return float(json.loads((FOLDER / f"element-{element}.json").read_text(encoding="utf-8"))["energy_per_atom"])


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


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of one crystal: each quantity that the literature has, with the verdict on GPAW's."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if "error" in found:
        return [dict.fromkeys(COLUMNS, "") | {"crystal": name, "quantity": found["error"], "must": "missed"}]
    known, rows = CRYSTALS[name], []
    for quantity in ("a", "c", "formation_energy", "gap", "optical"):
        if quantity not in known:
            continue
        value, source = known[quantity]
        ours, cheap = found["gpaw"][quantity], found["chgnet"].get(quantity)
        rows.append(_row(name, quantity, f"{ours:.3f}", "-" if cheap is None else f"{cheap:.3f}", value, source))
        rows[-1]["must"] = _verdict(name, quantity, ours, value, source)
    if "is_stable" in known:
        words = {True: "stable", False: "unstable"}
        ours, wanted = found["gpaw"]["is_stable"], known["is_stable"]
        rows.append(
            _row(name, "Gamma", words[ours], words[found["chgnet"]["is_stable"]], words[wanted], "")
            | {"must": "met" if ours == wanted else "missed"}
        )
    return rows


def _row(name: str, quantity: str, ours: str, cheap: str, value: object, source: str) -> dict[str, str]:
    values = (name, CRYSTALS[name]["type"], quantity, ours, cheap, str(value), source, "")
    return dict(zip(COLUMNS, values, strict=True))


def _verdict(name: str, quantity: str, ours: float, value: float, source: str) -> str:
    if quantity == "optical" and (name not in OPTICAL_MUST or source == "measured"):
        return ""
    is_relative = quantity in ("a", "c", "optical")
    error = abs(ours - value) / (abs(value) if is_relative else 1.0)
    return "met" if error <= MUST[quantity] else "missed"


def _print(rows: list[dict[str, str]]) -> None:
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in COLUMNS}
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        print("  ".join(row[name].ljust(widths[name]) for name in COLUMNS).rstrip())


def _write(rows: list[dict[str, str]]) -> None:
    lines = ["# Physics beside the literature", "", "Made by `make validate-physics`. " + LITERATURE["note"], ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows]
    lines += ["", *(f"- {key}: {text}" for key, text in LITERATURE["sources"].items())]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
