"""materials -> hulls: one a chemical system and method, built again only where its input changed.

A hull is computed of the materials of its chemical system and of the stable ones of its subsystems: what is not stable
in a subsystem changes nothing above it. Systems with few elements come first. One that gains or loses a stable material
stays marked until the systems above it are done: killed at any moment, what is left to do is still found.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

from maggma.core import Builder
from maggma.stores import MongoStore
from pymongo import UpdateOne

from wyloop.stores.builders.hull_documents import (
    HullInputs,
    HullOutputs,
    MaterialEnergies,
    Phase,
    hulls_of,
    stable_phases,
)
from wyloop.stores.builders.hull_writes import CampaignJudge, delete_hulls, unmark, write_hulls
from wyloop.stores.builders.lock import building, with_sign_of_life
from wyloop.stores.builders.run import BuildCounts, OnProgress, batches, maggma_store, run
from wyloop.stores.competing import subsystems
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.materials import MethodEnergy, hull_fields
from wyloop.stores.methods import UNKNOWN

CHUNK_SIZE = 1000
PARALLEL_FROM = 20_000  # chemical systems
MAX_ELEMENTS = 120
_MATERIAL_FIELDS = {
    "_id": 0,
    "material_id": 1,
    "input_hash": 1,
    "chemsys": 1,
    "formula_pretty": 1,
    "crystal.species": 1,
    "energies": 1,
    "energy_method": 1,
    "content_hash": 1,
    "hull_id": 1,
    "campaign_id": 1,
    "last_updated": 1,
}


@translated
def build_hulls(
    store: Store,
    chemsys: Iterable[str] | None = None,
    *,
    full: bool = False,
    on_progress: OnProgress | None = None,
    n_processes: int | None = None,
) -> BuildCounts:
    """Bring hulls, and what they say of the materials in them, up to date.

    Args:
        store: The database.
        chemsys: Chemical systems to look at; none: those with something new. Systems above them that change follow.
        full: Build all again.
        on_progress: Told how many chemical systems are done.
        n_processes: Processes that compute; none: all cores where there is very much to do, else this one.

    Returns:
        Hulls written or removed; none is refused; the others were left alone.
    """
    with building(store, "hulls") as is_alive:
        builder = HullBuilder(store, chemsys, full=full)
        run(
            builder,
            on_progress=with_sign_of_life(is_alive, on_progress),
            process=hulls_of,
            n_processes=n_processes,
            parallel_from=PARALLEL_FROM,
            chunks=builder.chunks(),
        )
    n_hulls = store.database["hulls"].estimated_document_count()
    return BuildCounts(builder.n_done, 0, max(0, n_hulls - builder.n_written))


class HullBuilder(Builder):
    """maggma builder from `materials` to `hulls`, and to what these say of the materials."""

    def __init__(
        self,
        store: Store,
        chemsys: Iterable[str] | None = None,
        *,
        full: bool = False,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        self.store = store
        self.chemsys = None if chemsys is None else set(chemsys)
        self.full = full
        self.hulls = maggma_store(store, "hulls", "hull_id")
        self.materials = maggma_store(store, "materials", "material_id")
        self.n_done = self.n_written = 0
        self._to_do: dict[int, set[str]] = defaultdict(set)
        """Chemical systems left to do, by their number of elements."""
        self._present: dict[str, dict[str, dict[str, Any]]] = {}
        """Hulls of the systems under way as they stand, by chemical system and id."""
        self._rows: dict[str, dict[str, Any]] = {}
        """Materials of the chunk under way, by id."""
        self._stable: dict[str, dict[str, list[Phase]]] = {}
        """Stable materials of chemical systems, by method, as far as this run has seen them."""
        self._holding: dict[str, set[str]] | None = None
        """Chemical systems with a hull, by each of their elements."""
        self._last_marks: dict[str, int | None] = {}
        """Marks that come off when the systems above are done."""
        self._last_gone: list[dict[str, Any]] = []
        self._judge = CampaignJudge(store)
        super().__init__([self.materials], [self.hulls], chunk_size)

    def get_items(self) -> Iterator[HullInputs]:
        """Yield the inputs of each chemical system to do."""
        return chain.from_iterable(self.chunks())

    def chunks(self) -> Iterator[list[HullInputs]]:
        """Yield the chemical systems in lists, few elements first; each is to be written before the next is read."""
        for name in self._systems():
            self._to_do[name.count("-") + 1].add(name)
        self.total = sum(map(len, self._to_do.values()))
        for n_elements in range(1, MAX_ELEMENTS + 1):
            for batch in batches(sorted(self._to_do.pop(n_elements, ())), self.chunk_size):
                yield self._inputs(batch)
        unmark(self.hulls, self._last_marks)
        delete_hulls(self.hulls, self._last_gone)

    def process_item(self, item: HullInputs) -> HullOutputs:
        """Compute the hulls of one chemical system; a pure function, so that other processes can do it."""
        return hulls_of(item)

    def update_targets(self, items: list[HullOutputs]) -> None:
        """Write hulls, then tell the materials; a hull keeps its mark until they know of it.

        Where stable materials came or went, or a run before was killed, the systems above are to be looked at too, and
        the mark stays until they are done.
        """
        before: dict[str, dict[str, Any]] = {}
        written: list[dict[str, Any]] = []
        gone: list[dict[str, Any]] = []
        marks: dict[str, int | None] = {}
        for item in items:
            present = self._present.pop(item.chemsys, {})
            before |= present
            made = {hull["hull_id"]: hull for hull in item.hulls}
            changed = [hull for identity, hull in made.items() if self._differs(present.get(identity), hull)]
            written += changed
            own = {identity: present.get(identity, {}).get("stale") for identity in made}
            own |= {hull["hull_id"]: own[hull["hull_id"]] or 1 for hull in changed}
            lost = [hull for identity, hull in present.items() if identity not in made]
            is_marked = any(hull.get("stale") for hull in present.values())
            if is_marked or _vertices(present.values()) != _vertices(made.values()):
                self._add(self._systems_above(item.chemsys))
                self._last_marks |= own
            marks |= own
            gone += lost
            self._last_gone += lost
            self._stable[item.chemsys] = _stable_by_method(item.hulls)
        write_hulls(self.hulls, [hull | {"stale": marks[hull["hull_id"]]} for hull in written], gone, before)
        self._tell(items)
        unmark(self.hulls, {identity: mark for identity, mark in marks.items() if identity not in self._last_marks})
        self.n_written += len(written)
        self.n_done += len(written) + len(gone)

    def finalize(self) -> None:
        """Leave the shared client open."""

    def _systems(self) -> set[str]:
        if self.chemsys is not None:
            return self.chemsys
        if self.full:
            return _all_systems(self.materials) | _all_systems(self.hulls)
        untold = {"hull_id": None, "energies.0": {"$exists": True}}
        rows = self.materials._collection.find(untold, {"chemsys": 1, "_id": 0})
        marked = self.hulls._collection.find({"stale": {"$gt": 0}}, {"chemsys": 1, "_id": 0})
        return {row["chemsys"] for found in (rows, marked) for row in found}

    def _inputs(self, batch: list[str]) -> list[HullInputs]:
        """Read a chunk: the hulls as they stand with their marks, then the materials, then the phases below."""
        for hull in self.hulls._collection.find({"chemsys": {"$in": batch}}):
            self._present.setdefault(hull["chemsys"], {})[hull["hull_id"]] = hull
        materials: dict[str, list[MaterialEnergies]] = defaultdict(list)
        self._rows = {}
        criteria = {"chemsys": {"$in": batch}, "energies.0": {"$exists": True}}
        for row in self.materials._collection.find(criteria, _MATERIAL_FIELDS):
            self._rows[row["material_id"]] = row
            materials[row["chemsys"]].append(_energies(row))
        below = {name: subsystems(name)[:-1] for name in batch}
        self._read_stable({subset for subsets in below.values() for subset in subsets})
        found = []
        for name in batch:
            phases: dict[str, list[Phase]] = defaultdict(list)
            for subset in below[name]:
                for method, stable in self._stable[subset].items():
                    phases[method] += stable
            own = sorted(materials[name], key=lambda material: material.material_id)
            found.append(HullInputs(name, tuple(own), {method: tuple(some) for method, some in phases.items()}))
        return found

    def _read_stable(self, systems: Iterable[str]) -> None:
        """Read the stable materials of chemical systems that were not read or built in this run."""
        missing = sorted(name for name in systems if name not in self._stable)
        for batch in batches(missing):
            on_hull = {"$filter": {"input": "$entries", "cond": {"$eq": ["$$this.energy_above_hull", 0]}}}
            stages = [
                {"$match": {"chemsys": {"$in": batch}}},
                {"$project": {"_id": 0, "chemsys": 1, "method": 1, "entries": on_hull}},
            ]
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for hull in self.hulls._collection.aggregate(stages):
                found[hull["chemsys"]].append(hull)
            self._stable |= {name: _stable_by_method(found[name]) for name in batch}

    def _differs(self, present: dict[str, Any] | None, made: dict[str, Any]) -> bool:
        if present is None or present["input_hash"] != made["input_hash"]:
            return True
        return self.full and {key: value for key, value in present.items() if key != "stale"} != made

    def _systems_above(self, chemsys: str) -> set[str]:
        """Return the chemical systems with a hull that hold all elements of this one and more."""
        if self._holding is None:
            self._holding = defaultdict(set)
            for name in _all_systems(self.hulls):
                for element in name.split("-"):
                    self._holding[element].add(name)
        holding = [self._holding[element] for element in chemsys.split("-")]
        return set.intersection(*holding) - {chemsys}

    def _add(self, systems: set[str]) -> None:
        """Let more systems be done in this run; they have more elements than those under way."""
        for name in systems:
            if name not in self._to_do[name.count("-") + 1]:
                self._to_do[name.count("-") + 1].add(name)
                self.total += 1

    def _tell(self, items: list[HullOutputs]) -> None:
        """Write what the hulls say to the materials that are still those that were read."""
        told = {identity: told for item in items for identity, told in item.told.items()}
        of_campaigns = {name: one for name, one in told.items() if self._rows[name].get("campaign_id") is not None}
        judged = self._judge(of_campaigns)
        operations = []
        for identity, one in told.items():
            row = self._rows[identity]
            is_validated, meets_target = judged.get(identity, (False, False))
            fields = hull_fields(
                row["input_hash"], one.energies, one.energy_above_hull, one.hull_id, is_validated, meets_target
            )
            if fields["content_hash"] != row["content_hash"] or row.get("hull_id") is None:
                read = {"material_id": identity, "input_hash": row["input_hash"]}
                operations.append(UpdateOne(read, {"$set": fields}))
        if operations:
            self.materials._collection.bulk_write(operations, ordered=False)


def _all_systems(store: MongoStore) -> set[str]:
    """Return all chemical systems of a collection, from the index that begins with them alone."""
    found = store._collection.find({}, {"chemsys": 1, "_id": 0}, batch_size=20_000).sort("chemsys", 1)
    return {row["chemsys"] for row in found}


def _energies(row: Mapping[str, Any]) -> MaterialEnergies:
    return MaterialEnergies(
        material_id=row["material_id"],
        formula_pretty=row["formula_pretty"],
        amounts=dict(sorted(Counter(row["crystal"]["species"]).items())),
        energies=tuple(
            MethodEnergy(energy["method"], energy["formation_energy_per_atom"], energy["source_id"])
            for energy in row["energies"]
        ),
        energy_method=row.get("energy_method") or UNKNOWN,
        last_updated=row["last_updated"],
    )


def _stable_by_method(hulls: Iterable[Mapping[str, Any]]) -> dict[str, list[Phase]]:
    return {hull["method"]: stable_phases(hull) for hull in hulls}


def _vertices(hulls: Iterable[Mapping[str, Any]]) -> set[tuple[str, str, float, datetime]]:
    return {
        (hull["method"], phase.identity, phase.formation_energy_per_atom, phase.last_updated)
        for hull in hulls
        for phase in stable_phases(hull)
    }
