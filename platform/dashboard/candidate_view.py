"""What people want to see of one candidate or material: crystal, gene, predictions, results, where it came from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wyloop.models.crystal import Crystal
from wyloop.models.errors import GeneError, TargetError
from wyloop.models.wyckoff.gene import Gene
from wyloop.models.wyckoff.tables import wyckoff_position
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.records import JSON, crystal_of, to_json
from wyloop.stores.stories import story


class NotFoundError(TargetError):
    """Nothing has this id."""


@dataclass(frozen=True)
class Position:
    """One line of the Wyckoff table."""

    element: str
    letter: str
    multiplicity: int
    site_symmetry: str
    n_free_parameters: int
    n_orbits: int


def wyckoff_table(fingerprint: str) -> list[Position]:
    """Return the Wyckoff positions that a gene occupies, in its order."""
    try:
        gene = Gene.parse(fingerprint)
    except GeneError:
        return []
    table = []
    for (element, letter), n_orbits in Counter(gene.orbits).items():
        found = wyckoff_position(gene.space_group_number, letter)
        table.append(
            Position(element, letter, found.multiplicity, found.site_symmetry, found.n_free_parameters, n_orbits)
        )
    return table


@dataclass(frozen=True)
class Comparison:
    """One property: predicted with its standard deviation, and calculated with the method."""

    name: str
    unit: str
    predicted: float | None
    spread: float | None
    calculated: float | None
    method: str


def comparisons(told: Mapping[str, Any]) -> list[Comparison]:
    """Return predictions beside what was calculated, of a candidate's story."""
    guess: Mapping[str, Any] = told.get("prediction") or {}
    found: Mapping[str, Any] = told.get("material") or {}
    stability: Mapping[str, Any] = next(
        (one for one in told.get("verdicts") or () if one["screen"] == "predicted_stability"), {}
    )
    distance = stability.get("value")  # below zero: under the hull of what was known
    energy, energy_std = guess.get("formation_energy_per_atom"), guess.get("formation_energy_per_atom_std")
    rows = [
        Comparison("formation energy", "eV/atom", energy, energy_std, found.get("formation_energy_per_atom"),
                   str(found.get("energy_method") or "")),
        Comparison("formation energy by DFT", "eV/atom", energy, energy_std,
                   found.get("dft_formation_energy_per_atom"), "gpaw-pbe"),
        Comparison("energy above hull", "eV/atom", None if distance is None else max(0.0, distance), energy_std,
                   found.get("energy_above_hull"), str(found.get("hull_id") or "")),
        Comparison("band gap", "eV", guess.get("band_gap"), guess.get("band_gap_std"), found.get("band_gap"),
                   str(found.get("band_gap_method") or "")),
        Comparison("probability of a metal", "1", guess.get("metal_probability"), None, None, ""),
        Comparison("volume per atom", "Å³", guess.get("volume_per_atom"), None, found.get("volume_per_atom"),
                   str(found.get("energy_method") or "")),
        Comparison("lowest optical frequency at Γ", "THz", None, None, found.get("lowest_optical_frequency"),
                   str(found.get("phonon_verdict") or "")),
    ]  # fmt: skip
    rows += [
        Comparison(name.replace("_", " "), "", pair[0], pair[1], None, "")
        for name, pair in (guess.get("extra") or {}).items()
    ]
    return [row for row in rows if row.predicted is not None or row.calculated is not None]


@translated
def candidate_crystal(store: Store, told: Mapping[str, Any]) -> tuple[Crystal, str] | None:
    """Return the best crystal there is of a candidate and what it is: computed, else a start structure."""
    material = told.get("material")
    if isinstance(material, dict) and material.get("crystal"):
        return crystal_of(material["crystal"]), f"relaxed by {material.get('energy_method') or 'calculation'}"
    for one in reversed(told.get("calculations") or ()):
        if one.get("crystal"):
            return crystal_of(one["crystal"]), f"result of {one['kind']} {one['calculation_id']}"
    found = store.database["calculations"].find_one(
        {"subject": {"$eq": told["fingerprint"]}, "inputs.0": {"$exists": True}},
        {"inputs": {"$slice": 1}},
        max_time_ms=2000,
    )
    return None if found is None else (crystal_of(found["inputs"][0]), "start structure, not relaxed")


@translated
def material(store: Store, identity: str) -> dict[str, Any]:
    """Return one material, plain JSON, its crystal included.

    Raises:
        NotFoundError: No material has this id.
    """
    found = store.database["materials"].find_one({"material_id": {"$eq": identity}}, {"_id": 0}, max_time_ms=2000)
    if found is None:
        raise NotFoundError(f"no material {identity[:80]!r}; expected an id such as those in the table of materials")
    plain = to_json(found)
    assert isinstance(plain, dict)  # noqa: S101 - a document is a mapping
    return plain


def frequencies(calculations: Sequence[Mapping[str, Any]]) -> tuple[list[float], float | None] | None:
    """Return the frequencies at Gamma (THz) and their tolerance, of the last phonon calculation that has them."""
    for one in reversed(calculations):
        result = one.get("result") or {}
        if one.get("kind") in ("phonon", "dft_phonon") and result.get("frequencies"):
            tolerance = result.get("tolerance")
            return [float(value) for value in result["frequencies"]], None if tolerance is None else float(tolerance)
    return None


@dataclass(frozen=True)
class Node:
    """One box of the lineage graph."""

    kind: str
    label: str
    detail: str = ""
    link: str = ""
    state: str = ""


def lineage(told: Mapping[str, Any]) -> list[list[Node]]:
    """Return where a candidate came from and what became of it: columns of boxes, each from all of the one before."""
    model: Mapping[str, Any] = told.get("model") or {}
    columns: list[list[Node]] = []
    if model.get("snapshot_hash"):
        columns.append(
            [Node("data", f"{model.get('n_rows') or '?'} crystals", f"snapshot {model['snapshot_hash'][:12]}")]
        )
    if told.get("model_id"):
        columns.append([Node("model", str(told["model_id"]), "", f"/models/{told['model_id']}")])
    where = f"round {told.get('round_number')}, {told.get('sampler')}"
    columns.append(
        [
            Node(
                "candidate",
                str(told["formula_pretty"]),
                where,
                f"/candidates/{told['candidate_id']}",
                str(told["status"]),
            )
        ]
    )
    jobs = [
        Node("job", str(one["kind"]), str(one.get("protocol", "")), f"#{one['calculation_id']}", str(one["status"]))
        for one in told.get("calculations") or ()
    ]
    if jobs:
        columns.append(jobs)
    found = told.get("material")
    if isinstance(found, dict):
        label = str(found["formula_pretty"])
        columns.append([Node("material", label, str(found["material_id"]), f"/materials/{found['material_id']}")])
        if found.get("hull_id"):
            distance = found.get("energy_above_hull")
            shown = "" if distance is None else f"{distance:.3f} eV/atom above"
            columns.append([Node("hull", str(found["hull_id"]), shown, "#hull")])
    return columns


def told_of(store: Store, identity: str) -> dict[str, Any]:
    """Return a candidate's story with the failing of an unknown id as `NotFoundError`.

    Raises:
        NotFoundError: No candidate has this id.
    """
    from wyloop.models.errors import CampaignError

    try:
        found: dict[str, JSON] = story(store, identity)
    except CampaignError as error:
        raise NotFoundError(str(error)) from error
    return found
