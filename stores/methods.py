"""Methods of formation energies: which come first, and which hulls a force field's energies may be held against."""

from collections.abc import Mapping
from dataclasses import dataclass

UNKNOWN = "unknown"
FORCE_FIELD = "chgnet"
"""What our own relaxations are computed with."""
PREFERRED = "mp-pbe"


@dataclass(frozen=True)
class Method:
    """What stands behind the name of a method."""

    functional: str
    """One line for a reader: the functional and what else makes energies of one method comparable."""
    is_pbe_gap: bool = False
    """Whether its band gaps are PBE's, a training label."""


METHODS: Mapping[str, Method] = {
    "pbe": Method("PBE, by a program and settings that the source does not name", True),
    "mp-pbe": Method("PBE, with U for 3d metals, Mo and W in oxides and fluorides, of the Materials Project", True),
    "mp-gga-gga+u": Method("PBE and PBE+U of the Materials Project, mixed and corrected (MP2020)"),
    "mp-gga-gga+u-r2scan": Method("PBE, PBE+U and r2SCAN of the Materials Project, mixed and corrected"),
    "mp-r2scan": Method("r2SCAN of the Materials Project"),
    "oqmd-pbe": Method("PBE and PBE+U of OQMD, with OQMD's own fitted elemental references", True),
    "alexandria-pbe": Method("PBE and PBE+U of Alexandria, settings and corrections after the Materials Project", True),
    "alexandria-pbesol": Method("PBEsol of Alexandria"),
    "alexandria-scan": Method("SCAN of Alexandria"),
    "jarvis-optb88vdw": Method("OptB88vdW of JARVIS-DFT"),
    "gpaw-pbe": Method("PBE by this platform's GPAW calculations, uncorrected", True),
    "vasp-pbe": Method("PBE by VASP, uncorrected", True),
    FORCE_FIELD: Method("CHGNet, a force field fitted to the Materials Project's corrected PBE and PBE+U energies"),
}
"""Known methods by name. Each is a method of its own, however alike the functionals are: references, corrections and
the use of U differ, so energies of two of them never meet in one hull."""
PBE_METHODS = frozenset(name for name, method in METHODS.items() if method.is_pbe_gap)
"""Gaps of these methods are training labels; a version, as in `gpaw-pbe/1`, is allowed behind."""

JUDGES: Mapping[str, tuple[str, ...]] = {FORCE_FIELD: (PREFERRED,)}
"""Methods whose hulls count for a material besides that of its own method.

CHGNet was fitted to the Materials Project's corrected energies, so a crystal that CHGNet alone knows can be held
against the hull of the crystals that they computed. No hull mixes both.

Source: Deng et al., doi:10.1038/s42256-023-00716-3.
"""


def preference(method: str) -> tuple[bool, bool, str]:
    """Return the order of methods where one has to stand for a known crystal: DFT before the force field."""
    return method == FORCE_FIELD, method != PREFERRED, method


def functional_of(method: str) -> str:
    """Say which functional stands behind a method's name; a version, as in `gpaw-pbe/1`, is allowed behind."""
    known = METHODS.get(method.split("/")[0])
    return known.functional if known is not None else f"not described; named {method!r} by its source"
