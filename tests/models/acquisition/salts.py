"""A made-up chemistry with rules: binary crystals of five structures, gap and energy by electronegativity."""

from itertools import product

from wyloop.models.acquisition.simulation import Crystals
from wyloop.models.mpvae.vocabulary import element_features, element_id
from wyloop.models.wyckoff.gene import Gene, canonical

METALS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Fe", "Co", "Ni", "Cu", "Zn", "Cd", "Al", "Ga", "In")
ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N", "P", "As")
STRUCTURES = ("225 {a}:b {c}:a", "216 {a}:c {c}:a", "221 {a}:b {c}:a", "225 {a}:c {c}:a", "194 {a}:c {c}:a")


def salts() -> Crystals:
    """Return 990 crystals; those of small difference in electronegativity, and CsCl ones, are metals."""
    genes, labels = [], []
    for metal, anion, structure in product(METALS, ANIONS, STRUCTURES):
        difference = _electronegativity(anion) - _electronegativity(metal)
        is_dense = structure.startswith("221")
        genes.append(canonical(Gene.parse(structure.format(a=anion, c=metal))))
        labels.append(
            {
                "formation_energy_per_atom": -0.8 * difference + 0.3 * is_dense,
                "band_gap": max(0.0, 2.5 * difference - 3.0 - 2.0 * is_dense),
                "volume_per_atom": 20.0,
            }
        )
    return Crystals(genes, labels)


def _electronegativity(symbol: str) -> float:
    """In standard deviations over all elements."""
    return float(element_features()[element_id(symbol), 0])
