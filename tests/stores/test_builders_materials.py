"""calculations and structures -> materials."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import bson
import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.physics.protocols import protocol as protocol_of
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.builders.assemble import GeneInputs, best_of_kind, materials_of
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials, new_genes
from wyloop.stores.builders.run import BuildCounts
from wyloop.stores.calculations import CalculationRecord, complete, request_calculation
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material, material_id, materials

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
DERIVED = ("encodings", "materials", "hulls")


def rock_salt(cation: str, anion: str, a: float = 5.6) -> Crystal:
    return Crystal(a * FCC, (cation, anion), np.array([[0.0] * 3, [0.5] * 3]))


def fluorite_cell(cation: str, anion: str) -> Crystal:
    """Rock salt again, as the conventional cell of eight atoms with another origin."""
    primitive = rock_salt(cation, anion, 5.65).to_pymatgen()
    primitive.make_supercell([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    primitive.translate_sites(range(len(primitive)), [0.25, 0.25, 0.25])
    return Crystal.from_pymatgen(primitive)


def rutile(c_over_a: float, x: float) -> Crystal:
    lattice = 4.6 * np.diag([1.0, 1.0, c_over_a])
    anions = [[x, x, 0], [-x, -x, 0], [0.5 - x, 0.5 + x, 0.5], [0.5 + x, 0.5 - x, 0.5]]
    return Crystal(lattice, ("Ti", "Ti", "O", "O", "O", "O"), np.array([[0, 0, 0], [0.5] * 3, *anions], dtype=float))


def known(source: str, name: str, crystal: Crystal, *labels: Any) -> SourceStructure:  # noqa: ANN401
    return SourceStructure(source, name, crystal, *labels)


def built(store: Store) -> None:
    build_encodings(store)
    build_materials(store)
    build_hulls(store)


def contents(store: Store) -> dict[str, list[bytes]]:
    """The derived documents, byte by byte, `_id` and times included."""
    return {name: sorted(bson.encode(row) for row in store.database[name].find()) for name in DERIVED}


def relaxed(store: Store, crystal: Crystal, energy: float, *problems: str, name: str = "calc-1") -> Gene:
    """Put a completed relaxation into the database, eV/atom; the gene."""
    gene = encode(crystal)
    request_calculation(store, CalculationRecord(name, None, None, "relaxation", str(gene), "mlip-screen/1", "h"))
    result = {"converged": not problems, "formation_energy_per_atom": energy}
    complete(store, name, result=result, crystal=crystal, problems=problems)
    return gene


def test_the_same_crystal_of_two_sources_is_one_material(database: Store) -> None:
    write_structures(
        database,
        [
            known("mp", "1", rock_salt("Na", "Cl"), -2.05, "mp-pbe", 5.0, "pbe"),
            known("starter", "1", fluorite_cell("Na", "Cl"), -2.0, "chgnet", 8.5, "experiment"),
            known("oqmd", "1", rock_salt("Na", "Cl", 5.9), -2.01, "chgnet"),
            known("cif", "1", rock_salt("Na", "Cl")),
            known("mp", "2", rock_salt("K", "Cl", 6.3), -2.2, "mp-pbe"),
        ],
    )
    built(database)
    found = materials(database)
    assert {record.formula_pretty: record.structure_ids for record in found} == {
        "NaCl": ("cif:1", "mp:1", "oqmd:1", "starter:1"),
        "KCl": ("mp:2",),
    }
    salt = next(record for record in found if record.formula_pretty == "NaCl")
    assert salt.sources == ("cif", "mp", "oqmd", "starter")
    assert [(e.method, e.formation_energy_per_atom, e.source_id, e.hull_id) for e in salt.energies] == [
        ("mp-pbe", -2.05, "mp:1", "Cl-Na|mp-pbe"),
        ("chgnet", -2.01, "oqmd:1", "Cl-Na|chgnet"),
    ]
    assert (salt.formation_energy_per_atom, salt.energy_method, salt.band_gap) == (-2.05, "mp-pbe", 5.0)
    assert (salt.is_validated, salt.calculation_ids, salt.crystal.nsites) == (False, (), 2)
    of = {row["structure_id"]: row["material_id"] for row in database.database["structures"].find()}
    assert {name for name, identity in of.items() if identity == salt.material_id} == set(salt.structure_ids)


def test_two_crystals_of_one_gene_are_two_materials(database: Store) -> None:
    near, far = rutile(0.64, 0.305), rutile(2.2, 0.12)
    assert encode(near) == encode(far)
    write_structures(database, [known("s", "near", near, -3.0, "chgnet"), known("s", "far", far, -1.0, "chgnet")])
    write_structures(database, [known("t", "near", rutile(0.65, 0.3), -3.1, "mp-pbe")])
    built(database)
    found = materials(database)
    assert {record.structure_ids for record in found} == {("s:near", "t:near"), ("s:far",)}
    assert len({record.material_id for record in found}) == 2
    assert len({record.fingerprint for record in found}) == 1
    hull = database.database["hulls"].find_one({"hull_id": "O-Ti|chgnet"})
    assert hull is not None
    assert hull["n_entries"] == 2


def test_identities_stay_when_more_comes(database: Store) -> None:
    write_structures(database, [known("s", "z", rutile(2.2, 0.12), -1.0, "chgnet")])
    built(database)
    (first,) = materials(database)
    write_structures(database, [known("a", "a", rutile(0.64, 0.305)), known("a", "b", rutile(2.2, 0.12))])
    built(database)
    stored = database.database["materials"].find_one({"material_id": first.material_id})
    again = material(database, first.material_id)
    assert again.structure_ids == ("a:b", "s:z")
    ours = relaxed(database, rutile(0.64, 0.3), -3.0)
    built(database)
    after = database.database["materials"].find_one({"material_id": first.material_id})
    assert after is not None
    assert stored is not None
    assert {name for name in after if after[name] != stored[name]} == {"content_hash", "energies", "energy_above_hull"}
    assert after["energy_above_hull"] == 2.0  # ours is the ground state
    computed = material(database, material_id(str(ours)))
    assert (computed.structure_ids, computed.calculation_ids) == (("a:a",), ("calc-1",))
    assert (computed.formation_energy_per_atom, computed.energy_method) == (-3.0, "chgnet")


def test_a_changed_row_leaves_its_old_material(database: Store) -> None:
    write_structures(database, [known("s", "1", rock_salt("Na", "Cl"), -2.0, "chgnet")])
    write_structures(database, [known("t", "1", rock_salt("Na", "Cl"), -2.1, "chgnet")])
    built(database)
    (salt,) = materials(database)
    write_structures(database, [known("t", "1", rock_salt("K", "Cl", 6.3), -2.2, "chgnet")])
    built(database)
    assert {record.formula_pretty: record.structure_ids for record in materials(database)} == {
        "NaCl": ("s:1",), "KCl": ("t:1",)
    }  # fmt: skip
    assert material(database, salt.material_id).formation_energy_per_atom == -2.0
    write_structures(database, [known("s", "1", rock_salt("K", "Cl", 6.2), -2.3, "chgnet")])
    built(database)
    (potash,) = materials(database)
    assert potash.structure_ids == ("s:1", "t:1")
    assert [hull["hull_id"] for hull in database.database["hulls"].find()] == ["Cl-K|chgnet"]


def test_only_what_is_new_is_built(database: Store) -> None:
    write_structures(database, [known("s", str(i), rock_salt("Na", "Cl", 5.6 + 0.1 * i), -2.0) for i in range(3)])
    write_structures(database, [known("s", "k", rock_salt("K", "Cl", 6.3), -2.2, "chgnet")])
    build_encodings(database)
    assert build_materials(database) == BuildCounts(2, 0, 0)
    assert new_genes(database) == set()
    before = contents(database)
    assert build_materials(database) == BuildCounts(0, 0, 2)
    write_structures(database, [known("s", "br", rock_salt("K", "Br", 6.6), -1.9, "chgnet")])
    build_encodings(database)
    assert build_materials(database) == BuildCounts(1, 0, 2)
    assert set(before["materials"]) < set(contents(database)["materials"])
    write_structures(database, [known("s", "k", rock_salt("K", "Cl", 6.3), -2.25, "chgnet")])  # another label
    assert build_encodings(database) == BuildCounts(1, 0, 4)
    assert build_materials(database) == BuildCounts(1, 0, 2)
    assert build_materials(database, full=True) == BuildCounts(0, 0, 3)


def test_a_rebuild_from_scratch_has_the_same_bytes(database: Store) -> None:
    """What grew step by step, and what several processes build again from nothing."""
    rows = [known("s", "1", rock_salt("Na", "Cl"), -2.0, "chgnet"), known("s", "2", rutile(2.2, 0.12), -1.0, "mp-pbe")]
    for row in rows:
        write_structures(database, [row])
        built(database)
    relaxed(database, rutile(0.64, 0.3), -3.0)
    relaxed(database, rock_salt("K", "Cl", 6.3), -2.0, "forces above 0.05 eV/Å", name="calc-2")
    built(database)
    write_structures(
        database, [known("t", "1", rock_salt("Na", "Cl"), -2.1, "mp-pbe"), known("t", "2", rutile(0.64, 0.3))]
    )
    write_structures(database, [known("s", "1", rock_salt("Na", "Cl"), -2.02, "chgnet")])
    built(database)
    before = contents(database)
    assert [len(rows) for rows in before.values()] == [4, 3, 4]
    for name in DERIVED:
        database.database[name].delete_many({})
    database.database["structures"].update_many({}, {"$unset": {"fingerprint": "", "material_id": ""}})
    build_encodings(database)
    build_materials(database, n_processes=2)
    build_hulls(database)
    assert contents(database) == before
    build_encodings(database, full=True)
    assert build_materials(database, full=True).n_done == 0
    assert build_hulls(database, full=True).n_done == 0
    assert contents(database) == before


def test_a_full_build_removes_what_nothing_stands_behind(database: Store) -> None:
    write_structures(
        database, [known("s", str(i), rock_salt(c, "Cl"), -2.0, "chgnet") for i, c in enumerate(("Na", "K"))]
    )
    built(database)
    database.database["structures"].delete_one({"structure_id": "s:0"})
    build_encodings(database, full=True)
    assert build_materials(database, full=True) == BuildCounts(1, 0, 1)
    assert build_hulls(database) == BuildCounts(1, 0, 1)
    assert [row["structure_id"] for row in database.database["encodings"].find()] == ["s:1"]
    assert [hull["chemsys"] for hull in database.database["hulls"].find()] == ["Cl-K"]


@pytest.mark.parametrize("cut", ["materials", "structures"])
def test_killed_at_any_write_it_is_completed(database: Store, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written before the kill stays; the next run does the rest, and the end is the same."""
    rows = [known("s", str(i), rock_salt(c, "Cl", 6.0), -2.0, "chgnet") for i, c in enumerate(("Na", "K", "Rb"))]
    write_structures(database, rows)
    built(database)
    expected = contents(database)
    database.database["materials"].delete_many({})
    database.database["structures"].update_many({}, {"$unset": {"material_id": ""}})
    if cut == "structures":  # the materials were written, the structures do not know it
        build_materials(database)
        database.database["structures"].update_many({"source_id": "1"}, {"$unset": {"material_id": ""}})
    else:  # one chunk was done
        build_materials(database, [encode(rows[0].crystal).fingerprint])
    counts = build_materials(database)
    assert counts.n_done == (0 if cut == "structures" else 2)
    build_hulls(database)
    assert contents(database) == expected


