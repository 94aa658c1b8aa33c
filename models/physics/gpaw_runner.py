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
MAX_STEP = 0.1  # Å
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
    """Do the job's task: `relax` (the default), `forces` of displaced cells, or `static` with what is asked beside it.

    Args:
        job: `lattice` (Å), `species`, `frac_coords`, `settings` (of dft.DFTSettings), `is_molecule`, `relax` (none
            or full), `magnetic_moments` (Bohr magnetons, or None), `log` (path), `time_limit` (s). It may hold
            `task`, `mesh` (k-points), `solver` (of failures.Solver), `displaced` (lists of fractional coordinates),
            `path` (fractional k-points) and `dense_mesh`.
    """
    atoms = Atoms(job["species"], scaled_positions=job["frac_coords"], cell=job["lattice"], pbc=True)
    if job["magnetic_moments"] is not None:
        atoms.set_initial_magnetic_moments(job["magnetic_moments"])
    with Path(job["log"]).open("w", encoding="utf-8") as file:
        log = TimedLog(file, time.monotonic() + job["time_limit"])
        return TASKS[job.get("task", "relax")](atoms, job, log)


def _relax(atoms: Atoms, job: dict[str, Any], log: TimedLog) -> dict[str, Any]:
    """Relax the volume, then shape and positions where they can relax, and return the last point's results.

    The mesh is the one that the relaxed volume asks for, whatever cell came in: the same crystal from two starts, or
    an element and its own reference, must not differ by a mesh.
    """
    atoms.calc, mesh = _gpaw(atoms, job, log)
    pulay_stress, converged = 0.0, True
    if job["relax"] != "none":
        pulay_stress = _relax_volume(atoms)
        for _ in range(job["settings"]["max_remeshes"]):
            if _mesh(atoms, job) == mesh:
                break
            atoms.calc, mesh = _gpaw(atoms, job, log)
            pulay_stress = _relax_volume(atoms)
    if job["relax"] == "full":
        converged = _relax_shape(atoms, pulay_stress, job)
    return _results(atoms, mesh, pulay_stress) | {"is_converged": converged}


def _forces(atoms: Atoms, job: dict[str, Any], log: TimedLog) -> dict[str, Any]:
    """Return the forces of each displaced cell, eV/Å; each has its own symmetry and so its own calculator."""
    forces = []
    for frac_coords in job["displaced"]:
        displaced = atoms.copy()
        displaced.set_scaled_positions(frac_coords)
        displaced.calc, _ = _gpaw(displaced, job, log)
        forces.append(displaced.get_forces().tolist())
    return {"forces": forces}


