from collections import Counter

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii

from wyloop.models.errors import StructureError
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.starter.prototypes import Prototype, compounds, decorate, prototypes

FIRST_COMPOUNDS = {compound.prototype.name: compound for compound in reversed(compounds())}

# International Tables letters as published, before any choice of origin; roles in the order of prototypes.csv.
PUBLISHED = [
    ("perovskite", "Sr Ti O", "221 Sr:a Ti:b O:c"),
    ("rutile", "Ti O", "136 Ti:a O:f"),
    ("wurtzite", "Zn S", "186 Zn:b S:b"),
    ("spinel", "Mg Al O", "227 Mg:a Al:d O:e"),
    ("half_heusler", "Ti Sn Ni", "216 Ti:a Sn:b Ni:c"),
    ("heusler", "Cu Mn Al", "225 Al:a Mn:b Cu:c"),
    ("potassium_chloroplatinate", "K Pt Cl", "225 Pt:a K:c Cl:e"),
    ("scheelite", "Ca W O", "88 W:a Ca:b O:f"),
    ("potassium_tetrafluoronickelate", "K Ni F", "139 Ni:a F:c K:e F:e"),
    ("max_phase", "Ti Al C", "194 C:a Al:c Ti:f"),
    ("delafossite", "Cu Al O", "166 Cu:a Al:b O:c"),
    ("famatinite", "Cu Sb S", "121 Sb:a Cu:b Cu:d S:i"),
]


@pytest.mark.parametrize("name", sorted(prototypes()))
def test_decorated_prototype_has_its_space_group(name: str) -> None:
    compound = FIRST_COMPOUNDS[name]
    gene = encode(decorate(compound.prototype, compound.elements))
    assert gene.space_group_number == compound.prototype.space_group_number
    assert set(gene.elements) == set(compound.elements)


@pytest.mark.parametrize(("name", "elements", "published"), PUBLISHED)
def test_decorated_prototype_has_the_published_gene(name: str, elements: str, published: str) -> None:
    crystal = decorate(prototypes()[name], elements.split())
    assert encode(crystal).fingerprint == Gene.parse(published).fingerprint


def test_closest_atoms_touch() -> None:
    crystal = decorate(prototypes()["zincblende"], ("Zn", "S"))
    nearest = np.sqrt(3) / 4 * (8 * crystal.volume / crystal.nsites) ** (1 / 3)  # a quarter of the body diagonal
    radii = covalent_radii[atomic_numbers["Zn"]] + covalent_radii[atomic_numbers["S"]]
    assert nearest == pytest.approx(radii, rel=1e-6)


def test_wrong_number_of_elements_is_named() -> None:
    with pytest.raises(StructureError, match=r"2 elements .* prototype perovskite; expected one for each of Ca Ti O"):
        decorate(prototypes()["perovskite"], ("Sr", "Ti"))


def test_unknown_library_label_is_named() -> None:
    prototype = Prototype("x", 225, "AB_cF8_225_x_y", "", ("Na", "Cl"), "", 1.0, 1.0)
    with pytest.raises(StructureError, match="AB_cF8_225_x_y"):
        decorate(prototype, ("K", "Br"))


def test_compounds_are_distinct_and_of_two_or_three_elements() -> None:
    assert max(Counter(compound.identity for compound in compounds()).values()) == 1
    assert {len(set(compound.elements)) for compound in compounds()} <= {2, 3}


def test_source_says_where_the_sites_come_from() -> None:
    assert prototypes()["rocksalt"].source == "AFLOW prototype AB_cF8_225_a_b in pymatgen's library"
    assert "X:e(0.235,0,0)" in prototypes()["potassium_chloroplatinate"].source
