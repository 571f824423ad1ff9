"""Against a server that speaks S3, on loopback: moto's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.object_stores import contents, files

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._objects import store as objects_store
from litellm_ledger._objects.ship import ObjectShipper
from litellm_ledger._objects.store import Missing, ObjectStorageError, Taken, open_prefix

SECRET = "a-secret-of-the-test"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    made = boto3.resource("s3", endpoint_url=server).create_bucket(Bucket="ledgers")
    yield made
    made.object_versions.delete()
    made.objects.delete()
    made.delete()


def test_a_ledger_is_shipped_and_nothing_is_put_over_anything(root: Path, bucket: object) -> None:
    there = open_prefix("s3://ledgers/team/a")
    done = ObjectShipper(root, there, remember=False).run()
    assert (done.files, done.problems) == (6, [])
    assert contents(there._store) == files(root) | {"versions/1": b"1\n"}
    again = ObjectShipper(root, there, remember=False).run()
    assert not again.changed
    assert not again.problems
    with pytest.raises(Taken):
        there.create("versions/1", b"2\n", "0" * 64)
    old, checksum = there.checksum("versions/1")
    assert len(checksum) == 64
    there.replace("versions/1", b"3\n", "0" * 64, old)
    with pytest.raises(Taken):
        there.replace("versions/1", b"4\n", "0" * 64, old)


def test_a_ledger_is_read_and_verified_there(root: Path, bucket: object) -> None:
    url = "s3://ledgers/team/a"
    ObjectShipper(root, open_prefix(url)).run()
    assert Ledger(url).report(["model"]) == Ledger(root).report(["model"])
    assert [*Ledger(url).records()] == [*Ledger(root).records()]
    assert Ledger(url).verify(full=True).ok


def test_a_server_that_accepts_and_never_answers_is_given_up(
    bucket: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_store, "ANSWER", 1)
    monkeypatch.setattr(objects_store, "_PATIENCE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(LedgerPathError, match="cannot list s3://ledgers/a/versions/"):
            Ledger("s3://ledgers/a").report([])


def test_what_is_wrong_is_said_without_a_secret(root: Path, bucket: object) -> None:
    with pytest.raises(Missing) as raised:
        open_prefix("s3://ledgers/team/a").get("nothing")
    assert SECRET not in str(raised.value)
    with pytest.raises(ObjectStorageError, match="s3://nowhere/") as wrong:
        ObjectShipper(root, open_prefix("s3://nowhere/x"), remember=False).run()
    assert SECRET not in str(wrong.value)
