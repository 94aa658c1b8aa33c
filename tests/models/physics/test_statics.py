import numpy as np
import pytest
from ase.build import bulk

from wyloop.models.crystal import Crystal
from wyloop.models.physics.bands import band_path, density_of_states
from wyloop.models.physics.gpaw_runner import direct_band_gap
from wyloop.models.physics.statics import StaticSettings, derived_settings, mesh_of

SILICON = Crystal.from_ase(bulk("Si", a=5.43))
MAGNESIA = Crystal.from_ase(bulk("MgO", "rocksalt", a=4.25))
ZINC_OXIDE = Crystal.from_ase(bulk("ZnO", "wurtzite", a=3.29, c=5.3))


def test_settings_follow_from_elements_and_gap() -> None:
    settings = StaticSettings()
    oxide, mesh = derived_settings(MAGNESIA, 4.2, settings)
    assert (oxide.cutoff, oxide.smearing, oxide.setups, mesh) == (600.0, 0.01, {}, [8, 8, 8])
    semiconductor, mesh = derived_settings(SILICON, 0.6, settings)
    assert (semiconductor.cutoff, mesh) == (500.0, [10, 10, 10])  # 8.02 points, made even
    metal, _ = derived_settings(SILICON, 0.0, settings)
    assert metal.smearing == 0.1
    assert derived_settings(SILICON, None, settings)[0].kpoint_density == settings.fine_kpoint_density


def test_meshes_hold_the_edges_of_the_zone() -> None:
    mesh = mesh_of(ZINC_OXIDE, 3.0)
    assert mesh[0] == mesh[1] == 6  # K is a third of the way, M a half
    assert mesh[2] % 2 == 0
    assert mesh_of(MAGNESIA, 0.1) == [1, 1, 1]


def test_direct_gap_beside_the_smallest() -> None:
    eigenvalues = np.array([[[-2.0, 0.0, 3.0], [-2.0, -0.5, 1.0]]])
    assert direct_band_gap(eigenvalues, 0.5) == 1.5


def test_path_of_silicon() -> None:
    kpoints, lengths, labels = band_path(SILICON, 0.1)
    names = [label for _, label in labels]
    assert names[:2] == ["GAMMA", "X"]
    assert {"L", "W"} <= set(names)
    place = next(place for place, label in labels if label == "X")
    assert lengths[place] == pytest.approx(2 * np.pi / 5.43, rel=1e-3)
    assert np.abs(kpoints[place]).max() == pytest.approx(0.5)
    assert (np.diff(lengths) >= 0).all()


def test_density_of_states_counts_the_states() -> None:
    energies, dos = density_of_states(np.array([[[-1.0, 2.0], [0.5, 2.0]]]), np.array([0.25, 0.75]), 0.0, 0.1)
    assert np.trapezoid(dos, energies) == pytest.approx(4.0, rel=1e-6)  # two bands, two spins
    assert energies[dos.argmax()] == pytest.approx(2.0, abs=0.05)
