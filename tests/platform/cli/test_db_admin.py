import json
from pathlib import Path

import pytest

from tests.platform.conftest import Command
from wyloop.flows.launchpad import Job, launchpad, submit
from wyloop.platform.settings import all_settings
from wyloop.stores.campaigns import campaigns, create_campaign
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import SCHEMA_VERSION
from wyloop.stores.restore import restore
from wyloop.stores.settings import Settings

DUMPS = Path(__file__).parents[2] / "stores" / "dumps"
TARGET = ("band_gap > 1",)


@pytest.mark.expects_findings
def test_check_and_repair(wyloop: Command, cli_store: Store) -> None:
    create_campaign(cli_store, TARGET, {})
    assert "clean" in wyloop("db", "check").out
    cli_store.database["hulls"].drop_index("hull_id_1")
    cli_store.database["campaigns"].create_index("name")
    found = wyloop("db", "check", "--json")
    assert found.status == 1
    assert {finding["kind"]: finding["level"] for finding in found.json["findings"]} == {
        "index_missing": "fault", "index_unknown": "note",
    }  # fmt: skip
    told = wyloop("db", "check")
    assert told.status == 1
    assert "not clean" in told.out
    assert "index_missing" in told.out
    mended = wyloop("db", "check", "--repair")
    assert mended.status == 0
    assert mended.out.startswith("1 indexes made")
    again = wyloop("db", "check", "--repair", "--json")
    assert (again.status, again.json["repaired"], again.json["is_clean"]) == (0, {}, True)
    cli_store.database["campaigns"].update_one({}, {"$set": {"state": "lost"}})
    left = wyloop("db", "check", "--repair", "--json")
    assert left.status == 1
    assert [finding["is_safe_to_repair"] for finding in left.json["findings"] if finding["level"] == "fault"] == [False]


