import itertools

import pytest

from wyloop.models.wyckoff.distance import composition_distance, gene_distance, mendeleev_number
from wyloop.models.wyckoff.gene import Gene, images

ROCK_SALT = Gene.parse("225 Cl:a Na:b")
SPINEL = Gene.parse("227 Al:c Mg:b O:e")
INVERSE = Gene.parse("227 Al:b Mg:c O:e")


def test_neighbours_on_the_scale_are_alike() -> None:
    assert mendeleev_number("Na") == mendeleev_number("K") + 1
    assert mendeleev_number("H") == 103
    assert mendeleev_number("Og") == 118


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ({"Na": 1, "Cl": 1}, {"Na": 4, "Cl": 4}, 0.0),
        ({"Na": 1, "Cl": 1}, {"K": 1, "Cl": 1}, 0.5),  # half of the atoms move one place
        ({"Na": 1, "Cl": 1}, {"Na": 1, "F": 1}, 1.5),  # Cl 99, F 102
        ({"Na": 1}, {"Na": 1, "Cl": 1}, 44.0),  # half of the atoms move from 11 to 99
    ],
)
def test_a_composition_is_moved_with_the_least_work(
    one: dict[str, float], other: dict[str, float], distance: float
) -> None:
    assert composition_distance(one, other) == pytest.approx(distance)
    assert composition_distance(other, one) == pytest.approx(distance)


def test_genes_differ_by_elements_positions_and_space_group() -> None:
    assert gene_distance(ROCK_SALT, Gene.parse("225 Cl:a K:b")) == pytest.approx(0.05)
    assert gene_distance(ROCK_SALT, Gene.parse("221 Cl:a Na:b")) == pytest.approx(1.0)
    assert gene_distance(ROCK_SALT, Gene.parse("221 Cl:a Cs:b")) == pytest.approx(1.15)
    assert gene_distance(Gene.parse("216 Cl:a Na:c"), Gene.parse("216 Cl:a Na:b")) == pytest.approx(0.5)


def test_elements_that_change_places_make_another_gene() -> None:
    # 3/7 of the atoms are on b and c; to change the element there (7 places) is cheaper than to change the position
    assert gene_distance(SPINEL, INVERSE) == pytest.approx(3 / 7 * 0.7)
    # Ti (51) is 29 places from Al (80): an atom on c and one on b change their positions, the other on c its element
    titanium = Gene.parse("227 Ti:c Al:b O:e"), Gene.parse("227 Al:c Ti:b O:e")
    assert gene_distance(*titanium) == pytest.approx(1 / 7 * 1 + 1 / 7 * 1 + 1 / 7 * 2.9)


def test_the_distance_is_a_metric_and_blind_to_the_origin() -> None:
    genes = [ROCK_SALT, SPINEL, INVERSE, Gene.parse("225 Br:a K:b"), Gene.parse("227 O:e Ti:c Zn:b")]
    between = {pair: gene_distance(*pair) for pair in itertools.product(genes, repeat=2)}
    for one, other in between:
        assert between[one, other] == pytest.approx(between[other, one])
        assert (between[one, other] < 1e-9) == (one == other)
        for third in genes:
            assert between[one, other] <= between[one, third] + between[third, other] + 1e-9
    for image in images(SPINEL):
        assert gene_distance(image, INVERSE) == pytest.approx(between[SPINEL, INVERSE])
        assert gene_distance(image, SPINEL) == pytest.approx(0.0, abs=1e-9)
