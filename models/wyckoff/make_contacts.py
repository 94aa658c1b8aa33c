"""Write contacts.json, how near elements come in known crystals: `python models/wyckoff/make_contacts.py FOLDER`.

FOLDER holds mp20_biternary_train, mp20_biternary_test and mpts52_formation_energy (.csv.gz); of the last, the rows
that stand in the test file are left out.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.contacts import polarity

HERE = Path(__file__).parent
QUANTILE = 0.25  # of the shortest distance a crystal; lower ones are outliers such as molecules and Peierls pairs
SEARCH = 6.0  # Å


def shortest_distances(crystal: Crystal) -> dict[str, float]:
    """Return the shortest distance of each pair of elements in one crystal, Å."""
    heights = crystal.volume / np.linalg.norm(np.cross(crystal.lattice[[1, 2, 0]], crystal.lattice[[2, 0, 1]]), axis=1)
    reach = np.floor(SEARCH / heights + 0.5).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), -1).reshape(-1, 1, 1, 3)
    offsets = crystal.frac_coords[:, None] - crystal.frac_coords
    distances = np.linalg.norm((offsets - np.rint(offsets) + images) @ crystal.lattice, axis=-1)
    distances[distances < 1e-6] = np.inf
    nearest = distances.min(axis=0)
    species = np.array(crystal.species)
    found = {}
    for i, first in enumerate(crystal.amounts):
        for second in list(crystal.amounts)[i:]:
            shortest = float(nearest[np.ix_(species == first, species == second)].min())
            if shortest < SEARCH:
                found[f"{first}-{second}"] = shortest
    return found


def load_crystals(folder: Path) -> list[Crystal]:
    """Read the training and pre-training files, less every row of the test file."""
    test_ids = set(pd.read_csv(folder / "mp20_biternary_test.csv.gz", usecols=["material_id"])["material_id"])
    files = ("mp20_biternary_train.csv.gz", "mpts52_formation_energy.csv.gz")
    rows = pd.concat([pd.read_csv(folder / file, usecols=["material_id", "cif"]) for file in files])
    rows = rows.drop_duplicates("material_id")
    return [parse_cif(text) for text in rows[~rows["material_id"].isin(test_ids)]["cif"]]


def fit_radii(pairs: dict[str, float], counts: dict[str, int]) -> tuple[dict[str, float], float, float]:
    """Fit d = r1 + r2 - slope |chi1 - chi2| to the pairs, each weighed by its number of crystals.

    Returns:
        Radius of each element, slope, and root mean square error, all in Å (the slope by unit of electronegativity).

    Source: Schomaker and Stevenson, doi:10.1021/ja01869a010.
    """
    elements = sorted({element for pair in pairs for element in pair.split("-")})
    design = np.zeros((len(pairs), len(elements) + 1))
    for row, pair in zip(design, pairs, strict=True):
        for element in pair.split("-"):
            row[elements.index(element)] += 1.0
        row[-1] = -polarity(*pair.split("-"))
    target = np.array(list(pairs.values()))
    weights = np.array([counts[pair] for pair in pairs], dtype=float)
    root = np.sqrt(weights)
    solution = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
    error = float(np.sqrt(np.average((design @ solution - target) ** 2, weights=weights)))
    radii = {element: round(float(radius), 3) for element, radius in zip(elements, solution[:-1], strict=True)}
    return radii, round(float(solution[-1]), 3), error


def main(folder: Path) -> None:
    """Collect the distances, fit radii for pairs that never meet, and write both."""
    collected = defaultdict(list)
    crystals = load_crystals(folder)
    for crystal in crystals:
        for pair, distance in shortest_distances(crystal).items():
            collected[pair].append(distance)
    pairs = {pair: round(float(np.quantile(found, QUANTILE)), 3) for pair, found in sorted(collected.items())}
    radii, slope, error = fit_radii(pairs, {pair: len(found) for pair, found in collected.items()})
    print(f"{len(crystals)} crystals, {len(pairs)} pairs; the fit of radii is off by {error:.2f} Å")
    document = {"unit": "angstrom", "pairs": pairs, "radii": radii, "electronegativity_slope": slope}
    (HERE / "contacts.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
