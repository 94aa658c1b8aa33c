"""The funnel by generator, from proposals to what is on target."""

from dataclasses import replace

import pytest

from tests.stores.crystals import NACL
from tests.stores.test_candidates import PREDICTION
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import campaigns, candidates
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store
from wyloop.stores.funnels import GeneratorFunnel, funnel_by_generator
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material

STATUSES = ("rejected", "passed", "failed", "quarantined", "unstable", "off_target", "validated", "validated")
DISTANCES = {4: 0.4, 5: 0.08, 6: 0.05, 7: 0.0}  # eV/atom above the hull, of those that were relaxed
ELEMENTS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr")
COUNTS = {"n_asked": 8, "n_proposed": 20, "n_known": 7, "n_duplicates": 3, "n_candidates": 8}


def verdicts(status: str) -> tuple[Verdict, ...]:
    return (
        Verdict("validity", True, 2.0, "1", ""),
        Verdict("charge_neutrality", status != "rejected", 1.0, "1", ""),
    )


def gene_of(element: str, anion: str) -> Gene:
    return canonical(Gene.parse(f"225 {element}:a {anion}:b"))


@pytest.fixture
def filled(database: Store) -> tuple[Store, str]:
    """Two rounds; in the first `mpvae` proposed, in both `mattergen`."""
    campaign = campaigns.create_campaign(database, ("band_gap > 1",), {})
    campaigns.request_rounds(database, campaign.campaign_id, 2)
    for number, generators in ((1, {"mpvae": "Cl", "mattergen": "Br"}), (2, {"mattergen": "I"})):
        record = campaigns.open_round(database, campaign.campaign_id)
        assert record is not None
        for name, anion in generators.items():
            made = []
            for place, status in enumerate(STATUSES):
                gene = gene_of(ELEMENTS[place], anion)
                made.append(
                    CandidateRecord(
                        candidate_id(campaign.campaign_id, gene.fingerprint),
                        campaign.campaign_id,
                        record.round_id,
                        number,
                        gene,
                        PREDICTION,
                        verdicts(status),
                        sampler=name,
                        status=status,
                    )
                )
                if place in DISTANCES:
                    identity = material_id(gene.fingerprint)
                    material = MaterialRecord(identity, gene.fingerprint, gene, NACL, -1.0, "chgnet")
                    distance = DISTANCES[place]
                    hull = {"energy_above_hull": distance, "hull_id": "x|chgnet", "is_validated": distance <= 0.1}
                    upsert_material(database, replace(material, **hull, meets_target=place == 7))
            candidates.propose(database, made)
        if number == 1:  # the second round is as an older version left it
            counts = {"n_proposed": 16, "generators": dict.fromkeys(generators, COUNTS)}
            campaigns.record_step(database, record.round_id, "generate", counts=counts)
        campaigns.close_round(database, record.round_id, {})
    return database, campaign.campaign_id


@pytest.mark.expects_findings("candidate_without_model", "hull_stale", "material_without_hull")
def test_the_funnel_of_each_generator(filled: tuple[Store, str]) -> None:
    store, campaign = filled
    mattergen, mpvae = funnel_by_generator(store, campaign)
    assert mpvae == GeneratorFunnel(
        generator="mpvae",
        n_proposed=20,
        n_unique=17,
        n_novel=10,
        n_candidates=8,
        passed_screen={"validity": 8, "charge_neutrality": 7},
        n_passed=7,
        n_selected=6,
        n_relaxed=4,
        n_near_hull=3,
        n_stable=1,
        n_validated=2,
        n_on_target=1,
        n_quarantined=1,
    )
    assert (mattergen.generator, mattergen.n_proposed, mattergen.n_novel) == ("mattergen", 28, 18)
    assert (mattergen.n_candidates, mattergen.n_near_hull, mattergen.n_on_target) == (16, 6, 2)
    (second,) = funnel_by_generator(store, campaign, round_number=2)
    assert (second.n_proposed, second.n_unique, second.n_novel, second.n_candidates) == (8, 8, 8, 8)
    assert funnel_by_generator(store, campaign, hull_cutoff=0.06)[1].n_near_hull == 2
    assert funnel_by_generator(store, "another") == []
    assert mpvae.to_json()["passed_screen"] == {"validity": 8, "charge_neutrality": 7}
