"""A page that is late: a browser is told that the ledger is being read, and asks again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from litellm_ledger._web import late
from litellm_ledger._web.service import Asked, Reply
from litellm_ledger._web.worker import Workers
from litellm_ledger.web import Viewer, usage_app

pytestmark = pytest.mark.asyncio

BROWSER = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def operator(_: Any) -> Viewer:
    return Viewer(operator=True)


@pytest.fixture
def begun() -> asyncio.Queue[str]:
    """What workers were asked for."""
    return asyncio.Queue()


@pytest.fixture
def ready(begun: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the answers of the workers are there."""
    there = asyncio.Event()

    async def ask(_: Workers, asked: Asked) -> Reply:
        begun.put_nowait(asked.what)
        await there.wait()
        return Reply(status=200, type="text/html", body=f"the {asked.what} {asked.scope}".encode())

    monkeypatch.setattr(Workers, "ask", ask)
    return there


def reader(tmp_path: Path) -> httpx.AsyncClient:
    app = usage_app(tmp_path, viewer=operator, process=False)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_a_browser_is_told_and_gets_the_page_when_it_is_there(
    tmp_path: Path, ready: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)
    async with reader(tmp_path) as browser:
        first = await browser.get("/", headers=BROWSER)
        assert (first.status_code, first.headers["refresh"]) == (200, "1")
        assert "<h1>Reading the ledger</h1>" in first.text
        assert first.headers["content-security-policy"].startswith("default-src 'none'")
        ready.set()
        monkeypatch.setattr(late, "PATIENCE", 60.0)
        second = await browser.get("/", headers=BROWSER)
        assert second.text.startswith("the overview")
        assert "refresh" not in second.headers


async def test_nobody_else_is_answered_before_the_page_is_there(
    tmp_path: Path,
    ready: asyncio.Event,
    begun: asyncio.Queue[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)
    async with reader(tmp_path) as curl:
        pages = asyncio.gather(curl.get("/"), curl.get("/api/summary", headers=BROWSER))
        assert {await begun.get(), await begun.get()} == {"overview", "summary"}
        for _ in range(100):  # turns of the loop, in which the waiting page would come
            await asyncio.sleep(0)
        assert not pages.done()
        ready.set()
        assert [one.text[:5] for one in await pages] == ["the o", "the s"]


async def test_two_viewers_never_share_a_page(
    ready: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)

    async def ask(asked: Asked) -> Reply:
        return await Workers.ask(None, asked)  # type: ignore[arg-type] - it is the one above

    pages = late.Late(ask)
    asks = [
        Asked(kind="page", what="overview", given=[], scope={"tenant": [name]}) for name in "ab"
    ]
    assert [isinstance(await pages.answer(one), float) for one in asks] == [True, True]
    ready.set()
    monkeypatch.setattr(late, "PATIENCE", 60.0)
    found = [await pages.answer(one) for one in asks[::-1]]  # b asks first for what a began
    assert all(
        isinstance(one, Reply) and f"'{name}'" in one.body.decode()
        for one, name in zip(found, "ba", strict=True)
    )


async def test_an_answer_that_nobody_fetched_is_not_kept(
    ready: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)
    monkeypatch.setattr(late, "_KEPT", 0.0)
    asked_for = []

    async def ask(asked: Asked) -> Reply:
        asked_for.append(asked)
        await ready.wait()
        return Reply(status=200, type="text/html", body=b"")

    pages = late.Late(ask)
    one = Asked(kind="page", what="overview", given=[], scope=None)
    assert isinstance(await pages.answer(one), float)
    ready.set()
    answered, forgotten = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(0.001, answered.set)
    await answered.wait()
    loop.call_later(0.001, forgotten.set)
    await forgotten.wait()
    monkeypatch.setattr(late, "PATIENCE", 60.0)
    assert isinstance(await pages.answer(one), Reply)
    assert len(asked_for) == 2
