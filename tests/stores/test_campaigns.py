from concurrent.futures import ThreadPoolExecutor

import pytest

from wyloop.models.errors import CampaignError
from wyloop.stores import campaigns
from wyloop.stores.connection import Store, connect
from wyloop.stores.leases import acquire_lease, release_lease
from wyloop.stores.settings import Settings

TARGET = ("band_gap > 0.5", "space_group_number >= 143")


def test_the_same_target_and_name_is_the_same_campaign(database: Store) -> None:
    first = campaigns.create_campaign(database, TARGET, {"n": 5})
    again = campaigns.create_campaign(database, list(reversed(TARGET)), {"n": 7})
    other = campaigns.create_campaign(database, TARGET, {}, name="other")
    assert again.campaign_id == first.campaign_id != other.campaign_id
    assert again.settings == {"n": 7}
    assert again.created_at == first.created_at
    assert [record.campaign_id for record in campaigns.campaigns(database)] == [first.campaign_id, other.campaign_id]
    assert first.created_at.tzinfo is not None
    assert first.code_version


def test_rounds_are_requested_only_when_the_last_request_is_met(database: Store) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    assert campaigns.open_round(database, identity) is None
    assert campaigns.request_rounds(database, identity, 2).rounds_requested == 2
    assert campaigns.request_rounds(database, identity, 2).rounds_requested == 2  # the interrupted command, again
    for number in (1, 2):
        opened = campaigns.open_round(database, identity)
        assert opened is not None
        assert opened.number == number
        assert campaigns.open_round(database, identity) == opened
        campaigns.close_round(database, opened.round_id, {"n_validated": number})
        campaigns.close_round(database, opened.round_id, {"n_validated": 99})
    assert campaigns.open_round(database, identity) is None
    assert campaigns.campaign(database, identity).rounds_closed == 2
    assert campaigns.request_rounds(database, identity, 1).rounds_requested == 3
    assert [found.summary for found in campaigns.rounds(database, identity)] == [{"n_validated": 1}, {"n_validated": 2}]


@pytest.mark.expects_findings("round_without_model")
def test_a_step_is_recorded_once(database: Store) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    campaigns.request_rounds(database, identity, 1)
    opened = campaigns.open_round(database, identity)
    assert opened is not None
    first = campaigns.record_step(database, opened.round_id, "train", counts={"n_rows": 10}, model_id="m1")
    second = campaigns.record_step(database, opened.round_id, "train", counts={"n_rows": 11}, model_id="m2")
    assert second == first
    assert first.model_id == "m1"
    assert first.steps["train"]["counts"] == {"n_rows": 10}
    with pytest.raises(CampaignError, match="expected a name"):
        campaigns.record_step(database, opened.round_id, "a.b", counts={})


def test_a_paused_campaign_opens_no_round(database: Store) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    campaigns.request_rounds(database, identity, 1)
    assert campaigns.set_campaign_state(database, identity, "paused").state == "paused"
    assert campaigns.open_round(database, identity) is None
    with pytest.raises(CampaignError, match="'asleep'; expected one of created"):
        campaigns.set_campaign_state(database, identity, "asleep")


def test_two_openers_at_once_open_one_round(database: Store) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    campaigns.request_rounds(database, identity, 1)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: campaigns.open_round(database, identity), range(8)))
    assert len({found.round_id for found in opened if found is not None}) == 1
    assert len(campaigns.rounds(database, identity)) == 1


def test_one_owner_holds_the_lease_and_its_token_grows(database: Store, stores_settings: Settings) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    other = connect(stores_settings)
    assert acquire_lease(database, identity, "a", 60) == 1
    assert acquire_lease(database, identity, "a", 60) == 1
    assert acquire_lease(other, identity, "b", 60) is None
    release_lease(other, identity, "b")  # not its own: nothing
    assert acquire_lease(other, identity, "b", 60) is None
    release_lease(database, identity, "a")
    assert acquire_lease(other, identity, "b", 0) == 2
    assert acquire_lease(database, identity, "a", 60) == 3  # b's had expired
    other.close()


def test_one_of_many_gets_the_lease(database: Store) -> None:
    identity = campaigns.create_campaign(database, TARGET, {}).campaign_id
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda i: acquire_lease(database, identity, f"owner {i}", 60), range(16)))
    assert sorted(token for token in tokens if token is not None) == [1]


def test_an_unknown_campaign_says_where_to_look(database: Store) -> None:
    with pytest.raises(CampaignError, match="no campaign 'x'; expected an id that 'wyloop campaign list' shows"):
        campaigns.campaign(database, "x")
    with pytest.raises(CampaignError, match="no round 'x'"):
        campaigns.round_record(database, "x")
