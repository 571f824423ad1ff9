"""FastAPI and Starlette: one client that lives as long as the application does.

    app = FastAPI(lifespan=ledger_lifespan(ledger="usage/"))

    @app.post("/chat")
    async def chat(text: str, client: Annotated[LiteLLMClient, Depends(get_client)]): ...

Owns when the client opens and closes: on the server's loop before the application's own lifespan,
and at the end the other way round, once the calls of requests that the server cut are recorded.
Never takes a signal from the server, never ends a request.  It also owns the answer to a request
whose call a budget refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from litellm_ledger._asgi.streaming import (
    PING,
    SEND_TIMEOUT,
    SHUTDOWN_GRACE,
    StreamedAnswer,
    ending,
    event_of,
    text_of,
)
from litellm_ledger._client.client import LiteLLMClient
from litellm_ledger._errors import BudgetExceeded, LedgerClosed, MissingExtra
from litellm_ledger.asgi import RequestUsage, UsageHealth, UsageTagsMiddleware, detached

try:
    from starlette.background import BackgroundTask
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse, StreamingResponse
except ModuleNotFoundError as exc:
    raise MissingExtra("fastapi", "fastapi") from exc

__all__ = [
    "RequestUsage",
    "UsageHealth",
    "UsageTagsMiddleware",
    "budget_response",
    "detached",
    "get_client",
    "ledger_lifespan",
    "usage_event_response",
    "usage_streaming_response",
]

_log = logging.getLogger("litellm_ledger")

_KEY: Final = "ledger_client"
_POLL: Final = 0.16  # seconds at most between looks at the calls in flight

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def ledger_lifespan(
    ledger: str | os.PathLike[str] | None = None,
    *,
    client: LiteLLMClient | Callable[[], LiteLLMClient] | None = None,
    lifespan: Lifespan | None = None,
    warm_up: bool = True,
    settle_timeout: float = 5.0,
    **options: Any,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Make a lifespan that opens a client when the application starts and closes it at the end.

    ``Depends(get_client)`` gives the client to endpoints.  It is ``request.state.ledger_client``
    as well, and ``app.state.ledger_client`` from before ``lifespan`` begins until after it ends.

    Args:
        ledger: the directory, as for ``LiteLLMClient``.
        client: instead of ``ledger`` and ``options``: a client that is not open yet, or a function
            that creates one each time the application starts.
        lifespan: the application's own, run while the client is open; the state that it yields is
            passed on.
        warm_up: load LiteLLM (2 to 5 s) in a thread after the start, so that no request has to wait
            for it.  Start-up does not wait, nor does the client's close (though after SIGINT Python
            ends only when the import has).  A failure is only logged.
        settle_timeout: seconds that calls in flight get at the end before the client closes: a
            server that cuts requests ends the application before these have noticed.
        **options: those of ``LiteLLMClient``.

    Raises:
        TypeError: an option that ``LiteLLMClient`` does not have, or one beside ``client``.

    The lifespan itself raises what opening and closing a client raise: ``LedgerPathError`` keeps
    the server from starting, ``DrainTimeout`` is logged by it as a failed shutdown.  Cancelled or
    failed, it closes the client all the same.
    """
    inspect.signature(LiteLLMClient).bind(ledger, **options)  # here, where the mistake is made
    if client is not None and (ledger is not None or options):
        raise TypeError("give ledger_lifespan() either a client or the options of one, not both")

    def make() -> LiteLLMClient:
        if client is None:
            return LiteLLMClient(ledger, **options)
        return client if isinstance(client, LiteLLMClient) else client()

    @contextlib.asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            opened = await stack.enter_async_context(make())
            setattr(app.state, _KEY, opened)
            stack.callback(delattr, app.state, _KEY)
            stack.push_async_callback(_settled, opened, settle_timeout)
            if warm_up:
                warming = asyncio.create_task(_warm_up(opened), name="litellm-ledger-warm-up")
                stack.push_async_callback(_stopped, warming)
            state = await stack.enter_async_context(lifespan(app)) if lifespan else None
            yield {**(state or {}), _KEY: opened}

    return run


async def get_client(connection: HTTPConnection) -> LiteLLMClient:
    """Return the client of ``ledger_lifespan``: for ``Depends(get_client)``, or a direct call.

    Works in HTTP and WebSocket endpoints, those of mounted applications included.

    Raises:
        LedgerClosed: the application runs without its lifespan; the text says what to do.
    """
    client = connection.scope.get("state", {}).get(_KEY)
    if client is None and "app" in connection.scope:  # a transport that knows no lifespan state
        client = getattr(connection.app.state, _KEY, None)
    if not isinstance(client, LiteLLMClient):
        raise LedgerClosed(
            "there is no ledger client, because the lifespan of this application is not running: "
            "create it with lifespan=ledger_lifespan(...) (if it is mounted in another, the outer "
            "one: the lifespan of a mounted application is never run), and in tests write 'with "
            "TestClient(app) as http:', because without 'with' no lifespan is run at all"
        )
    return client


_PAYMENT_REQUIRED: Final = 402
_TOO_MANY_REQUESTS: Final = 429
_RETRY_AFTER: Final = "1"
"""Seconds; how long a call in flight holds its money nobody knows."""


