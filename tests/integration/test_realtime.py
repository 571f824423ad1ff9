"""A session over websockets with a provider on loopback: every answer in it is on record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets

from litellm_ledger import Ledger, LedgerWarning, LiteLLMClient
from litellm_ledger._calls.realtime import SESSIONS, _Watched
from litellm_ledger._litellm.calls import Asked
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 58, "audio_tokens": 6},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}


def answer(number: int, last: str, **more: Any) -> list[dict[str, Any]]:
    response = {"id": f"resp_{number}", "object": "realtime.response"}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_audio.delta", "delta": "QUJD"},
        {"type": last, "response": {**response, **more}},
    ]


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[str]:
    """Answers whole, then one that fails, then one that it begins and never ends."""
    done = {"status": "completed", "usage": USAGE}

    async def serve(connection: Any) -> None:
        await connection.send(json.dumps({"type": "session.created", "session": {"id": "s"}}))
        turn = 0
        async for message in connection:
            if "response.create" not in message:
                continue
            turn += 1
            events = answer(turn, "response.done", **(done if turn < 3 else {"status": "failed"}))
            for event in events if turn < 4 else events[:2]:
                await connection.send(json.dumps(event))

    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


class Browser:
    """The user's end, as FastAPI has it; says ``turns`` things and leaves."""

    def __init__(self, turns: int, ledger: Path) -> None:
        self.got: list[dict[str, Any]] = []
        self.known: list[int] = []
        self._asked = 0
        self._turns = turns
        self._ledger = ledger
        self._next = asyncio.Event()
        self.scope: dict[str, Any] = {"type": "websocket", "headers": []}
        self._next.set()

    async def receive_text(self) -> str:
        await self._next.wait()
        self._next.clear()
        if self._asked == self._turns:
            raise ConnectionError("gone")
        self._asked += 1
        return json.dumps({"type": "response.create"})

    async def send_text(self, data: str) -> None:
        event = json.loads(data)
        self.got.append(event)
        if event["type"] == "response.done":
            outcomes = [each for each in Ledger(self._ledger).records() if each.kind == "usage"]
            self.known.append(len(outcomes))
        if event["type"] == "response.done" or (self._asked == 4 and "delta" in event):
            self._next.set()

    async def close(self, *_: Any, **__: Any) -> None:
        pass


async def test_each_answer_is_on_record_before_its_last_event_is_seen(
    tmp_path: Path, provider: str
) -> None:
    browser = Browser(4, tmp_path)
    async with LiteLLMClient(tmp_path) as client:
        given = {"api_base": provider, "api_key": "k"}
        async with asyncio.timeout(60):
            try:
                await client.arealtime(browser, "openai/gpt-realtime", **given, tags={"who": "me"})
            except ConnectionError:
                pass
    assert browser.known == [1, 2, 3]
    records = [*Ledger(tmp_path).records(kinds=("started", "usage"))]
    outcomes = [each for each in records if each.kind == "usage"]
    assert [each.kind for each in records].count("started") == 4
    assert [each.status for each in outcomes] == ["ok", "ok", "error", "cancelled"]
    first = outcomes[0]
    assert (first.call, first.model, first.tags) == (
        "arealtime",
        "openai/gpt-realtime",
        {"who": "me"},
    )
    assert (first.input_tokens, first.output_tokens, first.cache_read_tokens) == (132, 121, 64)
    parts = {"audio_input": 13, "audio_output": 91, "audio_cached": 6}
    assert first.meta["tokens"] == parts
    assert first.response_id == "resp_1"
    assert first.cost is not None
    assert Ledger(tmp_path).verify().ok


