import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.cell_choices import SAME_LENGTH, cell_choices
from wyloop.models.wyckoff.descriptions import in_basis, noisy, random_basis, reordered, rotated, shifted
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.lattices import lattice
from wyloop.models.wyckoff.tables import space_group

LONGER_C = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]])  # c' = a + c
LONGER_A = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]])  # a' = a + c, which leaves the glide along c


@pytest.mark.parametrize("number", [1, 4, 5, 8, 9, 19, 47, 166, 221, 227])
def test_groups_in_which_no_axes_rename_a_position(number: int) -> None:
    assert cell_choices(number, np.diag([3.0, 3.0, 3.0])) == {"".join(space_group(number).letters)}


@pytest.mark.parametrize(
    ("number", "n_choices"), [(2, 1), (3, 1), (10, 1), (11, 1), (12, 1), (13, 1), (14, 1), (15, 1)]
)
def test_one_cell_is_the_shortest(number: int, n_choices: int) -> None:
    choices = cell_choices(number, np.diag([3.1, 4.2, 5.3]))
    assert choices == {"".join(space_group(number).letters)}
    assert len(choices) == n_choices


def test_axes_of_one_length_exchange_letters() -> None:
    a_is_c = lattice("monoclinic", 100.0, np.array([0.2, 0.0, 0.1]))
    choices = cell_choices(10, a_is_c)  # P2/m: b and c are the midpoints of c and a, if they are named so
    letters = space_group(10).letters
    assert len(choices) == 2
    (other,) = choices - {"".join(letters)}
    moved = {old: new for old, new in zip(letters, other, strict=True) if old != new}
    assert moved
    assert all(moved[new] == old for old, new in moved.items())


def test_the_threshold_is_a_length() -> None:
    cell = np.diag([4.0, 5.0, 4.0 + 0.9 * SAME_LENGTH])
    assert len(cell_choices(10, cell)) == 2
    assert len(cell_choices(10, np.diag([4.0, 5.0, 4.0 + 1.1 * SAME_LENGTH]))) == 1


@pytest.mark.parametrize(("number", "longer"), [(12, LONGER_C), (14, LONGER_A)])
def test_a_cell_that_is_not_the_shortest_is_relabeled(number: int, longer: np.ndarray) -> None:
    shortest = lattice("monoclinic", 100.0, np.array([0.1, 0.3, 0.05]))
    (straight,) = cell_choices(number, shortest)
    (relabeled,) = cell_choices(number, longer @ shortest)
    assert straight == "".join(space_group(number).letters)
    assert relabeled not in space_group(number).images


def crystal_of(system: str, shape: list[float], sites: dict[tuple[float, float, float], str]) -> Crystal:
    return Crystal(lattice(system, 120.0, np.array(shape)), tuple(sites.values()), np.array(list(sites)))


AMBIGUOUS = {
    "P-1, all axes alike": crystal_of(
        "triclinic",
        [0.0, 0.0, 0.1, 0.1, 0.12],
        {
            (0, 0, 0): "Na",
            (0.5, 0, 0): "Cl",
            (0, 0.5, 0): "F",
            (0.11, 0.23, 0.37): "O",
            (-0.11, -0.23, -0.37): "O",
        },
    ),
    "P2/m, a as long as c": crystal_of(
        "monoclinic",
        [0.3, 0.0, 0.15],
        {(0, 0, 0): "Na", (0.5, 0, 0): "Cl", (0.21, 0.0, 0.37): "O", (-0.21, 0.0, -0.37): "O"},
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_gene_of_an_ambiguous_cell_is_one(name: str, seed: int) -> None:
    crystal, rng = AMBIGUOUS[name], np.random.default_rng(seed)
    gene = encode(crystal)
    assert gene.space_group_number == (2 if name.startswith("P-1") else 10)
    other = shifted(in_basis(rotated(reordered(crystal, rng), rng), random_basis(rng)), rng.random(3))
    assert encode(noisy(other, rng)) == gene
    assert encode(other, engine="spglib") == gene
