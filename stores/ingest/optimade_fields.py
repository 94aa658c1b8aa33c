"""What OPTIMADE providers call our quantities, and a structure resource as a row of ours; pure functions.

The names of provider fields follow the providers' public documentation and client code (November 2026): Materials
Project (emmet's OptimadeMaterialsDoc), OQMD, Alexandria, JARVIS. Each has a method of its own, so that no energy of one
provider can meet another's in one hull.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from wyloop.models.crystal import Crystal
from wyloop.models.errors import StructureError
from wyloop.stores.ingest.columns import ValueRefusedError, is_missing, to_number
from wyloop.stores.ingest.crystals import checked_crystal
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure

STRUCTURE_FIELDS = (
    "lattice_vectors", "cartesian_site_positions", "species", "species_at_sites", "nsites", "dimension_types",
    "structure_features",
)  # fmt: skip
SPACE_GROUP = "space_group_it_number"
WITHOUT_ORDER = ("disorder", "implicit_atoms", "site_attachments", "assemblies", "unknown_positions")
"""Structure features that our crystals can't have."""

MP_STABILITY = {
    "gga_gga+u": "mp-gga-gga+u",
    "gga_gga+u_r2scan": "mp-gga-gga+u-r2scan",
    "r2scan": "mp-r2scan",
}
"""Keys of `_mp_stability` in order of preference, and the method of their energies."""


@dataclass(frozen=True)
class Provider:
    """Names of a provider's fields and the methods behind them."""

    energy: str | None
    energy_method: str
    gap: str | None
    gap_method: str
    energy_method_field: str | None = None
    gap_method_field: str | None = None
    space_group: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields to ask for."""
        names = (self.energy, self.gap, self.energy_method_field, self.gap_method_field, self.space_group)
        return tuple(name for name in names if name is not None)


PROVIDERS: Mapping[str, Provider] = {
    "mp": Provider("_mp_stability", "mp", None, ""),
    "oqmd": Provider("_oqmd_delta_e", "oqmd-pbe", "_oqmd_band_gap", "oqmd-pbe"),
    "alexandria": Provider(
        "_alexandria_formation_energy_per_atom", "alexandria", "_alexandria_band_gap", "alexandria"
    ),
    "jarvis": Provider(
        "_jarvis_formation_energy_peratom", "jarvis-optb88vdw", "_jarvis_optb88vdw_bandgap", "jarvis-optb88vdw"
    ),
    "wyloop": Provider(
        "_wyloop_formation_energy_per_atom", "wyloop", "_wyloop_band_gap", "wyloop",
        "_wyloop_energy_method", "_wyloop_band_gap_method", "_wyloop_space_group_number",
    ),
}  # fmt: skip
ALEXANDRIA_FUNCTIONALS = ("pbesol", "scan", "pbe")
"""Parts of Alexandria's addresses that name the functional."""


def fields_to_ask(offered: Mapping[str, Any] | None, provider: str) -> tuple[str, ...]:
    """Return the response fields to ask a server for.

    Args:
        offered: Its properties of structures, from `/info/structures`; None if it has no such page.
        provider: Prefix whose fields are wanted, or `auto`.
    """
    wanted = PROVIDERS.values() if provider == "auto" else (PROVIDERS[provider],)
    names = [*STRUCTURE_FIELDS, SPACE_GROUP, *(name for one in wanted for name in one.fields)]
    if offered is None:
        return STRUCTURE_FIELDS if provider == "auto" else tuple(name for name in names if name != SPACE_GROUP)
    return tuple(name for name in names if name in offered or name in STRUCTURE_FIELDS)


def resource_structure(
    resource: object, fallback: str, source: str, tally: Tally, *, url: str = "", provider: str = "auto"
) -> SourceStructure | Refusal:
    """Return a structure resource as a row of ours, or why it is refused.

    Args:
        resource: One item of an answer's `data`.
        fallback: What it is called if it has no id.
        source: Name of the source.
        tally: Told which provider fields were not taken.
        url: Address of the structures; kept as provenance, and Alexandria's functional is in it.
        provider: Prefix of the fields to take labels from; `auto`: any known.
    """
    attributes = resource.get("attributes") if isinstance(resource, dict) else None
    if not isinstance(resource, dict) or not isinstance(attributes, dict):
        return refusal(fallback, "resource", str(resource)[:40], "a structure with attributes", "tell the provider")
    identity = str(resource.get("id") or fallback)
    try:
        crystal = _crystal(attributes)
        labels = _labels(attributes, url, provider, tally)
    except StructureError as error:
        return structure_refusal(identity, error)
    except ValueRefusedError as error:
        return refusal(identity, error.field, error.value, error.expected, error.remedy)
    return SourceStructure(
        source=source,
        source_id=identity,
        crystal=crystal,
        provenance=f"{url}/{identity}" if url else None,
        **labels,
    )


