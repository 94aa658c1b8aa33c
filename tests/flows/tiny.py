"""A DFT workflow of seconds: the real jobs with settings too coarse for anything but tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from wyloop.models.physics.bands import BandSettings
from wyloop.models.physics.dft import DFTSettings
from wyloop.models.physics.phonons import DFTPhononSettings
from wyloop.models.physics.protocols import PROTOCOLS, Protocol
from wyloop.models.physics.statics import StaticSettings
from wyloop.models.physics.transport import TransportSettings
from wyloop.models.physics.workflows import WORKFLOWS, Step, Workflow

STATIC = StaticSettings(
    relaxed_by="tiny-pbe/1", cutoff=180.0, hard_cutoff=180.0, kpoint_density=1.0, fine_kpoint_density=1.0,
    energy_tolerance=1e-3, density_tolerance=1e-3,
)  # fmt: skip
GAMMA = DFTPhononSettings(
    relaxed_by="tiny-pbe/1", cutoff=180.0, kpoint_density=1.0, insulator_kpoint_density=1.0,
    energy_tolerance=1e-4, density_tolerance=1e-4,
)  # fmt: skip
BANDS = BandSettings(relaxed_by="tiny-pbe/1", path_distance=0.6, dense_kpoint_density=2.0)
LIGHT = DFTSettings(cutoff=180.0, kpoint_density=1.0)
TRANSPORT = asdict(replace(TransportSettings(), bands_by="tiny-bands/1"))
TINY = (
    Protocol("tiny-pbe", 1, "dft", asdict(LIGHT)),
    Protocol("tiny-static", 1, "static", asdict(STATIC)),
    Protocol("tiny-gamma", 1, "dft_phonon", asdict(GAMMA)),
    Protocol("tiny-bands", 1, "bands", asdict(BANDS) | {"static": asdict(STATIC)}),
    Protocol("tiny-transport", 1, "transport", TRANSPORT),
)
STEPS = (
    Step("mlip-screen/1"),
    Step("tiny-pbe/1", ("mlip-screen/1",), needs_references=True),
    Step("tiny-static/1", ("tiny-pbe/1",)),
    Step("tiny-gamma/1", ("tiny-pbe/1",)),
    Step("tiny-bands/1", ("tiny-pbe/1", "tiny-static/1")),
    Step("tiny-transport/1", ("tiny-static/1", "tiny-bands/1"), only_if={"tiny-static/1": {"is_metal": False}}),
)
WORKFLOW = Workflow("tiny", 1, STEPS)


@contextmanager
def tiny_protocols() -> Iterator[None]:
    """Know the tiny protocols inside the block."""
    PROTOCOLS.update({one.identifier: one for one in TINY})
    WORKFLOWS[WORKFLOW.identifier] = WORKFLOW
    try:
        yield
    finally:
        for one in TINY:
            del PROTOCOLS[one.identifier]
        del WORKFLOWS[WORKFLOW.identifier]
