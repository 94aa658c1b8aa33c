"""Crystals of the Materials Project through its own client, `mp-api`, an optional extra; the key is never shown."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wyloop.models.errors import IngestError, StructureError
from wyloop.stores.connection import Store
from wyloop.stores.ingest.columns import ValueRefusedError, is_missing, to_number
from wyloop.stores.ingest.crystals import crystal_of_structure
from wyloop.stores.ingest.intake import Tally, refusal, structure_refusal, take_in
from wyloop.stores.ingest.report import IngestReport, OnProgress, OnRefusal, Refusal
from wyloop.stores.ingest.structures import SourceStructure

SOURCE = "mp"
ENERGY_METHOD = "mp-gga-gga+u-r2scan"
"""Summaries give formation energies of the mixed hull: not one with those of older downloads (`mp-pbe`)."""
GAP_METHOD = "mp-pbe"
FIELDS = (
    "material_id", "structure", "formation_energy_per_atom", "band_gap", "symmetry", "deprecated", "builder_meta",
)  # fmt: skip
KEY_LENGTH = 32
CHUNK_SIZE = 500


@dataclass(frozen=True)
class Search:
    """What to ask the Materials Project for; None asks for anything."""

    elements: tuple[str, ...] = ()
    """All of them are in the crystal."""
    chemsys: tuple[str, ...] = ()
    formula: tuple[str, ...] = ()
    material_ids: tuple[str, ...] = ()
    n_elements: tuple[int, int] | None = None
    band_gap: tuple[float, float] | None = None
    energy_above_hull: tuple[float, float] | None = None

    def arguments(self) -> dict[str, Any]:
        """Return it as the client's `summary.search` takes it."""
        named = {
            "elements": list(self.elements) or None,
            "chemsys": list(self.chemsys) or None,
            "formula": list(self.formula) or None,
            "material_ids": list(self.material_ids) or None,
            "num_elements": self.n_elements,
            "band_gap": self.band_gap,
            "energy_above_hull": self.energy_above_hull,
        }
        return {name: value for name, value in named.items() if value is not None}


def ingest_materials_project(
    store: Store,
    search: Search,
    key: str,
    *,
    source: str = SOURCE,
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
    fetch: Callable[[Search, str], Iterable[Mapping[str, Any]]] | None = None,
) -> IngestReport:
    """Read what the Materials Project has for a search into `structures`; reading it again changes nothing.

    Args:
        store: The database.
        search: What to ask for.
        key: The user's key of 32 characters.
        source: Name of the source.
        on_progress: Told the rows done and their total.
        on_refusal: Told each material that was not taken.
        fetch: Returns summary documents; `mp-api` by default.

    Raises:
        IngestError: No or no proper key, no `mp-api`, nothing asked for, or a server that refuses.
    """
    if not key.strip():
        raise IngestError(
            "no key of the Materials Project; expected one in the environment; see its web site's API page"
        )
    if not search.arguments():
        raise IngestError("a search without conditions; expected elements, a chemical system, a formula or ids")
    documents = (fetch or fetch_summaries)(search, key.strip())
    tally = Tally()
    rows = (summary_structure(one, source) for one in documents)
    return take_in(store, rows, tally, on_progress=on_progress, on_refusal=on_refusal)


def fetch_summaries(search: Search, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield summary documents of the Materials Project.

    Raises:
        IngestError: `mp-api` is missing, the key is none, or the server refuses; the key is not in the message.
    """
    try:
        from mp_api.client import MPRester  # type: ignore[import-not-found, unused-ignore]  # optional, and seconds
    except ImportError as error:
        raise IngestError(
            "mp-api is not installed; expected it for the Materials Project; install it with `pip install wyloop[mp]`, "
            "or use `wyloop db ingest optimade https://optimade.materialsproject.org`, which needs no key"
        ) from error
    if len(key) != KEY_LENGTH:
        raise IngestError(
            f"a key of {len(key)} characters; expected a key of the Materials Project, of {KEY_LENGTH}; copy it again"
        )
    try:
        with MPRester(key, use_document_model=False, mute_progress_bars=True) as client:
            yield from client.materials.summary.search(
                **search.arguments(), fields=list(FIELDS), chunk_size=CHUNK_SIZE, all_fields=False
            )
    except Exception as error:  # noqa: BLE001 - the client raises its own, requests' and others; none may show the key
        text = " ".join(str(error).split()).replace(key, "KEY")[:300]
        raise IngestError(
            f"the Materials Project refused: {type(error).__name__} {text}; expected summaries; check key and search"
        ) from None


def summary_structure(document: object, source: str = SOURCE) -> SourceStructure | Refusal:
    """Return a summary document as a row of ours, or why it is refused; a pure function.

    Args:
        document: Fields as emmet's `SummaryDoc` names them; a mapping, or an object with them as attributes.
        source: Name of the source.
    """
    fields = document if isinstance(document, Mapping) else _attributes(document)
    identity = str(fields.get("material_id") or "")
    if not identity:
        return refusal("no id", "material_id", "missing", "an id such as mp-149", "tell the Materials Project")
    if fields.get("deprecated") is True:
        return refusal(identity, "deprecated", "true", "a material in use", "nothing to do")
    try:
        crystal = crystal_of_structure(_structure(fields.get("structure")))
        energy = _number(fields, "formation_energy_per_atom")
        gap = _number(fields, "band_gap")
    except StructureError as error:
        return structure_refusal(identity, error)
    except ValueRefusedError as error:
        return refusal(identity, error.field, error.value, error.expected, error.remedy)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {' '.join(str(error).split())}"[:120]
        return refusal(identity, "structure", why, "a structure as pymatgen writes it", "tell the Materials Project")
    if gap is not None and gap < 0:
        return refusal(identity, "band_gap", f"{gap:g}", "0 eV or more", "tell the Materials Project")
    symmetry = fields.get("symmetry")
    number = symmetry.get("number") if isinstance(symmetry, Mapping) else getattr(symmetry, "number", None)
    meta = fields.get("builder_meta")
    version = meta.get("database_version") if isinstance(meta, Mapping) else None
    return SourceStructure(
        source=source,
        source_id=identity,
        crystal=crystal,
        formation_energy_per_atom=energy,
        energy_method=ENERGY_METHOD,
        band_gap=gap,
        band_gap_method=GAP_METHOD,
        space_group_number=number if isinstance(number, int) and 1 <= number <= 230 else None,
        provenance=f"Materials Project {version}" if version else "Materials Project",
    )


def _structure(value: object) -> Any:  # noqa: ANN401 - a structure of pymatgen
    from pymatgen.core.structure import Structure  # half a second

    if isinstance(value, Structure):
        return value
    if not isinstance(value, dict):
        raise StructureError("no structure; expected one")
    return Structure.from_dict(value)


def _attributes(document: object) -> dict[str, Any]:
    return {name: getattr(document, name, None) for name in FIELDS}


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if is_missing(value):
        return None
    number = to_number(value)
    if number is None:
        raise ValueRefusedError(name, value, "a finite number", "tell the Materials Project")
    return number
