import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from safetensors.numpy import save

from wyloop.flows.launchpad import Job, launchpad, list_jobs, submit
from wyloop.models.errors import DatabaseError
from wyloop.platform.mongod import find_mongod
from wyloop.platform.processes import free_port
from wyloop.stores.backup import backup
from wyloop.stores.campaigns import campaigns, create_campaign
from wyloop.stores.check import check
from wyloop.stores.connection import Store, connect
from wyloop.stores.migrate import migrate
from wyloop.stores.registry import save_model
from wyloop.stores.restore import restore
from wyloop.stores.roles import Account, Role, create_roles, drop_roles, privileges
from wyloop.stores.settings import Settings

DUMPS = Path(__file__).parent / "dumps"
NAME, JOBS = "crystals", "crystals_fw"
PASSWORD = "corr3ct:horse/b@ttery"  # must be escaped in an address


@dataclass(frozen=True)
class Guarded:
    """A replica set that wants TLS and a password."""

    port: int
    authority: Path
    folder: Path

    def uri(self, user: str, password: str) -> str:
        from urllib.parse import quote_plus

        who = f"{quote_plus(user)}:{quote_plus(password)}@" if user else ""
        return f"mongodb://{who}127.0.0.1:{self.port}/?replicaSet=rs0&tls=true&tlsCAFile={self.authority}"

    def settings(self, user: str, password: str = PASSWORD, **changes: object) -> Settings:
        given = {"database": NAME, "timeout_ms": 20_000} | changes
        return Settings(uri=SecretStr(self.uri(user, password)), **given)  # type: ignore[arg-type]  # mixed values


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate for 127.0.0.1 signed by it; return the authority's and the server's file."""
    authority, server = folder / "ca.pem", folder / "server.pem"

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", authority, "-subj", "/CN=test authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "csr", "-subj", "/CN=127.0.0.1")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", "csr", "-CA", authority, "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "ext", "-out", "crt")  # fmt: skip
    server.write_text((folder / "key").read_text() + (folder / "crt").read_text())
    return authority, server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("guarded"), free_port(0)
    authority, server = certificates(folder)
    key, data = folder / "keyfile", folder / "data"
    data.mkdir()
    key.write_text("wyloopwyloop")
    key.chmod(0o600)
    options = ["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data)]
    options += ["--keyFile", str(key), "--wiredTigerCacheSizeGB", "0.25", "--tlsMode", "requireTLS"]
    options += ["--tlsCertificateKeyFile", str(server), "--tlsCAFile", str(authority), "--nounixsocket"]
    options += ["--tlsAllowConnectionsWithoutCertificates"]
    process = subprocess.Popen([str(find_mongod()), *options], stdout=subprocess.DEVNULL)
    with_tls = {"tls": True, "tlsCAFile": str(authority), "serverSelectionTimeoutMS": 60_000}
    try:
        with MongoClient("127.0.0.1", port, directConnection=True, **with_tls) as client:  # type: ignore[arg-type]  # mixed
            members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            while not client.admin.command("hello").get("isWritablePrimary"):
                time.sleep(0.05)
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        yield Guarded(port, authority, folder)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def accounts(guarded: Guarded) -> dict[Role, Account]:
    """Users of the three roles; their database is made by its owner."""
    root = connect(guarded.settings("root"), is_checked=False)
    made = create_roles(root, JOBS, dict.fromkeys(Role, PASSWORD))
    root.close()
    connect(guarded.settings("crystals_owner")).close()
    return {Role(account.role): account for account in made}


@pytest.fixture
def as_role(guarded: Guarded, accounts: dict[Role, Account]) -> Iterator[Callable[[Role], Store]]:
    opened: list[Store] = []

    def open_(role: Role) -> Store:
        settings = guarded.settings(accounts[role].user, is_read_only=role is Role.READER)
        opened.append(connect(settings))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


def test_a_password_is_shown_once_and_only_if_it_was_made_here(guarded: Guarded) -> None:
    root = connect(guarded.settings("root", database="other"), is_checked=False)
    try:
        reader, writer = create_roles(root, JOBS, {Role.READER: None, Role.WRITER: PASSWORD})
        assert reader.is_new
        assert reader.password is not None
        assert len(reader.password) >= 32
        assert reader.password not in repr(reader)
        assert (writer.user, writer.is_new, writer.password) == ("other_writer", True, None)
        again = create_roles(root, JOBS, {Role.READER: None})
        assert [(account.is_new, account.password) for account in again] == [(False, None)]
        with pytest.raises(DatabaseError, match="too short"):
            create_roles(root, JOBS, {Role.OWNER: "1234567"})
        drop_roles(root)
        drop_roles(root)
        assert [user["user"] for user in root.client.admin.command("usersInfo")["users"]].count("other_reader") == 0
    finally:
        root.close()


def test_a_reader_reads_and_does_nothing_else(guarded: Guarded, as_role: Callable[[Role], Store]) -> None:
    writer = as_role(Role.WRITER)
    campaign = create_campaign(writer, ("band_gap > 1",), {}, "seen")
    reader = as_role(Role.READER)
    assert campaign.campaign_id in [found.campaign_id for found in campaigns(reader)]
    assert check(reader).is_clean
    with pytest.raises(DatabaseError, match="refused the user"):
        create_campaign(reader, ("band_gap > 2",), {})
    for forbidden in (
        lambda: reader.database["campaigns"].delete_many({}),
        lambda: reader.database["campaigns"].create_index("name"),
        lambda: reader.database["campaigns"].drop(),
        lambda: reader.client[JOBS]["fireworks"].find_one(),
        lambda: reader.client.admin.command("usersInfo"),
    ):
        with pytest.raises(OperationFailure, match="not authorized"):
            forbidden()
    with pytest.raises(DatabaseError, match="refused the user"):
        connect(guarded.settings("crystals_reader", database="elsewhere", is_read_only=True))


def test_a_reader_opens_no_empty_database_and_misses_no_index(
    guarded: Guarded, as_role: Callable[[Role], Store]
) -> None:
    with pytest.raises(DatabaseError, match="holds no Wyloop data; expected one that was opened for writing"):
        connect(guarded.settings("root", database="nothing", is_read_only=True))
    owner = as_role(Role.OWNER)
    owner.database["hulls"].drop_index("hull_id_1")
    with pytest.raises(DatabaseError, match=r"no proper index unique \(hull_id\), and this connection only reads"):
        as_role(Role.READER)
    with pytest.raises(DatabaseError, match=r"lacks the index unique \(hull_id\), and MongoDB refused the user"):
        as_role(Role.WRITER)
    as_role(Role.OWNER)
    as_role(Role.READER)


def test_a_writer_works_and_destroys_nothing(as_role: Callable[[Role], Store]) -> None:
    writer = as_role(Role.WRITER)
    weights = save({"weight": np.zeros(2, dtype=np.float32)})
    save_model(writer, weights, parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None)
    writer.database["hulls"].delete_many({})
    for forbidden in (
        lambda: writer.database["campaigns"].delete_many({}),
        lambda: writer.database["calculations"].delete_one({}),
        lambda: writer.database["campaigns"].drop(),
        lambda: writer.database["campaigns"].drop_index("campaign_id_1"),
        lambda: writer.client.drop_database(NAME),
        lambda: writer.client.admin.command("createRole", "mine", privileges=[], roles=[]),
        lambda: writer.client.admin.command("updateUser", "crystals_writer", roles=["root"]),
    ):
        with pytest.raises(OperationFailure, match="not authorized"):
            forbidden()
    with pytest.raises(DatabaseError, match="may not make users and roles; expected one with userAdmin"):
        create_roles(writer, JOBS, {Role.READER: None})


def test_a_writer_runs_jobs_whose_specs_hold_no_secret(guarded: Guarded, as_role: Callable[[Role], Store]) -> None:
    writer = as_role(Role.WRITER)
    lpad = launchpad(writer.uri, JOBS)
    assert submit(lpad, [Job("calc-1", "relax", "mlip")], name="one")
    stored = [document for name in lpad.db.list_collection_names() for document in lpad.db[name].find()]
    assert stored
    assert "horse" not in repr(stored)
    assert list_jobs(writer.uri, JOBS)[0].calculation_id == "calc-1"
    lpad.connection.close()


def test_an_owner_backs_up_restores_and_migrates(
    guarded: Guarded, as_role: Callable[[Role], Store], tmp_path: Path
) -> None:
    owner = as_role(Role.OWNER)
    backup(owner, tmp_path / "b.zip", jobs=JOBS)
    for name in owner.database.list_collection_names():
        owner.database.drop_collection(name)
    restore(owner, DUMPS / "schema_1.zip")
    with pytest.raises(DatabaseError, match="run 'wyloop db migrate'"):
        as_role(Role.WRITER)
    assert [applied.version for applied in migrate(owner)] == [2]
    for name in owner.database.list_collection_names():
        owner.database.drop_collection(name)
    restore(owner, tmp_path / "b.zip")
    assert campaigns(as_role(Role.READER))


def test_privileges_name_two_databases_only() -> None:
    for role in Role:
        databases = {entry["resource"]["db"] for entry in privileges("a", "b", role)}
        assert databases == ({"a"} if role is Role.READER else {"a", "b"})


def test_tls_is_demanded_and_the_certificate_is_verified(guarded: Guarded, tmp_path: Path) -> None:
    plain = guarded.uri("root", PASSWORD).partition("&tls=")[0]
    with pytest.raises(DatabaseError, match="no MongoDB answers") as caught:
        connect(Settings(uri=SecretStr(plain), timeout_ms=1000))
    assert "horse" not in str(caught.value)
    stranger, _ = certificates(tmp_path)
    uri = guarded.uri("root", PASSWORD).replace(str(guarded.authority), str(stranger))
    with pytest.raises(DatabaseError, match="no MongoDB answers"):
        connect(Settings(uri=SecretStr(uri), timeout_ms=1000))
    assert ssl.OPENSSL_VERSION
