"""The dashboard beside a server: events, `serve`, its process, and Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.chromium import chromium_path
from tests.ledger_by_hand import HandMade

from litellm_ledger._cli.serving import serve
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._web import worker
from litellm_ledger._web.events import Broadcast, stream
from litellm_ledger._web.feed import Feed, News, missed
from litellm_ledger._web.service import Asked, Reply
from litellm_ledger._web.serving import guarded, is_loopback
from litellm_ledger._web.verifying import Verifier

NOW = datetime.now(UTC)


def outcome(tenant: str, **more: Any) -> dict[str, Any]:
    fields = {"ts": NOW, "model": "m", "input_tokens": 1, "cost": Decimal("0.5")}
    return {**fields, "tags": {"tenant": tenant}, "latency_ms": 5.0, **more}


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    hand = HandMade(tmp_path / "usage")
    hand.open(1, [hand.line(n, **outcome("acme")) for n in range(1, 4)])
    return hand


def append(hand: HandMade, *lines: bytes) -> None:
    (path,) = hand.root.glob("segments/*.open")
    with path.open("ab") as file:
        file.write(b"".join(lines))


# -- events ----------------------------------------------------------------------------------------


def test_who_comes_back_gets_what_was_missed_and_nothing_of_others(hand: HandMade) -> None:
    lines = [hand.line(n, **outcome("acme" if n % 2 else "other")) for n in range(4, 10)]
    append(hand, *lines)
    found = missed(hand.root, hand.id(5), {"tenant": ["acme"]})
    assert found is not None
    calls, at, more = found
    assert [call["id"] for _, call in calls] == [hand.id(7), hand.id(9)]
    assert calls[0][1]["cost"] == "0.5"
    assert (at, more) == (hand.id(9), False)
    assert missed(hand.root, at, None) == ([], at, False)
    assert missed(hand.root, "no id", None) is None


def test_a_writer_that_began_meanwhile_is_missed_whole(hand: HandMade) -> None:
    later = HandMade(hand.root, "20990101T000000Z-00000000000000cc")
    later.open(1, [later.line(1, **outcome("acme"))])
    found = missed(hand.root, hand.id(3), None)
    assert found is not None
    assert [call["id"] for _, call in found[0]] == [later.id(1)]
    assert found[1] == f"{hand.id(3)},{later.id(1)}"


def test_the_feed_tells_of_new_calls_and_where_it_is(hand: HandMade) -> None:
    async def run() -> list[News]:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[News] = asyncio.Queue()
        feed = Feed(hand.root, lambda news: loop.call_soon_threadsafe(told.put_nowait, news))
        feed.run(True)
        try:
            first = await told.get()
            append(hand, hand.line(4, **outcome("acme")))
            return [first, await told.get()]
        finally:
            feed.run(False)

    first, second = asyncio.run(run())
    assert (first.calls, first.at) == ([], hand.id(3))
    ((tags, key, data),) = second.calls
    assert (tags, key) == ({"tenant": "acme"}, hand.id(4))
    assert json.loads(data)["cost"] == "0.5"


async def events_of(
    broadcast: Broadcast, scope: Any, since: str | None = None
) -> AsyncIterator[bytes]:
    async def nothing(_: Asked) -> Reply:
        found = {"calls": [["a-1", {"id": "a-1"}]], "at": "a-1", "more": False}
        return Reply(status=200, type="", body=json.dumps(found).encode())

    async with contextlib.aclosing(stream(broadcast, nothing, scope, since)) as told:  # type: ignore[type-var]
        async for event in told:
            yield event


def test_events_are_cut_to_the_viewer_and_none_comes_twice() -> None:
    async def run() -> list[bytes]:
        broadcast, found = Broadcast(), []
        async for event in events_of(broadcast, {"tenant": ["acme"]}, since="a-0"):
            found.append(event)
            if len(found) == 2:  # the retry, and what was missed
                mine = ({"tenant": "acme"}, "a-2", b'{"id":"a-2"}')
                again = ({"tenant": "acme"}, "a-1", b'{"id":"a-1"}')
                theirs = ({"tenant": "other"}, "b-1", b'{"id":"b-1"}')
                broadcast.hear(News([again, theirs, mine], "a-2"))
            if len(found) == 3:
                broadcast.close()
        return found

    found = asyncio.run(run())
    assert [event.split(b"\n")[1] for event in found[1:]] == [b"id: a-1", b"id: a-2"]


def test_the_feed_runs_while_somebody_watches_and_ends_with_the_last() -> None:
    async def run() -> list[bool]:
        broadcast, asked = Broadcast(), list[bool]()
        broadcast.listen = asked.append
        async with broadcast.reader():
            async with broadcast.reader():
                assert asked == [True]
            assert asked == [True]
        return asked

    assert asyncio.run(run()) == [True, False]


def test_a_reader_that_is_too_slow_is_cut_off() -> None:
    async def run() -> int:
        broadcast, count = Broadcast(), 0
        async for _ in events_of(broadcast, None):
            if not count:
                for _number in range(2_000):
                    broadcast.hear(News([({}, "a-2", b'{"id":"a-2"}')], "a-2"))
            count += 1
        return count

    assert 1_000 < asyncio.run(run()) < 1_010


# -- verification ----------------------------------------------------------------------------------


def test_a_verification_tells_its_progress_and_its_result(hand: HandMade) -> None:
    hand.live(5, 5)  # two that were accepted are not there

    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        verifier = Verifier(hand.root)
        told, second = [], []
        async for one in verifier.run():
            if not told:
                second = [other async for other in verifier.run()]
            told.append(one)
        return told, second

    told, second = asyncio.run(run())
    assert told[0]["done"] == 0
    assert told[-1]["result"]["records"] == 3
    assert told[-1]["result"]["ok"] is False
    assert "wait" in second[0]["error"]


# -- serve -----------------------------------------------------------------------------------------


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def gate(*requests: tuple[str, dict[str, str]]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        app = guarded(_app, {"127.0.0.1", "localhost"}, "secret", 8321)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            return [await client.get(url, headers=headers) for url, headers in requests]

    return asyncio.run(run())


def test_serve_lets_in_who_has_the_token() -> None:
    base = "http://127.0.0.1:8321"
    none, wrong, right = gate(
        (f"{base}/", {}), (f"{base}/?token=other", {}), (f"{base}/explore?token=secret&tz=UTC", {})
    )
    assert (none.status_code, wrong.status_code, right.status_code) == (401, 401, 303)
    assert right.headers["location"] == "/explore?tz=UTC"
    cookie = right.headers["set-cookie"].partition(";")[0]
    assert "HttpOnly" in right.headers["set-cookie"]
    (found,) = gate((f"{base}/explore", {"cookie": cookie}))
    assert found.text == "in"


@pytest.mark.parametrize("path", ["//evil.test/?token=secret", "/%2F%2Fevil.test?token=secret",
                                  "/a%0d%0ab: c?token=secret"])  # fmt: skip
def test_serve_never_leads_elsewhere(path: str) -> None:
    (found,) = gate((f"http://127.0.0.1:8321{path}", {}))
    assert not found.headers["location"].startswith("//")
    assert "\n" not in found.headers["location"]


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8321", "127.0.0.1.evil.test", "", "[::1"])
def test_serve_answers_under_no_other_name(host: str) -> None:
    (found,) = gate(("http://127.0.0.1:8321/?token=secret", {"host": host}))
    assert found.status_code == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.test"])
def test_serve_refuses_other_machines_without_a_viewer(hand: HandMade, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="--viewer"):
        serve(Ledger(hand.root), host=host)


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, as its user starts it; yields the address that it prints."""
    child = subprocess.Popen(
        [sys.executable, "-m", "litellm_ledger", "serve", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        found = re.search(r"http://\S+", child.stdout.readline())
        assert found
        yield found[0], child
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        assert child.wait(60) in (0, -signal.SIGINT, 130)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_serve_serves_and_ends_while_somebody_watches(hand: HandMade) -> None:
    with (
        served(hand.root) as (url, child),
        httpx.Client(follow_redirects=True, timeout=60) as client,
    ):
        assert client.get(url).status_code == 200
        base = url.partition("?")[0]
        assert client.get(f"{base}api/report").json()["total"]["calls"] == 3
        with client.stream("GET", f"{base}api/events") as events:
            lines = events.iter_lines()
            assert next(line for line in lines if line.startswith("event")) == "event: hello"
            append(hand, hand.line(4, **outcome("acme")))
            assert next(line for line in lines if line.startswith("event")) == "event: call"
            assert next(line for line in lines if line.startswith("id")) == f"id: {hand.id(4)}"
            child.send_signal(signal.SIGINT)
            assert "event: call" not in lines  # they end
            assert child.wait(60) in (0, -signal.SIGINT, 130)


# -- a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> str:
    return chromium_path()


def test_chromium_shows_it_without_a_complaint(
    chromium: str, hand: HandMade, tmp_path: Path
) -> None:
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--timeout=60000", "--dump-dom",
    ]  # fmt: skip
    with served(hand.root) as (url, _):
        for path, words in (("", "Cost by day"), ("live", "Calls as they end")):
            address = url.replace("/?", f"/{path}?")
            assert httpx.get(address, timeout=60, follow_redirects=True).status_code == 200
            done = subprocess.run(  # it is read now: a browser need not be told to wait
                [*command, address], capture_output=True, text=True, timeout=100, check=True
            )
            said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
            assert said == []
            assert words in done.stdout


def test_two_processes_answer_and_one_that_dies_is_replaced(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LARGE", 0)
    monkeypatch.setattr(worker.os, "cpu_count", lambda: 2)
    hand.open(1, [hand.line(n, **outcome(f"t{n}")) for n in range(1, 5)])

    async def ask(workers: worker.Workers, tenant: int) -> int:
        scope = {"tenant": [f"t{tenant}"]}
        asked = Asked(kind="api", what="report", given=[], scope=scope)
        reply = await workers.ask(asked)
        assert reply.status in (200, 503)
        return json.loads(reply.body)["total"]["calls"] if reply.status == 200 else -1

    async def run() -> None:
        workers = worker.Workers(hand.root, process=True, hear=lambda _: None)
        try:
            assert [await ask(workers, n) for n in range(6)] == [0, 1, 1, 1, 1, 0]
            running = workers._running
            assert isinstance(running, worker._Processes)
            first, second = running._each
            assert first._number
            assert second._number
            second._child.kill()
            while second.alive:  # noqa: ASYNC110 - it is told by a thread
                await asyncio.sleep(0)
            assert [await ask(workers, n) for n in range(6)] == [0, 1, 1, 1, 1, 0]
            assert running._each[0] is first
            assert running._each[1] is not second
        finally:
            await asyncio.to_thread(workers.close)

    asyncio.run(run())
