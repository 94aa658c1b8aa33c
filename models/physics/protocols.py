"""Protocols: named, versioned, hashed settings. A calculation's identity is its structure and its protocol's hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.bands import BandSettings
from wyloop.models.physics.dft import DFTSettings
from wyloop.models.physics.phonons import DFTPhononSettings, PhononSettings
from wyloop.models.physics.relax import RelaxationSettings
from wyloop.models.physics.statics import StaticSettings
from wyloop.models.physics.transport import TransportSettings

Kind = Literal["relaxation", "dft", "phonons", "static", "dft_phonon", "bands", "transport", "vasp"]


@dataclass(frozen=True)
class Protocol:
    """What is calculated, how, and under which name; a change of any setting is a new version."""

    name: str
    version: int
    kind: Kind
    settings: Mapping[str, Any]
    """Plain data: numbers, texts and mappings of them."""

    @property
    def identifier(self) -> str:
        """Name and version, for example `mlip-screen/1`."""
        return f"{self.name}/{self.version}"

    @cached_property
    def hash(self) -> str:
        """Identity of kind and settings, 16 hexadecimal digits; time limits, which change no result, are left out."""
        settings = {key: value for key, value in self.settings.items() if key != "time_limit"}
        text = json.dumps([self.identifier, self.kind, settings], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back: lists for tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


PROTOCOLS = {
    protocol.identifier: protocol
    for protocol in (
        Protocol("mlip-screen", 1, "relaxation", asdict(RelaxationSettings())),
        # the second look at a result that was not believed: further, and from other starts
        Protocol(
            "mlip-check", 1, "relaxation", asdict(RelaxationSettings(max_force=0.02, max_steps=1000, time_limit=180.0))
        ),
        Protocol("mlip-gamma", 1, "phonons", asdict(PhononSettings())),
        Protocol("gpaw-pbe", 1, "dft", asdict(DFTSettings())),
        Protocol("gpaw-static", 1, "static", asdict(StaticSettings())),
        Protocol("gpaw-gamma", 1, "dft_phonon", asdict(DFTPhononSettings())),
        Protocol("gpaw-bands", 1, "bands", asdict(BandSettings()) | {"static": asdict(StaticSettings())}),
        Protocol("gpaw-transport", 1, "transport", _plain(asdict(TransportSettings()))),
        Protocol("mp-vasp", 1, "vasp", {"maker": "MPGGADoubleRelaxStaticMaker", "time_limit": 86400.0}),
    )
}


def protocol(identifier: str) -> Protocol:
    """Return the protocol of this name and version.

    Raises:
        CalculatorError: There is none.
    """
    if identifier not in PROTOCOLS:
        raise CalculatorError(f"no protocol {identifier!r}; expected one of {', '.join(sorted(PROTOCOLS))}")
    return PROTOCOLS[identifier]
