"""structures and materials -> hulls: one a chemical system, rebuilt only where its input changed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from maggma.core import Builder
from pymongo import DeleteMany, ReplaceOne, UpdateOne

from wyloop.models.screening.hull import Entry, energy_above_hull
from wyloop.stores.builders.run import BuildCounts, OnProgress, maggma_store, run
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import checked, embedded, now
from wyloop.stores.documents.hulls import HullDocument, HullEntryFields
from wyloop.stores.failures import translated
from wyloop.stores.records import digest

CHUNK_SIZE = 200
_BATCH = 2000
_FIELDS = {
    "_id": 0,
    "structure_id": 1,
    "material_id": 1,
    "chemsys": 1,
    "formula_pretty": 1,
    "formation_energy_per_atom": 1,
    "energy_method": 1,
    "species": 1,
    "crystal.species": 1,
    "energy_above_hull": 1,
    "hull_id": 1,
}


@dataclass(frozen=True)
class HullInput:
    """A crystal of the database that takes part in hulls."""

    entry: Entry
    chemsys: str
    formula_pretty: str
    method: str
    is_material: bool
    energy_above_hull: float | None
    hull_id: str | None


@translated
def hull_entries(store: Store, chemsys: Iterable[str]) -> dict[str, list[Entry]]:
    """Return each chemical system's competing phases: every crystal of its elements with a formation energy."""
    return {name: [one.entry for one in inputs] for name, inputs in _inputs(store, sorted(set(chemsys))).items()}


@translated
def build_hulls(
    store: Store, chemsys: Iterable[str] | None = None, *, on_progress: OnProgress | None = None
) -> BuildCounts:
    """Bring hulls, and the hull distances of the materials in them, up to date.

    Args:
        store: The database.
        chemsys: Chemical systems; none: those of all materials.
        on_progress: Told how many are done.
    """
    builder = HullBuilder(store, chemsys)
    run(builder, on_progress=on_progress)
    return BuildCounts(builder.n_done, 0, builder.n_skipped)


def hull_id(chemsys: str, methods: Iterable[str]) -> str:
    """Return the name of a hull: its chemical system and all methods whose energies are in it."""
    return f"{chemsys}|{'+'.join(sorted(set(methods)))}"


def hull_distances(inputs: list[HullInput]) -> list[float]:
    """Return each crystal's energy above the hull of all, elements at zero, eV/atom."""
    entries = [one.entry for one in inputs]
    return [energy_above_hull(one.amounts, one.formation_energy_per_atom, entries) for one in entries]


