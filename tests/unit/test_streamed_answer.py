"""`StreamedAnswer` alone: what is sent, and that its source is closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests import fakes
from tests.unit.test_asgi import ask, until

from litellm_ledger import Ledger, LiteLLMClient
from litellm_ledger._runtime import signals
from litellm_ledger.asgi import StreamedAnswer, UsageTagsMiddleware, event_of, text_of
from litellm_ledger.fastapi import usage_event_response, usage_streaming_response


class Source:
    """A generator that says what became of it, and waits where it is told to."""

    def __init__(self, wait_at: int = 99, error: Exception | None = None) -> None:
        self.ended: list[str] = []
        self.waiting = asyncio.Event()
        self._wait_at, self._error = wait_at, error

    async def items(self) -> AsyncIterator[str]:
        try:
            for number in range(3):
                if number == self._wait_at:
                    self.waiting.set()
                    await asyncio.Event().wait()
                yield f"item {number};"
            if self._error is not None:
                raise self._error
            self.ended.append("end")
        except BaseException as exc:
            self.ended.append(type(exc).__name__)
            raise


class Reader:
    """The server's side of one request."""

    def __init__(self, send: Callable[[Any], Any] | None = None) -> None:
        self.sent: list[Any] = []
        self.left = asyncio.Event()
        self._send = send

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self._send is not None:
            await self._send(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def whole(self) -> bool:
        return self.sent[-1].get("more_body") is False

    def read(self, answer: StreamedAnswer) -> asyncio.Task[None]:
        return asyncio.create_task(answer({"type": "http"}, self.receive, self.send))  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_read_to_its_end_it_is_whole() -> None:
    source, reader = Source(), Reader()
    await reader.read(StreamedAnswer(source.items(), text_of, status=201, headers=[(b"a", b"b")]))
    assert (reader.body, reader.whole) == (b"item 0;item 1;item 2;", True)
    assert (reader.sent[0]["status"], reader.sent[0]["headers"]) == (201, [(b"a", b"b")])
    assert source.ended == ["end"]


@pytest.mark.asyncio
@pytest.mark.parametrize("wait_at", [0, 2])
async def test_a_reader_that_leaves_while_the_source_is_waited_for(wait_at: int) -> None:
    source, reader = Source(wait_at), Reader()
    task = reader.read(StreamedAnswer(source.items(), text_of))
    await source.waiting.wait()
    reader.left.set()
    await task
    assert source.ended == ["CancelledError"]
    assert not reader.whole


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["raises", "hangs", "is left"])
async def test_a_reader_that_leaves_while_it_is_sent_something(how: str) -> None:
    async def send(message: Any) -> None:
        if message.get("body") == b"item 1;":
            if how == "raises":
                raise OSError("broken pipe")
            if how == "is left":
                reader.left.set()
            await asyncio.Event().wait()

    source, reader = Source(), Reader(send)
    await reader.read(StreamedAnswer(source.items(), text_of, send_timeout=0.01))
    assert source.ended == ["GeneratorExit"]


@pytest.mark.asyncio
async def test_a_reader_that_leaves_before_the_source_has_begun() -> None:
    closed = []

    class Stream:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            raise AssertionError("it has not begun")

        async def aclose(self) -> None:
            closed.append(self)

    async def send(message: Any) -> None:
        raise OSError("broken pipe")

    await Reader(send).read(StreamedAnswer(Stream(), text_of))
    assert len(closed) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("times", [1, 3])
async def test_a_request_that_is_cut_raises_its_cancellation_when_its_source_is_closed(
    times: int,
) -> None:
    source, reader = Source(1), Reader()
    task = reader.read(StreamedAnswer(source.items(), text_of))
    await source.waiting.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.ended == ["CancelledError"]


@pytest.mark.asyncio
async def test_what_the_source_raises_is_the_applications_error() -> None:
    source, reader = Source(error=ConnectionError("of the provider")), Reader()
    with pytest.raises(ConnectionError, match="of the provider"):
        await reader.read(StreamedAnswer(source.items(), text_of))
    assert source.ended == ["ConnectionError"]
    assert not reader.whole


