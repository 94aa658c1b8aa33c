"""One crystal with named properties, as JSON documents, ASE rows and extended XYZ frames carry them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wyloop.models.crystal import Crystal
from wyloop.stores.ingest.columns import ValueRefusedError, find_properties, is_missing, read_labels, to_number
from wyloop.stores.ingest.intake import Tally, refusal
from wyloop.stores.ingest.report import Refusal
from wyloop.stores.ingest.structures import SourceStructure

FUNCTIONAL_KEYS = ("functional", "xc", "run_type")
SILENT_KEYS = frozenset({"@module", "@class", "@version", "pbc", "charge", *FUNCTIONAL_KEYS})


@dataclass(frozen=True)
class Reading:
    """How a source is read: its name, and the methods of labels that name none themselves."""

    source: str
    energy_method: str = "mp-pbe"
    gap_method: str = "pbe"


def record(
    reading: Reading,
    fallback: str,
    crystal: Crystal,
    properties: Mapping[str, Any],
    tally: Tally,
    *,
    energy: object = None,
) -> SourceStructure | Refusal:
    """Return a crystal with what its properties say of it, or why it is refused.

    Args:
        reading: Name of the source and methods.
        fallback: Identity where no property is one.
        crystal: The crystal.
        properties: Values by name; those that no column of a table would be taken for are counted in `tally`.
        tally: Told what is not taken.
        energy: Total energy of the cell, eV; kept only with a functional among the properties.
    """
    plain = {name: _plain(value) for name, value in properties.items()}
    found = find_properties(tuple(plain), reading.energy_method, reading.gap_method)
    named = plain.get(found.identity) if found.identity else None
    identity = fallback if is_missing(named) else str(named).strip()
    tally.ignored |= dict.fromkeys(name for name in found.ignored if name not in SILENT_KEYS)
    functional = next((str(plain[key]) for key in FUNCTIONAL_KEYS if not is_missing(plain.get(key))), None)
    total = to_number(_plain(energy))
    if total is not None and functional is None:
        tally.ignored["energy (its functional is not stated)"] = None
    try:
        labels = read_labels(found, plain.__getitem__)
    except ValueRefusedError as error:
        return refusal(identity, error.field, error.value, error.expected, error.remedy)
    tally.add_labels(labels)
    has_energy = total is not None and functional is not None
    return SourceStructure(
        source=reading.source,
        source_id=identity,
        crystal=crystal,
        formation_energy_per_atom=labels.formation_energy_per_atom,
        energy_method=labels.energy_method,
        band_gap=labels.band_gap,
        band_gap_method=labels.band_gap_method,
        space_group_number=labels.space_group_number,
        citation=labels.citation,
        energy_per_atom=total / crystal.nsites if total is not None and has_energy else None,
        functional=functional if has_energy else None,
    )


def _plain(value: object) -> object:
    """Return numpy's scalars as Python's."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 1) == 0 else value
