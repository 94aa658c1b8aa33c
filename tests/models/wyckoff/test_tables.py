from collections import Counter

import numpy as np
import pytest
from pyxtal.symmetry import Group

from wyloop.models.errors import GeneError, WyckoffLetterError
from wyloop.models.wyckoff.tables import operators, space_group, wyckoff_position

ALL_NUMBERS = range(1, 231)
ORDERS = {1: 66, 2: 94, 4: 34, 6: 6, 8: 19, 12: 5, 24: 2, 48: 4}  # groups by number of letter permutations, SCIENCE.md


def test_orders_of_the_normalizer_images() -> None:
    assert Counter(len(space_group(number).images) for number in ALL_NUMBERS) == ORDERS


@pytest.mark.parametrize("number", ALL_NUMBERS)
def test_images_form_a_group_that_keeps_what_the_normalizer_keeps(number: int) -> None:
    group = space_group(number)
    letters = "".join(group.letters)
    assert letters in group.images
    images = set(group.images)
    for image in group.images:
        assert sorted(image) == sorted(letters)
        for letter, other in zip(letters, image, strict=True):
            position, moved = wyckoff_position(number, letter), wyckoff_position(number, other)
            assert (position.multiplicity, position.n_free_parameters) == (moved.multiplicity, moved.n_free_parameters)
        step = dict(zip(letters, image, strict=True))
        assert {"".join(step[letter] for letter in other) for other in images} == images


def test_positions_and_operators_agree_with_pyxtal() -> None:
    n_positions = 0
    for number in ALL_NUMBERS:
        group, theirs = space_group(number), Group(number)
        assert group.symbol == theirs.symbol
        assert group.letters == tuple(position.letter for position in reversed(theirs.Wyckoff_positions))
        for position in theirs.Wyckoff_positions:
            ours = wyckoff_position(number, position.letter)
            maps = np.array([operation.affine_matrix[:3] for operation in position.ops])
            assert ours.multiplicity == position.multiplicity == len(maps)
            assert ours.n_free_parameters == position.get_dof()
            np.testing.assert_allclose(operators(number, position.letter), maps, atol=1e-6)
            n_positions += 1
    assert n_positions == 1731


@pytest.mark.parametrize("number", ALL_NUMBERS)
def test_site_symmetries_agree_with_pyxtal(number: int) -> None:
    for position in Group(number).Wyckoff_positions:
        position.get_site_symmetry()
        assert wyckoff_position(number, position.letter).site_symmetry == position.site_symm


@pytest.mark.parametrize(
    ("number", "symbol", "system", "n_centerings"),
    [
        (2, "P-1", "triclinic", 1),
        (15, "C2/c", "monoclinic", 2),
        (70, "Fddd", "orthorhombic", 4),
        (142, "I41/acd", "tetragonal", 2),
        (166, "R-3m", "trigonal", 3),
        (194, "P63/mmc", "hexagonal", 1),
        (227, "Fd-3m", "cubic", 4),
    ],
)
def test_known_groups(number: int, symbol: str, system: str, n_centerings: int) -> None:
    group = space_group(number)
    assert (group.symbol, group.crystal_system, group.n_centerings) == (symbol, system, n_centerings)


def test_group_47_has_the_letter_capital_a() -> None:
    assert space_group(47).letters[-1] == "A"
    assert wyckoff_position(47, "A").multiplicity == 8


@pytest.mark.parametrize("number", [0, 231, -1])
def test_unknown_group(number: int) -> None:
    with pytest.raises(GeneError, match=f"no space group {number}"):
        space_group(number)
    with pytest.raises(GeneError, match=f"no space group {number}"):
        wyckoff_position(number, "a")


def test_unknown_letter() -> None:
    with pytest.raises(WyckoffLetterError, match="no Wyckoff letter 'z' in space group 221; expected one of abcdef"):
        wyckoff_position(221, "z")
    with pytest.raises(WyckoffLetterError):
        operators(221, "z")
