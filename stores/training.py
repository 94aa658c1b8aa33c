"""What a model is trained on: rows of the database as they are now, with a hash that names exactly them."""

import gzip
import hashlib
import json
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from math import nan
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wyloop.models.errors import DatabaseError
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import FloatField
from wyloop.stores.documents.materials import MaterialDocument
from wyloop.stores.failures import translated
from wyloop.stores.methods import PBE_METHODS

if TYPE_CHECKING:
    from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

METAL_GAP = 0.01  # eV, a PBE gap up to this is none
CERTAIN_GAP = 1.0  # eV, with a measured gap above this the crystal is no metal in PBE either

LABELS = ("volume_per_atom", "formation_energy_per_atom", "band_gap", "is_metal")
"""What a row may be labelled with besides further properties, in the order in which labels are kept."""

_FIELDS = {
    "_id": 0,
    "fingerprint": 1,
    "formation_energy_per_atom": 1,
    "energy_method": 1,
    "band_gap": 1,
    "band_gap_method": 1,
    "volume_per_atom": 1,
    "material_id": 1,
}
_BATCH = 5000


class SnapshotRows(Sequence["TrainingRow"]):
    """Training rows kept as texts and numbers; each is made when it is asked for, as genes take ten times the room."""

    def __init__(self, genes: Sequence[str], labels: Mapping[str, NDArray[np.float64]]) -> None:
        self._genes = genes
        self._labels = labels

    def __len__(self) -> int:
        return len(self._genes)

    @overload
    def __getitem__(self, place: int) -> "TrainingRow": ...

    @overload
    def __getitem__(self, place: slice) -> "tuple[TrainingRow, ...]": ...

    def __getitem__(self, place: int | slice) -> "TrainingRow | tuple[TrainingRow, ...]":
        from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        return TrainingRow(gene=Gene.parse(self._genes[place]), labels=self.labels_of(place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SnapshotRows) and list(self.texts()) == list(other.texts())

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def labels_of(self, place: int) -> dict[str, float]:
        """Return the labels of one row, those that are not known left out."""
        found = ((name, float(values[place])) for name, values in self._labels.items())
        return {name: value for name, value in found if value == value}  # NaN: not known

    def texts(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield gene and labels of each row."""
        for place, gene in enumerate(self._genes):
            yield gene, self.labels_of(place)


@dataclass(frozen=True)
class TrainingSnapshot:
    """Rows for training, in the order of their ids."""

    rows: SnapshotRows
    row_ids: tuple[str, ...]
    hash: str

    def to_bytes(self) -> bytes:
        """Return ids, genes and labels, compressed: all that is needed to train on the same rows again."""
        packer = zlib.compressobj(9, wbits=31)  # gzip's format, without a time
        parts = [packer.compress(text.encode()) for text in _as_json(self.row_ids, self.rows)]
        return b"".join(parts) + packer.flush()

    @classmethod
    def from_bytes(cls, data: bytes) -> "TrainingSnapshot":
        """Read what `to_bytes` wrote."""
        rows = json.loads(gzip.decompress(data))
        further = sorted({name for _, _, labels in rows for name in labels} - set(LABELS))
        gathered = _Gathered((*LABELS, *further))
        for identity, gene, labels in rows:
            gathered.add(identity, gene, labels)
        return gathered.snapshot()


@translated
def training_snapshot(store: Store, *, properties: Sequence[str] = ()) -> TrainingSnapshot:
    """Collect encoded structures and validated materials; of equal gene and energy method, the lowest in energy.

    Labels are formation_energy_per_atom (eV/atom), band_gap (eV) where it was computed with PBE, is_metal (1 or 0)
    where PBE or a large measured gap tells, and volume_per_atom (Å^3). The rows are read gene by gene, so that besides
    what is kept memory does not grow with their number.

    Args:
        store: The database.
        properties: Further numeric fields of materials to learn, each in the field's unit; a structure has those of
            the material that it is a source of.

    Raises:
        DatabaseError: A property that is no numeric field of materials, or that is a label already.
    """
    further = _further_labels(store, properties)
    structures = store.database["structures"].find(
        {"fingerprint": {"$type": "string"}}, _FIELDS | {"structure_id": 1}, batch_size=_BATCH
    )
    validated = store.database["materials"].find({"is_validated": True}, _FIELDS, batch_size=_BATCH)
    rows = (cursor.sort("fingerprint", 1).allow_disk_use(True) for cursor in (structures, validated))
    gathered = _Gathered((*LABELS, *properties))
    for fingerprint, alike in groupby(merge(*rows, key=_gene_of), key=_gene_of):
        best: dict[str, tuple[float, str, dict[str, float]]] = {}
        for row in alike:
            energy = row.get("formation_energy_per_atom")
            identity = row.get("structure_id") or row["material_id"]
            labels = training_labels(row) | further.get(row.get("material_id", ""), {})
            found = (float("inf") if energy is None else float(energy), identity, labels)
            method = row.get("energy_method") or ""
            if method not in best or found[:2] < best[method][:2]:
                best[method] = found
        for _, identity, labels in best.values():
            gathered.add(identity, fingerprint, labels)
    return gathered.snapshot()


def _gene_of(row: Mapping[str, Any]) -> str:
    return str(row["fingerprint"])


def training_labels(fields: Mapping[str, Any]) -> dict[str, float]:
    """Return the labels that a document gives, those that are not known left out."""
    labels = {"volume_per_atom": float(fields["volume_per_atom"])}
    if fields.get("formation_energy_per_atom") is not None:
        labels["formation_energy_per_atom"] = float(fields["formation_energy_per_atom"])
    gap, method = fields.get("band_gap"), str(fields.get("band_gap_method")).split("/")[0]
    if gap is None:
        return labels
    if method in PBE_METHODS:
        labels["band_gap"] = float(gap)
        labels["is_metal"] = 1.0 if gap <= METAL_GAP else 0.0
    elif gap > CERTAIN_GAP:
        labels["is_metal"] = 0.0
    return labels


def _further_labels(store: Store, properties: Sequence[str]) -> dict[str, dict[str, float]]:
    """Read further numeric fields of the materials, by material_id."""
    labels = {"formation_energy_per_atom", "band_gap", "volume_per_atom"}
    numeric = {name for name, field in MaterialDocument._fields.items() if isinstance(field, FloatField)} - labels
    for name in properties:
        if name not in numeric:
            raise DatabaseError(f"no further property {name!r} to learn; expected one of {', '.join(sorted(numeric))}")
    if not properties:
        return {}
    found = store.database["materials"].find({}, {"material_id": 1, **dict.fromkeys(properties, 1)})
    return {
        row["material_id"]: {name: float(row[name]) for name in properties if row.get(name) is not None}
        for row in found
    }


class _Gathered:
    """Rows on their way into a snapshot, as lean as those in it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._ids: list[str] = []
        self._genes: list[str] = []
        self._labels = {name: array("d") for name in names}

    def add(self, identity: str, gene: str, labels: Mapping[str, float]) -> None:
        """Take a row in."""
        self._ids.append(identity)
        self._genes.append(gene)
        for name, values in self._labels.items():
            values.append(labels.get(name, nan))

    def snapshot(self) -> TrainingSnapshot:
        """Return the rows in the order of their ids."""
        order = sorted(range(len(self._ids)), key=self._ids.__getitem__)
        labels = {name: np.asarray(values, dtype=np.float64)[order] for name, values in self._labels.items()}
        rows = SnapshotRows([self._genes[place] for place in order], labels)
        ids = tuple(self._ids[place] for place in order)
        made = hashlib.sha256()
        for text in _as_json(ids, rows, is_sorted=True):
            made.update(text.encode())
        return TrainingSnapshot(rows, ids, made.hexdigest())


def _as_json(row_ids: Sequence[str], rows: SnapshotRows, *, is_sorted: bool = False) -> Iterator[str]:
    """Yield the rows as one JSON list, piece by piece; with sorted keys it is what `digest` hashes."""
    opening = "["
    for identity, (gene, labels) in zip(row_ids, rows.texts(), strict=True):
        text = json.dumps([identity, gene, labels], separators=(",", ":"), sort_keys=is_sorted, ensure_ascii=False)
        yield opening + text
        opening = ","
    yield "]" if row_ids else "[]"
