"""Columns of the CSV forms that the field passes around, mapped by name to ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wyloop.models.errors import IngestError

IDENTITY = ("material_id", "structure_id", "source_id", "entry_id", "mp_id", "id")
CIF = ("cif", "structure_cif", "cif_string")
ENERGY = ("formation_energy_per_atom", "formation_energy_per_atom_eV", "heat_all")
GAP = ("band_gap", "band_gap_eV", "ind_gap")
SPACE_GROUP = ("spacegroup.number", "space_group_number", "spacegroup_number")
CITATION = ("citation",)

FOREIGN_METHODS = {"heat_all": "castelli-rpbe", "ind_gap": "castelli-gllbsc"}
"""Columns whose values come from another method than the one that the caller names: never in one hull with others.

Source: Castelli et al., doi:10.1039/c2ee22341d: RPBE energies, GLLB-SC gaps.
"""


@dataclass(frozen=True)
class Columns:
    """Where in a row our fields stand; None where the file has no such column."""

    n_columns: int
    identity: int
    cif: int
    energy: int | None
    gap: int | None
    space_group: int | None
    citation: int | None
    energy_method: str
    gap_method: str


def find_columns(header: Sequence[str], path: Path, energy_method: str, gap_method: str) -> Columns:
    """Map the header of a CSV file.

    Raises:
        IngestError: No column for the identity or the structure.
    """
    places = {name.strip(): place for place, name in reversed(list(enumerate(header)))}

    def find(names: Sequence[str]) -> tuple[int | None, str]:
        return next(((places[name], name) for name in names if name in places), (None, ""))

    identity, cif = find(IDENTITY)[0], find(CIF)[0]
    energy, energy_name = find(ENERGY)
    gap, gap_name = find(GAP)
    if identity is None or cif is None:
        shown = ", ".join(name[:40] for name in header[:12]) or "none"
        missing = " and ".join(
            f"one of {', '.join(names)}" for place, names in ((identity, IDENTITY), (cif, CIF)) if place is None
        )
        raise IngestError(f"{path} has the columns {shown}; expected also {missing}; rename the columns in its header")
    return Columns(
        n_columns=len(header),
        identity=identity,
        cif=cif,
        energy=energy,
        gap=gap,
        space_group=find(SPACE_GROUP)[0],
        citation=find(CITATION)[0],
        energy_method=FOREIGN_METHODS.get(energy_name, energy_method),
        gap_method=FOREIGN_METHODS.get(gap_name, gap_method),
    )