def test_the_believed_and_newest_result_counts() -> None:
    made = CalculationRecord("a", None, None, "dft", "221 Cl:a Na:b", "gpaw-pbe/1", "h", status="completed")
    doubted = replace(made, calculation_id="z", problems=("forces",))
    assert best_of_kind([doubted, made, replace(made, calculation_id="y", status="failed")])["dft"] == made


def test_dft_at_changed_settings_is_another_method() -> None:
    crystal, now = rock_salt("Na", "Cl"), datetime.now(UTC)
    gene = encode(crystal).fingerprint
    relaxation, dft = (
        CalculationRecord(
            kind, None, None, kind, gene, protocol, protocol_of(protocol).hash, status="completed", crystal=crystal,
            result={"energy_per_atom": -3.0, "formation_energy_per_atom": -2.0}, last_updated=now,
        )
        for kind, protocol in (("relaxation", "mlip-screen/1"), ("dft", "gpaw-pbe/1"))
    )  # fmt: skip
    inputs = GeneInputs(gene, calculations=(relaxation, dft), references={"Na": -1.0, "Cl": -1.5})
    energies = [(one.method, one.formation_energy_per_atom, one.source_id) for one in materials_of(inputs)[0].energies]
    assert energies == [("chgnet", -2.0, "relaxation"), ("gpaw-pbe/1", -1.75, "dft")]
    before = replace(inputs, calculations=(relaxation, replace(dft, protocol_hash="0123456789abcdef")))
    assert materials_of(before)[0].energies[1].method == "gpaw-pbe/1@01234567"


