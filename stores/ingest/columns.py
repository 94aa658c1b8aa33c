"""Columns and keys of the forms that the field passes around, mapped by name to ours, with their units and methods."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wyloop.models.errors import IngestError

IDENTITY = ("material_id", "structure_id", "source_id", "entry_id", "mp_id", "jid", "unique_id", "id")
CIF = ("cif", "structure_cif", "cif_string")
ENERGY = (
    "formation_energy_per_atom",
    "formation_energy_per_atom_ev",
    "formation_energy_peratom",
    "e_form_per_atom",
    "heat_all",
)
ENERGY_WITH_UNIT = ("formation_energy", "e_form")
"""Names that may mean the energy of a formula unit: taken only where the header says eV/atom."""
GAP = ("band_gap", "band_gap_ev", "bandgap", "gap_pbe", "optb88vdw_bandgap", "ind_gap")
SPACE_GROUP = ("spacegroup.number", "space_group_number", "spacegroup_number", "space_group_it_number", "spg_number")
CITATION = ("citation",)
ENERGY_METHOD = ("energy_method",)
GAP_METHOD = ("band_gap_method",)

FOREIGN_METHODS = {
    "heat_all": "castelli-rpbe",
    "ind_gap": "castelli-gllbsc",
    "gap_pbe": "pbe",
    "formation_energy_peratom": "jarvis-optb88vdw",
    "optb88vdw_bandgap": "jarvis-optb88vdw",
}
"""Columns whose values come from another method than the one that the caller names: never in one hull with others.

Source: Castelli et al., doi:10.1039/c2ee22341d: RPBE energies, GLLB-SC gaps; Choudhary et al.,
doi:10.1038/s41524-020-00440-1: JARVIS-DFT with OptB88vdW.
"""

ENERGY_UNITS = {"": 1.0, "ev/atom": 1.0, "ev": 1.0, "mev/atom": 1e-3}
GAP_UNITS = {"": 1.0, "ev": 1.0, "mev": 1e-3}
MISSING = frozenset({"", "-", "--", ".", "?", "nan", "none", "null", "na", "n/a", "#n/a"})
_UNIT = re.compile(r"^(?P<name>.*?)\s*[(\[]\s*(?P<unit>[^()\[\]]*?)\s*[)\]]$")


class ValueRefusedError(Exception):
    """A label that is no value of its quantity: what it is, what was expected, the remedy."""

    def __init__(self, field: str, value: object, expected: str, remedy: str) -> None:
        text = " ".join(str(value).split())
        super().__init__(field, text, expected, remedy)
        self.field, self.expected, self.remedy = field, expected, remedy
        self.value = text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Quantity:
    """One of our quantities in a foreign row: what it is called there, and what turns it into our unit."""

    name: str
    factor: float = 1.0


@dataclass(frozen=True)
class Properties:
    """What of a foreign row we take; None where it has no such thing."""

    identity: str | None
    cif: str | None
    energy: Quantity | None
    gap: Quantity | None
    space_group: str | None
    citation: str | None
    energy_method: str
    gap_method: str
    own_energy_method: str | None
    """Column that names each row's own method."""
    own_gap_method: str | None
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """Where in a row of a table our fields stand; None where the file has no such column."""

    n_columns: int
    identity: int
    cif: int
    energy: int | None
    gap: int | None
    energy_method: str
    gap_method: str
    properties: Properties
    places: Mapping[str, int]


@dataclass(frozen=True)
class Labels:
    """What a source says of a crystal: eV/atom, eV, ITA number; None is not known."""

    formation_energy_per_atom: float | None = None
    energy_method: str | None = None
    band_gap: float | None = None
    band_gap_method: str | None = None
    space_group_number: int | None = None
    citation: str | None = None
    missing: tuple[str, ...] = ()
    """Quantities that the source has, but not for this crystal."""
    has_decimal_comma: bool = False


@lru_cache(maxsize=1024)
def find_properties(names: tuple[str, ...], energy_method: str, gap_method: str) -> Properties:
    """Map names to our quantities, upper or lower case, with or without the unit in brackets.

    Args:
        names: As the source writes them.
        energy_method: Method of formation energies, unless a name says another.
        gap_method: The same for band gaps.

    Raises:
        IngestError: A quantity stands in a unit that we do not know.
    """
    known: dict[str, tuple[str, str]] = {}  # plain name -> name as written, unit
    for name in reversed(names):
        plain, unit = _split_unit(name)
        known[plain] = (name, unit)

    def find(wanted: Sequence[str]) -> str | None:
        return next((known[name][0] for name in wanted if name in known), None)

    def quantity(wanted: Sequence[str], units: Mapping[str, float]) -> tuple[str, Quantity | None]:
        for plain in wanted:
            if plain in known:
                name, unit = known[plain]
                if unit.lower().replace(" ", "") not in units:
                    raise IngestError(
                        f"column {name!r} is in {unit}; expected {' or '.join(_shown(units))}; convert it and say so "
                        "in the header"
                    )
                return plain, Quantity(name, units[unit.lower().replace(" ", "")])
        return "", None

    with_unit = tuple(plain for plain in ENERGY_WITH_UNIT if known.get(plain, ("", ""))[1].lower().endswith("/atom"))
    energy_name, energy = quantity((*ENERGY, *with_unit), ENERGY_UNITS)
    gap_name, gap = quantity(GAP, GAP_UNITS)
    texts = [find(one) for one in (IDENTITY, CIF, SPACE_GROUP, CITATION, ENERGY_METHOD, GAP_METHOD)]
    taken = {*texts, energy.name if energy else None, gap.name if gap else None}
    return Properties(
        identity=texts[0],
        cif=texts[1],
        energy=energy,
        gap=gap,
        space_group=texts[2],
        citation=texts[3],
        energy_method=FOREIGN_METHODS.get(energy_name, energy_method),
        gap_method=FOREIGN_METHODS.get(gap_name, gap_method),
        own_energy_method=texts[4],
        own_gap_method=texts[5],
        ignored=tuple(name for name in names if name not in taken and name.strip()),
    )


