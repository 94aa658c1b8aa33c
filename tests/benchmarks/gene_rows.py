"""Rows of a CSV of crystals as genes with labels, encoded once and kept in a work folder."""

import csv
import gzip
import hashlib
import json
import sys
from pathlib import Path

from wyloop.models.errors import WyloopError
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.wyckoff.cif import parse_cif
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene

LABELS = ("formation_energy_per_atom", "band_gap")


def read_rows(path: Path, work: Path) -> list[TrainingRow]:
    """Encode the rows of `path`, or read what an earlier run left in `work`; rows without a gene are reported."""
    kept = work / f"genes-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.jsonl"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text("".join(f"{json.dumps(line)}\n" for line in _encoded(path)))
        partial.replace(kept)
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    return [TrainingRow(Gene.parse(line["gene"]), line["labels"]) for line in lines]


def _encoded(path: Path) -> list[dict[str, object]]:
    csv.field_size_limit(sys.maxsize)
    lines: list[dict[str, object]] = []
    with gzip.open(path, "rt") as file:
        for record in csv.DictReader(file):
            try:
                crystal = parse_cif(record["cif"])
                gene = encode(crystal)
            except WyloopError as error:
                print(f"{path.name} {record['material_id']}: {error}")
                continue
            labels = {name: float(record[name]) for name in LABELS if record.get(name)}
            labels["volume_per_atom"] = crystal.volume / crystal.nsites
            lines.append({"gene": str(gene), "labels": labels})
    return lines
