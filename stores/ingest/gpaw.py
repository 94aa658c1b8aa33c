"""Finished GPAW calculations: `.gpw` files, text logs, and results of our own runner; GPAW itself is not needed."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import IngestError, StructureError
from wyloop.models.physics.gpaw_runner import band_gap
from wyloop.stores.ingest.cif import file_refusal
from wyloop.stores.ingest.columns import to_number
from wyloop.stores.ingest.crystals import checked_crystal, crystal_of_atoms
from wyloop.stores.ingest.intake import refusal, structure_refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.ingest.text import read_text

EXPECTED = "a finished GPAW calculation"
MAX_LENGTH = 200_000_000  # characters of a log
MARK = "units:  Angstrom and eV"
"""A line in the head of every log of GPAW."""
_RESULT_KEYS = frozenset({"lattice", "species", "frac_coords", "energy_per_atom", "n_kpoints"})
_FAULTS = (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, AssertionError)


def read_gpw(path: Path, identity: str, source: str) -> Iterator[SourceStructure | Refusal]:
    """Yield the crystal of a `.gpw` file with its energy, functional and band gap, or why not."""
    from ase import Atoms
    from ase.io import ulm

    try:
        with path.open("rb") as file:  # the reader leaves a file open that it can't read
            content = ulm.Reader(file)
            results = content.results.asdict() if "results" in content else {}
            if "energy" not in results:
                yield _unfinished(path, "holds no energy: it was written before it converged")
                return
            cell = content.atoms.cell
            atoms = Atoms(content.atoms.numbers, content.atoms.positions, cell=cell, pbc=content.atoms.pbc)
            parameters = content.parameters.asdict()
            gap = _gap_of(content)
            version = content.asdict().get("gpaw_version", "")
        yield _structure(path, identity, source, crystal_of_atoms(atoms), results["energy"], gap, parameters, version)
    except StructureError as error:
        yield structure_refusal(str(path), error, what="folder")
    except _FAULTS as error:
        why = f"not readable ({' '.join(str(error).split())[:120] or type(error).__name__})"
        yield refusal(str(path), "gpw", why, EXPECTED, "check or remove the file")


def read_gpaw_log(path: Path, identity: str, source: str) -> Iterator[SourceStructure | Refusal]:
    """Yield the last crystal of a text log of GPAW with energy, functional and gap, or why not."""
    try:
        text = read_text(path, EXPECTED, max_length=MAX_LENGTH)
        yield _of_log(path, identity, source, text)
    except IngestError as error:
        yield file_refusal(path, error, "log")
    except StructureError as error:
        yield structure_refusal(str(path), error, what="folder")
    except _FAULTS as error:
        why = f"not readable ({' '.join(str(error).split())[:120] or type(error).__name__})"
        yield refusal(str(path), "log", why, f"a log of {EXPECTED[2:]}", "check or remove the file")


def is_runner_result(content: Mapping[str, Any]) -> bool:
    """Whether parsed JSON is a result that our GPAW runner wrote."""
    return content.keys() >= _RESULT_KEYS


def runner_structure(content: Mapping[str, Any], path: Path, identity: str, source: str) -> SourceStructure | Refusal:
    """Return a result of our GPAW runner as a structure; its cutoff is in `job.json` beside it."""
    if content.get("is_converged") is False:
        return _unfinished(path, "its relaxation did not reach the force wanted")
    try:
        crystal = checked_crystal(content["lattice"], list(content["species"]), content["frac_coords"])
    except StructureError as error:
        return structure_refusal(str(path), error, what="file")
    energy, gap = to_number(content["energy_per_atom"]), to_number(content.get("band_gap"))
    if energy is None:
        return _unfinished(path, f"its energy is {content['energy_per_atom']}")
    parameters: dict[str, Any] = {"xc": "PBE"}
    try:
        job = json.loads(path.with_name("job.json").read_text(encoding="utf-8"))
        parameters["mode"] = {"name": "pw", "ecut": job["settings"]["cutoff"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the settings are not known, and not said then
    return _structure(path, identity, source, crystal, energy * crystal.nsites, gap, parameters, "")


def method_of(parameters: Mapping[str, Any]) -> str:
    """Return the name of functional and basis, such as `gpaw-pbe/pw400`, from GPAW's input parameters."""
    xc = parameters.get("xc", "LDA")
    functional = str(xc.get("name", "unknown") if isinstance(xc, Mapping) else xc)
    setups = parameters.get("setups")
    if isinstance(setups, Mapping) and any(":" in str(one) for one in setups.values()):
        functional += "+U"
    mode = parameters.get("mode", "fd")
    name = str(mode.get("name", "fd") if isinstance(mode, Mapping) else mode)
    cutoff = mode.get("ecut") if isinstance(mode, Mapping) else None
    if cutoff is None and name == "pw":
        cutoff = 340.0  # GPAW's own default
    return f"gpaw-{functional.lower()}/{name}{f'{float(cutoff):g}' if cutoff is not None else ''}"


