"""Maps of what the database holds: materials by their properties, and genes in a model's latent space."""

import io
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from gridfs import GridFS

from wyloop.models.errors import TargetError
from wyloop.platform.dashboard.charts import ABOVE, ORANGE, SCALE, Figure, figure, scatter_map
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.latents import BUCKET

MAX_POINTS = 2500
"""Materials on a map; identities are hashes, so the first of them are a fair draw."""
MAX_OWN = 1000
TITLES = {
    "band_gap": "band gap, eV",
    "formation_energy_per_atom": "formation energy, eV/atom",
    "energy_above_hull": "energy above hull, eV/atom",
    "space_group_number": "space group",
    "nelements": "elements",
}
MAPS = {
    "gap-energy": ("formation_energy_per_atom", "band_gap", "energy_above_hull"),
    "hull-energy": ("formation_energy_per_atom", "energy_above_hull", "nelements"),
}
"""Map to its axes and colour."""
_FIELDS = {"_id": 0, "material_id": 1, "formula_pretty": 1} | dict.fromkeys(TITLES, 1)
_kept: "OrderedDict[tuple[str, str, int], Figure]" = OrderedDict()
_lock = threading.Lock()


@translated
def property_map(store: Store, name: str) -> Figure:
    """Return a map of materials by its name.

    Raises:
        TargetError: No such map.
    """
    if name not in MAPS:
        raise TargetError(f"no map {name[:40]!r}; expected one of {', '.join(MAPS)}")
    x, y, colour = MAPS[name]
    materials = store.database["materials"]
    own = list(
        materials.find({"campaign_id": {"$gt": ""}}, _FIELDS).sort("campaign_id", -1).limit(MAX_OWN).max_time_ms(3000)
    )
    # of an axis that few have, the index of the property leads; else the identities do
    sparse = "band_gap" if y == "band_gap" else y
    known = list(
        materials.find({sparse: {"$ne": None}}, _FIELDS).sort("material_id", 1).limit(MAX_POINTS).max_time_ms(3000)
    )
    rows = {row["material_id"]: row for row in [*known, *own]}
    return scatter_map(
        sorted(rows.values(), key=lambda row: row["material_id"]), x, y, colour, TITLES,
        frozenset(row["material_id"] for row in own),
    )  # fmt: skip


@translated
def latent_map(store: Store, model_id: str) -> Figure:
    """Return the latent means of known genes on their first two principal axes.

    Raises:
        TargetError: The model has no latent vectors; `wyloop db nearest --model` builds them.
    """
    files = list(GridFS(store.database, BUCKET).find({"filename": {"$eq": model_id}}).sort("uploadDate", 1).limit(5))
    if not files:
        raise TargetError(
            f"no latent vectors of {model_id[:60]!r}; expected them in the database; "
            "build them: wyloop db nearest GENE --model ID"
        )
    key = (store.alias, model_id, len(files))
    with _lock:
        if key in _kept:
            return _kept[key]
    names: list[str] = []
    parts = []
    for file in files:
        with np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
            names += arrays["fingerprints"].tobytes().decode().split("\n")
            parts.append(arrays["vectors"])
    vectors = np.concatenate(parts)
    chosen = np.random.default_rng(0).permutation(len(names))[:MAX_POINTS]
    names, vectors = [names[place] for place in chosen], vectors[chosen]
    centred = vectors - vectors.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    shares = sizes**2 / max(float((sizes**2).sum()), 1e-12)
    places = centred @ axes[:2].T
    made = _latent_figure(store, names, places, shares)
    with _lock:
        _kept[key] = made
        while len(_kept) > 8:
            _kept.popitem(last=False)
    return made


def _latent_figure(store: Store, names: list[str], places: Any, shares: Any) -> Figure:  # noqa: ANN401 - arrays
    found = store.database["materials"].find(
        {"fingerprint": {"$in": names}}, {"_id": 0, "fingerprint": 1} | _FIELDS | {"campaign_id": 1}
    )
    of_gene = {row["fingerprint"]: row for row in found.max_time_ms(3000)}
    energies = [of_gene.get(name, {}).get("formation_energy_per_atom") for name in names]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "known genes",
            "x": np.round(places[:, 0], 4).tolist(), "y": np.round(places[:, 1], 4).tolist(), "text": names,
            "customdata": [_link(of_gene.get(name)) for name in names], "hovertemplate": "%{text}",
            "marker": {"size": 5, "opacity": 0.7, "color": energies, "colorscale": SCALE, "showscale": True,
                       "colorbar": {"title": {"text": TITLES["formation_energy_per_atom"], "side": "right"},
                                    "thickness": 12}},
        }
    ]  # fmt: skip
    own = [place for place, name in enumerate(names) if of_gene.get(name, {}).get("campaign_id")]
    if own:
        data.append(
            {"type": "scatter", "mode": "markers", "name": "found by campaigns",
             "x": np.round(places[own, 0], 4).tolist(), "y": np.round(places[own, 1], 4).tolist(),
             "text": [names[place] for place in own], "hovertemplate": "%{text}",
             "customdata": [_link(of_gene.get(names[place])) for place in own],
             "marker": {"size": 10, "color": ORANGE, "symbol": "diamond"}}
        )  # fmt: skip
    return figure(
        data, f"first axis, {shares[0]:.0%} of the variance", f"second axis, {shares[1]:.0%} of the variance",
        legend=ABOVE,
    )  # fmt: skip


def _link(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"/materials/{row['material_id']}"
