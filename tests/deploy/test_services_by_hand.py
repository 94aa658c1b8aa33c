"""What the compose file starts, started by hand with its own settings and commands, as far as there are programs here.

MongoDB with its key file and passwords is the embedded one (6.0); PostgreSQL, Caddy and the images are not there.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.deploy.test_files import COMPOSE, DEPLOY, all_documents, containers
from wyloop.platform import processes
from wyloop.platform.mongod import find_mongod
from wyloop.platform.settings import all_settings
from wyloop.stores import campaigns
from wyloop.stores.connection import connect

SERVICES = COMPOSE["services"]
TOKEN = "a-token-for-tests-only"  # noqa: S105


def filled(text: str, values: dict[str, str]) -> str:
    """Put values where Compose would: ${NAME}, ${NAME:-default} and ${NAME:?message}."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda found: values.get(found[1]) or found[2] or "", text)


@dataclass
class Installation:
    """Services on loopback with the settings of the compose file."""

    folder: Path
    port: int
    values: dict[str, str]
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables of a service, with this machine in the place of the containers' names."""
        told = {name: filled(str(value), self.values) for name, value in SERVICES[service]["environment"].items()}
        uri = told["WYLOOP_STORES_URI"].replace("@mongo:27017", f"@127.0.0.1:{self.port}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WYLOOP_", "PREFECT_"))}
        own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return kept | told | own | {"WYLOOP_STORES_URI": uri, "WYLOOP_PLATFORM_DATA_FOLDER": str(self.folder / service)}

    def run(self, service: str, *more: str) -> "subprocess.CompletedProcess[str]":
        """Run a service's command to its end."""
        command = [*SERVICES[service].get("entrypoint", ["wyloop"]), *SERVICES[service]["command"], *more]
        return subprocess.run(
            command, env=self.environment(service), cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=200,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    names = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker" / "compose.yaml").read_text()))
    values = {name: f"password-{name.lower().replace('_', '-')}" for name in names if name.endswith("PASSWORD")}
    made = Installation(folder, processes.free_port(), values | {"WYLOOP_API_TOKEN": TOKEN, "MONGO_CACHE_GB": "0.25"})
    key, data = folder / "mongo.key", folder / "data"
    data.mkdir()
    key.write_text("made by openssl in the service keyfile".replace(" ", ""))
    key.chmod(0o400)
    options = [filled(word, made.values) for word in SERVICES["mongo"]["command"] if word != "--bind_ip_all"]
    options = [str(key) if word == "/key/mongo.key" else word for word in options]
    options += ["--bind_ip", "127.0.0.1", "--port", str(made.port), "--dbpath", str(data), "--nounixsocket"]
    process = subprocess.Popen([str(find_mongod()), *options], stdout=subprocess.DEVNULL)
    made.running.append(process)
    try:
        _first_administrator(made)
        yield made
    finally:
        for one in reversed(made.running):
            one.terminate()
            one.wait(30)


def _first_administrator(made: Installation) -> None:
    """Start the replica set and make the user that the image of MongoDB makes from its variables."""
    client: MongoClient[dict[str, Any]]
    with MongoClient("127.0.0.1", made.port, directConnection=True, serverSelectionTimeoutMS=60_000) as client:
        members = [{"_id": 0, "host": f"127.0.0.1:{made.port}"}]
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        while not client.admin.command("hello").get("isWritablePrimary"):
            time.sleep(0.05)
        name = SERVICES["mongo"]["environment"]["MONGO_INITDB_ROOT_USERNAME"]
        client.admin.command("createUser", name, pwd=made.values["MONGO_ADMIN_PASSWORD"], roles=["root"])


def test_the_owner_makes_roles_users_and_indexes_and_may_do_it_again(installation: Installation) -> None:
    (owner,) = [one for document in all_documents() for one in containers(document) if one["name"] == "owner"]
    assert owner["command"] == [*SERVICES["owner"]["entrypoint"], *SERVICES["owner"]["command"]]
    for _ in range(2):
        done = installation.run("owner")
        assert done.returncode == 0, done.stderr
    uri = installation.environment("worker")["WYLOOP_STORES_URI"]
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        assert len(client["wyloop"]["candidates"].index_information()) > 3
        with pytest.raises(OperationFailure, match="not authorized"):
            client["wyloop"].drop_collection("candidates")


def test_a_worker_works_as_the_writer(installation: Installation) -> None:
    done = installation.run("worker", "--once")
    assert done.returncode == 0, done.stderr


def test_the_web_server_answers_and_its_token_pauses(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = installation.environment("web")
    monkeypatch.setenv("WYLOOP_STORES_URI", environment["WYLOOP_STORES_URI"])
    store = connect(all_settings().stores)
    made = campaigns.create_campaign(store, ("band_gap > 1",), {})
    campaigns.set_campaign_state(store, made.campaign_id, "active")
    store.close()
    port = processes.free_port()
    words = {"0.0.0.0": "127.0.0.1", "8000": str(port)}  # noqa: S104 - what stands in the file
    command = ["wyloop", *(words.get(word, word) for word in SERVICES["web"]["command"])]
    program = str(Path(sys.executable).with_name(command[0]))
    with (installation.folder / "web.log").open("wb") as log:
        server = subprocess.Popen([program, *command[1:]], env=environment, cwd=installation.folder, stderr=log)
    installation.running.append(server)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            health = requests.get(f"{url}/health", timeout=5)
            break
        except requests.ConnectionError:
            assert server.poll() is None, (installation.folder / "web.log").read_text()[-1000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert health.json()["status"] == "ok"
    page = requests.get(f"{url}/campaigns/{made.campaign_id}", timeout=30).text
    assert "https://localhost:4200/runs?flow-run-search=" in page
    address = f"{url}/api/campaigns/{made.campaign_id}/pause"
    assert requests.post(address, timeout=30).status_code == 401
    assert requests.post(address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).json()["state"] == "paused"


def test_settings_in_the_files_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        name: filled(str(value), {}) for one in SERVICES.values() for name, value in one.get("environment", {}).items()
    }
    for document in all_documents():
        told |= document.get("data", {}) if document["kind"] == "ConfigMap" else {}
        for container in containers(document):
            told |= {one["name"]: str(one.get("value", "")) for one in container.get("env", [])}
    layers = ("WYLOOP_STORES_", "WYLOOP_FLOWS_", "WYLOOP_PLATFORM_")
    ours = {name: value for name, value in told.items() if name.startswith(layers) and value}
    assert {"WYLOOP_FLOWS_DASHBOARD_URL", "WYLOOP_PLATFORM_PREFECT_URL", "WYLOOP_PLATFORM_DATA_FOLDER"} <= set(ours)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert all_settings().flows.dashboard_url  # an unknown name, or a value of the wrong kind, is refused
