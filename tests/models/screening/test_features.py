import numpy as np

from wyloop.models.screening.features import (
    N_COUNTS,
    N_ELEMENTS,
    N_FEATURES,
    PROPERTIES,
    element_properties,
    gene_features,
)
from wyloop.models.wyckoff.gene import Gene, images

PEROVSKITE = Gene.parse("221 O:c Sr:a Ti:b")
ROCK_SALT = Gene.parse("225 Cl:a Na:b")


def test_tabulated_properties_of_iron() -> None:
    iron = dict(zip(PROPERTIES, element_properties()[26], strict=True))
    assert iron["electronegativity"] == 1.83
    assert (iron["row"], iron["group"]) == (4, 8)
    assert (iron["lowest_oxidation_state"], iron["highest_oxidation_state"]) == (0, 3)
    assert (iron["s_electrons"], iron["p_electrons"], iron["d_electrons"], iron["f_electrons"]) == (2, 0, 6, 0)


def test_every_element_has_finite_properties() -> None:
    assert element_properties().shape == (119, len(PROPERTIES))
    assert np.isfinite(element_properties()).all()


def test_composition_of_the_perovskite() -> None:
    (row,) = gene_features([PEROVSKITE])
    assert row.shape == (N_FEATURES,)
    np.testing.assert_allclose(row[0], (0.95 + 1.54 + 3 * 3.44) / 5, rtol=1e-6)  # mean electronegativity
    shares = row[-N_ELEMENTS:]
    np.testing.assert_allclose(shares[[37, 21, 7]], [0.2, 0.2, 0.6], rtol=1e-6)  # Sr, Ti, O by atomic number - 1
    assert np.count_nonzero(shares) == 3
    counts = row[5 * len(PROPERTIES) + 2 * (len(PROPERTIES) + 4) :][:N_COUNTS]
    np.testing.assert_allclose(counts[:4], [3, 3, np.log(5), 0], rtol=1e-6)  # elements, orbits, log sites, freedom


def test_a_batch_gives_what_single_genes_give() -> None:
    genes = [PEROVSKITE, ROCK_SALT, Gene.parse("227 Si:a"), Gene.parse("186 O:b Zn:b")]
    together = gene_features(genes)
    assert np.isfinite(together).all()
    for gene, row in zip(genes, together, strict=True):
        np.testing.assert_array_equal(gene_features([gene])[0], row)


def test_equivalent_genes_look_the_same() -> None:
    for gene in (PEROVSKITE, Gene.parse("62 Ca:c O:c O:d Ti:a")):
        rows = gene_features(list(images(gene)))
        assert len(rows) > 1
        np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), rtol=1e-5, atol=1e-6)


def test_no_genes_no_rows() -> None:
    assert gene_features([]).shape == (0, N_FEATURES)