def find_columns(header: Sequence[str], path: Path, energy_method: str, gap_method: str) -> Columns:
    """Map the header of a table.

    Raises:
        IngestError: No column for the identity or the structure, or a unit that we do not know.
    """
    places = {name.strip(): place for place, name in reversed(list(enumerate(header)))}
    names = tuple(dict.fromkeys(name.strip() for name in header))
    found = find_properties(names, energy_method, gap_method)
    if found.identity is None or found.cif is None:
        shown = ", ".join(name[:40] for name in header[:12]) or "none"
        missing = " and ".join(
            f"one of {', '.join(names)}"
            for name, names in ((found.identity, IDENTITY), (found.cif, CIF))
            if name is None
        )
        raise IngestError(f"{path} has the columns {shown}; expected also {missing}; rename the columns in its header")
    return Columns(
        n_columns=len(header),
        identity=places[found.identity],
        cif=places[found.cif],
        energy=None if found.energy is None else places[found.energy.name],
        gap=None if found.gap is None else places[found.gap.name],
        energy_method=found.energy_method,
        gap_method=found.gap_method,
        properties=found,
        places=places,
    )


def read_labels(found: Properties, get: Callable[[str], Any], *, may_have_commas: bool = False) -> Labels:
    """Read the labels of one row or record.

    Args:
        found: What its source calls them.
        get: Returns the value of a name.
        may_have_commas: Whether `1,5` is a number; so it is where a comma parts nothing else.

    Raises:
        ValueRefusedError: A label is no value of its quantity.
    """
    missing: list[str] = []
    commas: list[str] = []

    def number(name: str | None, ours: str, factor: float = 1.0) -> float | None:
        value = None if name is None else get(name)
        if is_missing(value):
            if name is not None:
                missing.append(ours)
            return None
        text = value
        if may_have_commas and isinstance(value, str) and "," in value and "." not in value:
            commas.append(ours)
            text = value.replace(",", ".", 1)
        read = to_number(text)
        if read is None:
            raise ValueRefusedError(ours, value, "a finite number", "correct it, or leave it empty if it is not known")
        return read * factor

    def text(name: str | None) -> str | None:
        value = None if name is None else get(name)
        return None if is_missing(value) else str(value).strip()

    energy = number(found.energy.name, "formation_energy_per_atom", found.energy.factor) if found.energy else None
    gap = number(found.gap.name, "band_gap", found.gap.factor) if found.gap else None
    if gap is not None and gap < 0:
        raise ValueRefusedError("band_gap", gap, "0 eV or more", "correct it, or leave it empty if it is not known")
    group = number(found.space_group, "space_group_number")
    if group is not None and not (group.is_integer() and 1 <= group <= 230):
        raise ValueRefusedError(
            "space_group_number", f"{group:g}", "a whole number from 1 to 230", "correct it, or leave it empty"
        )
    return Labels(
        formation_energy_per_atom=energy,
        energy_method=text(found.own_energy_method) or found.energy_method,
        band_gap=gap,
        band_gap_method=text(found.own_gap_method) or found.gap_method,
        space_group_number=None if group is None else int(group),
        citation=text(found.citation),
        missing=tuple(missing),
        has_decimal_comma=bool(commas),
    )


def is_missing(value: object) -> bool:
    """Whether a value says that there is none: nothing, NaN, or one of the words and dashes for it."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def to_number(value: object) -> float | None:
    """Return a finite number, else None; a truth value is no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and "_" in value:  # Python's own way to part thousands
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _split_unit(name: str) -> tuple[str, str]:
    match = _UNIT.match(name.strip())
    plain, unit = (match["name"], match["unit"]) if match else (name.strip(), "")
    return re.sub(r"[\s-]+", "_", plain.strip().lower()), unit


def _shown(units: Mapping[str, float]) -> list[str]:
    return [unit.replace("ev", "eV") for unit in units if unit]
