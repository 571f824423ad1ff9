"""``StreamedAnswer``: an answer whose source is closed, and so recorded, however its reader leaves.

Owns the end of a streamed answer: read to its end, the reader gone (closed, reset, silent while
bytes wait for it), the request cut by the server, the process told to end.  Where a framework's own
streaming leaves a source to the garbage collector, this closes it and waits until it is on record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final

from litellm_ledger._runtime import signals
from litellm_ledger._runtime.cancellation import outlive_cancellation
from litellm_ledger._tracking.request import RequestUsage
from litellm_ledger._tracking.tags import current_request

from .figures import last_event
from .protocol import Message, Receive, Scope, Send

__all__ = [
    "PING",
    "SEND_TIMEOUT",
    "SHUTDOWN_GRACE",
    "StreamedAnswer",
    "ending",
    "event_of",
    "text_of",
]

SEND_TIMEOUT: Final = 30.0
SHUTDOWN_GRACE: Final = 10.0
PING: Final = 15.0

_PING: Final = b": ping\n\n"

Encode = Callable[[Any], bytes]


class _Gone(Exception):
    """The reader is gone, or takes nothing any more."""


class StreamedAnswer:
    """An ASGI application that sends one stream to one reader, once.

    Args:
        content: an async iterable: a ``CompletionStream``, an async generator.  Closed at the end,
            whatever the end is, and also if it was never begun.
        encode: makes bytes of an item; no bytes: nothing is sent for it.
        status: of the answer.
        headers: of the answer.
        last: returns what is sent after the last item of a stream that was read to its end.
        ping: seconds of silence after which a comment is sent, for a stream of events: proxies do
            not time out, and a reader that is gone is noticed.  ``None``: never.
        send_timeout: seconds that the server may take to take a piece, before the reader counts as
            gone: one that is there, and reads nothing.  ``None``: no limit.
        shutdown_grace: seconds that the stream may go on after the process was told to end (where
            the client chains the server's handlers).  ``None``: until the server cuts it.
    """

    def __init__(
        self,
        content: AsyncIterable[Any],
        encode: Encode,
        *,
        status: int = 200,
        headers: Iterable[tuple[bytes, bytes]] = (),
        last: Callable[[], bytes] | None = None,
        ping: float | None = None,
        send_timeout: float | None = SEND_TIMEOUT,
        shutdown_grace: float | None = SHUTDOWN_GRACE,
    ) -> None:
        if not isinstance(content, AsyncIterable):
            raise TypeError(
                f"a stream is an async iterable, not {type(content).__name__}: give the answer of "
                "acompletion(stream=True), or an async generator"
            )
        for name, value in (("ping", ping), ("send_timeout", send_timeout)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
        self._content = content
        self._encode = encode
        self._status = status
        self._headers = [*headers]
        self._last = last
        self._ping = ping
        self._send_timeout = send_timeout
        self._grace = shutdown_grace
        self._sending = asyncio.Lock()
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI gives it
        """Send it.  Returns when its source is closed and on record, whatever ended it.

        A stream that was cut by a shutdown is left without its end, so that its reader can tell:
        the server closes the connection.  Cancelled, it does the same and raises it again.
        """
        loop = asyncio.get_running_loop()
        producing = loop.create_task(self._produce(send), name="litellm-ledger-answer")
        others = [loop.create_task(_left(receive), name="litellm-ledger-reader")]
        if self._grace is not None:
            others.append(loop.create_task(_shut_down(self._grace), name="litellm-ledger-grace"))
        if self._ping is not None:
            others.append(loop.create_task(self._keep_alive(send), name="litellm-ledger-ping"))
        try:
            await asyncio.wait({producing, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in others:
                task.cancel()
            cut = not producing.done()
            if cut:
                producing.cancel()
            ended = loop.create_task(_all_ended(producing, *others), name="litellm-ledger-ended")
            await outlive_cancellation(ended)
        if not producing.cancelled():
            with contextlib.suppress(_Gone):
                producing.result()

    async def _produce(self, send: Send) -> None:
        source = aiter(self._content)
        try:
            await self._put(
                send,
                {
                    "type": "http.response.start",
                    "status": self._status,
                    "headers": self._headers,
                },
            )
            async for item in source:
                if body := self._encode(item):
                    await self._put(send, _body(body))
            if self._last is not None:
                await self._put(send, _body(self._last()))
            await self._put(send, _body(b"", more=False))
        except asyncio.CancelledError as exc:
            # The traceback holds the frames of the source, and they hold what it was reading: a
            # stream that is nobody's any more ends here, not when the garbage collector comes by.
            traceback.clear_frames(exc.__traceback__)
            raise
        finally:
            closing = asyncio.ensure_future(_close(source, self._content))
            await outlive_cancellation(closing)

    async def _put(self, send: Send, message: Message) -> None:
        async with self._sending:
            await self._put_now(send, message)

    async def _put_now(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._send_timeout):
                await send(message)
        except OSError as exc:  # what servers raise where a reader is gone; TimeoutError is one
            raise _Gone from exc
        self._sent_at = asyncio.get_running_loop().time()

    async def _keep_alive(self, send: Send) -> None:
        """Send a comment whenever nothing was sent for a while; end when the reader is gone."""
        assert self._ping is not None
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(_Gone):
            while True:
                begun = self._sent_at > 0
                wait = self._sent_at + self._ping - clock() if begun else self._ping
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                async with self._sending:
                    if self._sent_at + self._ping <= clock():
                        await self._put_now(send, _body(_PING))


async def _left(receive: Receive) -> None:
    """Wait until the server says that the reader has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _shut_down(grace: float) -> None:
    """Wait until the process was told to end, and the grace is over."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    with signals.listening(lambda: loop.call_soon_threadsafe(told.set)):
        await told.wait()
        await asyncio.sleep(grace)


async def _all_ended(producing: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    await asyncio.wait({producing, *others})
    for task in others:  # a server that raises for a reader that is gone has said it
        if not task.cancelled():
            task.exception()


async def _close(*sources: Any) -> None:
    """Close a generator, then what it was made of."""
    for source in {id(source): source for source in sources}.values():
        if hasattr(source, "aclose"):
            await source.aclose()


def _body(content: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def text_of(item: Any) -> bytes:
    """Return the text of an item: of a chunk its ``delta.content``; text and bytes as they are."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if not isinstance(item, str):
        item = "".join(
            getattr(getattr(choice, "delta", None), "content", None) or ""
            for choice in getattr(item, "choices", None) or ()
        )
    return str(item).encode()


def event_of(item: Any) -> bytes:
    """Return an item as a server-sent event.

    Bytes are taken for a whole event; text and JSON (a mapping, a list, a pydantic model such as a
    chunk) become its ``data``.
    """
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if hasattr(item, "model_dump_json"):
        item = item.model_dump_json(exclude_none=True)
    elif not isinstance(item, str):
        item = json.dumps(dict(item) if isinstance(item, Mapping) else item, default=str)
    # By the standard a line ends with CR, LF or both, and with nothing else.
    lines = item.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"


def ending(usage_event: str | None, done: str | None) -> Callable[[], bytes] | None:
    """Return what makes the end of a stream of events: what its request used, then a mark."""

    def end() -> bytes:
        request = current_request()
        last = b""
        if usage_event is not None and isinstance(request, RequestUsage):
            last = last_event(request, usage_event)
        return last + (b"" if done is None else event_of(done))

    return None if usage_event is None and done is None else end
