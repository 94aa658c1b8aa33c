from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.flows.rounds import CSCL, NACL, POLICY, contents, model_of, open_round, propose, starter
from wyloop.flows.dispatch import ask_for
from wyloop.flows.write_back import write_materials
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, candidates, materials
from wyloop.stores.builders.encodings import build_encodings
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.ingest.structures import SourceStructure, write_structures
from wyloop.stores.materials import MaterialRecord, material_id
from wyloop.stores.verdicts import unmet_conditions

TARGET = ("0.5 < band_gap < 6.0", "formation_energy_per_atom < -0.5")
MGO, LIF, CAO = (canonical(Gene.parse(f"225 {pair}")) for pair in ("Mg:a O:b", "F:b Li:a", "Ca:a O:b"))
WRITTEN = ("materials", "candidates", "calculations", "hulls")


@pytest.fixture
def campaign_round(database: Store) -> tuple[CampaignRecord, RoundRecord]:
    return open_round(database, target=TARGET)


def relaxed(
    store: Store, record: RoundRecord, gene: Gene, name: str, energy: float, *problems: str, status: str = "dispatched"
) -> str:
    """Make a candidate whose relaxation gave this formation energy, eV/atom; the candidate's id."""
    candidate = propose(store, record, gene, status, rank=1)
    identity = ask_for(store, "relaxation", str(gene), "mlip-screen/1", record, candidate_id=candidate.candidate_id)
    result = {"converged": not problems, "formation_energy_per_atom": energy}
    calculations.complete(store, identity, result=result, crystal=starter(name).crystal, problems=problems)
    return candidate.candidate_id


def finish(store: Store, record: RoundRecord, kind: str, subject: str, result: Mapping[str, Any]) -> str:
    protocol = "mlip-gamma/1" if kind == "phonon" else "gpaw-pbe/1"
    identity = ask_for(store, kind, subject, protocol, record)
    crystal = starter("NaCl-225").crystal if kind == "dft" else None
    calculations.complete(store, identity, result=result, crystal=crystal)
    return identity


def test_each_candidate_gets_its_end(database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]) -> None:
    campaign, record = campaign_round
    validated = relaxed(database, record, NACL, "NaCl-225", -2.1)
    unstable = relaxed(database, record, CSCL, "CsCl-221", 0.4)
    off_target = relaxed(database, record, MGO, "MgO-225", -0.2)
    unbelieved = relaxed(database, record, LIF, "LiF-225", -3.0, "forces above 0.05 eV/Å after 250 steps")
    failed = propose(database, record, CAO, "dispatched").candidate_id
    identity = ask_for(database, "relaxation", str(CAO), "mlip-screen/1", record)
    never = propose(database, record, canonical(Gene.parse("225 K:a F:b")), "dispatched").candidate_id
    calculations.fail(database, identity, error="CHGNet does not know it")
    rejected = propose(database, record, canonical(Gene.parse("225 K:a I:b")), "rejected").candidate_id

    counts = write_materials(database, campaign, record, POLICY)
    assert counts == {
        "n_materials": 3,
        "n_failed": 2,
        "n_off_target": 1,
        "n_quarantined": 1,
        "n_unstable": 1,
        "n_validated": 1,
    }
    ends = {identity: candidates.candidate(database, identity) for identity in
            (validated, unstable, off_target, unbelieved, failed, never, rejected)}  # fmt: skip
    assert {identity: (found.status, found.reason) for identity, found in ends.items()} == {
        validated: ("validated", "not calculated: band_gap"),
        unstable: ("unstable", "0.4 eV/atom above hull Cl-Cs|chgnet; cutoff 0.1"),
        off_target: ("off_target", "calculated values miss formation_energy_per_atom < -0.5"),
        unbelieved: ("quarantined", "its relaxation waits for review: forces above 0.05 eV/Å after 250 steps"),
        failed: ("failed", "relaxation failed: CHGNet does not know it"),
        never: ("failed", "never relaxed"),
        rejected: ("rejected", ""),
    }
    assert {found.gene: (found.is_validated, found.meets_target) for found in materials.materials(database)} == {
        NACL: (True, False),
        CSCL: (False, False),
        MGO: (True, False),
    }


