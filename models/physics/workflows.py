"""Workflows as data: which protocols a candidate goes through, in which order, and which verdicts promote it.

A workflow has the name and version of the protocol that it leads to or that decides in it: who asks for `gpaw-gamma/1`
gets the force field's relaxation, DFT's, a static calculation and DFT's phonons, and where these find it stable bands
and thermoelectrics. Protocols that two workflows share are computed once.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.protocols import PROTOCOLS, protocol

CATEGORY = {
    "relaxation": "mlip",
    "phonon": "mlip",
    "dft": "dft",
    "reference": "dft",
    "static": "dft",
    "dft_phonon": "dft",
    "bands": "dft",
    "transport": "light",
    "vasp": "vasp",
    "write_back": "light",
}
"""Kind of job to the category of workers that take it."""
KIND_OF_JOB = {"phonons": "phonon"}
"""Kinds of protocol whose jobs have another name."""


@dataclass(frozen=True)
class Step:
    """One job of a workflow: its protocol, what it waits for, and what must be true of these for it to start."""

    protocol: str
    after: tuple[str, ...] = ()
    """Protocols of this workflow whose jobs come before; they must have completed and be believed."""
    only_if: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By protocol, values that its result must have."""
    needs_references: bool = False
    """Whether the elements' energies by the same protocol are wanted, one job an element."""

    @property
    def kind(self) -> str:
        """Kind of the job."""
        own = protocol(self.protocol).kind
        return KIND_OF_JOB.get(own, own)


@dataclass(frozen=True)
class Workflow:
    """Named, versioned steps."""

    name: str
    version: int
    steps: tuple[Step, ...]

    @property
    def identifier(self) -> str:
        """Name and version."""
        return f"{self.name}/{self.version}"

    @cached_property
    def hash(self) -> str:
        """Identity of the steps and of all settings below them, 16 hexadecimal digits."""
        steps = [[asdict(step), protocol(step.protocol).hash] for step in self.steps]
        text = json.dumps([self.identifier, steps], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_SCREEN = Step("mlip-screen/1")
_PRE_SCREEN = Step("mlip-gamma/1", ("mlip-screen/1",))
_DFT = (_SCREEN, Step("gpaw-pbe/1", ("mlip-screen/1",), needs_references=True), Step("gpaw-static/1", ("gpaw-pbe/1",)))
_IS_SEMICONDUCTOR = {"gpaw-static/1": {"is_metal": False}}
_BANDS = Step("gpaw-bands/1", ("gpaw-pbe/1", "gpaw-static/1"))
_TRANSPORT = Step("gpaw-transport/1", ("gpaw-static/1", "gpaw-bands/1"), only_if=_IS_SEMICONDUCTOR)
_GAMMA = Step("gpaw-gamma/1", ("gpaw-pbe/1",))
_BANDS_IF_STABLE = Step("gpaw-bands/1", (*_BANDS.after, "gpaw-gamma/1"), only_if={"gpaw-gamma/1": {"is_stable": True}})

WORKFLOWS = {
    workflow.identifier: workflow
    for workflow in (
        Workflow("mlip-screen", 1, (_SCREEN,)),
        Workflow("mlip-gamma", 1, (_SCREEN, _PRE_SCREEN)),
        Workflow("gpaw-pbe", 1, _DFT),
        Workflow("gpaw-gamma", 1, (*_DFT, _GAMMA, _BANDS_IF_STABLE, _TRANSPORT)),
        Workflow("gpaw-bands", 1, (*_DFT, _BANDS, _TRANSPORT)),
        Workflow("mp-vasp", 1, (_SCREEN, Step("mp-vasp/1", ("mlip-screen/1",)))),
    )
}


def workflow(identifier: str) -> Workflow:
    """Return the workflow of this name and version.

    Raises:
        CalculatorError: There is none.
    """
    if identifier not in WORKFLOWS:
        part = " (a step of others)" if identifier in PROTOCOLS else ""
        raise CalculatorError(
            f"no workflow for protocol {identifier!r}{part}; expected one of {', '.join(sorted(WORKFLOWS))}"
        )
    return WORKFLOWS[identifier]
