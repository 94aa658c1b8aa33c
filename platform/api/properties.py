"""What entries of the OPTIMADE server are made of: each property, its type, and where it stands in the database."""
# mypy: disable-error-code="import-untyped"
# optimade-python-tools ships no types.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

PREFIX = "wyloop"
"""Our provider prefix: our own properties are `_wyloop_*`."""

Kind = Literal["string", "integer", "float", "boolean", "timestamp", "list", "constant"]
ItemKind = Literal["string", "integer", "float", "other"]

_UNSERVED = {
    "id", "schema_version", "code_version", "last_updated", "entry_id", "origin", "input_hash", "element_pairs",
    "reference_ids",
}  # fmt: skip
_LENGTHS = {
    "elements": "nelements",
    "elements_ratios": "nelements",
    "species": "nelements",
    "cartesian_site_positions": "nsites",
    "species_at_sites": "nsites",
}
_ITEMS: Mapping[str, ItemKind] = {
    "elements": "string",
    "species_at_sites": "string",
    "structure_features": "string",
    "elements_ratios": "float",
    "dimension_types": "integer",
    "space_group_symmetry_operations_xyz": "string",
}
_UNITS = {"eV/atom": "eV/{atom}", "Å": "Å", "Å^3": "Å^3", "eV": "eV", "THz": "THz"}


@dataclass(frozen=True)
class Property:
    """One property of an entry.

    Attributes:
        name: Name in OPTIMADE.
        path: Field of the database document; "" where no entry has the property.
        kind: OPTIMADE type; a constant is the same for all entries.
        item_kind: Type of a list's items; other: lists and dictionaries, which no filter compares.
        length_path: Field that holds the length of a list.
        constant: Value of a constant.
        description: What it is.
        unit: Unit of the values, None for those without.
    """

    name: str
    path: str
    kind: Kind
    item_kind: ItemKind = "other"
    length_path: str | None = None
    constant: str = ""
    description: str = ""
    unit: str | None = None

    @property
    def is_sortable(self) -> bool:
        """Whether entries can be sorted by it."""
        return bool(self.path) and self.kind != "list"


@cache
def properties(entry_type: str) -> Mapping[str, Property]:
    """Return every property of an entry type by its name: those of the standard, then our own."""
    from optimade.server.schemas import ENTRY_INFO_SCHEMAS, retrieve_queryable_properties

    from wyloop.stores.documents.optimade import OptimadeReferenceDocument, OptimadeStructureDocument

    document = {"structures": OptimadeStructureDocument, "references": OptimadeReferenceDocument}[entry_type]
    fields = document._fields
    found: dict[str, Property] = {}
    for name, described in retrieve_queryable_properties(
        ENTRY_INFO_SCHEMAS[entry_type], {"id", "type", "attributes"}
    ).items():
        path = "entry_id" if name == "id" else name if name in fields else ""
        kind: Any = "constant" if name == "type" else str(described["type"].value)
        found[name] = Property(
            name=name,
            path=path,
            kind=kind,
            item_kind=_ITEMS.get(name, "other"),
            length_path=_LENGTHS.get(name) if path else None,
            constant=entry_type if name == "type" else "",
            description=str(described["description"]),
            unit=described.get("unit"),
        )
    if entry_type == "structures":
        own = {name: field for name, field in fields.items() if name not in found and name not in _UNSERVED}
        found |= {f"_{PREFIX}_{name}": _own(name, field) for name, field in own.items()}
        number = found["space_group_it_number"]
        name = f"_{PREFIX}_space_group_number"
        found[name] = Property(
            name, number.path, "integer", description="Space group number of the crystal's gene, 1 to 230."
        )
    return found


def _own(name: str, field: Any) -> Property:  # noqa: ANN401 - mongoengine ships no types
    kinds: Mapping[str, Kind] = {
        "StringField": "string",
        "FloatField": "float",
        "IntField": "integer",
        "BooleanField": "boolean",
    }
    unit = _UNITS.get(getattr(field, "unit", ""))
    return Property(f"_{PREFIX}_{name}", name, kinds[type(field).__name__], description=field.help_text, unit=unit)