def test_lineage_and_hull_of_a_material(database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]) -> None:
    campaign, record = campaign_round
    candidate = relaxed(database, record, NACL, "NaCl-225", -2.1)
    phonon = finish(
        database,
        record,
        "phonon",
        str(NACL),
        {"lowest_optical_frequency": 4.5, "is_stable": True, "is_prescreen": True, "frequencies": [0.0, 4.5]},
    )
    write_materials(database, campaign, record, POLICY)
    found = materials.material(database, material_id(str(NACL)))
    relaxation = next(c for c in calculations.of_round(database, record.round_id) if c.kind == "relaxation")
    assert (found.candidate_id, found.campaign_id, found.round_number) == (candidate, campaign.campaign_id, 1)
    assert found.model_id == model_of(database)
    assert set(found.calculation_ids) == {relaxation.calculation_id, phonon}
    assert (found.energy_method, found.formation_energy_per_atom) == ("chgnet", -2.1)
    assert (found.energy_above_hull, found.hull_id) == (0.0, "Cl-Na|chgnet")
    assert (found.lowest_optical_frequency, found.phonon_verdict) == (4.5, "stable (force-field pre-screen)")
    assert (found.band_gap, found.band_gap_method, found.is_gap_direct) == (None, None, None)
    hull = database.database["hulls"].find_one({"hull_id": found.hull_id})
    assert hull is not None
    assert [entry["identity"] for entry in hull["entries"]] == [found.material_id]


def test_repeated_it_changes_nothing(database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]) -> None:
    campaign, record = campaign_round
    relaxed(database, record, NACL, "NaCl-225", -2.1)
    relaxed(database, record, CSCL, "CsCl-221", 0.4)
    relaxed(database, record, LIF, "LiF-225", -3.0, "atoms collapsed onto each other")
    first = write_materials(database, campaign, record, POLICY)
    before = contents(database, *WRITTEN)
    assert write_materials(database, campaign, record, POLICY) == first
    assert contents(database, *WRITTEN) == before


def test_a_gene_of_two_campaigns_ends_in_both(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    first = relaxed(database, record, NACL, "NaCl-225", -2.1)
    other_campaign, other_record = open_round(database, target=("formation_energy_per_atom < -3",))
    second = propose(database, other_record, NACL, "dispatched").candidate_id
    for _ in range(2):
        assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}
        assert write_materials(database, other_campaign, other_record, POLICY) == {"n_materials": 1, "n_off_target": 1}
    assert candidates.candidate(database, first).status == "validated"
    assert candidates.candidate(database, second).status == "off_target"
    (material,) = materials.materials(database)
    assert material.candidate_id == second


