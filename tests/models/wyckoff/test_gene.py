from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyloop.models.errors import GeneError, WyckoffLetterError
from wyloop.models.wyckoff.gene import Gene, canonical, images
from wyloop.models.wyckoff.tables import letter_indices, space_group

PEROVSKITE = Gene.of(221, [("Sr", "a"), ("Ti", "b"), ("O", "c")])


@st.composite
def genes(draw: st.DrawFn) -> Gene:
    number = draw(st.integers(1, 230))
    positions = space_group(number).positions
    chosen = draw(st.lists(st.sampled_from(positions), min_size=1, max_size=6))
    fixed = [position for position in dict.fromkeys(chosen) if position.n_free_parameters == 0]
    free = [position for position in chosen if position.n_free_parameters]
    elements = st.sampled_from(["O", "Ti", "Sr", "Ga", "As"])
    return Gene.of(number, [(draw(elements), position.letter) for position in fixed + free])


def test_perovskite() -> None:
    assert str(PEROVSKITE) == "221 O:c Sr:a Ti:b"
    assert PEROVSKITE.amounts == {"O": 3, "Sr": 1, "Ti": 1}
    assert PEROVSKITE.formula_pretty == "SrTiO3"
    assert PEROVSKITE.composition.reduced_formula == "SrTiO3"
    assert PEROVSKITE.chemsys == "O-Sr-Ti"
    assert PEROVSKITE.protostructure == "A3BC_cP5_221_c_a_b:O-Sr-Ti"
    assert (PEROVSKITE.nsites, PEROVSKITE.n_free_parameters) == (5, 0)


@pytest.mark.parametrize(
    ("text", "protostructure", "nsites", "n_free"),
    [
        ("136 O:f Ti:a", "A2B_tP6_136_f_a:O-Ti", 6, 1),
        ("186 O:b Zn:b", "AB_hP4_186_b_b:O-Zn", 4, 2),
        ("227 Al:d Mg:a O:e", "A2BC4_cF56_227_c_b_e:Al-Mg-O", 14, 1),
        ("166 Bi:c Te:a Te:c", "A2B3_hR15_166_c_ac:Bi-Te", 5, 2),
        ("12 Ga:i Ga:i O:i O:i O:i", "A2B3_mC20_12_2i_3i:Ga-O", 10, 10),
        ("38 Ba:a O:a O:b Ti:b", "AB2C_oC8_38_a_ab_b:Ba-O-Ti", 4, 4),
        ("2 Ga:i", "A_aP2_2_i:Ga", 2, 3),
    ],
)
def test_published_protostructures(text: str, protostructure: str, nsites: int, n_free: int) -> None:
    gene = Gene.parse(text)
    assert gene.nsites == nsites
    assert gene.n_free_parameters == n_free
    assert gene.protostructure == protostructure


def test_the_two_origins_of_perovskite_are_one_gene() -> None:
    other = Gene.of(221, [("Sr", "b"), ("Ti", "a"), ("O", "d")])
    assert other != PEROVSKITE
    assert other.fingerprint == PEROVSKITE.fingerprint == "221 O:c Sr:a Ti:b"
    assert set(images(PEROVSKITE)) == {PEROVSKITE, other}


def test_axes_permute_in_orthorhombic_groups() -> None:
    # In Pmmm the mirror-plane pairs normal to a, b and c are alike once the axes may be renamed.
    assert {Gene.of(47, [("O", letter)]).fingerprint for letter in "uvwxyz"} == {"47 O:u"}
    assert len(list(images(Gene.of(47, [("O", "a")])))) == 8


@settings(max_examples=60, deadline=None)
@given(genes())
def test_canonical_is_one_and_the_same_for_every_image(gene: Gene) -> None:
    all_images = list(images(gene))
    assert gene in all_images
    assert len(set(all_images)) == len(all_images)
    assert len(gene.space_group.images) % len(all_images) == 0  # orbit and stabilizer
    representative = canonical(gene)
    assert representative in all_images
    assert all(canonical(image) == representative for image in all_images)
    assert {image.protostructure for image in all_images} == {representative.protostructure}
    assert all(image.amounts == gene.amounts for image in all_images)


@settings(max_examples=60, deadline=None)
@given(genes())
def test_text_round_trip(gene: Gene) -> None:
    assert Gene.parse(str(gene)) == gene
    assert Gene.parse(gene.fingerprint) == canonical(gene)


@settings(max_examples=40, deadline=None)
@given(genes(), st.randoms())
def test_order_of_orbits_does_not_matter(gene: Gene, random: Random) -> None:
    orbits = list(gene.orbits)
    random.shuffle(orbits)
    assert Gene.of(gene.space_group_number, orbits) == gene


def test_letters_sort_by_the_table_with_capital_a_last() -> None:
    gene = Gene.of(47, [("O", "A"), ("O", "a"), ("O", "z")])
    assert gene.wyckoff_sequence == "O:a O:z O:A"
    assert letter_indices(47)["A"] == 26


@pytest.mark.parametrize(
    ("number", "orbits", "error", "message"),
    [
        (221, [], GeneError, "without orbits"),
        (221, [("Xx", "a")], GeneError, "unknown element 'Xx'"),
        (221, [("Sr", "z")], WyckoffLetterError, "no Wyckoff letter 'z'"),
        (221, [("Sr", "a"), ("Ti", "a")], GeneError, "position a of space group 221 used 2 times"),
        (999, [("Sr", "a")], GeneError, "no space group 999"),
    ],
)
def test_genes_that_break_the_tables(
    number: int, orbits: list[tuple[str, str]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Gene.of(number, orbits)


@pytest.mark.parametrize("text", ["", "  ", "² Sr:a", "Sr:a", "221 Sr", "221 Sr:a:b", "221.0 Sr:a"])
def test_text_of_another_form(text: str) -> None:
    with pytest.raises(GeneError, match="expected a form such as"):
        Gene.parse(text)