@pytest.mark.asyncio
async def test_the_process_is_told_to_end_before_or_while_it_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coordinator = signals._Coordinator()
    monkeypatch.setattr(signals, "_coordinator", coordinator)
    source, reader = Source(1), Reader()
    task = reader.read(StreamedAnswer(source.items(), text_of, shutdown_grace=0.0))
    await source.waiting.wait()
    coordinator._on_chained(15, None)
    await task
    assert (source.ended, reader.whole) == (["CancelledError"], False)
    assert not coordinator.listeners
    late = Source(0)
    await Reader().read(StreamedAnswer(late.items(), text_of, shutdown_grace=0.0))
    kept = Source()
    await Reader().read(StreamedAnswer(kept.items(), text_of, shutdown_grace=None))
    assert kept.ended == ["end"]


@pytest.mark.asyncio
async def test_a_silent_stream_of_events_has_comments_between_its_events() -> None:
    """Not within one, however slowly the server takes it; and a failing one ends the stream."""
    taking = 0

    async def send(message: Any) -> None:
        nonlocal taking
        assert not taking
        taking += 1
        await asyncio.sleep(0.001)
        taking -= 1
        if len(reader.sent) > 20:
            raise OSError("gone")

    source, reader = Source(2), Reader(send)
    await reader.read(StreamedAnswer(source.items(), event_of, ping=0.001))
    assert b"data: item 1;\n\n: ping\n\n: ping\n\n" in reader.body
    assert source.ended == ["CancelledError"]


@pytest.mark.asyncio
async def test_a_generator_that_leaves_its_stream_open_is_closed_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a garbage collection: the traceback of the cancellation would hold the stream."""
    litellm = fakes.install(monkeypatch)
    litellm.result = lambda: fakes.Stream(3)
    waiting = asyncio.Event()
    async with LiteLLMClient(tmp_path) as client:

        async def careless() -> AsyncIterator[str]:
            stream = await client.acompletion(model="m", messages=[], stream=True)
            async for _ in stream:
                yield "x"
                waiting.set()
                await asyncio.Event().wait()

        reader = Reader()
        task = reader.read(StreamedAnswer(careless(), text_of))
        await waiting.wait()
        task.cancel()
        error = None
        try:
            await task
        except asyncio.CancelledError as exc:
            error = exc  # a server keeps it for its log
        await until(lambda: not client.statistics().in_flight)
        assert error is not None
    assert [record.status for record in Ledger(tmp_path).records()] == ["abandoned"]


@pytest.mark.asyncio
async def test_the_responses_say_what_they_are_and_what_the_request_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm = fakes.install(monkeypatch)
    litellm.result = lambda: fakes.Stream(2)
    ran = []
    async with LiteLLMClient(tmp_path) as client:

        async def background() -> None:
            ran.append("background")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            stream = await client.acompletion(model="m", messages=[], stream=True)
            if scope["path"] == "/events":
                answer = usage_event_response(
                    stream,
                    event=lambda chunk: {"text": chunk.choices[0].delta.content},
                    usage_event="usage",
                    done="[DONE]",
                    background=background,  # type: ignore[arg-type]
                )
            else:
                answer = usage_streaming_response(stream, headers={"x-mine": "1"})
            await answer(scope, receive, send)

        wrapped = UsageTagsMiddleware(app)
        _, headers, body = await ask(wrapped)
        assert (headers["content-type"], headers["x-mine"]) == ("text/plain; charset=utf-8", "1")
        assert body == b"xx"
        _, headers, body = await ask(wrapped, "/events")
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        first, second, usage, done, rest = body.split(b"\n\n")
        assert first == second == b'data: {"text": "x"}'
        assert usage.startswith(b'event: usage\ndata: {"calls": 1, "input_tokens": 100')
        assert (done, rest, ran) == (b"data: [DONE]", b"", ["background"])


def test_an_event_is_made_of_text_json_models_and_bytes() -> None:
    class Model(BaseModel):
        a: int
        b: str | None = None

    assert event_of("a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert event_of({"a": "x\n"}) == b'data: {"a": "x\\n"}\n\n'
    assert event_of(Model(a=1)) == b'data: {"a":1}\n\n'
    assert event_of(b"event: mine\ndata: x\n\n") == b"event: mine\ndata: x\n\n"
    assert text_of(b"x") == b"x"
    assert text_of("\u00fc") == "\u00fc".encode()
    assert text_of(fakes.chunk(usage=True)) == b""


@pytest.mark.parametrize("make", [usage_streaming_response, usage_event_response])
def test_a_mistake_is_told_where_it_is_made(make: Any) -> None:
    with pytest.raises(TypeError, match="not list: give the answer of acompletion"):
        make(["x"])

    async def items() -> AsyncIterator[str]:
        yield "x"

    with pytest.raises(ValueError, match="send_timeout"):
        make(items(), send_timeout=0)
