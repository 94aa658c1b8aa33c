from datetime import UTC, datetime
from pathlib import Path

import pytest

from wyloop.flows.definition import Definition, Schedule, change_budget, create, define, read_definition, start
from wyloop.models.errors import CampaignError
from wyloop.stores import budget, campaigns
from wyloop.stores.connection import Store

YAML = """
name: wide gaps
target:
  - 0.5 < band_gap < 2.0
  - formation_energy_per_atom < -1.0
budget:
  rounds: 3
  jobs: 200
  core_hours: 4
  wall_hours: 48
  per_protocol:
    gpaw-pbe/1: {jobs: 6, core_hours: 1.5}
policy:
  n_relaxations: 12
  generators: {mpvae: 0.8, random: 0.2}
  acquisition: probability
  retraining: {every_rounds: 2, new_labels: 10}
schedule:
  cron: "30 * * * *"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(YAML)
    return path


def test_a_file_is_read_whole(file: Path) -> None:
    found = read_definition(file, {"budget.jobs": 300, "policy.seed": 7})
    assert found.target == ("0.5 < band_gap < 2", "formation_energy_per_atom < -1")
    assert (found.budget.jobs, found.policy.seed, found.policy.n_relaxations) == (300, 7, 12)
    assert found.policy.generators == {"mpvae": 0.8, "random": 0.2}
    limits = found.budget.limits(datetime(2026, 1, 1, tzinfo=UTC))
    assert limits["all"].core_seconds == 4 * 3600
    assert limits["all"].deadline == datetime(2026, 1, 3, tzinfo=UTC)
    assert limits["gpaw-pbe/1"].jobs == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget.job": 3}, "unknown entry 'budget.job'; did you mean 'jobs'?"),
        ({"polcy.seed": 3}, "unknown entry 'polcy'; did you mean 'policy'?"),
        ({"policy.retraining.every_round": 1}, "did you mean 'every_rounds'?"),
        ({"policy.n_relaxations": 0}, "policy.n_relaxations = 0: Input should be greater than or equal to 1"),
        ({"budget.rounds": "many"}, "budget.rounds = 'many': Input should be a valid integer"),
        ({"target": "0.5 < bandgap"}, "band_gap"),
        ({"target": []}, "target"),
        ({"policy.generators": {"mpvae": 0.5}}, "the shares add up to 0.5; expected 1"),
        ({"policy.acquisition": "luck"}, "policy.acquisition = 'luck'"),
        ({"policy.dft_protocol": "gpaw-pbe"}, "dft_protocol 'gpaw-pbe' is unknown; did you mean 'gpaw-pbe/1'?"),
        ({"budget.per_protocol": {"gpaw": {"jobs": 1}}}, "no protocol 'gpaw'; did you mean 'gpaw-pbe/1'?"),
        ({"budget.per_protocol": {"gpaw-pbe/1": {"job": 1}}}, "did you mean 'jobs'?"),
        ({"schedule.cron": "every hour"}, "cron 'every hour' is no crontab line"),
        ({"schedule.interval_minutes": 5}, "both cron and interval_minutes; expected one of them"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(file: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(CampaignError) as caught:
        read_definition(file, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("target: [", "is not valid YAML"), ("- 1", "holds no entries"), ("name: x", "no 'target'; expected one")],
)
def test_a_file_that_is_none(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(CampaignError, match=message):
        read_definition(file)
    file.unlink()
    with pytest.raises(CampaignError, match="No such file"):
        read_definition(file)


def test_a_campaign_waits_to_be_started_with_its_limits(database: Store, file: Path) -> None:
    wanted = read_definition(file)
    made = create(database, wanted)
    assert (made.state, made.rounds_requested, made.started_at) == ("created", 0, None)
    assert Definition.model_validate(made.definition) == wanted
    assert campaigns.open_round(database, made.campaign_id) is None
    with pytest.raises(CampaignError, match="has this target and name already"):
        create(database, wanted)
    started = start(database, made.campaign_id)
    assert (started.state, started.rounds_requested) == ("active", 3)
    rows = {row.protocol: row for row in budget.budget(database, made.campaign_id)}
    assert (rows["all"].jobs_limit, rows["gpaw-pbe/1"].jobs_limit) == (200, 6)
    assert rows["all"].deadline is not None
    assert started.started_at is not None
    assert (rows["all"].deadline - started.started_at).total_seconds() == 48 * 3600
    assert start(database, made.campaign_id).started_at == started.started_at


def test_a_budget_changes_and_a_stopped_campaign_does_not_start(database: Store) -> None:
    made = create(database, define({"target": "band_gap > 1"}))
    start(database, made.campaign_id)
    change_budget(database, made.campaign_id, {"budget.jobs": 50, "budget.rounds": 4})
    assert campaigns.campaign(database, made.campaign_id).rounds_requested == 4
    assert budget.budget(database, made.campaign_id)[0].jobs_limit == 50
    with pytest.raises(CampaignError, match="did you mean 'jobs'"):
        change_budget(database, made.campaign_id, {"budget.jops": 50})
    campaigns.set_campaign_state(database, made.campaign_id, "stopped")
    with pytest.raises(CampaignError, match="is stopped; expected it created or active"):
        start(database, made.campaign_id)


def test_schedules() -> None:
    time = datetime(2026, 5, 1, 10, 45, tzinfo=UTC)
    assert Schedule(cron="30 * * * *").next_after(time) == datetime(2026, 5, 1, 11, 30, tzinfo=UTC)
    assert Schedule(interval_minutes=90).next_after(time) == datetime(2026, 5, 1, 12, 15, tzinfo=UTC)
    assert Schedule().next_after(time) is None
