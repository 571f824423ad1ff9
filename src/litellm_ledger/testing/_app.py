"""The ASGI application of the test server: routes, waits, streams, cuts and hangs.

Owns the time and the connection of an answer. What stands in an answer is made in `_answers`;
it never counts tokens, and it knows nothing of threads, ports or uvicorn.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from litellm_ledger.testing import _answers, _endpoints
from litellm_ledger.testing._behaviour import HEADER, Behaviour
from litellm_ledger.testing._journal import Journal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_STREAMS = {
    "/v1/chat/completions": _answers.chat_chunks,
    "/v1/completions": _endpoints.completion_chunks,
    "/v1/responses": _endpoints.response_events,
    "/v1/messages": _endpoints.message_events,
}
_ANSWERS: dict[str, Callable[[dict[str, Any], Behaviour, int], _answers.Json]] = {
    "/v1/chat/completions": _answers.chat,
    "/v1/completions": _endpoints.completion,
    "/v1/responses": _endpoints.response,
    "/v1/messages": _endpoints.message,
    "/v1/embeddings": _answers.embeddings,
    "/v1/images/generations": _endpoints.images,
    "/v1/images/edits": _endpoints.images,
    "/v1/audio/transcriptions": _endpoints.transcription,
    "/v1/moderations": _endpoints.moderation,
    "/v1/rerank": _endpoints.rerank,
    "/v2/rerank": _endpoints.rerank,
    "/v1/ocr": _endpoints.ocr,
    "/v1/files": _endpoints.file,
}
_JSON = b"application/json"
_POSTS = {*_ANSWERS, "/v1/audio/speech", "/v1/batches"}
_WITHOUT_MODEL = {"/v1/moderations", "/v1/files", "/v1/batches"}


class App:
    """The application, for one run of the server.

    `stop()`, called on the loop's thread, ends every answer under way and all that would follow.
    """

    def __init__(self, journal: Journal, default: Behaviour) -> None:
        self._journal = journal
        self._default = default
        self._failed: Counter[str] = Counter()
        self._batches: dict[str, tuple[int, dict[str, Any], int]] = {}
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
        elif path.startswith(("/v1/batches/", "/v1/files/", "/v1/responses/")) and method == "GET":
            await self._exchange(scope, receive, send, {})
        else:
            known = path in {*_POSTS, "/healthz", "/v1/models"}
            body = _answers.error(404, f"Invalid URL ({method} {path})")
            await _send_json(send, 405 if known else 404, body)

    def stop(self) -> None:
        self._stopped = True  # for a request that still comes in on an open connection
        for exchange in self._under_way:
            exchange.end("stopped")

    def clear(self) -> None:
        self._failed.clear()

    def release(self) -> None:
        for exchange in self._under_way:
            exchange.release()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        content = await _read(receive)
        try:
            if kind.startswith("multipart/form-data"):
                request = _endpoints.form(kind, content)
            else:
                request = json.loads(content)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            message = "We could not parse the JSON body of your request."
            await _send_json(send, 400, _answers.error(400, message))
            return
        await self._exchange(scope, receive, send, request)

    async def _exchange(
        self, scope: Scope, receive: Receive, send: Send, request: dict[str, Any]
    ) -> None:
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
        path, request = scope["path"], exchange.request
        text = dict(scope["headers"]).get(HEADER.encode(), b"").decode("latin-1")
        try:
            behaviour = Behaviour.parse(text, self._default)
        except ValueError as exc:
            await exchange.json(400, _answers.error(400, f"{HEADER}: {exc}", HEADER))
            return
        needs_model = path in _POSTS - _WITHOUT_MODEL
        if needs_model and not isinstance(request.get("model"), str):
            message = "you must provide a model parameter"
            await exchange.json(400, _answers.error(400, message, "model"))
            return
        status = self._status(text, behaviour)
        if await exchange.pause(None if behaviour.hang else behaviour.slow):
            return
        if status != 200:
            seconds = behaviour.retry_after
            retry_after = [] if seconds is None else [(b"retry-after", f"{seconds:g}".encode())]
            body = _endpoints.failed(path, status, behaviour.message)
            await exchange.json(status, body, retry_after)
        elif request.get("stream") is True and path in _STREAMS:
            await exchange.stream(path, behaviour)
        else:
            await self._whole(path, exchange, behaviour)

    async def _whole(self, path: str, exchange: _Exchange, behaviour: Behaviour) -> None:
        """Send an answer that is no stream."""
        if path == "/v1/audio/speech":
            await exchange.raw(_endpoints.SPEECH, b"audio/mpeg", behaviour)
        elif path == "/v1/batches":
            body = self._batch(f"batch_{exchange.number:08d}", behaviour, exchange)
            await exchange.whole(body, behaviour)
        elif path.startswith("/v1/batches/"):
            name = path.removeprefix("/v1/batches/")
            if name in self._batches:
                await exchange.whole(self._batch(name, behaviour, exchange), behaviour)
            else:
                await exchange.json(404, _answers.error(404, "No such batch."))
        elif path.startswith("/v1/responses/"):
            name = path.removeprefix("/v1/responses/")
            await exchange.whole(_endpoints.background_response(name, behaviour), behaviour)
        elif path.startswith("/v1/files/"):
            digits = path.rpartition("output-")[2].removesuffix("/content")
            number = int(digits) if digits.isdecimal() else 0
            content = _endpoints.batch_output(number, behaviour)
            await exchange.raw(content, b"application/octet-stream", behaviour)
        else:
            body = _ANSWERS[path](exchange.request, behaviour, exchange.number)
            await exchange.whole(body, behaviour)

    def _batch(self, name: str, behaviour: Behaviour, exchange: _Exchange) -> _answers.Json:
        """Return a batch, one step further each time that it is looked at."""
        number, request, step = self._batches.get(name, (exchange.number, exchange.request, 0))
        self._batches[name] = (number, request, step + 1)
        return _endpoints.batch(number, request, behaviour, step)

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
        self._released = asyncio.Event()

    def release(self) -> None:
        """Hang no more."""
        self._released.set()

    def end(self, how: str, **changes: Any) -> None:
        """Note how it ended; the first to call this is right."""
        if not self._over.is_set():
            self._over.set()
            self._released.set()
            self._journal.update(self.number, ended=how, **changes)

    async def watch(self, receive: Receive) -> None:
        """Wait for the client to go away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end("disconnected")

    async def pause(self, seconds: float | None) -> bool:
        """Wait, until `release` if None, or until the exchange is over; return whether it is."""
        if seconds is None:
            await self._released.wait()
        elif seconds == 0:
            await asyncio.sleep(0)
        else:
            try:
                await asyncio.wait_for(self._over.wait(), seconds)
            except TimeoutError:
                return False
        return self._over.is_set()

    async def json(self, status: int, body: _answers.Json, headers: Sequence[Header] = ()) -> None:
        """Send a whole answer. It is noted first, so that who has read it finds it noted."""
        self.end("finished", status=status, usage=body.get("usage"))
        await _send_json(self._send, status, body, [self._id, *headers])

    async def whole(self, body: _answers.Json, behaviour: Behaviour) -> None:
        """Send an answer that is no stream, or the half of it."""
        if behaviour.cut_after is None:
            await self.json(200, body)
        else:
            await self.raw(json.dumps(body).encode(), _JSON, behaviour)

    async def raw(self, content: bytes, kind: bytes, behaviour: Behaviour) -> None:
        """Send an answer that is no JSON, or the half of it."""
        cut = behaviour.cut_after is not None
        self.end("cut" if cut else "finished", status=200)
        await _send_whole(self._send, 200, kind, content, [self._id], cut=cut)

    async def stream(self, path: str, behaviour: Behaviour) -> None:
        """Send the events, and do after each what the behaviour asks for."""
        self._journal.update(self.number, status=200)
        await _start(self._send, 200, b"text/event-stream; charset=utf-8", [self._id])
        sent = 0
        chunks = _STREAMS[path](self.request, behaviour, self.number)
        for index, (chunk, has_content) in enumerate(chunks):
            if index and await self._interrupted(path, behaviour, sent):
                return
            if await self.pause(behaviour.chunk_delay if has_content else 0):
                return
            if has_content:
                sent += 1
                self._journal.update(self.number, chunks=sent)
            usage = chunk.get("usage") or (chunk.get("response") or {}).get("usage")
            if usage is not None:
                self._journal.update(self.number, usage=usage)
            await self._event(chunk)
        await self._close(b"" if _named(chunk) else b"data: [DONE]\n\n")

    async def _interrupted(self, path: str, behaviour: Behaviour, sent: int) -> bool:
        """Do what is due after `sent` chunks; return whether the stream ends here."""
        if behaviour.cut_after == sent:
            self.end("cut")
            return True
        if behaviour.error_after == sent:
            await self._event(_endpoints.failed_midway(path, behaviour.message))
            await self._close()
            return True
        return behaviour.hang_after == sent and await self.pause(None)

    async def _event(self, chunk: _answers.Json) -> None:
        name = f"event: {chunk['type']}\n" if _named(chunk) else ""
        await _body(self._send, f"{name}data: {json.dumps(chunk)}\n\n".encode(), more=True)

    async def _close(self, last: bytes = b"") -> None:
        if not await self.pause(0):
            self.end("finished")
            await _body(self._send, last, more=False)

    @property
    def _id(self) -> Header:
        return (b"x-request-id", b"req_%08d" % self.number)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body"):
            return body


async def _start(send: Send, status: int, kind: bytes, headers: Sequence[Header]) -> None:
    headers = [(b"content-type", kind), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _body(send: Send, content: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": more})


async def _send_whole(
    send: Send,
    status: int,
    kind: bytes,
    content: bytes,
    headers: Sequence[Header] = (),
    *,
    cut: bool = False,
) -> None:
    length = (b"content-length", b"%d" % len(content))
    await _start(send, status, kind, [length, *headers])
    await _body(send, content[: len(content) // 2] if cut else content, more=cut)


async def _send_json(
    send: Send, status: int, body: _answers.Json, headers: Sequence[Header] = ()
) -> None:
    await _send_whole(send, status, _JSON, json.dumps(body).encode(), headers)


def _named(chunk: _answers.Json) -> bool:
    """Whether the events of this stream carry a name, as those of OpenAI's chats do not."""
    return "type" in chunk
