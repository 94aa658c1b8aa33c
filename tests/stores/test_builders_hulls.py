"""materials -> hulls."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.screening.hull import Entry, energy_above_hull
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.builders import hulls, lock
from wyloop.stores.builders.hulls import HullBuilder, build_hulls
from wyloop.stores.builders.lock import building
from wyloop.stores.builders.run import BuildCounts, run
from wyloop.stores.campaigns import create_campaign
from wyloop.stores.competing import hull_entries, subsystems
from wyloop.stores.connection import Store
from wyloop.stores.documents.base import now
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, MethodEnergy, material, upsert_material


def phase(formula: dict[str, int], energy: float | None, method: str = "chgnet", **fields: Any) -> MaterialRecord:  # noqa: ANN401
    """A material of this composition in P1, eV/atom; where the atoms are is all the same to a hull."""
    species = tuple(element for element, n in formula.items() for _ in range(n))
    gene = canonical(Gene.of(1, [(element, "a") for element in species]))
    places = np.linspace(0.0, 0.9, len(species))[:, None] * np.ones(3)
    name = "m-" + "".join(f"{element}{n}" for element, n in formula.items()) + fields.pop("mark", "")
    return MaterialRecord(name, str(gene), gene, Crystal(9.0 * np.eye(3), species, places), energy, method, **fields)


def put(store: Store, *records: MaterialRecord) -> None:
    for record in records:
        upsert_material(store, record)


def distances(store: Store) -> dict[str, float | None]:
    return {row["material_id"]: row.get("energy_above_hull") for row in store.database["materials"].find()}


def expected(records: Iterable[MaterialRecord]) -> dict[str, float]:
    """Every distance computed at once of all phases, as a hull is defined."""
    records = list(records)
    entries = [Entry(record.gene.amounts, record.formation_energy_per_atom or 0.0) for record in records]
    return {
        record.material_id: pytest.approx(
            energy_above_hull(entry.amounts, entry.formation_energy_per_atom, entries), abs=1e-9
        )
        for record, entry in zip(records, entries, strict=True)
    }


def test_of_an_element_dft_has_the_word_and_of_a_compound_the_force_field_s_hull(database: Store) -> None:
    """Silicon by CHGNet lies 0.10 eV/atom above the Materials Project's; a compound's competitors may lack DFT."""
    energies = (MethodEnergy("chgnet", 0.1, "calc-1"), MethodEnergy("gpaw-pbe/1", 0.0, "calc-2"))
    silicon, oxide = (phase(formula, 0.1, energies=energies) for formula in ({"Si": 2}, {"O": 2, "Si": 1}))
    put(database, silicon, oxide)
    build_hulls(database)
    found = [material(database, one.material_id) for one in (silicon, oxide)]
    assert [(one.hull_id, one.energy_above_hull) for one in found] == [("Si|gpaw-pbe/1", 0.0), ("O-Si|chgnet", 0.1)]


def test_a_hull_is_of_one_method_and_knows_the_stable_phases_below(database: Store) -> None:
    put(
        database,
        phase({"Na": 1, "Cl": 1}, -2.0),
        phase({"Na": 1, "Cl": 1}, -1.9, mark="-CsCl"),
        phase({"Na": 1, "Cl": 1}, -2.1, "mp-pbe", mark="-mp"),
        phase({"K": 1, "Cl": 1}, -2.2, "mp-pbe"),
        phase({"K": 1, "Na": 1, "Cl": 2}, -2.0),
        phase({"Na": 1, "Br": 1}, None),
    )
    assert build_hulls(database) == BuildCounts(5, 0, 0)
    found = {row["hull_id"]: row for row in database.database["hulls"].find()}
    assert set(found) == {"Cl-K|mp-pbe", "Cl-Na|chgnet", "Cl-Na|mp-pbe", "Cl-K-Na|chgnet", "Cl-K-Na|mp-pbe"}
    assert [entry["identity"] for entry in found["Cl-Na|chgnet"]["entries"]] == ["m-Na1Cl1", "m-Na1Cl1-CsCl"]
    assert found["Cl-K-Na|chgnet"]["phases"] == []  # its material decomposes into nothing else
    assert (found["Cl-K-Na|mp-pbe"]["n_entries"], found["Cl-K-Na|mp-pbe"]["phases"]) == (0, ["m-K1Cl1", "m-Na1Cl1-mp"])
    assert all("stale" not in hull for hull in found.values())
    assert build_hulls(database) == BuildCounts(0, 0, 5)
    assert material(database, "m-Na1Br1").hull_id is None


def test_a_force_field_alone_is_judged_by_the_hull_of_its_teacher_too(database: Store) -> None:
    put(
        database,
        phase({"Na": 1, "Cl": 1}, -2.0, mark="-ours"),
        phase({"Na": 1, "Cl": 1}, -2.1, "mp-pbe", mark="-mp"),
        phase({"Na": 1, "Cl": 1}, -9.0, "castelli-rpbe", mark="-other"),
    )
    build_hulls(database)
    ours = material(database, "m-Na1Cl1-ours")
    assert (ours.hull_id, ours.energy_above_hull) == ("Cl-Na|mp-pbe", pytest.approx(0.1))
    assert [(energy.hull_id, energy.energy_above_hull) for energy in ours.energies] == [("Cl-Na|chgnet", 0.0)]
    assert material(database, "m-Na1Cl1-mp").energy_above_hull == 0.0  # what it is compared with stays as it is


def test_a_new_ground_state_is_told_to_the_systems_above_alone(database: Store) -> None:
    first = [
        phase({"Na": 1, "Cl": 1}, -1.0),
        phase({"K": 1, "Na": 1, "Cl": 2}, -1.2),
        phase({"K": 1, "Na": 1, "Cl": 2, "F": 2}, -1.4),
        phase({"K": 1, "Br": 1}, -1.0),
        phase({"K": 1, "Na": 1, "Br": 2}, -1.1),
    ]
    put(database, *first)
    build_hulls(database)
    untouched = list(database.database["hulls"].find({"chemsys": {"$regex": "Br"}}))
    above = phase({"Na": 2, "Cl": 1}, -0.1)  # not stable: nobody else hears of it
    put(database, above)
    assert build_hulls(database) == BuildCounts(1, 0, 4)
    stable = phase({"Na": 1, "Cl": 1}, -2.0, mark="-new")
    put(database, stable)
    assert build_hulls(database) == BuildCounts(1, 0, 4)  # above it two ternaries and more stay what they are
    lower = phase({"Na": 1, "Cl": 1}, -4.0, mark="-lower")
    put(database, lower)
    assert build_hulls(database) == BuildCounts(2, 0, 3)  # the ternary decomposes now, the quaternary does not
    assert database.database["hulls"].find_one({"chemsys": "Cl-K-Na"})["phases"] == ["m-Na1Cl1-lower"]  # type: ignore[index]
    assert distances(database) == expected([lower, *first, above, stable])
    assert list(database.database["hulls"].find({"chemsys": {"$regex": "Br"}})) == untouched


def test_an_element_at_zero_competes_with_nothing(database: Store) -> None:
    put(database, phase({"Na": 1, "Cl": 1}, -1.0))
    build_hulls(database)
    put(database, phase({"Na": 1}, 0.0), phase({"Na": 2}, 0.03))
    assert build_hulls(database) == BuildCounts(1, 0, 1)
    assert distances(database) == {"m-Na1Cl1": 0.0, "m-Na1": 0.0, "m-Na2": 0.03}


def random_phases(n: int, seed: int) -> list[MaterialRecord]:
    generator = np.random.default_rng(seed)
    found: dict[str, MaterialRecord] = {}
    while len(found) < n:
        elements = generator.choice(["Na", "K", "Cl", "O", "Ti"], size=generator.integers(1, 5), replace=False)
        formula = {str(element): int(generator.integers(1, 4)) for element in sorted(elements)}
        record = phase(formula, round(float(generator.normal(-0.6 * len(elements), 0.5)), 3))
        found[record.material_id] = record
    return list(found.values())


def test_step_by_step_it_comes_to_the_same_as_at_once(database: Store) -> None:
    records = random_phases(60, seed=3)
    for start in range(0, len(records), 7):
        put(database, *records[start : start + 7])
        build_hulls(database)
    assert distances(database) == expected(records)
    stepwise = list(database.database["hulls"].find({}, {"last_updated": 0}).sort("hull_id"))
    database.database["hulls"].delete_many({})
    assert build_hulls(database, full=True).n_done == len(stepwise)
    assert list(database.database["hulls"].find({}, {"last_updated": 0}).sort("hull_id")) == stepwise


class KilledError(Exception):
    """In place of a kill, at a place of our choice."""


@pytest.mark.parametrize(("owner", "step"), [(hulls, "write_hulls"), (HullBuilder, "_tell"), (hulls, "unmark")])
def test_killed_before_any_write_the_next_run_does_the_rest(
    database: Store, owner: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = random_phases(30, seed=4)
    put(database, *records[:20])
    build_hulls(database)
    put(database, *records[20:])
    n_calls = 0

    def die(*_: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls > 2:  # the first chunks get through
            raise KilledError
        original(*_)

    with monkeypatch.context() as patch:
        original = getattr(owner, step)
        patch.setattr(owner, step, die)
        builder = HullBuilder(database)
        with pytest.raises(KilledError):
            run(builder, chunks=builder.chunks())
    assert build_hulls(database).n_done >= 0
    assert distances(database) == expected(records)
    assert database.database["hulls"].count_documents({"stale": {"$exists": True}}) == 0
    assert build_hulls(database).n_done == 0


def test_a_mark_renewed_while_it_is_built_stays(database: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(database, phase({"Na": 1, "Cl": 1}, -1.0))
    build_hulls(database)
    put(database, phase({"Na": 1, "Cl": 1}, -1.5, mark="-new"))
    original = HullBuilder._tell

    def meanwhile(self: HullBuilder, items: Any) -> None:  # noqa: ANN401
        database.database["hulls"].update_many({}, {"$inc": {"stale": 1}})
        original(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(HullBuilder, "_tell", meanwhile)
        build_hulls(database)
    assert database.database["hulls"].count_documents({"stale": {"$exists": True}}) == 1
    build_hulls(database)
    assert database.database["hulls"].count_documents({"stale": {"$exists": True}}) == 0


def test_materials_of_a_campaign_are_judged_by_its_target(database: Store) -> None:
    campaign = create_campaign(database, ("formation_energy_per_atom < -0.5",), {"hull_cutoff": 0.05})
    of = {"campaign_id": campaign.campaign_id}
    put(
        database,
        phase({"Na": 1, "Cl": 1}, -1.0, **of),
        phase({"Na": 1, "Cl": 1}, -0.96, mark="-near", **of),
        phase({"Na": 1, "Cl": 1}, -0.9, mark="-far", **of),
        phase({"K": 1, "Cl": 1}, -0.3, **of),
        phase({"K": 1, "Br": 1}, -1.0),
    )
    build_hulls(database)
    verdicts = {
        row["material_id"]: (row["is_validated"], row["meets_target"]) for row in database.database["materials"].find()
    }
    assert verdicts == {
        "m-Na1Cl1": (True, True),
        "m-Na1Cl1-near": (True, True),
        "m-Na1Cl1-far": (False, False),
        "m-K1Cl1": (True, False),
        "m-K1Br1": (False, False),
    }


def test_a_screen_sees_the_crystals_of_all_methods(database: Store) -> None:
    crystal = Crystal(5.6 * np.eye(3), ("Na", "Cl"), np.array([[0.0] * 3, [0.5] * 3]))
    write_structures(database, [SourceStructure("s", "1", crystal, -2.0, "mp-pbe"), SourceStructure("s", "2", crystal)])
    put(database, phase({"K": 1, "Cl": 1}, -2.2), phase({"Na": 1, "Cl": 1}, -2.0, structure_ids=("s:1",)))
    found = hull_entries(database, {"Cl-K-Na", "Cl-Na"})
    assert [entry.identity for entry in found["Cl-K-Na"]] == ["m-K1Cl1", "s:1"]
    assert [(entry.identity, dict(entry.amounts)) for entry in found["Cl-Na"]] == [("s:1", {"Cl": 1, "Na": 1})]
    assert subsystems("Cl-K-Na") == ["Cl", "K", "Na", "Cl-K", "Cl-Na", "K-Na", "Cl-K-Na"]


def test_one_builder_at_a_time_and_a_dead_one_holds_nothing(database: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = database.database["locks"]
    with building(database, "hulls") as is_alive:
        held = locks.find_one({"_id": "hulls"})
        assert held is not None
        is_alive()
        assert locks.find_one({"_id": "hulls"})["expires_at"] >= held["expires_at"]  # type: ignore[index]  # it is there
        monkeypatch.setattr(lock, "MAX_WAIT", 0.3)
        with pytest.raises(lock.DatabaseError, match=r"built hulls for 0\.3 s"), building(database, "hulls"):
            pass
    assert locks.find_one({"_id": "hulls"}) is None
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = held["owner"].split(":")[0]
    locks.insert_one({"_id": "hulls", "owner": f"{host}:{child}:x", "expires_at": now() + lock.LEASE})
    with building(database, "hulls"):
        pass
    locks.insert_one({"_id": "hulls", "owner": "elsewhere:1:x", "expires_at": now() - lock.LEASE})
    with building(database, "hulls"):
        pass


def test_an_energy_of_several_methods_is_in_the_hull_of_each(database: Store) -> None:
    energies = (MethodEnergy("mp-pbe", -2.1, "s:1"), MethodEnergy("chgnet", -2.0, "s:2"))
    put(database, phase({"Na": 1, "Cl": 1}, -2.1, "mp-pbe", energies=energies))
    assert build_hulls(database) == BuildCounts(2, 0, 0)
    found = material(database, "m-Na1Cl1")
    assert [energy.hull_id for energy in found.energies] == ["Cl-Na|mp-pbe", "Cl-Na|chgnet"]
    assert found.hull_id == "Cl-Na|mp-pbe"
