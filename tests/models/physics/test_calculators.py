from pathlib import Path

import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.calculators import (
    CHGNET_ELEMENTS,
    UnsupportedElementsError,
    calculator,
    calculator_names,
    check_elements,
    one_thread,
    supported_elements,
)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with three entry points, one good, one broken, one that is no calculator."""
    (tmp_path / "wyloop_test_plugin.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "def emt():\n    calc = EMT()\n    calc.supported_elements = ('Cu', 'Al')\n    return calc\n"
        "def text():\n    return 'no calculator'\n"
    )
    info = tmp_path / "wyloop_test_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wyloop-test-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[wyloop.calculators]\nemt = wyloop_test_plugin:emt\n"
        "broken = wyloop_no_such_module:make\ntext = wyloop_test_plugin:text\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_chgnet_energy_of_sodium_chloride(capfd: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.69)
    atoms.calc = calculator("chgnet")
    assert isinstance(atoms.calc, Calculator)
    # Materials Project, mp-22862: -3.68 eV/atom with its anion correction.
    assert atoms.get_potential_energy() / 2 == pytest.approx(-3.68, abs=0.05)
    assert abs(atoms.get_forces()).max() < 1e-4
    assert capfd.readouterr().out == ""


def test_stress_is_the_derivative_of_the_energy() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.5)
    atoms.calc = calculator()
    stress, cell, volume = atoms.get_stress()[:3].mean(), atoms.cell.copy(), atoms.get_volume()
    energies = []
    for strain in (-0.005, 0.005):
        atoms.set_cell(cell * (1 + strain), scale_atoms=True)
        energies.append(atoms.get_potential_energy())
    assert (energies[1] - energies[0]) / 0.01 / 3 / volume == pytest.approx(stress, rel=0.05)


def test_unsupported_elements_are_named() -> None:
    with pytest.raises(UnsupportedElementsError, match="'chgnet' does not know At, Po"):
        check_elements("chgnet", ["Po", "Na", "At"])
    assert len(CHGNET_ELEMENTS) == 89


def test_missing_calculator_says_what_to_install() -> None:
    with pytest.raises(CalculatorError, match="no calculator 'mace'.*install mace-torch"):
        calculator("mace")


@pytest.mark.usefixtures("plug_in")
def test_plug_in_calculators() -> None:
    assert "emt" in calculator_names()
    assert supported_elements("emt") == {"Cu", "Al"}
    atoms = bulk("Cu")
    atoms.calc = calculator("emt")
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=0.1)  # EMT's zero is the fcc crystal
    with pytest.raises(UnsupportedElementsError, match="'emt' does not know Na"):
        check_elements("emt", ["Na"])
    with pytest.raises(CalculatorError, match="'broken'.*wyloop_no_such_module"):
        calculator("broken")
    with pytest.raises(CalculatorError, match="is a str; expected an ASE calculator"):
        calculator("text")


def test_one_thread_restores_the_threads() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
