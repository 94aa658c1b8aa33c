import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wyloop.models.errors import RealizationError
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.contacts import contact_distance
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.realize import SHORTEST_RATIO, realize


@pytest.mark.parametrize(
    ("text", "volume_per_atom"),
    [
        ("136 O:f Ti:a", 10.4),
        ("186 O:b Zn:b", 11.9),
        ("166 Bi:c Te:a Te:c", 33.9),
        ("227 Al:d Mg:a O:e", 9.4),
        ("205 Fe:a S:c", 13.3),
        ("14 O:e O:e Zr:e", 11.7),
        ("62 O:c O:d Sr:c Zr:a", 13.8),
        ("2 Ga:i O:i O:i", 11.0),
    ],
)
def test_known_genes_come_back(text: str, volume_per_atom: float) -> None:
    gene = Gene.parse(text)
    crystals = realize(gene, volume_per_atom, seed=1)
    assert 1 <= len(crystals) <= 4
    for crystal in crystals:
        assert encode(crystal) == canonical(gene)
        assert crystal.nsites == gene.nsites
        assert crystal.volume / crystal.nsites == pytest.approx(volume_per_atom, rel=0.02)  # standardising may strain
        first, second, _, distances = crystal.to_pymatgen().get_neighbor_list(4.0)
        for i, j, distance in zip(first, second, distances, strict=True):
            contact = contact_distance(crystal.species[i], crystal.species[j])
            assert distance > 0.98 * SHORTEST_RATIO * contact  # standardising may strain


def test_gene_without_free_parameters_is_exact() -> None:
    (crystal,) = realize(Gene.parse("221 O:c Sr:a Ti:b"), 11.9, seed=0)
    structure = crystal.to_pymatgen()
    titanium, oxygen = crystal.species.index("Ti"), crystal.species.index("O")
    assert structure.lattice.abc == pytest.approx([(5 * 11.9) ** (1 / 3)] * 3)
    assert structure.get_distance(titanium, oxygen) == pytest.approx(structure.lattice.a / 2)


def test_wurtzite_is_sensible() -> None:
    best = realize(Gene.parse("186 O:b Zn:b"), 11.9, seed=0)[0].to_pymatgen()
    assert 1.3 < best.lattice.c / best.lattice.a < 2.0
    assert 1.8 < min(best.get_distance(0, site) for site in (1, 2, 3)) < 3.3


def test_the_seed_decides() -> None:
    gene = Gene.parse("62 O:c O:d Sr:c Zr:a")
    first, again = realize(gene, 13.8, seed=5, n_starts=2), realize(gene, 13.8, seed=5, n_starts=2)
    other = realize(gene, 13.8, seed=6, n_starts=2)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left.frac_coords, right.frac_coords)
        np.testing.assert_array_equal(left.lattice, right.lattice)
    assert not np.allclose(first[0].lattice, other[0].lattice)


def test_every_image_of_a_gene_gives_the_same_crystals() -> None:
    one, other = Gene.parse("227 Al:d Mg:a O:e"), Gene.parse("227 Al:c Mg:b O:e")
    np.testing.assert_array_equal(realize(one, 9.4, seed=0)[0].lattice, realize(other, 9.4, seed=0)[0].lattice)


def test_a_gene_with_more_symmetry_than_it_says_is_refused_at_once() -> None:
    diamond = Gene.parse("216 Si:a Si:c")  # all atoms alike: diamond, group 227
    started = time.monotonic()
    with pytest.raises(RealizationError, match=r"no crystal of 216 Si:a Si:[bc] at 20\.0 .*more symmetry"):
        realize(diamond, 20.0, seed=0)
    assert time.monotonic() - started < 2.0


def test_too_small_a_volume_is_refused() -> None:
    with pytest.raises(RealizationError, match=r"nearest atoms come to 0\.\d+ of their contact distance"):
        realize(Gene.parse("221 O:c Sr:a Ti:b"), 1.5, seed=0)


@pytest.mark.parametrize("volume", [0.0, -3.0, float("nan"), float("inf")])
def test_volume_must_be_positive(volume: float) -> None:
    with pytest.raises(RealizationError, match="expected a positive number of Å"):
        realize(Gene.parse("221 O:c Sr:a Ti:b"), volume, seed=0)


def test_time_is_bounded() -> None:
    large = Gene.parse("225 " + " ".join(["O:l"] * 6 + ["Ti:l"] * 3))  # 1728 atoms in the cell, 27 parameters
    started = time.monotonic()
    with pytest.raises(RealizationError):
        realize(large, 9.0, seed=0, time_limit=0.0)
    assert time.monotonic() - started < 10.0


def test_training_genes_come_back(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "mp20_biternary_train.csv.gz", usecols=["cif"]).sample(60, random_state=11)
    n_same = 0
    for text in rows["cif"]:
        crystal = parse_cif(text)
        gene = encode(crystal)
        try:
            found = realize(gene, crystal.volume / crystal.nsites, seed=0, n_starts=1)[0]
        except RealizationError:
            continue
        n_same += encode(found) == gene
    assert n_same >= 59