def _crystal(attributes: Mapping[str, Any]) -> Crystal:
    features = [one for one in attributes.get("structure_features") or () if one in WITHOUT_ORDER]
    if features:
        raise StructureError(f"structure features {', '.join(features)}; expected an ordered crystal")
    dimensions = attributes.get("dimension_types") or [1, 1, 1]
    if list(dimensions) != [1, 1, 1]:
        raise StructureError(f"dimension types {dimensions}; expected a crystal periodic in three directions")
    for name in ("lattice_vectors", "cartesian_site_positions", "species_at_sites"):
        if not isinstance(attributes.get(name), list) or not attributes[name]:
            raise StructureError(f"no {name}; expected a crystal with cell and sites")
    elements = _elements(attributes.get("species"))
    sites = [str(name) for name in attributes["species_at_sites"]]
    species = [elements.get(name, name) if elements else name for name in sites]
    try:
        lattice = np.array(attributes["lattice_vectors"], dtype=np.float64)
        positions = np.array(attributes["cartesian_site_positions"], dtype=np.float64)
        frac_coords = positions @ np.linalg.inv(lattice)
    except (TypeError, ValueError) as error:  # null or text among the numbers, ragged rows, a flat cell
        raise StructureError("lattice vectors or positions that close no cell; expected numbers in Å") from error
    return checked_crystal(lattice, species, frac_coords)


def _elements(species: object) -> dict[str, str]:
    """Return the element of each species; one that is disordered or has attachments is refused."""
    elements: dict[str, str] = {}
    for one in species if isinstance(species, list) else ():
        name = str(one.get("name")) if isinstance(one, dict) else str(one)
        symbols = one.get("chemical_symbols") if isinstance(one, dict) else None
        concentration = (one.get("concentration") or [1.0]) if isinstance(one, dict) else [1.0]
        if not isinstance(symbols, list) or len(symbols) != 1 or one.get("attached"):
            raise StructureError(f"species {name} of {symbols}; expected one element")
        share = to_number(concentration[0])
        if share is None or abs(share - 1.0) > 1e-3:
            raise StructureError(f"species {name} ({symbols[0]}): concentration {concentration[0]}; expected 1")
        elements[name] = str(symbols[0])
    return elements


def _labels(attributes: Mapping[str, Any], url: str, provider: str, tally: Tally) -> dict[str, Any]:
    labels: dict[str, Any] = {"space_group_number": _space_group(attributes.get(SPACE_GROUP))}
    taken: set[str] = set()
    for prefix, names in PROVIDERS.items() if provider == "auto" else ((provider, PROVIDERS[provider]),):
        taken |= set(names.fields)
        energy, energy_method = _energy(attributes, names, prefix, url)
        if energy is not None and "formation_energy_per_atom" not in labels:
            labels |= {"formation_energy_per_atom": energy, "energy_method": energy_method}
        gap = _value(attributes, names.gap, "band_gap")
        if gap is not None and gap < 0:
            raise ValueRefusedError("band_gap", gap, "0 eV or more", "tell the provider")
        if gap is not None and "band_gap" not in labels:
            method = _own(attributes, names.gap_method_field) or _method(names.gap_method, prefix, url)
            labels |= {"band_gap": gap, "band_gap_method": method}
        if names.space_group is not None and labels["space_group_number"] is None:
            labels["space_group_number"] = _space_group(attributes.get(names.space_group))
    tally.ignored |= dict.fromkeys(name for name in attributes if name.startswith("_") and name not in taken)
    return labels


def _energy(attributes: Mapping[str, Any], names: Provider, prefix: str, url: str) -> tuple[float | None, str]:
    if prefix == "mp":
        stability = attributes.get("_mp_stability")
        for key, method in MP_STABILITY.items() if isinstance(stability, Mapping) else ():
            entry = stability.get(key) if isinstance(stability, Mapping) else None
            if isinstance(entry, Mapping):
                energy = _value(entry, "formation_energy_per_atom", "formation_energy_per_atom")
                if energy is not None:
                    return energy, method
        return None, ""
    energy = _value(attributes, names.energy, "formation_energy_per_atom")
    return energy, _own(attributes, names.energy_method_field) or _method(names.energy_method, prefix, url)


def _value(fields: Mapping[str, Any], name: str | None, ours: str) -> float | None:
    value = None if name is None else fields.get(name)
    if is_missing(value):
        return None
    number = to_number(value)
    if number is None:
        raise ValueRefusedError(ours, value, "a finite number", "tell the provider")
    return number


def _own(attributes: Mapping[str, Any], name: str | None) -> str | None:
    value = None if name is None else attributes.get(name)
    return None if is_missing(value) else str(value)


def _method(method: str, prefix: str, url: str) -> str:
    if prefix != "alexandria":
        return method
    parts = urlsplit(url).path.lower().split("/")
    functional = next((one for one in ALEXANDRIA_FUNCTIONALS if one in parts), None)
    return method if functional is None else f"{method}-{functional}"


def _space_group(value: object) -> int | None:
    number = to_number(value)
    return int(number) if number is not None and number.is_integer() and 1 <= number <= 230 else None
