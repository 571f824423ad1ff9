"""`UsageHealth`: 200 while records reach the disk, 503 and which check fails while they do not."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from tests.runs import usage
from tests.unit.test_asgi import ask, until

from litellm_ledger import LiteLLMClient, UsageTracker
from litellm_ledger._asgi import health
from litellm_ledger.asgi import UsageHealth
from litellm_ledger.fastapi import ledger_lifespan
from litellm_ledger.testing import FaultyFileSystem

NONE = {"ok": False, "checks": {"writer": {"ok": False, "state": "none"}}}


async def answer(endpoint: Any, **scope: Any) -> tuple[int, dict[str, Any]]:
    status, headers, body = await ask(endpoint, "/usage/health", **scope)
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    return status, json.loads(body)


def failing(found: dict[str, Any]) -> set[str]:
    return {name for name, check in found["checks"].items() if not check["ok"]}


@pytest.mark.asyncio
async def test_a_client_that_records_is_healthy_and_one_that_is_closed_is_not(
    tmp_path: Path,
) -> None:
    async with LiteLLMClient(tmp_path) as client:
        await client.usage.record(usage())
        for given in (client, client.usage, client.with_options(tags={"a": "b"})):
            status, found = await answer(UsageHealth(given))
            assert (status, found["ok"], failing(found)) == (200, True, set())
        checks = found["checks"]
        assert {*checks} == {"writer", "queue", "sync", "failure", "disk"}
        assert checks["queue"] == {"ok": True, "depth": 0, "size": 10_000, "waiting": 0}
        assert checks["disk"]["free_bytes"] > 0
        assert str(tmp_path) not in json.dumps(found)
    status, found = await answer(UsageHealth(client))
    assert (status, failing(found)) == (503, {"writer"})
    assert found["checks"]["writer"]["state"] == "closed"


@pytest.mark.asyncio
async def test_the_client_of_the_lifespan_is_found_and_its_absence_is_said(tmp_path: Path) -> None:
    app = FastAPI()
    app.add_route("/usage/health", UsageHealth())
    lifespan = ledger_lifespan(tmp_path, warm_up=False)
    assert await answer(app) == (503, NONE)
    async with lifespan(app) as state:
        assert (await answer(app, state=state))[0] == 200  # as servers do
        assert (await answer(app))[0] == 200
    assert await answer(app) == (503, NONE)


@pytest.mark.asyncio
async def test_only_get_and_head_are_answered(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        status, headers, body = await ask(UsageHealth(tracker), method="HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 100
        status, headers, _ = await ask(UsageHealth(tracker), method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        with pytest.raises(TypeError, match="websocket"):
            await UsageHealth(tracker)({"type": "websocket"}, None, None)  # type: ignore[arg-type]


def test_a_client_and_a_directory_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not both"):
        UsageHealth(UsageTracker(tmp_path), ledger=tmp_path)


@pytest.mark.asyncio
async def test_a_disk_that_refuses_is_named_by_its_error_until_it_takes_records_again(
    tmp_path: Path,
) -> None:
    fs = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=fs, queue_size=10) as tracker:
        endpoint = UsageHealth(tracker)
        await tracker.record(usage())
        fs.fail("write", times=None, error=errno.ENOSPC)
        for _ in range(10):
            tracker.record_nowait(usage())
        await until(lambda: tracker.statistics().retries)
        status, found = await answer(endpoint)
        assert (status, failing(found)) == (503, {"queue", "failure"})
        assert found["checks"]["failure"]["error"] == "ENOSPC"
        assert "Errno" not in json.dumps(found)
        fs.heal()
        await tracker.flush()
        status, found = await answer(endpoint)
        assert (status, failing(found)) == (200, set())
        assert found["checks"]["failure"]["retries"] > 0


@pytest.mark.asyncio
async def test_what_is_not_synced_for_long_and_a_disk_that_is_nearly_full_fail(
    tmp_path: Path,
) -> None:
    async with UsageTracker(tmp_path, sync_interval=3_600) as tracker:
        await tracker.record(usage())
        await until(lambda: tracker.statistics().oldest_unsynced_s)
        strict = UsageHealth(tracker, max_unsynced_s=0.0, min_free_bytes=2**62)
        _, found = await answer(strict)
        assert failing(found) == {"sync", "disk"}
        assert found["checks"]["sync"]["unsynced_bytes"] > 0


@pytest.mark.asyncio
async def test_a_disk_that_hangs_is_said_at_once_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    hang = threading.Event()

    def disk_usage(path: Path) -> Any:
        asked.append(path)
        hang.wait()
        return usage_of(path)

    usage_of = shutil.disk_usage
    monkeypatch.setattr(health.shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(health, "_PATIENCE", 0.01)
    async with UsageTracker(tmp_path) as tracker:
        endpoint = UsageHealth(tracker)
        for _ in range(3):
            status, found = await answer(endpoint)
            assert (status, found["checks"]["disk"]) == (503, {"ok": False, "error": "ETIMEDOUT"})
        hang.set()
        monkeypatch.setattr(health, "_PATIENCE", 60.0)
        assert (await answer(endpoint))[0] == 200
        await asyncio.gather(*(answer(endpoint) for _ in range(20)))
        assert len(asked) == 1


@pytest.mark.asyncio
async def test_without_a_client_it_looks_at_the_writers_of_the_directory(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path), UsageTracker(tmp_path):
        status, found = await answer(UsageHealth(ledger=tmp_path))
        assert status == 200
        assert found["checks"]["writer"] == {"ok": True, "state": "open", "writers": 2}
        assert found["checks"]["queue"] == {"ok": True, "depth": 0}
    status, found = await answer(UsageHealth(ledger=tmp_path / "gone"))
    assert (status, found) == (
        *(503,),
        {"ok": False, "checks": {"disk": {"ok": False, "error": "ENOENT"}}},
    )
    shutil.rmtree(tmp_path)