def test_backup_and_restore(wyloop: Command, cli_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_campaign(cli_store, TARGET, {})
    flows = all_settings().flows
    lpad = launchpad(cli_store.uri, flows.launchpad_database)
    submit(lpad, [Job("calc-1", "relax", "mlip")], name="one")
    lpad.connection.close()
    path, other = tmp_path / "b.zip", f"{cli_store.name[:20]}_b"
    written = wyloop("db", "backup", path)
    assert f"of FireWorks to {path}" in written.out
    refused = wyloop("db", "restore", path)
    assert refused.status == 1
    assert "is not empty" in refused.error
    try:
        told = wyloop("db", "restore", path, "--into", other)
        assert told.status == 0, told.err
        assert f"WYLOOP_STORES_DATABASE={other} WYLOOP_FLOWS_LAUNCHPAD_DATABASE={other}_fireworks" in told.out
        restored = connect(all_settings().with_database(other).stores)
        assert [found.name for found in campaigns(restored)] == list(TARGET)
        restored.close()
        monkeypatch.setenv("WYLOOP_STORES_DATABASE", other)
        monkeypatch.setenv("WYLOOP_FLOWS_LAUNCHPAD_DATABASE", f"{other}_fireworks")
        (job,) = wyloop("job", "list", "--json").json
        assert job["calculation_id"] == "calc-1"
    finally:
        for name in (other, f"{other}_fireworks"):
            cli_store.client.drop_database(name)
    assert "exists already" in wyloop("db", "backup", path, "--without-jobs").error
    small = wyloop("db", "backup", tmp_path / "small.zip", "--without-jobs", "--json").json
    assert small["jobs"] == {}
    assert small["n_bytes"] == (tmp_path / "small.zip").stat().st_size
    assert "no folder" in wyloop("db", "backup", tmp_path / "none" / "b.zip").error
    assert "can't read the backup" in wyloop("db", "restore", tmp_path / "none.zip").error
    assert "choose another one" in wyloop("db", "restore", path, "--into", "a.b").error


def test_migrate_makes_a_backup_and_builds(
    wyloop: Command, stores_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stores_settings.uri is not None
    monkeypatch.setenv("WYLOOP_STORES_URI", stores_settings.uri.get_secret_value())
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", stores_settings.database)
    store = connect(stores_settings, is_checked=False)
    try:
        restore(store, DUMPS / "schema_1.zip")
        refused = wyloop("campaign", "list")
        assert refused.status == 1
        assert "run 'wyloop db migrate'" in refused.error
        done = wyloop("db", "migrate", "--json")
        assert done.status == 0, done.err
        assert [one["version"] for one in done.json["applied"]] == list(range(2, SCHEMA_VERSION + 1))
        written = Path(done.json["backup"])
        assert written.parent == all_settings().data_folder / "backups"
        assert written.exists()
        assert wyloop("db", "check").status == 0
        assert store.database["materials"].count_documents({}) > 1
        assert "nothing to do" in wyloop("db", "migrate").out
        (campaign,) = wyloop("campaign", "list", "--json").json
        assert campaign["rounds_closed"] == 1
        store.client.drop_database(store.name)
        restore(store, written)
        assert "schema version 1" in wyloop("campaign", "list").error
        assert wyloop("db", "migrate", "--without-backup").status == 0
    finally:
        store.client.drop_database(store.name)
        store.close()


def test_schema_shows_every_field_with_its_unit(wyloop: Command) -> None:
    rows = {(row["collection"], row["field"]): row for row in wyloop("db", "schema", "--json").json}
    assert rows["structures", "volume"]["unit"] == "Å^3"
    assert rows["structures", "volume"]["is_required"]
    assert rows["calculations", "result(PhononResult).lowest_optical_frequency"]["unit"] == "THz"
    assert rows["candidates", "verdicts[].screen"]["unit"] is None
    assert rows["campaigns", "state"]["choices"] == ["created", "active", "paused", "stopped", "finished"]
    assert "eV/atom" in wyloop("db", "schema", "hulls").out
    assert "no collection 'x'; expected one of structures" in wyloop("db", "schema", "x").error


def test_roles(wyloop: Command, cli_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's server asks nobody for a password, and still keeps users and roles."""
    monkeypatch.setenv("WYLOOP_READER_PASSWORD", "corr3ct horse")
    name = cli_store.name
    try:
        made = wyloop("db", "roles", "create", "--role", "reader", "--role", "owner", "--json")
        assert made.status == 0, made.err
        reader, owner = made.json
        assert (reader["user"], reader["is_new"], reader["password"]) == (f"{name}_reader", True, None)
        assert len(owner["password"]) >= 32
        assert "horse" not in made.out
        told = wyloop("db", "roles", "create")
        assert told.out.count("yes") == 1  # the writer is new
        assert owner["password"] not in told.out
        assert "stored nowhere" in told.out
        shown = wyloop("db", "roles", "show", "--json").json
        assert set(shown) == {f"{name}_{role}" for role in ("reader", "writer", "owner")}
        assert f"{name}_reader" in wyloop("db", "roles", "show").out
        assert "no role 'x'; expected one of reader" in wyloop("db", "roles", "create", "--role", "x").error
        monkeypatch.setenv("WYLOOP_WRITER_PASSWORD", "short")
        assert "too short" in wyloop("db", "roles", "create", "--role", "writer").error
    finally:
        for role in ("reader", "writer", "owner"):
            for command in ("dropUser", "dropRole"):
                cli_store.client.admin.command(command, f"{name}_{role}")


def test_models_are_promoted_rolled_back_and_collected(wyloop: Command, cli_store: Store) -> None:
    from wyloop.models.mpvae.checkpoint import load_shipped
    from wyloop.stores.registry import save_model

    shipped = load_shipped()
    model_id = save_model(
        cli_store, shipped.to_bytes(), parent_id=None, card=shipped.card, snapshot=None, campaign_id=None,
        round_number=None,
    )  # fmt: skip
    assert wyloop("model", "rollback").error.startswith("error: no model was promoted")
    assert f"{model_id} is in use" in wyloop("model", "promote", model_id, "--reason", "first").out
    assert [row["in_use"] for row in wyloop("model", "list", "--json").json] == [True]
    told = wyloop("model", "show", "promoted", "--json").json
    assert (told["model_id"], told["in_use"]) == (model_id, True)
    assert told["came_of_it"]["materials"] == {"all": 0, "validated": 0, "on target": 0}
    assert "materials.on target" in wyloop("model", "show", model_id).out
    assert "the shipped model is in use again" in wyloop("model", "rollback").out
    gone = ("--keep-newest", "0", "--min-days", "0")
    listed = wyloop("model", "gc", *gone)
    assert "nothing is dropped yet" in listed.out
    assert "no weights to drop" in wyloop("model", "gc").out
    dropped = wyloop("model", "gc", *gone, "--yes", "--json").json
    assert (dropped["is_dropped"], dropped["n_bytes_freed"]) == (True, len(shipped.to_bytes()))
    assert "were dropped on" in wyloop("model", "promote", model_id).error
    assert json.loads(wyloop("db", "check", "--json").out)["is_clean"]
