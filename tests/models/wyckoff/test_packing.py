import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wyloop.models.wyckoff.contacts import contact_distance, polarity
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.lattices import lattice, random_shape, shape_bounds
from wyloop.models.wyckoff.packing import overlap, packing, parameter_bounds, shortest_contact_ratio
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS

ONE_OF_EACH_SYSTEM = (
    "2 Ga:i O:i O:i",
    "12 Ga:i Ga:i O:i O:i O:i",
    "62 O:c O:d Sr:c Zr:a",
    "136 O:f Ti:a",
    "166 Bi:c Te:a Te:c",
    "186 O:b Zn:b",
    "205 Fe:a S:c",
)


@pytest.mark.parametrize("text", ONE_OF_EACH_SYSTEM)
def test_gradient_is_the_derivative(text: str) -> None:
    problem = packing(Gene.parse(text), 12.0)
    rng = np.random.default_rng(3)
    point = rng.random(problem.n_parameters)
    point[: problem.n_shape_parameters] = random_shape(problem.crystal_system, rng)
    energy, gradient = overlap(problem, point, 1.3)
    steps = 1e-6 * np.eye(problem.n_parameters)
    numeric = [
        (overlap(problem, point + step, 1.3)[0] - overlap(problem, point - step, 1.3)[0]) / 2e-6 for step in steps
    ]
    assert energy > 0
    np.testing.assert_allclose(gradient, numeric, atol=1e-5 * np.abs(gradient).max())


def test_rock_salt_overlap_by_hand() -> None:
    # One Na-Cl bond length of half the cell; only the six nearest neighbours of each of the eight ions overlap.
    problem = packing(Gene.parse("225 Cl:a Na:b"), 16.0)
    bond, contact = 128.0 ** (1 / 3) / 2, contact_distance("Na", "Cl")
    scale = 1.05 * bond / contact
    assert scale * contact_distance("Cl", "Cl") < bond * 2**0.5
    assert scale * contact_distance("Na", "Na") < bond * 2**0.5
    energy, gradient = overlap(problem, np.zeros(0), scale)
    assert energy == pytest.approx(8 * 6 * (1 - 1 / 1.05) ** 2)
    assert gradient.shape == (0,)
    assert shortest_contact_ratio(problem, np.zeros(0)) == pytest.approx(
        min(bond / contact, bond * 2**0.5 / contact_distance("Cl", "Cl"), bond * 2**0.5 / contact_distance("Na", "Na"))
    )


def test_an_atom_meets_its_own_images() -> None:
    problem = packing(Gene.parse("221 Po:a"), 38.0)
    expected = 38.0 ** (1 / 3) / contact_distance("Po", "Po")
    assert shortest_contact_ratio(problem, np.zeros(0)) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(CRYSTAL_SYSTEMS), st.floats(10.0, 5000.0), st.integers(0, 1000))
def test_lattices_have_their_volume_and_symmetry(system: str, volume: float, seed: int) -> None:
    shape = random_shape(system, np.random.default_rng(seed))
    lower, upper = shape_bounds(system).T
    assert ((lower <= shape) & (shape <= upper)).all()
    vectors = lattice(system, volume, shape)
    assert np.linalg.det(vectors) == pytest.approx(volume)
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = [vectors[i] @ vectors[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    if system in ("cubic", "tetragonal", "trigonal", "hexagonal"):
        assert lengths[0] == pytest.approx(lengths[1])
    if system == "cubic":
        assert lengths[0] == pytest.approx(lengths[2])
    if system not in ("triclinic", "monoclinic"):
        assert cosines[:2] == pytest.approx([0.0, 0.0], abs=1e-9)
    if system == "monoclinic":
        assert cosines[0] == pytest.approx(0.0, abs=1e-9)
        assert cosines[1] <= 0.0
    if system != "triclinic":
        assert cosines[2] == pytest.approx(-0.5 if system in ("trigonal", "hexagonal") else 0.0, abs=1e-9)


def test_bounds_leave_coordinates_free() -> None:
    bounds = parameter_bounds(packing(Gene.parse("136 O:f Ti:a"), 10.0))
    assert np.isfinite(bounds[0]).all()
    assert np.isinf(bounds[1:]).all()


def test_contacts_of_known_pairs() -> None:
    assert contact_distance("Na", "Cl") == contact_distance("Cl", "Na") == pytest.approx(2.8, abs=0.1)
    assert contact_distance("Si", "O") == pytest.approx(1.62, abs=0.1)
    assert contact_distance("Cu", "Cu") == pytest.approx(2.6, abs=0.2)


def test_contacts_of_pairs_never_seen() -> None:
    assert 2.0 < contact_distance("He", "Rn") < 5.0
    assert polarity("He", "O") == 0.0
    assert polarity("Na", "Cl") == pytest.approx(2.23, abs=0.01)
