"""Entries of the OPTIMADE view as pure functions of the crystals' documents, times of change included."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from itertools import combinations
from math import gcd
from typing import Any

import numpy as np

from wyloop.models.wyckoff.encode import SYMPREC
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.documents.base import SCHEMA_VERSION, checked, code_version
from wyloop.stores.documents.optimade import OptimadeReferenceDocument, OptimadeStructureDocument
from wyloop.stores.methods import UNKNOWN
from wyloop.stores.records import composition_fields, digest, object_id

VIEW_VERSION = 1
"""Raised when entries of the same inputs come out differently: all are then built again."""

OWN_SOURCE = "wyloop"
_POSITION_DIGITS = 10  # of Å: beyond it a matrix product differs between machines
_HULL = ("energy_above_hull", "hull_id")
_FROM_STRUCTURE = (
    "source", "source_id", "provenance", "citation", "formation_energy_per_atom", "energy_method", "band_gap",
    "band_gap_method", "volume", "volume_per_atom", "fingerprint", "protostructure", "material_id",
)  # fmt: skip
_FROM_MATERIAL = (
    "material_id", "fingerprint", "is_validated", "formation_energy_per_atom", "energy_method", "energy_above_hull",
    "hull_id", "dft_formation_energy_per_atom", "band_gap", "band_gap_method", "is_gap_direct",
    "lowest_optical_frequency", "phonon_verdict", "campaign_id", "round_number", "candidate_id", "model_id",
    "volume_per_atom",
)  # fmt: skip


@dataclass(frozen=True)
class OptimadeInput:
    """One crystal's documents; without any the entry is to be removed."""

    origin: str
    entry_id: str
    input_hash: str = ""
    document: Mapping[str, Any] | None = None
    material: Mapping[str, Any] | None = None


def optimade_entry(item: OptimadeInput) -> OptimadeInput | dict[str, Any]:
    """Return the whole entry document of one crystal; what is to be removed is handed on."""
    if item.document is None:
        return item
    if item.origin == "structures":
        fields = _structure_fields(item.document, item.material)
    else:
        fields = _material_fields(item.document)
    time = max(document["last_updated"] for document in (item.document, item.material) if document is not None)
    own = {
        "entry_id": item.entry_id,
        "immutable_id": f"{item.entry_id}@{item.input_hash[:16]}",
        "origin": item.origin,
        "input_hash": item.input_hash,
        "last_modified": time,
        "last_updated": time,
    }
    return {"_id": object_id(item.entry_id), **checked(OptimadeStructureDocument, own | fields)}


def input_hash(document: Mapping[str, Any], material: Mapping[str, Any] | None) -> str:
    """Name the inputs of an entry by their stamps.

    Args:
        document: The structure, or the material that was computed here.
        material: The material that the structure is, if any.
    """
    state = [VIEW_VERSION, SCHEMA_VERSION, code_version(), document.get("fingerprint")]
    for one in (document, material):
        if one is not None:
            time: datetime = one["last_updated"]
            state += [one.get("material_id"), one["content_hash"], time.isoformat()]
    return digest(state)


def _structure_fields(structure: Mapping[str, Any], material: Mapping[str, Any] | None) -> dict[str, Any]:
    citation, fingerprint = structure.get("citation"), structure.get("fingerprint")
    return (
        crystal_properties(structure["lattice"], structure["species"], structure["frac_coords"])
        | space_group_properties(structure.get("space_group_number"))
        | {name: structure.get(name) for name in _FROM_STRUCTURE}
        | _above_hull(structure, material)
        | {
            "wyckoff_sequence": fingerprint.partition(" ")[2] if fingerprint else None,
            "symprec": SYMPREC if fingerprint else None,
            "is_validated": False,
            "reference_ids": [reference_id(citation)] if citation else None,
        }
    )


