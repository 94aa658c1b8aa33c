"""What deploy/ holds is right as far as it can be told without a container engine and a cluster."""

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from wyloop.platform.metrics import HELP

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("[0-9]*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.*"))
KUBERNETES = "1.31.0"


def commands_of(text: str) -> set[str]:
    """Return the words after `wyloop` that a file runs."""
    return set(re.findall(r"bin/wyloop ([a-z-]+(?: [a-z]+)?)", text))


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def all_documents() -> list[dict[str, Any]]:
    return [one for path in MANIFESTS for one in documents(path)]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document.get("spec", {}).get("template", {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def test_the_image_keeps_the_rules_of_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_image_is_pinned_and_nobody_is_root() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.search(r":\d+\.\d+", image) for image in images)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1].startswith("10001")


def test_services_name_each_other_and_their_volumes() -> None:
    services, volumes = COMPOSE["services"], set(COMPOSE["volumes"])
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {one for one in named if not one.startswith(".")} <= volumes, name
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"]), name
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other] or services[other].get("image", "").startswith("${WYLOOP"), (
                    other
                )


def test_the_compose_file_fits_the_schema_of_the_specification() -> None:
    from jsonschema import Draft7Validator

    folder = resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads(folder.joinpath("compose-spec.json").read_text())
    found = [f"{list(error.path)}: {error.message}" for error in Draft7Validator(schema).iter_errors(COMPOSE)]
    assert found == []


def test_only_the_proxy_is_heard_outside() -> None:
    assert [name for name, one in COMPOSE["services"].items() if "ports" in one] == ["proxy"]
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_every_secret_is_asked_for_and_in_the_example() -> None:
    text = (DEPLOY / "docker" / "compose.yaml").read_text()
    example = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "docker" / "env.example").read_text(), re.MULTILINE))
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert used - {"WYLOOP_IMAGE"} <= example
    for name in used:
        if "PASSWORD" in name or "TOKEN" in name:
            assert f"${{{name}:?" in text, name  # refused without


def test_foreign_images_are_pinned() -> None:
    images = [one["image"] for one in COMPOSE["services"].values() if "image" in one]
    images += [container["image"] for document in all_documents() for container in containers(document)]
    foreign = [image for image in images if "wyloop" not in image.lower()]
    assert foreign
    assert all(re.search(r":\d+\.\d+", image) for image in foreign)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    import kubernetes_validate

    for document in documents(path):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_manifests_are_all_applied_and_refer_to_each_other() -> None:
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert listed == [path.name for path in MANIFESTS]
    deployments = {one["metadata"]["name"] for one in all_documents() if one["kind"] == "Deployment"}
    assert {"web", "flows", "worker-cpu", "worker-gpu", "worker-dft"} <= deployments
    scaled = [one["spec"]["scaleTargetRef"]["name"] for one in all_documents() if one["kind"].endswith("Autoscaler")]
    assert set(scaled) <= deployments
    secrets = set(re.findall(r"generic ([a-z-]+)", (DEPLOY / "kubernetes" / "secrets.example.sh").read_text()))
    asked = set(re.findall(r"secret(?:KeyRef|Ref): \{name: ([a-z-]+)", "".join(p.read_text() for p in MANIFESTS)))
    assert asked <= secrets


def test_no_container_may_become_root() -> None:
    for document in all_documents():
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        if pod:
            assert pod["securityContext"]["runAsNonRoot"] is True, document["metadata"]["name"]
        for container in containers(document):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]


def test_commands_exist(capfd: pytest.CaptureFixture[str]) -> None:
    from wyloop.platform.cli.main import run

    found = {
        tuple(one["command"]) for one in COMPOSE["services"].values() if "build" in one and "entrypoint" not in one
    }
    found |= {
        tuple(container["args"])
        for document in all_documents()
        for container in containers(document)
        if "wyloop" in container["image"] and "args" in container
    }
    for unit in UNITS:
        for line in re.findall(r"^ExecStart=/opt/wyloop/bin/wyloop (.+)$", unit.read_text(), re.MULTILINE):
            found.add(tuple(line.split()))
    assert len(found) >= 5
    for words in found:
        names = [word for word in words[:2] if not word.startswith("-")]
        assert run([*names, "--help"]) == 0, words
        told = capfd.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in told, words


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_units_are_right(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/wyloop/bin/wyloop", sys.executable)
        (tmp_path / unit.name.replace("@.", "@1.")).write_text(text)
    names = [str(tmp_path / unit.name.replace("@.", "@1.")) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "wyloop" in line]
    assert ours == []


def test_the_board_and_the_alerts_ask_for_figures_that_exist() -> None:
    known = {*HELP, "wyloop_up", "wyloop_database_latency_seconds", "wyloop_calculations"}
    board = json.loads((DEPLOY / "monitoring" / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    alerts = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    asked += [rule["expr"] for rule in rules]
    used = {name for text in asked for name in re.findall(r"wyloop_[a-z_]+", text)}
    assert used <= known
    assert all({"summary", "action"} <= rule["annotations"].keys() for rule in rules)


def test_scripts_are_shell() -> None:
    for script in (*DEPLOY.glob("*.sh"), *DEPLOY.glob("*/*.sh")):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0, script
