"""Which crystals of one gene are the same: structure matching, after the canonical gene has narrowed the choice."""

from collections.abc import Sequence

from wyloop.models.crystal import Crystal

LENGTH_TOLERANCE = 0.2  # fraction of a lattice length; these three are pymatgen's and the Materials Project's
SITE_TOLERANCE = 0.3  # fraction of the mean distance between atoms, (V/n)^(1/3)
ANGLE_TOLERANCE = 5.0  # degrees


def matching_groups(crystals: Sequence[Crystal]) -> list[list[int]]:
    """Sort crystals into groups of the same structure, whatever their cells, origins and volumes.

    Each crystal joins the first group whose first crystal it matches, else it begins a group of its own: the result
    follows from the order alone, and a crystal added at the end changes no group that is there.

    Args:
        crystals: Crystals of the same composition, such as those of one gene.

    Returns:
        Places of the members of each group, the groups in the order of their first members.
    """
    if len(crystals) == 1:
        return [[0]]
    # half a second
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core.structure import Structure

    matcher = StructureMatcher(ltol=LENGTH_TOLERANCE, stol=SITE_TOLERANCE, angle_tol=ANGLE_TOLERANCE)
    groups: list[list[int]] = []
    leads: list[Structure] = []
    for place, crystal in enumerate(crystals):
        structure = crystal.to_pymatgen()
        for group, lead in zip(groups, leads, strict=True):
            if matcher.fit(lead, structure):
                group.append(place)
                break
        else:
            groups.append([place])
            leads.append(structure)
    return groups