async def budget_response(_request: HTTPConnection, exc: Exception) -> JSONResponse:
    """Answer a request whose call a budget refused.

        app.add_exception_handler(BudgetExceeded, budget_response)

    Status 402 with the fields of ``BudgetExceeded`` as JSON (``to_dict``) and ``detail``, its text.
    429 with ``Retry-After: 1`` where only calls in flight are in the way (its ``passes``).  A
    stream that is cut after its response has begun ends without either: its status is sent.

    Raises:
        Exception: ``exc``, where it is another one.
    """
    if not isinstance(exc, BudgetExceeded):
        raise exc
    told = {"detail": str(exc), **exc.to_dict()}
    if exc.passes:
        return JSONResponse(told, _TOO_MANY_REQUESTS, headers={"Retry-After": _RETRY_AFTER})
    return JSONResponse(told, _PAYMENT_REQUIRED)


class _Streamed(StreamingResponse):
    """Starlette's, sent by a ``StreamedAnswer``."""

    def __init__(
        self,
        content: AsyncIterable[Any],
        options: Mapping[str, Any],
        background: BackgroundTask | None,
        status_code: int,
        headers: Mapping[str, str] | None,
        media_type: str,
    ) -> None:
        self._options = options
        StreamedAnswer(content, **options)  # a mistake is told here, where it is made
        super().__init__(content, status_code, headers, media_type, background)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = StreamedAnswer(
            self.body_iterator, status=self.status_code, headers=self.raw_headers, **self._options
        )
        await answer(scope, receive, send)
        if self.background is not None:
            await self.background()


def usage_streaming_response(
    content: AsyncIterable[Any],
    *,
    text: Callable[[Any], str | bytes] = text_of,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "text/plain",
    background: BackgroundTask | None = None,
    send_timeout: float | None = SEND_TIMEOUT,
    shutdown_grace: float | None = SHUTDOWN_GRACE,
) -> StreamingResponse:
    """Return a response that streams, and that is recorded however its reader leaves.

        answer = await client.acompletion(..., stream=True)
        return usage_streaming_response(answer)

    ``content`` is closed, and what it has used is on record, when the answer has ended: read to its
    end; its reader gone (connection closed or reset, a proxy's time-out, bytes that nobody takes
    for ``send_timeout`` seconds), also before the first piece; the request cut by the server; or
    the process told to end, ``shutdown_grace`` seconds after that.  A reader that vanishes without
    a word, while it takes what is sent, is noticed when the operating system gives it up.

    Args:
        content: the answer of a call with ``stream=True``, or an async generator of your own.
            Streams that a generator opens are closed with it.
        text: makes text of an item; default: what the model wrote, or the item if it is text.
        status_code, headers, media_type, background: as for ``StreamingResponse``.  ``background``
            runs also if the reader has left.
        send_timeout: seconds; ``None``: no limit.
        shutdown_grace: seconds; ``None``: until the server cuts it.  It needs a client that chains
            the server's signal handlers (``statistics().signals`` is ``chained``).

    Raises:
        TypeError: ``content`` is not an async iterable.
        ValueError: a time-out of 0 or less.
    """

    def encode(item: Any) -> bytes:
        return text_of(text(item))

    options = {"encode": encode, "send_timeout": send_timeout, "shutdown_grace": shutdown_grace}
    return _Streamed(content, options, background, status_code, headers, media_type)


def usage_event_response(
    content: AsyncIterable[Any],
    *,
    event: Callable[[Any], Any] | None = None,
    usage_event: str | None = None,
    done: str | None = None,
    ping: float | None = PING,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    background: BackgroundTask | None = None,
    send_timeout: float | None = SEND_TIMEOUT,
    shutdown_grace: float | None = SHUTDOWN_GRACE,
) -> StreamingResponse:
    """Return ``usage_streaming_response`` as server-sent events.

    Each item becomes the ``data`` of an event: text, or the JSON of a mapping, a list or a chunk.
    Bytes are taken as a whole event.

    Args:
        content: as for ``usage_streaming_response``.
        event: makes such an item of each item.
        usage_event: name of an event before the end with the figures of the request, as of
            ``UsageTagsMiddleware(event=…)``; needs that middleware.  ``None``: none.
        done: data of a last event, such as ``[DONE]`` for clients that speak OpenAI's protocol.
        ping: seconds of silence after which a comment is sent.  It keeps proxies from timing out,
            and has the operating system notice a reader that has vanished.  ``None``: never.
        status_code, headers, background, send_timeout, shutdown_grace: as for
            ``usage_streaming_response``.

    Raises:
        TypeError, ValueError: as for ``usage_streaming_response``.
    """

    def encode(item: Any) -> bytes:
        return event_of(item if event is None else event(item))

    options = {
        "encode": encode,
        "last": ending(usage_event, done),
        "ping": ping,
        "send_timeout": send_timeout,
        "shutdown_grace": shutdown_grace,
    }
    # Proxies that keep an answer to send it as a whole are asked not to.
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})}
    return _Streamed(content, options, background, status_code, headers, "text/event-stream")


async def _settled(client: LiteLLMClient, timeout: float) -> None:
    """Wait until no call is in flight.

    uvicorn cancels the requests that it cuts in the same turn of the loop in which it tells the
    lifespan to end, and dies of its signal right after that: what takes a few turns longer would
    never be recorded but as unsettled.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    pause = 0.005
    while client.statistics().in_flight and clock() < deadline:
        await asyncio.sleep(pause)
        if pause < _POLL:
            pause *= 2
        else:  # a stream that nobody reads may hang on the traceback of the request that was cut
            gc.collect()


async def _warm_up(client: LiteLLMClient) -> None:
    try:
        await client.warm_up()
    except Exception:  # noqa: BLE001 - logged; the first call raises it to its caller
        _log.warning("LiteLLM could not be loaded ahead of the first call", exc_info=True)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