def test_a_record_is_read_as_it_was_written(database: Store) -> None:
    gene = relaxed(database, rock_salt("Na", "Cl"), -2.0)
    built(database)
    found: MaterialRecord = material(database, material_id(str(gene)))
    assert (found.gene, found.calculation_ids, found.phonon_verdict) == (gene, ("calc-1",), "not computed")
    assert found.energies[0].source_id == "calc-1"
    assert (found.candidate_id, found.campaign_id, found.is_validated) == (None, None, False)


def test_an_incremental_build_scans_no_collection(database: Store) -> None:
    rows = [known("s", str(i), rock_salt(c, "Cl", 6.0), -2.0, "chgnet") for i, c in enumerate(("Na", "K", "Rb"))]
    write_structures(database, rows)
    write_structures(database, [known("s", "ternary", rutile(0.64, 0.305), -3.0, "mp-pbe")])
    relaxed(database, rutile(2.2, 0.12), -1.0)
    built(database)
    write_structures(database, [known("t", "1", rock_salt("K", "Cl", 6.1), -2.5, "chgnet")])
    database.database.command("profile", 2)
    built(database)
    database.database.command("profile", 0)
    profiled = list(database.database["system.profile"].find({"ns": {"$regex": r"\.(?!system|locks)"}}))
    seen = {row["ns"].split(".")[-1] for row in profiled}
    assert {"structures", "encodings", "materials", "hulls", "calculations"} <= seen
    assert [row["command"] for row in profiled if "COLLSCAN" in row.get("planSummary", "")] == []
