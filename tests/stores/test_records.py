import numpy as np
from pymatgen.core.composition import Composition

from wyloop.models.targets import ELEMENTS
from wyloop.stores.records import composition_fields

KNOWN = (
    {"Na": 4, "Cl": 4}, {"O": 8}, {"Li": 4, "O": 4}, {"H": 2, "O": 2}, {"Ca": 3, "P": 2, "O": 8},
    {"Li": 1, "Fe": 1, "P": 1, "O": 4},
    {"Al": 2, "S": 3, "O": 12}, {"N": 2, "H": 8, "S": 1, "O": 4}, {"Ga": 1, "Sb": 2, "O": 4},
    {"Ba": 1, "Cl": 2, "O": 6}, {"Xe": 1, "F": 4},
)  # fmt: skip


def test_a_formula_is_the_one_that_pymatgen_writes() -> None:
    rng = np.random.default_rng(0)
    symbols = sorted(ELEMENTS)
    drawn = [
        dict(zip(map(str, rng.choice(symbols, n, replace=False)), map(int, rng.integers(1, 13, n)), strict=True))
        for n in rng.integers(1, 7, 1500)
    ]
    for amounts in (*KNOWN, *drawn):
        assert composition_fields(amounts)["formula_pretty"] == Composition(amounts).reduced_formula, amounts
