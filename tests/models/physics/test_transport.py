"""Transport of a parabolic band, whose mass and Seebeck coefficient are known without a computer."""

import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.physics import transport as module
from wyloop.models.physics.failures import CalculationFailedError
from wyloop.models.physics.transport import TransportSettings, transport

pytest.importorskip("BoltzTraP2", reason="an extra: deploy/install_boltztrap.sh")

A = 5.0  # Å
STRENGTH = 1.0  # eV; E = 2 t (3 - sum cos) has the mass hbar^2 / (2 t a^2) at its bottom


def bands(n: int = 8) -> tuple[Crystal, np.ndarray, np.ndarray]:
    crystal = Crystal(A * np.eye(3), ("Po",), np.zeros((1, 3)))
    axis = np.arange(0, n // 2 + 1) / n
    kpoints = np.array([(x, y, z) for x in axis for y in axis if y <= x for z in axis if z <= y])
    above = 2 * STRENGTH * (3 - np.cos(2 * np.pi * kpoints).sum(axis=1))
    return crystal, kpoints, np.array([np.stack([-above - 1.0, above + 1.0], axis=1)])


def test_mass_and_seebeck_coefficient_of_a_parabola() -> None:
    crystal, kpoints, eigenvalues = bands()
    settings = TransportSettings(temperatures=(300.0,), dopings=(1e19,), multiplier=20)
    rows = transport(crystal, kpoints, eigenvalues, fermi_level=0.0, n_electrons=2.0, settings=settings)
    electron = next(row for row in rows if row.carrier == "n")
    hole = next(row for row in rows if row.carrier == "p")
    expected = 7.61996 / (2 * STRENGTH * A**2)  # hbar^2 / m_e is 7.62 eV Å^2
    assert electron.conductivity_mass == pytest.approx(expected, rel=0.1)
    assert hole.conductivity_mass == pytest.approx(electron.conductivity_mass, rel=1e-2)
    assert hole.seebeck == pytest.approx(-electron.seebeck, rel=1e-2)
    assert electron.seebeck < 0
    assert electron.power_factor_over_tau == pytest.approx(
        electron.conductivity_over_tau * (electron.seebeck * 1e-6) ** 2
    )
    assert electron.fitness > 0


def test_metals_and_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal, kpoints, eigenvalues = bands(4)
    with pytest.raises(CalculationFailedError, match="an odd number of electrons"):
        transport(crystal, kpoints, eigenvalues, fermi_level=0.0, n_electrons=2.5)
    with pytest.raises(CalculationFailedError, match="bands cross the Fermi level"):
        transport(crystal, kpoints, eigenvalues, fermi_level=3.0, n_electrons=2.0)
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(CalculationFailedError, match=r"BoltzTraP2 is not in this Python environment; run deploy"):
        transport(crystal, kpoints, eigenvalues, fermi_level=0.0, n_electrons=2.0)