def _structure(
    path: Path,
    identity: str,
    source: str,
    crystal: Crystal,
    energy: float,
    gap: float | None,
    parameters: Mapping[str, Any],
    version: str,
) -> SourceStructure:
    method = method_of(parameters)
    return SourceStructure(
        source=source,
        source_id=identity,
        crystal=crystal,
        band_gap=gap,
        band_gap_method=method,
        energy_per_atom=float(energy) / crystal.nsites,
        functional=method,
        provenance=f"GPAW {version}, {method}, {path.name}".replace("GPAW ,", "GPAW,"),
    )


def _gap_of(content: Any) -> float | None:  # noqa: ANN401 - a reader of ASE
    if "wave_functions" not in content:
        return None
    waves = content.wave_functions
    if "eigenvalues" not in waves or "fermi_levels" not in waves or len(waves.fermi_levels) != 1:
        return None
    return band_gap(np.array(waves.eigenvalues), float(waves.fermi_levels[0]))[0]


def _unfinished(path: Path, why: str) -> Refusal:
    return refusal(str(path), "convergence", why, EXPECTED, "finish the calculation, or remove it")


def _of_log(path: Path, identity: str, source: str, text: str) -> SourceStructure | Refusal:
    last = max(text.rfind("\nConverged"), text.rfind("\nSCF converged"))
    failed = max(text.rfind("Did not converge"), text.rfind("did not converge"))
    energies = list(re.finditer(r"^ *Extrapolated:\s*(-?[\d.]+)", text, re.MULTILINE))
    if not energies:
        return _unfinished(path, "its log ends before an energy")
    if last < failed or (last >= 0 and max(text.rfind("\n|iter:"), text.rfind("\niter:")) > energies[-1].start()):
        return _unfinished(path, "its last self-consistency cycle did not converge")
    cell, species, positions = _last_geometry(text)
    crystal = checked_crystal(cell, species, positions @ np.linalg.inv(cell))
    xc = re.search(r"xc functional:\s*\n?\s*name: *([\w+-]+)|^ *xc: *'?([\w+-]+)", text, re.MULTILINE)
    cutoff = re.search(r"^ *Cutoff: *([\d.]+) *eV|\{ecut: *([\d.]+)", text, re.MULTILINE)
    parameters: dict[str, Any] = {"xc": next(filter(None, xc.groups())) if xc else "unknown"}
    parameters["mode"] = {"name": "pw", "ecut": float(next(filter(None, cutoff.groups())))} if cutoff else "fd"
    gaps = re.findall(r"^Gap: *([\d.]+) *eV", text[energies[-1].end() :], re.MULTILINE)
    version = re.search(r"\|__\|.*- *(\S+)|\|___\|.*?(\d+\.\d+\.\d+)", text)
    shown = next(filter(None, version.groups())) if version else ""
    energy, gap = float(energies[-1][1]), float(gaps[-1]) if gaps else None
    return _structure(path, identity, source, crystal, energy, gap, parameters, shown)


def _last_geometry(text: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return cell (Å), species and Cartesian positions (Å) of the last tables of a log; old ones have no bars."""
    tail = text[text.rfind("\nUnit cell") :]
    cells = re.findall(
        r"^[\s|]*(?:\d+\. axis:)?\s*(yes|no)[\s|]+(-?[\d.]+)[\s|]+(-?[\d.]+)[\s|]+(-?[\d.]+)", tail, re.M
    )
    if len(cells) < 3 or any(one[0] != "yes" for one in cells[:3]):
        raise StructureError("a log without a cell periodic in three directions; expected a bulk crystal")
    begin = max(text.rfind("\nAtoms "), text.rfind("\nPositions:"))
    rows = []
    for line in text[begin:].split("\n")[2:]:
        row = re.match(r"^[\s|]*\d+[\s|]+([A-Z][a-z]?)[\s|]+(-?[\d.]+)[\s|]+(-?[\d.]+)[\s|]+(-?[\d.]+)", line)
        if row:
            rows.append(row)
        elif rows:
            break
    if not rows:
        raise StructureError("a log without positions; expected a table of atoms")
    cell = np.array([[float(value) for value in one[1:]] for one in cells[:3]])
    return cell, [row[1] for row in rows], np.array([[float(row[i]) for i in (2, 3, 4)] for row in rows])
