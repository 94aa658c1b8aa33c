"""One GPAW calculation as plain data in and out, in this process or, run as a script, in another Python with GPAW.

It imports nothing of Wyloop, so that Debian's `gpaw python gpaw_runner.py JOB.json RESULT.json` can run it.
"""

import io
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.units import GPa

STRAIN = 0.02  # linear strain between the points of the energy-volume curve
MAX_STRAIN = 0.03  # a minimum farther from the middle point than this asks for new points around it
MAX_CENTRES = 4
RESIDUAL_STRESS = 0.3 * GPa  # eV/Å^3; deviatoric stress above it means that the cell's shape can relax


class TimeLimitError(Exception):
    """The calculation took longer than it may."""


class TimedLog(io.TextIOBase):
    """GPAW's log file; the first write after the deadline raises, which ends the calculation within one iteration."""

    def __init__(self, file: TextIO, deadline: float) -> None:
        self.file, self.deadline = file, deadline

    def write(self, text: str) -> int:
        """Write text, or raise TimeLimitError once."""
        if self.file.closed:  # GPAW writes its timings when it is thrown away, any time later
            return len(text)
        if time.monotonic() > self.deadline:
            self.deadline = float("inf")
            raise TimeLimitError
        return self.file.write(text)

    def close(self) -> None:
        """Leave the file open: GPAW closes its log after every calculation, and there are several."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Relax the volume, then shape and positions where they can relax, and return the last point's results.

    Args:
        job: `lattice` (Å), `species`, `frac_coords`, `settings` (of dft.DFTSettings), `is_molecule`, `relax` (none,
            volume or full), `magnetic_moments` (Bohr magnetons, or None), `log` (path), `time_limit` (s).
    """
    atoms = Atoms(job["species"], scaled_positions=job["frac_coords"], cell=job["lattice"], pbc=True)
    if job["magnetic_moments"] is not None:
        atoms.set_initial_magnetic_moments(job["magnetic_moments"])
    with Path(job["log"]).open("w", encoding="utf-8") as file:
        log = TimedLog(file, time.monotonic() + job["time_limit"])
        atoms.calc, mesh = _gpaw(atoms, job, log)
        pulay_stress, converged = 0.0, True
        if job["relax"] != "none":
            pulay_stress, energy = _relax_volume(atoms)
        if job["relax"] == "volume":  # the curve's minimum is as good as one more calculation there
            return {"energy_per_atom": energy / len(atoms)}
        if job["relax"] == "full":
            converged = _relax_shape(atoms, pulay_stress, job["settings"], log.deadline)
        return _results(atoms, mesh, pulay_stress) | {"is_converged": converged}


def _gpaw(atoms: Atoms, job: dict[str, Any], log: TimedLog) -> tuple[Any, list[int]]:
    from ase.calculators.calculator import kpts2sizeandoffsets
    from gpaw import GPAW, PW, FermiDirac

    settings = job["settings"]
    mesh = [1, 1, 1]
    if not job["is_molecule"]:
        size, _ = kpts2sizeandoffsets(density=settings["kpoint_density"], gamma=True, atoms=atoms)
        mesh = [int(n) for n in size]
    calc = GPAW(
        mode=PW(settings["cutoff"]),
        xc="PBE",
        kpts={"size": mesh, "gamma": True},
        occupations=FermiDirac(settings["smearing"]),
        convergence={"energy": settings["energy_tolerance"], "density": settings["density_tolerance"]},
        setups={element: kind for element, kind in settings["setups"].items() if element in set(job["species"])},
        spinpol=job["magnetic_moments"] is not None,
        txt=log,
    )
    return calc, mesh