def _above_hull(structure: Mapping[str, Any], material: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how far a structure is above the hull of its method: as its material, and what its own energy is more."""
    energy, method = structure.get("formation_energy_per_atom"), structure.get("energy_method") or UNKNOWN
    for one in (material or {}).get("energies") or ():
        if energy is not None and one["method"] == method and one.get("hull_id"):
            excess = energy - one["formation_energy_per_atom"]
            return {"energy_above_hull": one["energy_above_hull"] + excess, "hull_id": one["hull_id"]}
    return {}


def _material_fields(material: Mapping[str, Any]) -> dict[str, Any]:
    gene = Gene.parse(material["fingerprint"])
    crystal = material["crystal"]
    return (
        crystal_properties(crystal["lattice"], crystal["species"], crystal["frac_coords"])
        | space_group_properties(material["space_group_number"])
        | {name: material.get(name) for name in _FROM_MATERIAL}
        | {
            "source": OWN_SOURCE,
            "source_id": material["material_id"],
            "volume": material["volume_per_atom"] * material["nsites"],
            "wyckoff_sequence": gene.wyckoff_sequence,
            "protostructure": gene.protostructure,
            "symprec": SYMPREC,
        }
    )


def crystal_properties(
    lattice: list[list[float]], species: list[str], frac_coords: list[list[float]]
) -> dict[str, Any]:
    """Return the OPTIMADE properties that follow from an ordered crystal.

    Args:
        lattice: Lattice vectors in rows, Å.
        species: Element of each site.
        frac_coords: Fractional coordinates of each site, in the cell of `lattice`.
    """
    vectors = np.asarray(lattice, dtype=np.float64)
    positions = np.asarray(frac_coords, dtype=np.float64) @ vectors
    return _composition(tuple(sorted(Counter(species).items()))) | {
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": vectors,
        "cartesian_site_positions": np.round(positions, _POSITION_DIGITS) + 0.0,
        "nsites": len(species),
        "species_at_sites": species,
        "structure_features": [],
    }


def space_group_properties(number: int | None) -> dict[str, Any]:
    """Return the OPTIMADE properties of a space group; the symbol is that of its standard setting."""
    if number is None:
        return {}
    return {"space_group_it_number": number, "space_group_symbol_hermann_mauguin": _symbol(number)}


def reference_id(citation: str) -> str:
    """Return the identity of the reference with this text."""
    return "ref-" + digest(citation, 12)


@cache
def _symbol(number: int) -> str:
    from moyopy import SpaceGroupType

    return SpaceGroupType(number).hm_short.replace("_", "")


@lru_cache(maxsize=50_000)
def _composition(amounts: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    from pymatgen.core.composition import Composition  # half a second

    counts = dict(amounts)
    known = composition_fields(counts)
    elements: list[str] = known["elements"]
    total, divisor = sum(counts.values()), gcd(*counts.values())
    # pymatgen's reduced formula keeps the chemical unit where it is larger than the reduced one: Na2O2, O2
    unit = {str(element): round(amount) for element, amount in Composition(known["formula_pretty"]).items()}
    return {
        "elements": elements,
        "nelements": len(elements),
        "elements_ratios": np.array([counts[element] / total for element in elements]),
        "element_pairs": [f"{first}-{second}" for first, second in combinations(elements, 2)],
        "chemsys": known["chemsys"],
        "chemical_formula_descriptive": known["formula_pretty"],
        "chemical_formula_reduced": _formula({element: counts[element] // divisor for element in elements}),
        "chemical_formula_hill": _formula({element: unit[element] for element in _hill_order(elements)}),
        "chemical_formula_anonymous": known["formula_anonymous"],
        "species": [{"name": name, "chemical_symbols": [name], "concentration": np.ones(1)} for name in elements],
    }


def _hill_order(elements: list[str]) -> list[str]:
    if "C" not in elements:
        return elements
    first = [element for element in ("C", "H") if element in elements]
    return first + [element for element in elements if element not in first]


def _formula(amounts: Mapping[str, int]) -> str:
    return "".join(f"{element}{amount if amount > 1 else ''}" for element, amount in amounts.items())


def optimade_reference(citation: str, time: datetime) -> dict[str, Any]:
    """Return the whole reference document of a citation; the text is all that is certain of it."""
    doi = re.search(r"\bdoi:\s*(10\.\d+/\S+?)[.,;]?(?:\s|$)", citation)
    year = re.search(r"\((\d{4})\)", citation)
    identity = reference_id(citation)
    fields = checked(
        OptimadeReferenceDocument,
        {
            "entry_id": identity,
            "last_modified": time,
            "last_updated": time,
            "note": citation,
            "doi": doi.group(1) if doi else None,
            "url": f"https://doi.org/{doi.group(1)}" if doi else None,
            "year": year.group(1) if year else None,
        },
    )
    return {"_id": object_id(identity), **fields}
