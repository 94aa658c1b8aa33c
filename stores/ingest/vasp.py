"""Finished VASP calculations from their `vasprun.xml`: final structure, energy with functional, gap; or why not."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wyloop.models.errors import StructureError
from wyloop.stores.ingest.crystals import crystal_of_structure
from wyloop.stores.ingest.intake import refusal, structure_refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Vasprun

EXPECTED = "a finished VASP calculation"
_FAULTS = (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, EOFError, SyntaxError)


def read_vasp(path: Path, identity: str, source: str) -> Iterator[SourceStructure | Refusal]:
    """Yield what a `vasprun.xml` (or `.gz`) says: an unconverged or unfinished calculation is refused."""
    from pymatgen.io.vasp.outputs import VaspParseError, Vasprun  # a second

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says what we check: convergence
            vasprun = Vasprun(path, parse_dos=False, parse_potcar_file=False)
            yield _structure(vasprun, path, identity, source)
    except StructureError as error:
        yield structure_refusal(str(path), error, what="folder")
    except (VaspParseError, *_FAULTS) as error:
        why = f"not readable ({' '.join(str(error).split())[:120] or type(error).__name__})"
        yield refusal(str(path), "vasprun", why, EXPECTED, "finish the calculation, or remove its folder")


def method_of(vasprun: "Vasprun") -> str:
    """Return the name of functional and cutoff, such as `vasp-pbe+u/520`.

    VASP takes the functional from the potentials where its input names none.
    """
    functional = str(vasprun.run_type)
    potentials = " ".join(vasprun.potcar_symbols)
    if functional.startswith("GGA") and "PAW_PBE" in potentials:
        functional = functional.replace("GGA", "PBE", 1)
    elif functional.startswith("LDA") and "PAW_PBE" in potentials:
        functional = functional.replace("LDA", "PBE", 1)
    cutoff = vasprun.parameters.get("ENMAX") or vasprun.incar.get("ENCUT")
    name = functional.lower().replace(" ", "-")
    return f"vasp-{name}/{float(cutoff):g}" if cutoff else f"vasp-{name}"


def _structure(vasprun: "Vasprun", path: Path, identity: str, source: str) -> SourceStructure | Refusal:
    remedy = "finish the calculation, or remove its folder"
    if not vasprun.converged_electronic:
        n_steps, limit = len(vasprun.ionic_steps[-1]["electronic_steps"]), vasprun.parameters.get("NELM")
        why = f"electrons not converged after {n_steps} of NELM = {limit} steps"
        return refusal(str(path), "convergence", why, EXPECTED, remedy)
    if not vasprun.converged_ionic:
        why = f"ions not converged after {len(vasprun.ionic_steps)} of NSW = {vasprun.parameters.get('NSW')} steps"
        return refusal(str(path), "convergence", why, EXPECTED, remedy)
    energy = float(vasprun.final_energy)
    if not math.isfinite(energy):
        return refusal(str(path), "energy", f"{energy:g}", EXPECTED, remedy)
    crystal = crystal_of_structure(vasprun.final_structure)
    method = method_of(vasprun)
    potentials = ", ".join(vasprun.potcar_symbols)
    return SourceStructure(
        source=source,
        source_id=identity,
        crystal=crystal,
        band_gap=_band_gap(vasprun),
        band_gap_method=method,
        energy_per_atom=energy / crystal.nsites,
        functional=method,
        provenance=f"VASP {vasprun.vasp_version}, {method}, {potentials}"[:500],
    )


def _band_gap(vasprun: "Vasprun") -> float | None:
    """Return the gap between the eigenvalues on the k-points of the run, eV; 0.0 for a metal."""
    if not vasprun.eigenvalues:
        return None
    found: Any = vasprun.eigenvalue_band_properties[0]
    return max(float(found), 0.0)