def test_interrupted_before_the_end_it_is_completed(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    candidate = relaxed(database, record, NACL, "NaCl-225", -2.1)
    write_materials(database, campaign, record, POLICY)
    expected = contents(database, *WRITTEN)
    # The crash: the material is written, neither its hull nor its candidate's end.
    database.database["hulls"].delete_many({})
    database.database["materials"].update_many(
        {}, {"$unset": {"energy_above_hull": "", "hull_id": ""}, "$set": {"is_validated": False}}
    )
    candidates.set_status(database, [candidate], "dispatched")
    write_materials(database, campaign, record, POLICY)
    found = contents(database, *WRITTEN)
    for rows in (*expected.values(), *found.values()):
        for row in rows:
            row.pop("_id")
    assert found == expected


def test_dft_completes_what_the_force_field_began(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    candidate = relaxed(database, record, NACL, "NaCl-225", -2.1)
    write_materials(database, campaign, record, POLICY)
    finish(database, record, "dft", str(NACL), {"energy_per_atom": -3.5, "band_gap": 5.0, "is_direct": True})
    finish(database, record, "reference", "Na", {"energy_per_atom": -1.3})
    write_materials(database, campaign, record, POLICY)
    found = materials.material(database, material_id(str(NACL)))
    assert (found.band_gap, found.band_gap_method, found.is_gap_direct) == (5.0, "gpaw-pbe/1", True)
    assert found.dft_formation_energy_per_atom is None  # the reference of Cl is still to come
    assert found.meets_target
    finish(database, record, "reference", "Cl", {"energy_per_atom": -1.8})
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}
    found = materials.material(database, material_id(str(NACL)))
    assert found.dft_formation_energy_per_atom == pytest.approx(-3.5 + (1.3 + 1.8) / 2)
    assert (found.is_validated, found.meets_target) == (True, True)
    assert candidates.candidate(database, candidate).status == "validated"


def test_each_dft_protocol_has_hulls_of_its_own(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    """The force field puts rock salt below, DFT the other crystal; no hull mixes the two."""
    campaign, record = campaign_round
    other = canonical(Gene.parse("221 Cl:b Na:a"))
    relaxed(database, record, NACL, "NaCl-225", -2.1)
    relaxed(database, record, other, "NaCl-225", -2.0)
    finish(database, record, "dft", str(NACL), {"energy_per_atom": -3.5, "band_gap": 5.0})
    finish(database, record, "dft", str(other), {"energy_per_atom": -3.7, "band_gap": 5.0})
    for element in ("Na", "Cl"):
        finish(database, record, "reference", element, {"energy_per_atom": -1.5})
    write_materials(database, campaign, record, POLICY)
    first, second = (materials.material(database, material_id(str(gene))) for gene in (NACL, other))
    told = [
        {one.method: (one.hull_id, pytest.approx(one.energy_above_hull)) for one in found.energies}
        for found in (first, second)
    ]
    assert told == [
        {"chgnet": ("Cl-Na|chgnet", 0.0), "gpaw-pbe/1": ("Cl-Na|gpaw-pbe/1", 0.2)},
        {"chgnet": ("Cl-Na|chgnet", 0.1), "gpaw-pbe/1": ("Cl-Na|gpaw-pbe/1", 0.0)},
    ]
    hull = database.database["hulls"].find_one({"hull_id": "Cl-Na|gpaw-pbe/1"})
    assert hull is not None
    assert sorted(entry["formation_energy_per_atom"] for entry in hull["entries"]) == pytest.approx([-2.2, -2.0])


def test_a_gap_that_misses_turns_a_validated_candidate_off_target(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    candidate = relaxed(database, record, NACL, "NaCl-225", -2.1)
    write_materials(database, campaign, record, POLICY)
    finish(database, record, "dft", str(NACL), {"energy_per_atom": -3.5, "band_gap": 0.0, "is_direct": False})
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_off_target": 1}
    found = candidates.candidate(database, candidate)
    assert (found.status, found.reason) == ("off_target", "calculated values miss 0.5 < band_gap < 6")
    material = materials.material(database, material_id(str(NACL)))
    assert (material.is_validated, material.meets_target) == (True, False)


@pytest.mark.expects_findings("candidate_without_campaign", "candidate_without_round")
def test_results_of_the_same_gene_asked_for_by_another_round_count(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    relaxed(database, replace(record, round_id="another-r1", campaign_id="another"), NACL, "NaCl-225", -2.1)
    propose(database, record, NACL, "dispatched")
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}


def test_a_known_crystal_joins_what_was_computed_and_changes_no_end(
    database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]
) -> None:
    campaign, record = campaign_round
    candidate = relaxed(database, record, NACL, "NaCl-225", -2.1)
    write_materials(database, campaign, record, POLICY)
    entry = starter("NaCl-225")
    labels = (-2.05, "mp-pbe", 5.0, "pbe")
    write_structures(database, [SourceStructure("mp", "1", entry.crystal, *labels)])
    build_encodings(database)
    assert write_materials(database, campaign, record, POLICY) == {"n_materials": 1, "n_validated": 1}
    (found,) = materials.materials(database)
    assert (found.material_id, found.structure_ids, found.sources) == (material_id(str(NACL)), ("mp:1",), ("mp",))
    assert (found.formation_energy_per_atom, found.energy_method, found.band_gap) == (-2.1, "chgnet", None)
    assert [(energy.method, energy.hull_id) for energy in found.energies] == [
        ("chgnet", "Cl-Na|chgnet"),
        ("mp-pbe", "Cl-Na|mp-pbe"),
    ]
    assert (found.candidate_id, found.is_validated) == (candidate, True)
    assert candidates.candidate(database, candidate).status == "validated"


def test_unmet_conditions(database: Store, campaign_round: tuple[CampaignRecord, RoundRecord]) -> None:
    campaign, record = campaign_round
    relaxed(database, record, NACL, "NaCl-225", -2.1)
    write_materials(database, campaign, record, POLICY)
    material = materials.material(database, material_id(str(NACL)))

    def unmet(*target: str, **fields: float) -> list[str]:
        made: MaterialRecord = replace(material, **fields)  # type: ignore[arg-type]  # numbers only
        return unmet_conditions(made, Target.parse(target))

    assert unmet("formation_energy_per_atom < -1.0", "space_group_number = 225") == []
    assert unmet("space_group_number < 195") == ["space_group_number < 195"]
    assert unmet("elements has K") == ["elements has K"]
    assert unmet("band_gap > 1.0") == []  # not calculated misses nothing
    assert unmet("band_gap > 1.0", band_gap=0.7) == ["band_gap > 1"]
    assert unmet("formation_energy_per_atom < -1.0", dft_formation_energy_per_atom=-1.8) == []
    assert unmet("formation_energy_per_atom < -1.0", dft_formation_energy_per_atom=-0.8) == [
        "formation_energy_per_atom < -1 by DFT (-0.800 eV/atom)"
    ]