DEEP = '{"type":"response.done","response":' + "[" * 100_000
HOSTILE: list[Any] = [
    DEEP,
    DEEP.encode(),
    '{"type":"response.done"}',
    '{"type":"response.done","response":7}',
    '{"type":["response.done"],"response":{"id":["x"]}}',
    '{"type":"response.created","response":{"id":{"a":1}}}',
    '{"type":"response.done","response":{"id":"a","usage":[1],"status":{"x":1},"output":9}}',
    '{"type":"response.done","response":{"usage":{"input_tokens":-5,"output_tokens":1e308}}}',
    '"response.done \ud800"',
    "response.created",
]


class Screen:
    """The user's end, without a session."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def send_text(self, data: Any) -> None:
        self.got.append(data)


def watched(client: LiteLLMClient, screen: Screen) -> _Watched:
    asked = Asked(SESSIONS["arealtime"], {"model": "openai/gpt-realtime"})
    return _Watched(screen, client._core, asked, None)


def event(kind: str, **response: Any) -> str:
    return json.dumps({"type": kind, "response": {"id": "r", **response}})


async def send_all(session: _Watched, events: list[Any]) -> None:
    for each in events:
        await session.send_text(each)


async def test_whatever_a_provider_sends_is_handed_on_and_ends_no_session(tmp_path: Path) -> None:
    screen = Screen()
    async with LiteLLMClient(tmp_path) as client:
        await client._core.ready()
        session = watched(client, screen)
        await send_all(session, HOSTILE)
        session.end()
    assert screen.got == HOSTILE
    assert Ledger(tmp_path).verify().ok


async def test_an_answer_that_is_begun_twice_is_one(tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path) as client:
        await client._core.ready()
        session = watched(client, Screen())
        for kind in ("response.created", "response.created", "response.done"):
            await session.send_text(event(kind, usage=USAGE))
        session.end()
    (outcome,) = Ledger(tmp_path).records()
    assert (outcome.status, outcome.input_tokens) == ("ok", 132)


async def test_a_session_that_outlives_its_client_gets_its_answers_and_they_are_recorded(
    tmp_path: Path,
) -> None:
    screen = Screen()
    async with LiteLLMClient(tmp_path) as client:
        await client._core.ready()
        session = watched(client, screen)
    for kind in ("response.created", "response.done"):
        await session.send_text(event(kind, usage=USAGE))
    assert len(screen.got) == 2
    (outcome,) = Ledger(tmp_path).records()
    assert outcome.input_tokens == 132


async def test_without_room_an_answer_is_handed_on_and_recorded_later(tmp_path: Path) -> None:
    screen, disk = Screen(), FaultyFileSystem()
    client = LiteLLMClient(tmp_path, queue_size=1, ack_timeout=0.05, fs=disk)
    async with client:
        await client._core.ready()
        session = watched(client, screen)
        disk.fill()
        answers = [n for number in range(3) for n in (number, f"r{number}")]
        kinds = ("response.created", "response.done")
        events = [event(kind, id=n, usage=USAGE) for n in answers for kind in kinds]
        with pytest.warns(LedgerWarning):
            await send_all(session, events)
        assert len(screen.got) == 12
        disk.heal()
    outcomes = [*Ledger(tmp_path).records()]
    assert [each.input_tokens for each in outcomes].count(132) == 6


async def test_one_who_is_cancelled_while_an_answer_is_written_has_its_usage_on_record(
    tmp_path: Path,
) -> None:
    disk = FaultyFileSystem()
    async with LiteLLMClient(tmp_path, fs=disk) as client:
        await client._core.ready()
        session = watched(client, Screen())
        disk.fill()
        done = event("response.done", id="b", usage=USAGE)
        for data in (event("response.created", id="a"), done):
            before = client.usage.statistics().accepted
            sending = asyncio.ensure_future(session.send_text(data))
            while client.usage.statistics().accepted == before:  # noqa: ASYNC110 - it tells no event
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
        session.end()
        disk.heal()
    outcomes = [*Ledger(tmp_path).records()]
    assert sorted((each.status, each.input_tokens) for each in outcomes) == [
        ("cancelled", None),
        ("ok", 132),
    ]
