"""Make elemental_references.json: CHGNet's energies of the elements on the Materials Project's corrected scale.

Run from the checkout's root with `python models/physics/make_references.py`; about four minutes on one core. Needs
mp20_biternary_train.csv.gz in $WYLOOP_DATA or ../shared/data.

Each element's reference crystal is relaxed with CHGNet. CHGNet is poorer on pure elements than on compounds (F2, Sn,
W, Ge, B are 0.1 to 0.2 eV/atom off), so the energy of an element with at least N_ROWS_MIN training rows is then fitted:
the formation energies of those rows, by CHGNet at their published geometry, are brought to the published ones by
least squares, held to the relaxed energies as a prior. The rest keep the relaxed energy. The file says which.
"""

import csv
import gzip
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from scipy.optimize import least_squares

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.models.physics.calculators import CHGNET_ELEMENTS, calculator, one_thread
from wyloop.models.physics.references import elemental_crystal, formation_energy_per_atom
from wyloop.models.physics.relax import RelaxationSettings, relax
from wyloop.models.wyckoff.cif import parse_cif

TARGET = Path(__file__).with_name("elemental_references.json")
SEED = 0
N_FIT_ROWS = 2000
N_CHECK_ROWS = 100
N_ROWS_MIN = 10
PRIOR_SIGMA = 0.1  # eV/atom, how far CHGNet's relaxed elements are off
ROW_SIGMA = 0.03  # eV/atom, how far its compounds are off
ANIONS = ("O", "S", "Se", "Te", "F", "Cl", "Br", "I", "N", "P", "As", "H", "C")
# Molecular and van der Waals solids are soft: looser guards, tighter forces, more steps.
ELEMENT_SETTINGS = RelaxationSettings(
    max_force=0.02, max_steps=600, min_volume_ratio=0.3, max_volume_ratio=3.0, min_distance_ratio=0.4
)


@dataclass(frozen=True)
class Row:
    """A training row and CHGNet's energy of it."""

    formula: str
    crystal: Crystal
    formation_energy_per_atom: float
    energy_per_atom: float


def main() -> None:
    """Relax, fit, check and write."""
    relaxed = {element: relaxed_entry(element) for element in sorted(CHGNET_ELEMENTS, key=atomic_numbers.__getitem__)}
    start = {element: float(entry["relaxed_energy_per_atom"]) for element, entry in relaxed.items()}
    fit_rows, check_rows = read_rows()
    fitted = fit(fit_rows, start)
    counts = {element: sum(element in row.crystal.amounts for row in fit_rows) for element in start}
    for element, entry in relaxed.items():
        is_fitted = counts[element] >= N_ROWS_MIN
        entry["energy_per_atom"] = round(fitted[element] if is_fitted else start[element], 4)
        entry["method"] = "fitted" if is_fitted else "relaxed"
        entry["n_rows"] = counts[element]
    energies = {element: float(entry["energy_per_atom"]) for element, entry in relaxed.items()}
    report("held-out rows, relaxed references", check_rows, start)
    figures = report("held-out rows, references as written", check_rows, energies)
    lines = ",\n".join(f"    {json.dumps(element)}: {json.dumps(entry)}" for element, entry in relaxed.items())
    about = " ".join(str(__doc__).split("\n\n")[2].split())
    TARGET.write_text(
        f'{{\n  "about": {json.dumps(about)},\n  "unit": "eV/atom",\n  "calculator": "chgnet 0.3.0 (package 0.4.2)",\n'
        f'  "check": {json.dumps(figures)},\n  "elements": {{\n{lines}\n  }}\n}}\n',
        encoding="utf-8",
    )


def relaxed_entry(element: str) -> dict[str, Any]:
    """Relax an element's reference crystal."""
    relaxation = relax(elemental_crystal(element), ELEMENT_SETTINGS)
    if relaxation.problems:
        print(f"{element}: {'; '.join(relaxation.problems)}")
    return {"relaxed_energy_per_atom": round(relaxation.energy_per_atom, 4), "is_converged": relaxation.converged}


def read_rows() -> tuple[list[Row], list[Row]]:
    """Return rows for the fit, at their published geometry, and for the check, relaxed."""
    folder = Path(os.environ.get("WYLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
    with gzip.open(folder / "mp20_biternary_train.csv.gz", "rt", encoding="utf-8") as file:
        raw = list(csv.DictReader(file))
    random.Random(SEED).shuffle(raw)
    fit_rows = [row for text in raw[:N_FIT_ROWS] if (row := evaluated(text, is_relaxed=False))]
    check_rows = [
        row for text in raw[N_FIT_ROWS : N_FIT_ROWS + N_CHECK_ROWS] if (row := evaluated(text, is_relaxed=True))
    ]
    return fit_rows, check_rows


def evaluated(text: dict[str, str], *, is_relaxed: bool) -> Row | None:
    """Calculate one row's energy; None for a crystal that can't be calculated."""
    published = float(text["formation_energy_per_atom"])
    try:
        crystal = parse_cif(text["cif"])
        if is_relaxed:
            relaxation = relax(crystal)
            return Row(text["pretty_formula"], relaxation.crystal, published, relaxation.energy_per_atom)
        atoms = crystal.to_ase()
        atoms.calc = calculator()
        with one_thread():
            return Row(text["pretty_formula"], crystal, published, atoms.get_potential_energy() / len(atoms))
    except (StructureError, ValueError) as error:
        print(f"{text['pretty_formula']}: {error}")
        return None


def fit(rows: list[Row], start: dict[str, float]) -> dict[str, float]:
    """Fit the elements' energies to the rows' formation energies, outliers damped."""
    elements = list(start)
    fractions = np.array(
        [[row.crystal.amounts.get(element, 0) / row.crystal.nsites for element in elements] for row in rows]
    )
    residuals = np.array(
        [
            formation_energy_per_atom(row.energy_per_atom, row.crystal.amounts, start) - row.formation_energy_per_atom
            for row in rows
        ]
    )

    def weighted(shift: np.ndarray) -> np.ndarray:
        return np.concatenate([(residuals - fractions @ shift) / ROW_SIGMA, shift / PRIOR_SIGMA])

    shift = least_squares(weighted, np.zeros(len(elements)), loss="soft_l1").x
    return {element: start[element] + float(shift[index]) for index, element in enumerate(elements)}


def report(title: str, rows: list[Row], energies: dict[str, float]) -> dict[str, object]:
    """Print and return the error of the rows' formation energies, eV/atom, all and by anion."""
    errors = {
        index: formation_energy_per_atom(row.energy_per_atom, row.crystal.amounts, energies)
        - row.formation_energy_per_atom
        for index, row in enumerate(rows)
    }
    values = np.array(list(errors.values()))
    print(f"{title}: n {len(values)}, MAE {abs(values).mean():.3f}, median {np.median(abs(values)):.3f} eV/atom")
    bias: dict[str, float] = {}
    for anion in ANIONS:
        of_anion = [errors[index] for index, row in enumerate(rows) if anion in row.crystal.amounts]
        if len(of_anion) >= 2:
            bias[anion] = round(float(np.mean(of_anion)), 3)
            print(f"  with {anion:2s}: n {len(of_anion):3d}, bias {bias[anion]:+.3f} eV/atom")
    return {
        "n_rows": len(values),
        "mean_absolute_error": round(float(abs(values).mean()), 4),
        "median_absolute_error": round(float(np.median(abs(values))), 4),
        "bias": bias,
    }


if __name__ == "__main__":
    main()