def _relax_volume(atoms: Atoms) -> tuple[float, float]:
    """Set the volume to the minimum of a second-order Birch-Murnaghan curve through three energies.

    The stress itself is no guide at a low cutoff: it holds the number of plane waves, not the cutoff. Its value at
    the energy's minimum is that error.

    Returns:
        Mean normal stress, eV/Å^3, and energy, eV, at the minimum.
    """
    cell, centre, points = atoms.cell.array.copy(), 0.0, {}
    for _ in range(MAX_CENTRES):
        for strain in (centre - STRAIN, centre, centre + STRAIN):
            if round(strain, 6) not in points:
                atoms.set_cell(cell * (1 + strain), scale_atoms=True)
                points[round(strain, 6)] = (atoms.get_potential_energy(), float(atoms.get_stress()[:3].mean()))
        strains = np.array([centre - STRAIN, centre, centre + STRAIN])
        energies, stresses = np.array([points[round(strain, 6)] for strain in strains]).T
        x = (1 + strains) ** -2  # proportional to V^(-2/3)
        quadratic = np.polyfit(x, energies, 2)
        vertex = -quadratic[1] / (2 * quadratic[0])
        best = vertex**-0.5 - 1 if quadratic[0] > 0 and vertex > 0 else strains[energies.argmin()]
        if quadratic[0] > 0 and abs(best - centre) <= MAX_STRAIN:
            break
        centre = round(centre + float(np.clip(best - centre, -STRAIN, STRAIN)) // STRAIN * STRAIN, 6)
    atoms.set_cell(cell * (1 + best), scale_atoms=True)
    stress = np.polyval(np.polyfit(strains, stresses, 2), best)
    return float(stress), float(np.polyval(quadratic, (1 + best) ** -2))


def _relax_shape(atoms: Atoms, pulay_stress: float, settings: dict[str, Any], deadline: float) -> bool:
    """Relax positions and cell within the space group where the forces or the deviatoric stress ask for it."""
    from ase import filters, optimize
    from ase.constraints import FixSymmetry

    stress = atoms.get_stress()
    deviatoric = np.abs(stress - pulay_stress * np.array([1, 1, 1, 0, 0, 0])).max()
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    if force < settings["max_force"] and deviatoric < RESIDUAL_STRESS:
        return True
    atoms.set_constraint(FixSymmetry(atoms, symprec=0.01))
    cell_filter = filters.FrechetCellFilter(atoms, scalar_pressure=-pulay_stress)
    optimizer = optimize.BFGS(cell_filter, logfile=None, maxstep=0.1)
    converged = optimizer.run(fmax=settings["max_force"], steps=settings["max_steps"])
    atoms.set_constraint()
    return bool(converged)


def _results(atoms: Atoms, mesh: list[int], pulay_stress: float) -> dict[str, Any]:
    calc = atoms.calc
    energy = float(atoms.get_potential_energy())
    forces, stress = atoms.get_forces(), atoms.get_stress() - pulay_stress * np.array([1, 1, 1, 0, 0, 0])
    n_spins, n_kpoints = calc.get_number_of_spins(), len(calc.get_ibz_k_points())
    eigenvalues = np.array(
        [[calc.get_eigenvalues(kpt=k, spin=spin) for k in range(n_kpoints)] for spin in range(n_spins)]
    )
    gap, is_direct = band_gap(eigenvalues, calc.get_fermi_level())
    return {
        "lattice": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions().tolist(),
        "energy_per_atom": energy / len(atoms),
        "band_gap": gap,
        "is_direct": is_direct,
        "max_force": float(np.linalg.norm(forces, axis=1).max()),
        "max_stress": float(np.abs(stress).max() / GPa),
        "kpoint_mesh": mesh,
        "n_kpoints": n_kpoints,
        "magnetic_moment": float(calc.get_magnetic_moment(atoms)) if n_spins == 2 else 0.0,
        "spin_polarized": n_spins == 2,
    }


def band_gap(eigenvalues: np.ndarray, fermi_level: float) -> tuple[float, bool]:
    """Return the band gap, eV (0.0 for a metal), and whether its edges share a k-point.

    Args:
        eigenvalues: Shape (n_spins, n_kpoints, n_bands), eV.
        fermi_level: eV.
    """
    n_occupied = (eigenvalues < fermi_level).sum(axis=2)
    if (n_occupied != n_occupied[:, :1]).any() or n_occupied.max() == eigenvalues.shape[2]:
        return 0.0, False
    valence = np.where(eigenvalues < fermi_level, eigenvalues, -np.inf).max(axis=(0, 2))
    conduction = np.where(eigenvalues >= fermi_level, eigenvalues, np.inf).min(axis=(0, 2))
    gap = float(conduction.min() - valence.max())
    if gap <= 0:
        return 0.0, False
    return gap, bool((conduction - valence).min() - gap < 1e-3)  # eV; edges as near as this are one k-point's


def main(job_path: str, result_path: str) -> None:
    """Run the job of a file and write its result, or what went wrong, to another."""
    try:
        result = run(json.loads(Path(job_path).read_text(encoding="utf-8")))
    except TimeLimitError:
        result = {"error": "time limit"}
    except Exception as error:  # noqa: BLE001  # the one place that records a failed job
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
