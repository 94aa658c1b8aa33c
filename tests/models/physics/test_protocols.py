from dataclasses import asdict, replace

import pytest

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.dft import DFTSettings
from wyloop.models.physics.protocols import PROTOCOLS, Protocol, protocol
from wyloop.models.physics.relax import RelaxationSettings


def test_names() -> None:
    own = {"gpaw-static/1", "gpaw-gamma/1", "gpaw-bands/1", "gpaw-transport/1", "mp-vasp/1"}
    assert set(PROTOCOLS) >= {"mlip-screen/1", "mlip-gamma/1", "gpaw-pbe/1", *own}
    assert protocol("gpaw-pbe/1").identifier == "gpaw-pbe/1"
    with pytest.raises(CalculatorError, match="no protocol 'gpaw-pbe/9'; expected one of gpaw-bands/1, gpaw-gamma/1"):
        protocol("gpaw-pbe/9")


def test_settings_make_the_settings_of_the_functions_again() -> None:
    assert RelaxationSettings(**protocol("mlip-screen/1").settings) == RelaxationSettings()
    assert DFTSettings(**protocol("gpaw-pbe/1").settings) == DFTSettings()


def test_hash_follows_settings_and_name_alone() -> None:
    settings = asdict(DFTSettings())
    same = Protocol("gpaw-pbe", 1, "dft", dict(reversed(settings.items())))
    assert same.hash == protocol("gpaw-pbe/1").hash
    patient = asdict(replace(DFTSettings(), time_limit=9999.0))
    assert Protocol("gpaw-pbe", 1, "dft", patient).hash == same.hash
    finer = asdict(replace(DFTSettings(), cutoff=401.0))
    assert Protocol("gpaw-pbe", 1, "dft", finer).hash != same.hash
    assert Protocol("gpaw-pbe", 2, "dft", settings).hash != same.hash


def test_hash_is_the_same_in_every_process() -> None:
    # Stored with every calculation: a change means another version of the protocol.
    assert Protocol("test", 1, "relaxation", {"b": 1.5, "a": {"x": "y"}}).hash == "c7572953c2e06076"
