"""What a model is trained on: rows of the database as they are now, with a hash that names exactly them."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wyloop.models.errors import DatabaseError
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import FloatField
from wyloop.stores.documents.materials import MaterialDocument
from wyloop.stores.failures import translated
from wyloop.stores.records import digest

if TYPE_CHECKING:
    from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

PBE_METHODS = frozenset({"pbe", "mp-pbe", "gpaw-pbe", "vasp-pbe"})
"""Gaps of these methods are training labels; a version, as in `gpaw-pbe/1`, is allowed behind."""
METAL_GAP = 0.01  # eV, a PBE gap up to this is none
CERTAIN_GAP = 1.0  # eV, with a measured gap above this the crystal is no metal in PBE either

_STRUCTURE_FIELDS = {
    "_id": 0,
    "structure_id": 1,
    "formation_energy_per_atom": 1,
    "energy_method": 1,
    "band_gap": 1,
    "band_gap_method": 1,
    "volume_per_atom": 1,
    "material_id": 1,
}


@dataclass(frozen=True)
class TrainingSnapshot:
    """Rows for training, in the order of their ids."""

    rows: "tuple[TrainingRow, ...]"
    row_ids: tuple[str, ...]
    hash: str

    def to_bytes(self) -> bytes:
        """Return ids, genes and labels, compressed: all that is needed to train on the same rows again."""
        rows = [
            [identity, str(row.gene), dict(row.labels)] for identity, row in zip(self.row_ids, self.rows, strict=True)
        ]
        return gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes) -> "TrainingSnapshot":
        """Read what `to_bytes` wrote."""
        return _snapshot({identity: (text, labels) for identity, text, labels in json.loads(gzip.decompress(data))})


@translated
def training_snapshot(store: Store, *, properties: Sequence[str] = ()) -> TrainingSnapshot:
    """Collect encoded structures and validated materials; of equal gene and energy method, the lowest in energy.

    Labels are formation_energy_per_atom (eV/atom), band_gap (eV) where it was computed with PBE, is_metal (1 or 0)
    where PBE or a large measured gap tells, and volume_per_atom (Å^3).

    Args:
        store: The database.
        properties: Further numeric fields of materials to learn, each in the field's unit; a structure has those of
            the material that it is a source of.

    Raises:
        DatabaseError: A property that is no numeric field of materials, or that is a label already.
    """
    further = _further_labels(store, properties)
    encoded = store.database["encodings"].find(
        {"fingerprint": {"$type": "string"}}, {"_id": 0, "structure_id": 1, "fingerprint": 1}, batch_size=10_000
    )
    fingerprints = {row["structure_id"]: row["fingerprint"] for row in encoded}
    best: dict[tuple[str, str], tuple[float, str, dict[str, float]]] = {}
    for row in store.database["structures"].find({}, _STRUCTURE_FIELDS, batch_size=10_000):
        if row["structure_id"] in fingerprints:
            more = further.get(row.get("material_id", ""), {})
            _keep_lowest(best, row["structure_id"], fingerprints[row["structure_id"]], row, more)
    fields = {key: value for key, value in _STRUCTURE_FIELDS.items() if key != "structure_id"}
    fields |= {"fingerprint": 1}
    for row in store.database["materials"].find({"is_validated": True}, fields):
        _keep_lowest(best, row["material_id"], row["fingerprint"], row, further.get(row["material_id"], {}))
    return _snapshot({identity: (key[0], labels) for key, (_, identity, labels) in best.items()})


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


def _keep_lowest(
    best: dict[tuple[str, str], tuple[float, str, dict[str, float]]],
    identity: str,
    fingerprint: str,
    fields: Mapping[str, Any],
    further: Mapping[str, float],
) -> None:
    energy = fields.get("formation_energy_per_atom")
    row = (float("inf") if energy is None else float(energy), identity, training_labels(fields) | dict(further))
    key = (fingerprint, fields.get("energy_method") or "")
    if key not in best or row[:2] < best[key][:2]:
        best[key] = row


def _snapshot(rows: Mapping[str, tuple[str, dict[str, float]]]) -> TrainingSnapshot:
    from wyloop.models.mpvae.data import TrainingRow  # torch: three seconds

    identities = tuple(sorted(rows))
    made = tuple(TrainingRow(gene=Gene.parse(rows[identity][0]), labels=rows[identity][1]) for identity in identities)
    return TrainingSnapshot(made, identities, digest([[identity, *rows[identity]] for identity in identities]))
