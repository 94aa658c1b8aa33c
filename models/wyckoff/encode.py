"""Crystal to gene: the letters that the symmetry engine finds, brought to the one canonical form."""

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, StructureError
from wyloop.models.wyckoff.cell_choices import cell_choices, relabeled
from wyloop.models.wyckoff.engines import Engine, Symmetry, find_symmetry
from wyloop.models.wyckoff.gene import Gene, canonical, rank
from wyloop.models.wyckoff.tables import space_group, wyckoff_position

SYMPREC = 0.1  # Å
TIGHT_SHARE = 0.1  # of symprec, for the cell to start from when symmetry at symprec contradicts itself


def encode(crystal: Crystal, symprec: float = SYMPREC, *, engine: Engine = "moyopy") -> Gene:
    """Find the canonical gene of an ordered crystal.

    Args:
        crystal: Any cell of the crystal.
        symprec: Distance within which atoms count as equivalent, Å; moyopy tightens one that leads to no group.
        engine: Who finds the symmetry; the gene is the same wherever both find the same space group.

    Returns:
        The canonical gene; the same for every cell, origin, orientation and order of sites.

    Raises:
        StructureError: The cell is unphysical, or no symmetry is found in it.
    """
    try:
        return _gene(find_symmetry(crystal, symprec, engine))
    except GeneError as first:
        try:
            tight = find_symmetry(crystal, symprec * TIGHT_SHARE, engine).primitive
            return _gene(find_symmetry(tight, symprec, engine))
        except GeneError:
            raise StructureError(f"{first}: the symmetry is ambiguous at symprec {symprec} Å, try another") from first


def standardize(crystal: Crystal, symprec: float = SYMPREC) -> Crystal:
    """Return the standard primitive cell, lattice and coordinates symmetrised.

    Raises:
        StructureError: The cell is unphysical, or no symmetry is found in it.
    """
    return find_symmetry(crystal, symprec).primitive


def _gene(symmetry: Symmetry) -> Gene:
    """Check the orbits against the tables and choose the least gene of all shortest cells."""
    number, n_centerings = symmetry.number, space_group(symmetry.number).n_centerings
    for element, letter, size in symmetry.orbits:
        multiplicity = wyckoff_position(number, letter).multiplicity
        if size * n_centerings != multiplicity:
            raise GeneError(
                f"an orbit of {size * n_centerings} {element} on position {letter} of space group {number}; "
                f"expected {multiplicity}"
            )
    genes = (
        Gene.of(number, [(element, relabeled(number, choice, letter)) for element, letter, _ in symmetry.orbits])
        for choice in cell_choices(number, symmetry.lattice)
    )
    return min(map(canonical, genes), key=rank)
