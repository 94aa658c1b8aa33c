import pytest

from tests.flows.rounds import POLICY, TARGET, contents, fill, open_round
from wyloop.flows.generate import generate_candidates, screen_candidates
from wyloop.models.mpvae.checkpoint import SHIPPED
from wyloop.models.screening.funnel import SCREENS
from wyloop.models.wyckoff.gene import canonical
from wyloop.stores import campaigns, candidates, registry
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.candidates import CandidateRecord
from wyloop.stores.connection import Store

Round = tuple[CampaignRecord, RoundRecord]


def with_shipped_model(store: Store, target: tuple[str, ...] = TARGET) -> Round:
    """Open the next round of a target, its model the shipped one."""
    campaign, record = open_round(store, target=target)
    model_id = registry.save_model(
        store,
        SHIPPED.read_bytes(),
        parent_id=None,
        card={},
        snapshot=None,
        campaign_id=None,
        round_number=None,
    )
    return campaign, campaigns.record_step(store, record.round_id, "train", counts={}, model_id=model_id)


@pytest.fixture
def filled(database: Store) -> Store:
    fill(database)
    return database


def fingerprints(found: list[CandidateRecord]) -> set[str]:
    return {candidate.gene.fingerprint for candidate in found}


def test_candidates_are_new_distinct_valid_and_on_target(filled: Store) -> None:
    campaign, record = with_shipped_model(filled)
    counts = generate_candidates(filled, campaign, record, POLICY)
    assert counts["n_proposed"] == 120
    assert list(counts["generators"]) == ["mpvae"]
    told = counts["generators"]["mpvae"]
    assert (told["n_asked"], told["n_candidates"], told["n_duplicates"]) == (120, 120, 0)
    assert told["n_proposed"] >= 120 + told["n_known"]
    found = candidates.of_round(filled, record.round_id)
    assert len(fingerprints(found)) == len(found) == 120
    assert candidates.known_among(filled, fingerprints(found)) == set()
    assert all(candidate.gene == canonical(candidate.gene) for candidate in found)
    assert min(candidate.gene.space_group_number for candidate in found) >= 195
    assert max(candidate.gene.nsites for candidate in found) <= 24
    assert {(c.status, c.model_id, c.round_number, c.seed, c.sampler) for c in found} == {
        ("proposed", record.model_id, 1, record.seed, "mpvae")
    }
    assert all(candidate.prediction is not None for candidate in found)

    # A crash in the middle of the bulk write, and once more from the start.
    complete = contents(filled, "candidates")["candidates"]
    lost = [row["candidate_id"] for row in complete[50:]]
    filled.database["candidates"].delete_many({"candidate_id": {"$in": lost}})
    generate_candidates(filled, campaign, record, POLICY)
    again = candidates.of_round(filled, record.round_id)
    assert fingerprints(again) == fingerprints(found)
    predicted = {candidate.candidate_id: candidate.prediction for candidate in found}
    assert {candidate.candidate_id: candidate.prediction for candidate in again} == predicted
    assert contents(filled, "candidates")["candidates"][:50] == complete[:50]

    campaigns.close_round(filled, record.round_id, {})
    campaign, second = with_shipped_model(filled)
    assert second.number == 2
    generate_candidates(filled, campaign, second, POLICY)
    later = candidates.of_round(filled, second.round_id)
    assert len(later) == 120
    assert fingerprints(later).isdisjoint(fingerprints(found))


def test_elements_of_the_target_are_kept(filled: Store) -> None:
    target = ("elements in Br, Cl, K, Na", "space_group_number >= 143")
    campaign, record = with_shipped_model(filled, target)
    generate_candidates(filled, campaign, record, POLICY.model_copy(update={"n_candidates": 20}))
    found = candidates.of_round(filled, record.round_id)
    assert found
    assert {element for candidate in found for element in candidate.gene.elements} <= {"Br", "Cl", "K", "Na"}


def test_every_verdict_is_kept_and_the_binding_ones_decide(filled: Store) -> None:
    campaign, record = with_shipped_model(filled)
    generate_candidates(filled, campaign, record, POLICY)
    counts = screen_candidates(filled, campaign, record, POLICY)
    found = candidates.of_round(filled, record.round_id)
    assert {tuple(verdict.screen for verdict in candidate.verdicts) for candidate in found} == {SCREENS}
    assert counts["n_screened"] == 120
    statuses = [candidate.status for candidate in found]
    assert statuses.count("passed") == counts["n_passed"]
    assert statuses.count("passed") + statuses.count("rejected") == 120
    assert 0 < statuses.count("passed") < 120
    for candidate in found:
        failed = [v for v in candidate.verdicts if v.screen in POLICY.screening.binding and not v.passed]
        assert (candidate.status == "passed") == (not failed)
        expected = f"{failed[0].screen}: {failed[0].reason}" if failed else "every binding screen passed"
        assert candidate.reason == expected

    before = contents(filled, "candidates")
    assert screen_candidates(filled, campaign, record, POLICY) == {"n_screened": 0, "n_passed": 0}
    assert contents(filled, "candidates") == before


def test_a_screen_that_does_not_bind_is_recorded_only(filled: Store) -> None:
    campaign, record = with_shipped_model(filled)
    generate_candidates(filled, campaign, record, POLICY)
    lenient = POLICY.model_copy(
        update={"screening": POLICY.screening.model_copy(update={"binding": ("validity", "novelty")})}
    )
    assert screen_candidates(filled, campaign, record, lenient) == {"n_screened": 120, "n_passed": 120}
    found = candidates.of_round(filled, record.round_id)
    assert any(not verdict.passed for candidate in found for verdict in candidate.verdicts)
