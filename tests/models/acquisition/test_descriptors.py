import numpy as np
import pytest

from wyloop.models.acquisition.descriptors import describe, element_table, groups, valence_electrons
from wyloop.models.mpvae.vocabulary import element_id
from wyloop.models.wyckoff.gene import Gene, images

SRTIO3 = Gene.parse("221 O:c Sr:a Ti:b")
SPINEL = Gene.parse("227 Al:d Mg:a O:e")
FEO, NIAL = Gene.parse("225 Fe:a O:b"), Gene.parse("221 Al:a Ni:b")


def charges(gene: Gene) -> list[float]:
    return [float(value) for value in describe([gene])[0, groups()["charges"]]]


def test_groups_cover_every_column_once() -> None:
    rows = describe([SRTIO3, SPINEL])
    assert rows.shape[0] == 2
    stops = [0, *(part.stop for part in groups().values())]
    assert [part.start for part in groups().values()] == stops[:-1]
    assert stops[-1] == rows.shape[1]
    assert np.isfinite(rows).all()
    assert describe([]).shape == (0, rows.shape[1])


def test_equivalent_genes_have_the_same_descriptors() -> None:
    for gene in (SRTIO3, SPINEL):
        rows = describe(list(images(gene)))
        assert len(rows) > 1
        assert (rows == rows[0]).all()


def test_charges_tell_closed_shells_from_open_ones_and_from_metals() -> None:
    titanate, monoxide, alloy = charges(SRTIO3), charges(FEO), charges(NIAL)
    neutral, open_d, n_d, empty_d = 4, 8, 9, 10
    assert titanate[neutral] == monoxide[neutral] == 1
    assert titanate[open_d] == 0
    assert titanate[empty_d] == pytest.approx(0.2)  # Ti4+, one atom of five
    assert monoxide[open_d] == pytest.approx(0.5)
    assert monoxide[n_d] == pytest.approx(6 * 0.5)  # Fe2+ is d6
    assert alloy[neutral] == 0


def test_lone_pairs_and_frozen_f_electrons_are_seen() -> None:
    lone_pair = 12
    assert charges(Gene.parse("225 O:b Pb:a"))[lone_pair] == pytest.approx(0.5)  # Pb2+
    assert charges(Gene.parse("225 Ba:a O:b"))[lone_pair] == 0
    assert [valence_electrons(symbol) for symbol in ("Na", "O", "Fe", "Gd", "Eu", "U")] == [1, 6, 8, 3, 2, 6]
    frozen = element_table()[:, -1]
    assert frozen[element_id("Gd")] > 0 > frozen[element_id("Ce")]


def test_site_columns_change_with_the_sites_alone() -> None:
    rock_salt, zincblende = describe([Gene.parse("225 Cl:b Na:a"), Gene.parse("216 Cl:c Na:a")])
    for name in ("statistics", "ends", "shares"):
        assert (rock_salt[groups()[name]] == zincblende[groups()[name]]).all()
    assert (rock_salt[groups()["symmetry"]] != zincblende[groups()["symmetry"]]).any()