class HullBuilder(Builder):
    """maggma builder from `structures` and `materials` to `hulls`, and to the hull fields of `materials`."""

    def __init__(self, store: Store, chemsys: Iterable[str] | None = None, *, chunk_size: int = CHUNK_SIZE) -> None:
        self.store = store
        self.chemsys = None if chemsys is None else sorted(set(chemsys))
        self.hulls = maggma_store(store, "hulls", "hull_id")
        self.materials = maggma_store(store, "materials", "material_id")
        self.n_done = self.n_skipped = 0
        super().__init__([maggma_store(store, "structures", "structure_id"), self.materials], [self.hulls], chunk_size)

    def get_items(self) -> Iterator[tuple[str, list[HullInput]]]:
        """Yield each chemical system whose input changed, with that input."""
        wanted = self.chemsys
        if wanted is None:
            wanted = sorted(self.materials.distinct("chemsys"))
        self.total = len(wanted)
        for start in range(0, len(wanted), self.chunk_size):
            chunk = wanted[start : start + self.chunk_size]
            found = self.hulls._collection.find({"chemsys": {"$in": chunk}}, {"hull_id": 1, "input_hash": 1})
            built = {row["hull_id"]: row["input_hash"] for row in found}
            for name, inputs in _inputs(self.store, chunk).items():
                identity = hull_id(name, [one.method for one in inputs])
                own = [one for one in inputs if one.is_material and one.chemsys == name]
                is_told = all(one.hull_id == identity and one.energy_above_hull is not None for one in own)
                if built.get(identity) == _input_hash(inputs) and is_told:
                    self.n_skipped += 1
                else:
                    yield name, inputs

    def process_item(self, item: tuple[str, list[HullInput]]) -> tuple[dict[str, Any], dict[str, float]]:
        """Compute one hull document, and the distances of the materials of exactly this chemical system, eV/atom."""
        name, inputs = item
        distances = hull_distances(inputs)
        entries = [
            embedded(
                HullEntryFields,
                {
                    "identity": one.entry.identity,
                    "formula_pretty": one.formula_pretty,
                    "method": one.method,
                    "formation_energy_per_atom": one.entry.formation_energy_per_atom,
                    "energy_above_hull": distance,
                },
            )
            for one, distance in zip(inputs, distances, strict=True)
        ]
        methods = sorted({one.method for one in inputs})
        fields = {
            "hull_id": hull_id(name, methods),
            "chemsys": name,
            "methods": methods,
            "input_hash": _input_hash(inputs),
            "n_entries": len(entries),
            "entries": entries,
        }
        own = {
            one.entry.identity: distance
            for one, distance in zip(inputs, distances, strict=True)
            if one.is_material and one.chemsys == name
        }
        return checked(HullDocument, fields), own

    def update_targets(self, items: list[tuple[dict[str, Any], dict[str, float]]]) -> None:
        """Write the hulls, remove those of the same systems with other methods, and tell the materials."""
        hulls: list[ReplaceOne[dict[str, Any]] | DeleteMany] = []
        told: list[UpdateOne] = []
        for hull, distances in items:
            hulls.append(ReplaceOne({"hull_id": hull["hull_id"]}, hull, upsert=True))
            hulls.append(DeleteMany({"chemsys": hull["chemsys"], "hull_id": {"$ne": hull["hull_id"]}}))
            for identity, distance in distances.items():
                fields = {"energy_above_hull": distance, "hull_id": hull["hull_id"]}
                changed = {"material_id": identity, "$nor": [fields]}
                told.append(UpdateOne(changed, {"$set": fields | {"last_updated": now()}}))
        if hulls:
            self.hulls._collection.bulk_write(hulls, ordered=True)
        if told:
            self.materials._collection.bulk_write(told, ordered=False)
        self.n_done += len(items)

    def finalize(self) -> None:
        """Leave the shared client open."""


def _inputs(store: Store, wanted: list[str]) -> dict[str, list[HullInput]]:
    """Return, for each chemical system, the crystals within its elements, ordered by identity."""
    within = sorted({subset for name in wanted for subset in _subsets(name)})
    by_chemsys: dict[str, list[HullInput]] = {}
    for collection in ("structures", "materials"):
        for start in range(0, len(within), _BATCH):
            criteria = {
                "chemsys": {"$in": within[start : start + _BATCH]},
                "formation_energy_per_atom": {"$type": "number"},
            }
            for row in store.database[collection].find(criteria, _FIELDS):
                by_chemsys.setdefault(row["chemsys"], []).append(_input(row))
    return {
        name: sorted(
            (one for subset in _subsets(name) for one in by_chemsys.get(subset, ())),
            key=lambda one: one.entry.identity,
        )
        for name in wanted
    }


@lru_cache(maxsize=100_000)
def _subsets(chemsys: str) -> tuple[str, ...]:
    elements = chemsys.split("-")
    return tuple("-".join(chosen) for n in range(1, len(elements) + 1) for chosen in combinations(elements, n))


def _input(row: dict[str, Any]) -> HullInput:
    is_material = "material_id" in row
    species = row["crystal"]["species"] if is_material else row["species"]
    identity = row["material_id"] if is_material else row["structure_id"]
    return HullInput(
        entry=Entry(dict(sorted(Counter(species).items())), row["formation_energy_per_atom"], identity),
        chemsys=row["chemsys"],
        formula_pretty=row["formula_pretty"],
        method=row.get("energy_method") or "unknown",
        is_material=is_material,
        energy_above_hull=row.get("energy_above_hull"),
        hull_id=row.get("hull_id"),
    )


def _input_hash(inputs: list[HullInput]) -> str:
    return digest([[one.entry.identity, one.entry.formation_energy_per_atom, one.method] for one in inputs])
