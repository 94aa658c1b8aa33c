"""A password in the database's address is shown nowhere and stored nowhere."""

import logging
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from pydantic import SecretStr

from tests.conftest import MongoServer
from tests.platform.conftest import Command
from wyloop.flows.launchpad import Job, launchpad, submit
from wyloop.models.errors import DatabaseError
from wyloop.platform.settings import all_settings
from wyloop.stores.backup import backup
from wyloop.stores.builders.run import maggma_store
from wyloop.stores.campaigns import create_campaign, set_campaign_state
from wyloop.stores.connection import Store, connect, without_secrets
from wyloop.stores.settings import Settings

PASSWORD = "tr0ub4dor:&/3@x"
FRAGMENTS = ("tr0ub4dor", "%263", "&/3")
"""What would give it away, as it is and as it stands in an address."""


@pytest.fixture
def uri(mongod: MongoServer, stores_settings: Settings) -> Iterator[str]:
    """The session's server, opened by a user with a password."""
    root = connect(stores_settings, is_checked=False)
    user = f"ada_{stores_settings.database}"
    root.client.admin.command("createUser", user, pwd=PASSWORD, roles=["root"])
    secret = f"{user}:{quote_plus(PASSWORD)}@"
    yield mongod.uri.replace("mongodb://", f"mongodb://{secret}") + "&authSource=admin"
    root.client.admin.command("dropUser", user)
    root.client.drop_database(stores_settings.database)
    root.client.drop_database(f"{stores_settings.database}_fw")
    root.close()


@pytest.fixture
def opened(uri: str, stores_settings: Settings) -> Iterator[Store]:
    store = connect(stores_settings.model_copy(update={"uri": SecretStr(uri)}))
    yield store
    store.close()


def assert_hidden(text: str) -> None:
    assert text
    for fragment in FRAGMENTS:
        assert fragment not in text, fragment


def test_logs_of_all_libraries_at_their_loudest(
    uri: str, stores_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in ("pymongo", "pymongo.command", "pymongo.connection", "pymongo.topology", "wyloop"):
            caplog.set_level(logging.DEBUG, logger=name)
        store = connect(stores_settings.model_copy(update={"uri": SecretStr(uri)}))
        create_campaign(store, ("band_gap > 1",), {})
        store.close()
    assert "Command started" in caplog.text
    assert_hidden(caplog.text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda uri: uri.replace("127.0.0.1:", "127.0.0.1:x"),  # no number
        lambda uri: uri.replace("@127", "127"),  # no @
        lambda uri: uri.replace("%40", "@"),  # not escaped
        lambda uri: uri.replace("%3A", ":").replace("%2F", "/"),
        lambda uri: uri.replace("mongodb://", "mongodbx://"),
        lambda uri: uri.replace("authSource=admin", "authSource=nowhere"),  # refused by the server
        lambda uri: uri + "&tls=maybe",
        lambda uri: uri + "&readPreference=odd",
    ],
)
def test_errors_and_what_they_come_from(uri: str, spoil: object) -> None:
    assert callable(spoil)
    spoiled = spoil(uri)
    assert spoiled != uri
    with pytest.raises(DatabaseError) as caught:
        connect(Settings(uri=SecretStr(spoiled), timeout_ms=300))
    assert_hidden("".join(traceback.format_exception(caught.value)).replace(spoiled, spoiled))


def test_errors_of_a_lost_server(opened: Store) -> None:
    opened.client.close()
    with pytest.raises(Exception, match=r".") as caught:
        set_campaign_state(opened, "x", "active")
    assert_hidden("".join(traceback.format_exception(caught.value)))


def test_masking_takes_every_form_of_the_password() -> None:
    uri = f"mongodb://ada:{quote_plus(PASSWORD)}@host:1/"
    for text in (uri, PASSWORD, quote_plus(PASSWORD), f"port {quote_plus(PASSWORD)} is odd"):
        assert_hidden(without_secrets(f"error: {text}", uri))
    assert without_secrets("no password", "mongodb://host/") == "no password"


def test_what_people_and_programs_print(
    wyloop: Command, uri: str, opened: Store, stores_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WYLOOP_STORES_URI", uri)
    monkeypatch.setenv("WYLOOP_STORES_DATABASE", stores_settings.database)
    for arguments in (
        ("config", "show"),
        ("config", "show", "--json"),
        ("status",),
        ("status", "--json"),
        ("db", "check"),
    ):
        answer = wyloop(*arguments)
        assert_hidden(answer.out + answer.err)
    settings = all_settings()
    for shown in (repr(opened), str(opened), repr(settings), repr(settings.stores), str(settings.stores.uri)):
        assert_hidden(shown)
    for name in ("structures", "materials"):
        view = maggma_store(opened, name, "_id")
        assert_hidden(f"{view.name} {view!r} {view.__dict__.get('auth_source')}")


def test_what_is_stored(uri: str, opened: Store, stores_settings: Settings, tmp_path: Path) -> None:
    create_campaign(opened, ("band_gap > 1",), {})
    jobs = f"{stores_settings.database}_fw"
    lpad = launchpad(uri, jobs)
    submit(lpad, [Job("calc-1", "relax", "mlip")], name="one")
    lpad.connection.close()
    stored = [row for name in (jobs, opened.name) for each in opened.client[name].list_collection_names()
              for row in opened.client[name][each].find()]  # fmt: skip
    assert_hidden(repr(stored))
    backup(opened, tmp_path / "b.zip", jobs=jobs)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert_hidden("".join(archive.read(name).decode("latin1") for name in archive.namelist()))


def test_flows_and_jobs_take_ids_only() -> None:
    from wyloop.flows.campaign import advance_campaign
    from wyloop.flows.deployments import advance_campaigns

    assert list(advance_campaign.parameters.properties) == ["campaign_id"]
    assert list(advance_campaigns.parameters.properties) == []
