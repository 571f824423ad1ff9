"""The Compose file and the manifests of ``examples/fleet``: valid, and true of what they start."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest

from litellm_ledger import testing
from litellm_ledger._cli.app import app
from litellm_ledger._postgres.address import Address

yaml = pytest.importorskip("yaml")

FLEET = Path(__file__).parents[2] / "examples" / "fleet"
SOURCE = Path(testing.__file__).parents[1]
CHAT = FLEET.parent / "chat_service"
IMAGE = "ledger-fleet"
OF_POSTGRES = {"POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}
"""What its image reads (https://hub.docker.com/_/postgres)."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((FLEET / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((FLEET / "kubernetes.yaml").read_text())
    return {one["kind"]: one for one in found}


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


def containers(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod_of(manifest).get("initContainers", ())
    yield from pod_of(manifest)["containers"]


def parse(words: list[str]) -> click.Context:
    """Read a command line as the program of that name would, and run nothing."""
    name, *rest = words
    command = {"litellm-ledger": app, "uvicorn": import_module("uvicorn.main").main}[name]
    context = command.make_context(name, rest)
    while isinstance(context.command, click.Group):
        words = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, words)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


def test_the_compose_file_is_one_by_the_specification(compose: dict[str, Any]) -> None:
    pytest.importorskip("check_jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    place = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(place.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(compose)
    compose = {**compose, "services": {**compose["services"], "x": {"comand": []}}}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(compose)


def of_kubernetes(manifest: dict[str, Any]) -> Any:
    """Return what Kubernetes' own description of this kind makes of it, and drops nothing."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    module = import_module(f"lightkube.models.{group.partition('.')[0] or 'core'}_{version}")
    made = msgspec.convert(manifest, getattr(module, manifest["kind"]))
    return _given(msgspec.to_builtins(made))


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _given(one) for name, one in value.items() if one is not None}
    return [_given(one) for one in value] if isinstance(value, list) else value


def test_kubernetes_knows_every_word_of_the_manifests(
    manifests: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = SimpleNamespace(
        dataclass=dataclasses.dataclass, field=dataclasses.field, DictMixin=object
    )
    monkeypatch.setitem(
        sys.modules, "lightkube.core.schema", schema
    )  # of a client that is not here
    monkeypatch.setitem(sys.modules, "lightkube.core", SimpleNamespace(schema=schema))
    pytest.importorskip("lightkube.models")
    assert {"Job", "StatefulSet", "Service", "Namespace"} <= set(manifests)
    for manifest in manifests.values():
        assert of_kubernetes(manifest) == manifest
    wrong = manifests["Service"] | {"spec": {"selektor": {}}}
    assert of_kubernetes(wrong) != wrong
    with pytest.raises(msgspec.ValidationError):
        of_kubernetes(manifests["StatefulSet"] | {"spec": {"replicas": "three"}})


def commands(compose: dict[str, Any], manifests: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Every command line of the image of the example."""
    found = [
        [*one.get("entrypoint", ()), *one["command"]]
        for one in compose["services"].values()
        if one["image"] == IMAGE and "command" in one
    ]
    for kind in ("Job", "StatefulSet"):
        found += [one["command"] for one in containers(manifests[kind]) if one["image"] == IMAGE]
    lines = (FLEET / "Dockerfile").read_text().splitlines()
    found += [json.loads(line[4:]) for line in lines if line.startswith("CMD ")]
    return found


def test_every_command_line_is_one_of_ours(
    compose: dict[str, Any], manifests: dict[str, dict[str, Any]]
) -> None:
    seen = []
    for words in commands(compose, manifests):
        if words[0] == "python":
            assert words[1:3] == ["-m", "litellm_ledger.testing"]
            seen.append("provider")
        else:
            seen.append(parse(words).command.name)
    assert sorted(set(seen) - {None}) == ["init", "main", "provider", "report", "ship"]
    with pytest.raises(click.UsageError):
        parse(["litellm-ledger", "ship", "usage", "--to", "postgresql:///x", "--folow"])


def test_every_variable_is_one_that_something_reads(
    compose: dict[str, Any], manifests: dict[str, dict[str, Any]]
) -> None:
    named = {name for one in compose["services"].values() for name in one.get("environment", ())}
    for kind in ("Job", "StatefulSet"):
        named |= {one["name"] for each in containers(manifests[kind]) for one in each["env"]}
    read = "".join(path.read_text() for path in (*SOURCE.rglob("*.py"), *CHAT.glob("*.py")))
    read += (FLEET / "roles.sql").read_text()
    assert {name for name in named - OF_POSTGRES if name not in read} == set()
    assert {"PGSERVICEFILE", "LITELLM_LEDGER_DIR", "CHAT_LEDGER"} <= named


def test_ports_paths_and_rights_fit_together(
    compose: dict[str, Any], manifests: dict[str, dict[str, Any]]
) -> None:
    services = compose["services"]
    serves = parse(json.loads((FLEET / "Dockerfile").read_text().partition("CMD ")[2]))
    assert services["chat"]["ports"] == [f"127.0.0.1:8000:{serves.params['port']}"]
    assert (
        {"usage:/data"} == set(services["chat"]["volumes"]) == set(services["shipper"]["volumes"])
    )
    stateful = pod_of(manifests["StatefulSet"])
    chat, (shipper,) = stateful["containers"][0], stateful["initContainers"]
    port = chat["ports"][0]
    assert parse(chat["command"]).params["port"] == port["containerPort"]
    for probe in ("startupProbe", "readinessProbe"):
        assert chat[probe]["httpGet"]["port"] == port["name"]
        assert f'Route("{chat[probe]["httpGet"]["path"]}"' in (CHAT / "app.py").read_text()
    assert shipper["restartPolicy"] == "Always", "a sidecar, and not a step before the service"
    ledger = {one["name"]: one.get("value") for one in chat["env"]}["CHAT_LEDGER"]
    assert ledger in shipper["command"]
    assert ledger.startswith(chat["volumeMounts"][0]["mountPath"])
    # uvicorn's 10 s, what the client drains (25 s at most), and what comes before.
    assert stateful["terminationGracePeriodSeconds"] >= 5 + 10 + 25
    owner = "usage-owner"
    for kind, secret in (("Job", owner), ("StatefulSet", "usage-machine")):
        secrets = [
            one["secret"]["secretName"]
            for one in pod_of(manifests[kind])["volumes"]
            if "secret" in one
        ]
        assert secrets == [secret]
    assert services["shipper"]["secrets"] == ["machine.conf"], "no more rights than it needs"
    kustomization = yaml.safe_load((FLEET / "kustomization.yaml").read_text())
    made = [
        one["name"]
        for key in ("configMapGenerator", "secretGenerator")
        for one in kustomization[key]
    ]
    assert made == ["usage-roles", owner, "usage-machine"]


def test_the_service_files_lead_to_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests: dict[str, dict[str, Any]]
) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    shutil.copy(FLEET / "secrets.sh", tmp_path)
    subprocess.run(["sh", tmp_path / "secrets.sh", "db.example.com", "verify-full"], check=True)
    (url,) = {
        word
        for kind in ("Job", "StatefulSet")
        for one in containers(manifests[kind])
        for word in one["command"]
        if word.startswith("postgresql:")
    }
    for user in ("postgres", "machine", "analyst"):
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "secrets" / f"{user}.conf"))
        address = Address.of(url)
        assert (address.hosts, address.sslmode) == ((("db.example.com", 5432),), "verify-full")
        assert address.said["user"] == user
        assert address.password == (tmp_path / "secrets" / user).read_text()
        assert address.place == "postgresql://db.example.com:5432/usage"
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    again = subprocess.run(["sh", tmp_path / "secrets.sh"], check=False, capture_output=True)
    assert again.returncode, "passwords that are in use are not made anew"
