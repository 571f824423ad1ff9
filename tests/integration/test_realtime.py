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

from litellm_ledger import Ledger, LiteLLMClient

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
