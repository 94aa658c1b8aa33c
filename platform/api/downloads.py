"""Tables as files: CSV of every row, or a zip of the crystals as CIF files."""

import csv
import io
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from wyloop.models.wyckoff.cif import write_cif
from wyloop.platform.api.data import listing, store_of
from wyloop.platform.dashboard.tables import Kind, Listing, all_rows, page
from wyloop.stores.connection import Store
from wyloop.stores.records import crystal_of

router = APIRouter(prefix="/api")

MOST_ROWS = 100_000
MOST_CRYSTALS = 5_000
_BATCH = 200
_CHUNK = 2**16
COLUMNS = {
    "candidates": (
        "candidate_id", "formula_pretty", "space_group_number", "wyckoff_sequence", "nsites", "status", "reason",
        "rank", "campaign_id", "round_number", "sampler", "prediction.formation_energy_per_atom",
        "prediction.formation_energy_per_atom_std", "prediction.band_gap", "prediction.band_gap_std",
        "prediction.metal_probability", "prediction.volume_per_atom", "material.formation_energy_per_atom",
        "material.energy_above_hull", "material.hull_id", "material.band_gap", "material.band_gap_method",
        "material.lowest_optical_frequency", "material.meets_target",
    ),
    "materials": (
        "material_id", "formula_pretty", "space_group_number", "fingerprint", "nsites", "volume_per_atom",
        "formation_energy_per_atom", "energy_method", "energy_above_hull", "hull_id", "band_gap", "band_gap_method",
        "dft_formation_energy_per_atom", "lowest_optical_frequency", "phonon_verdict", "is_validated", "meets_target",
        "campaign_id", "round_number", "candidate_id",
    ),
}  # fmt: skip
"""Columns of the CSV files; energies in eV/atom, gaps in eV, volumes in Å^3, frequencies in THz."""
Format = Annotated[Literal["csv", "cif"], Query(description="csv: one row each; cif: a zip of crystals")]


@router.get("/candidates/export", response_class=StreamingResponse)
def export_candidates(
    request: Request,
    asked: Annotated[Listing, listing("candidates")],
    format: Format = "csv",  # noqa: A002
) -> StreamingResponse:
    """Return candidates that meet the conditions as a file; the CIF files are of those that were computed."""
    return _export(request, asked, format)


@router.get("/materials/export", response_class=StreamingResponse)
def export_materials(
    request: Request,
    asked: Annotated[Listing, listing("materials")],
    format: Format = "csv",  # noqa: A002
) -> StreamingResponse:
    """Return materials that meet the conditions as a file."""
    return _export(request, asked, format)


def _export(request: Request, asked: Listing, form: str) -> StreamingResponse:
    store = store_of(request)
    page(store, asked, time_ms=request.app.state.query_time_ms)  # what is wrong is said before the file begins
    ending, media = ("csv", "text/csv; charset=utf-8") if form == "csv" else ("zip", "application/zip")
    name = f"wyloop-{asked.kind}.{ending}"
    made = _csv(store, asked) if form == "csv" else _zip(store, asked)
    return StreamingResponse(made, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _csv(store: Store, asked: Listing) -> Iterator[str]:
    columns = COLUMNS[asked.kind]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [column.replace("prediction.", "predicted_").replace("material.", "calculated_") for column in columns]
    )
    for row in all_rows(store, asked, most=MOST_ROWS):
        writer.writerow([_cell(row, column) for column in columns])
        if text.tell() > _CHUNK:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(row: dict[str, Any], column: str) -> Any:  # noqa: ANN401 - a value of the row
    value: Any = row
    for part in column.split("."):
        value = (value or {}).get(part)
    if isinstance(value, str) and value[:1] in "=+-@\t\r":  # a spreadsheet would take it for a formula
        return "'" + value
    return value


def _zip(store: Store, asked: Listing) -> Iterator[bytes]:
    with tempfile.SpooledTemporaryFile(max_size=2**24) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in _cifs(store, asked.kind, all_rows(store, asked, most=MOST_CRYSTALS)):
                archive.writestr(name, text)
        file.seek(0)
        while data := file.read(_CHUNK):
            yield data


def _cifs(store: Store, kind: Kind, rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    while batch := list(islice(rows, _BATCH)):
        ids = [
            row["material_id"] if kind == "materials" else (row["material"] or {}).get("material_id") for row in batch
        ]
        wanted = {"material_id": {"$in": [one for one in ids if one]}}
        fields = {"_id": 0, "material_id": 1, "formula_pretty": 1, "crystal": 1}
        for found in store.database["materials"].find(wanted, fields).sort("material_id", 1):
            name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in found["material_id"])
            yield f"{found['formula_pretty']}_{name}.cif", write_cif(crystal_of(found["crystal"]))
