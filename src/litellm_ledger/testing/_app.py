"""The ASGI application of the test server: routes, waits, streams, cuts and hangs.

Owns the time and the connection of an answer. What stands in an answer is made in `_answers`;
it never counts tokens, and it knows nothing of threads, ports or uvicorn.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from litellm_ledger.testing import _answers
from litellm_ledger.testing._behaviour import HEADER, Behaviour
from litellm_ledger.testing._journal import Journal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_POSTS = ("/v1/chat/completions", "/v1/embeddings")


class App:
    """The application, for one run of the server.

    `stop()`, called on the loop's thread, ends every answer under way and all that would follow.
    """

    def __init__(self, journal: Journal, default: Behaviour) -> None:
        self._journal = journal
        self._default = default
        self._failed: Counter[str] = Counter()
        self._under_way: set[_Exchange] = set()
        self._stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _POSTS and method == "POST":
            await self._post(scope, receive, send)
        elif path == "/healthz" and method == "GET":
            await _send_json(send, 200, {"status": "ok"})
        elif path == "/v1/models" and method == "GET":
            number = self._journal.open(path, {})
            self._journal.update(number, status=200, ended="finished")
            await _send_json(send, 200, _answers.models())
        else:
            known = path in (*_POSTS, "/healthz", "/v1/models")
            body = _answers.error(404, f"Invalid URL ({method} {path})")
            await _send_json(send, 405 if known else 404, body)

    def stop(self) -> None:
        self._stopped = True  # for a request that still comes in on an open connection
        for exchange in self._under_way:
            exchange.end("stopped")

    def clear(self) -> None:
        self._failed.clear()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = json.loads(await _read(receive))
        except ValueError:
            request = None
        if not isinstance(request, dict):
            message = "We could not parse the JSON body of your request."
            await _send_json(send, 400, _answers.error(400, message))
            return
        number = self._journal.open(scope["path"], request)
        exchange = _Exchange(number, request, self._journal, send)
        self._under_way.add(exchange)
        if self._stopped:
            exchange.end("stopped")
        watch = asyncio.create_task(exchange.watch(receive), name=f"watch request {number}")
        try:
            await self._answer(scope, exchange)
        finally:
            self._under_way.discard(exchange)
            watch.cancel()

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        text = dict(scope["headers"]).get(HEADER.encode(), b"").decode("latin-1")
        try:
            behaviour = Behaviour.parse(text, self._default)
        except ValueError as exc:
            await exchange.json(400, _answers.error(400, f"{HEADER}: {exc}", HEADER))
            return
        if not isinstance(exchange.request.get("model"), str):
            message = "you must provide a model parameter"
            await exchange.json(400, _answers.error(400, message, "model"))
            return
        status = self._status(text, behaviour)
        if await exchange.pause(None if behaviour.hang else behaviour.slow):
            return
        if status != 200:
            retry_after = [] if behaviour.retry_after is None else [_retry_after(behaviour)]
            await exchange.json(status, _answers.error(status), retry_after)
        elif scope["path"] == "/v1/embeddings":
            await exchange.whole(_answers.embeddings(exchange.request, behaviour), behaviour)
        elif exchange.request.get("stream") is True:
            await exchange.stream(behaviour)
        else:
            answer = _answers.chat(exchange.request, behaviour, exchange.number)
            await exchange.whole(answer, behaviour)

    def _status(self, text: str, behaviour: Behaviour) -> int:
        if not behaviour.fail_first:
            return behaviour.status
        if self._failed[text] >= behaviour.fail_first:
            return 200
        self._failed[text] += 1
        return 500 if behaviour.status == 200 else behaviour.status


class _Exchange:
    """One request and its answer. After `end` nothing more is sent."""

    def __init__(self, number: int, request: dict[str, Any], journal: Journal, send: Send) -> None:
        self.number = number
        self.request = request
        self._journal = journal
        self._send = send
        self._over = asyncio.Event()

    def end(self, how: str, **changes: Any) -> None:
        """Note how it ended; the first to call this is right."""
        if not self._over.is_set():
            self._over.set()
            self._journal.update(self.number, ended=how, **changes)

    async def watch(self, receive: Receive) -> None:
        """Wait for the client to go away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end("disconnected")

    async def pause(self, seconds: float | None) -> bool:
        """Wait, for ever if None, or until the exchange is over; return whether it is."""
        if seconds == 0:
            await asyncio.sleep(0)
        else:
            try:
                await asyncio.wait_for(self._over.wait(), seconds)
            except TimeoutError:
                return False
        return self._over.is_set()

    async def json(
        self, status: int, body: _answers.Json, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send a whole answer. It is noted first, so that who has read it finds it noted."""
        self.end("finished", status=status, usage=body.get("usage"))
        await _send_json(self._send, status, body, [self._id, *(headers or [])])

    async def whole(self, body: _answers.Json, behaviour: Behaviour) -> None:
        """Send an answer that is no stream, or the half of it."""
        if behaviour.cut_after is None:
            await self.json(200, body)
            return
        content = json.dumps(body).encode()
        self.end("cut", status=200)
        await _start(self._send, 200, b"application/json", [self._id, _length(content)])
        await _body(self._send, content[: len(content) // 2], more=True)

    async def stream(self, behaviour: Behaviour) -> None:
        """Send the events, and do after each what the behaviour asks for."""
        self._journal.update(self.number, status=200)
        await _start(self._send, 200, b"text/event-stream; charset=utf-8", [self._id])
        sent = 0
        chunks = _answers.chat_chunks(self.request, behaviour, self.number)
        for index, (chunk, has_content) in enumerate(chunks):
            if index and await self._interrupted(behaviour, sent):
                return
            if await self.pause(behaviour.chunk_delay if has_content else 0):
                return
            if has_content:
                sent += 1
                self._journal.update(self.number, chunks=sent)
            if chunk.get("usage") is not None:
                self._journal.update(self.number, usage=chunk["usage"])
            await self._event(json.dumps(chunk))
        await self._close("[DONE]")

    async def _interrupted(self, behaviour: Behaviour, sent: int) -> bool:
        """Do what is due after `sent` chunks; return whether the stream ends here."""
        if behaviour.cut_after == sent:
            self.end("cut")
            return True
        if behaviour.error_after == sent:
            await self._close(json.dumps(_answers.error(500)))
            return True
        return behaviour.hang_after == sent and await self.pause(None)

    async def _event(self, data: str, more: bool = True) -> None:
        await _body(self._send, f"data: {data}\n\n".encode(), more=more)

    async def _close(self, data: str) -> None:
        if not await self.pause(0):
            self.end("finished")
            await self._event(data, more=False)

    @property
    def _id(self) -> tuple[bytes, bytes]:
        return (b"x-request-id", b"req_%08d" % self.number)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body


async def _start(send: Send, status: int, kind: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", kind), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _body(send: Send, content: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": more})


async def _send_json(
    send: Send,
    status: int,
    body: _answers.Json,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    content = json.dumps(body).encode()
    await _start(send, status, b"application/json", [_length(content), *(headers or [])])
    await _body(send, content, more=False)


def _length(content: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % len(content))


def _retry_after(behaviour: Behaviour) -> tuple[bytes, bytes]:
    return (b"retry-after", f"{behaviour.retry_after:g}".encode())
