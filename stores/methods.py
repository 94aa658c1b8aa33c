"""Methods of formation energies: which come first, and which hulls a force field's energies may be held against."""

from collections.abc import Mapping

UNKNOWN = "unknown"
FORCE_FIELD = "chgnet"
"""What our own relaxations are computed with."""
PREFERRED = "mp-pbe"

JUDGES: Mapping[str, tuple[str, ...]] = {FORCE_FIELD: (PREFERRED,)}
"""Methods whose hulls count for a material besides that of its own method.

CHGNet was fitted to the Materials Project's corrected energies, so a crystal that CHGNet alone knows can be held
against the hull of the crystals that they computed. No hull mixes both.

Source: Deng et al., doi:10.1038/s42256-023-00716-3.
"""


def preference(method: str) -> tuple[bool, bool, str]:
    """Return the order of methods where one has to stand for a known crystal: DFT before the force field."""
    return method == FORCE_FIELD, method != PREFERRED, method