def _static(atoms: Atoms, job: dict[str, Any], log: TimedLog) -> dict[str, Any]:
    """Return energy, gap, forces and stress of the cell as it is; eigenvalues on a path and a dense mesh if asked."""
    atoms.calc, mesh = _gpaw(atoms, job, log)
    result = _results(atoms, mesh, 0.0)
    result["fermi_level"] = float(atoms.calc.get_fermi_level())
    result["n_electrons"] = float(atoms.calc.get_number_of_electrons())
    n_spins = atoms.calc.get_number_of_spins()
    n_valence = int(np.ceil(result["n_electrons"] / 2))
    n_bands = n_valence + max(6, n_valence // 2)
    fixed = {"nbands": n_bands + 4, "convergence": {"bands": n_bands}, "txt": log}
    if "path" in job:
        calc = atoms.calc.fixed_density(kpts=job["path"], symmetry="off", **fixed)
        result["path_eigenvalues"] = _eigenvalues(calc, len(job["path"]), n_spins, n_bands).tolist()
    if "dense_mesh" in job:
        calc = atoms.calc.fixed_density(kpts={"size": job["dense_mesh"], "gamma": True}, **fixed)
        kpoints = np.asarray(calc.get_ibz_k_points())
        result["dense_kpoints"] = kpoints.tolist()
        result["dense_weights"] = np.asarray(calc.get_k_point_weights()).tolist()
        result["dense_eigenvalues"] = _eigenvalues(calc, len(kpoints), n_spins, n_bands).tolist()
    return result


def _gpaw(atoms: Atoms, job: dict[str, Any], log: TimedLog) -> tuple[Any, list[int]]:
    from gpaw import GPAW, PW, FermiDirac, Mixer, MixerSum

    settings, solver, mesh = job["settings"], job.get("solver") or {}, _mesh(atoms, job)
    extra: dict[str, Any] = {}
    if solver.get("mixing") is not None:
        mixer = MixerSum if job["magnetic_moments"] is not None else Mixer
        extra["mixer"] = mixer(beta=solver["mixing"], nmaxold=8, weight=100.0)
    if solver.get("max_iterations") is not None:
        extra["maxiter"] = solver["max_iterations"]
    if solver.get("is_frugal"):
        extra["eigensolver"] = "cg"  # one band at a time: the least memory
    calc = GPAW(
        mode=PW(settings["cutoff"]),
        xc="PBE",
        kpts={"size": mesh, "gamma": True},
        occupations=FermiDirac(settings["smearing"] * solver.get("smearing_factor", 1.0)),
        convergence={"energy": settings["energy_tolerance"], "density": settings["density_tolerance"]},
        setups={element: kind for element, kind in settings["setups"].items() if element in set(job["species"])},
        spinpol=job["magnetic_moments"] is not None,
        txt=log,
        **extra,
    )
    return calc, mesh


def _mesh(atoms: Atoms, job: dict[str, Any]) -> list[int]:
    """Return the mesh that was asked for, or the one that the density of k-points and the cell ask for."""
    from ase.calculators.calculator import kpts2sizeandoffsets

    if job.get("mesh") or job["is_molecule"]:
        return list(job.get("mesh") or [1, 1, 1])
    size, _ = kpts2sizeandoffsets(density=job["settings"]["kpoint_density"], gamma=True, atoms=atoms)
    return [int(n) for n in size]


def _relax_volume(atoms: Atoms) -> float:
    """Set the volume to the minimum of a second-order Birch-Murnaghan curve through three energies.

    The stress itself is no guide at a low cutoff: it holds the number of plane waves, not the cutoff. Its value at
    the energy's minimum is that error.

    Returns:
        Mean normal stress at the minimum, eV/Å^3.
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
    return float(np.polyval(np.polyfit(strains, stresses, 2), best))


def _relax_shape(atoms: Atoms, pulay_stress: float, job: dict[str, Any]) -> bool:
    """Relax positions and cell within the space group where the forces or the deviatoric stress ask for it."""
    from ase import optimize

    try:
        from ase.constraints import FixSymmetry
        from ase.filters import FrechetCellFilter
    except ImportError:  # ASE 3.22, Debian 12's
        from ase.constraints import ExpCellFilter as FrechetCellFilter
        from ase.spacegroup.symmetrize import FixSymmetry

    settings, max_step = job["settings"], (job.get("solver") or {}).get("max_step", MAX_STEP)
    stress = atoms.get_stress()
    deviatoric = np.abs(stress - pulay_stress * np.array([1, 1, 1, 0, 0, 0])).max()
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    if force < settings["max_force"] and deviatoric < RESIDUAL_STRESS:
        return True
    atoms.set_constraint(FixSymmetry(atoms, symprec=0.01))
    cell_filter = FrechetCellFilter(atoms, scalar_pressure=-pulay_stress)
    optimizer = optimize.BFGS(cell_filter, logfile=None, maxstep=max_step)
    converged = optimizer.run(fmax=settings["max_force"], steps=settings["max_steps"])
    atoms.set_constraint()
    return bool(converged)


def _results(atoms: Atoms, mesh: list[int], pulay_stress: float) -> dict[str, Any]:
    calc = atoms.calc
    energy = float(atoms.get_potential_energy())
    forces, stress = atoms.get_forces(), atoms.get_stress() - pulay_stress * np.array([1, 1, 1, 0, 0, 0])
    n_spins, n_kpoints = calc.get_number_of_spins(), len(calc.get_ibz_k_points())
    eigenvalues = _eigenvalues(calc, n_kpoints, n_spins)
    gap, is_direct = band_gap(eigenvalues, calc.get_fermi_level())
    return {
        "lattice": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions().tolist(),
        "energy_per_atom": energy / len(atoms),
        "band_gap": gap,
        "direct_band_gap": direct_band_gap(eigenvalues, calc.get_fermi_level()) if gap > 0 else 0.0,
        "is_direct": is_direct,
        "max_force": float(np.linalg.norm(forces, axis=1).max()),
        "max_stress": float(np.abs(stress).max() / GPa),
        "kpoint_mesh": mesh,
        "n_kpoints": n_kpoints,
        "magnetic_moment": float(calc.get_magnetic_moment(atoms)) if n_spins == 2 else 0.0,
        "spin_polarized": n_spins == 2,
    }


def _eigenvalues(calc: Any, n_kpoints: int, n_spins: int, n_bands: int | None = None) -> np.ndarray:  # noqa: ANN401
    """Return eigenvalues, eV, shape (n_spins, n_kpoints, n_bands)."""
    return np.array(
        [[calc.get_eigenvalues(kpt=k, spin=spin)[:n_bands] for k in range(n_kpoints)] for spin in range(n_spins)]
    )


def direct_band_gap(eigenvalues: np.ndarray, fermi_level: float) -> float:
    """Return the smallest gap at one k-point of a crystal that is no metal, eV; arguments as for `band_gap`."""
    valence = np.where(eigenvalues < fermi_level, eigenvalues, -np.inf).max(axis=(0, 2))
    conduction = np.where(eigenvalues >= fermi_level, eigenvalues, np.inf).min(axis=(0, 2))
    return float((conduction - valence).min())


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


TASKS = {"relax": _relax, "forces": _forces, "static": _static}
"""What a job may ask for."""


def main(job_path: str, result_path: str) -> None:
    """Run the job of a file and write its result, or what went wrong, to another."""
    try:
        result = run(json.loads(Path(job_path).read_text(encoding="utf-8")))
    except TimeLimitError:
        result = {"error": "time limit", "kind": "TimeLimitError"}
    except Exception as error:  # noqa: BLE001  # the one place that records a failed job
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
