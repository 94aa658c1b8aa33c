"""A campaign from the command line, from its definition to its report; nothing is computed here."""

from pathlib import Path

import pytest

from tests.platform.conftest import Command
from wyloop.stores import campaigns
from wyloop.stores.connection import Store

YAML = """
name: wide gaps
target: [0.5 < band_gap < 2.0, formation_energy_per_atom < -1.0]
budget: {rounds: 3, jobs: 100, core_hours: 2}
policy: {n_relaxations: 6, on_pause: give_back}
schedule: {interval_minutes: 30}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(YAML)
    return path


def test_a_campaign_from_definition_to_report(
    wyloop: Command, cli_store: Store, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    made = wyloop("campaign", "create", str(file), "--jobs", "80", "--set", "policy.seed=5", "--json").json
    identity = made["campaign_id"]
    assert (made["state"], made["settings"]["seed"], made["definition"]["budget"]["jobs"]) == ("created", 5, 80)
    assert [row["campaign_id"] for row in wyloop("campaign", "list", "--json").json] == [identity]

    started = wyloop("campaign", "start", identity)
    assert "no Prefect server answers" in started.out
    assert campaigns.campaign(cli_store, identity).rounds_requested == 3

    rows = wyloop("campaign", "budget", identity, "--core-hours", "4", "--json").json
    assert (rows[0]["protocol"], rows[0]["jobs_limit"], rows[0]["core_hours_limit"]) == ("all", 80, 4)
    assert "core-hours" in wyloop("campaign", "budget", identity).out

    assert wyloop("campaign", "pause", identity, "--json").json["state"] == "paused"
    assert "by a person" in wyloop("campaign", "show", identity).out
    assert wyloop("campaign", "resume", identity, "--json").json["state"] == "active"
    assert wyloop("reconcile").out == "nothing to mend\n"
    assert wyloop("reconcile", "--json").json == {"done": {}, "failed": {}}

    files = wyloop("campaign", "report", identity, "--out", str(tmp_path / "report"), "--json").json["files"]
    assert [Path(path).name for path in files] == ["report.md", "report.html"]
    assert wyloop("campaign", "stop", identity, "--json").json["state"] == "stopped"
    again = wyloop("campaign", "start", identity)
    assert again.status == 1
    assert "is stopped; expected it created or active" in again.err


def test_options_alone_make_a_campaign(wyloop: Command, cli_store: Store) -> None:
    made = wyloop("campaign", "create", "-t", "band_gap > 1", "--rounds", "2", "--name", "x", "--json").json
    assert made["definition"]["budget"]["rounds"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "policy.n_relax=3"], "unknown entry 'policy.n_relax'; did you mean 'n_relaxations'?"),
        (["--rounds", "0"], "budget.rounds = 0: Input should be greater than or equal to 1"),
        (["--set", "policy.n_dft"], "expected name=value"),
        (["-t", "0.5 < bandgap"], "band_gap"),
    ],
)
def test_bad_input_is_one_line(
    wyloop: Command, cli_store: Store, file: Path, arguments: list[str], message: str
) -> None:
    done = wyloop("campaign", "create", str(file), *arguments)
    assert done.status in (1, 2)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert campaigns.campaigns(cli_store) == []


def test_without_a_target(wyloop: Command, cli_store: Store) -> None:
    done = wyloop("campaign", "create")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "no 'target'; expected one" in done.err
