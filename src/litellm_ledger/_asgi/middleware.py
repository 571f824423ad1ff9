"""``UsageTagsMiddleware``: whose a call is, for all that a request starts, and what it came to.

Owns which request code runs for, between a server and an application.  Nothing of a request may
reach the next one, so the application runs with it in force, and the server without: its ``send``
and ``receive`` may start the next request of the connection, or the reader that will.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from litellm_ledger._records.record import clean_tags
from litellm_ledger._tracking.request import RequestUsage
from litellm_ledger._tracking.tags import detached

from .figures import known_headers, last_event
from .identity import header_value, sane_request_id, trace_id
from .protocol import ASGIApp, Message, Receive, Scope, Send, header_values
from .routes import route_template

__all__ = ["UsageTagsMiddleware"]

_KEY: Final = "litellm_ledger.usage"
"""Of a scope: the request's usage.  A scope is of one request only."""

TagSource = Mapping[str, Any] | Callable[[Scope], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]


class UsageTagsMiddleware:
    """Puts tags on every call that a request leads to, and adds up what these calls used.

        app.add_middleware(UsageTagsMiddleware, tags=lambda scope: {"user": scope["user"].name})

    Plain ASGI: it needs no framework, and any that runs ASGI middleware will do.  It covers HTTP
    requests and WebSocket connections, with all that they start: streams, background tasks, tasks
    of their own, threads of ``asyncio.to_thread``.  Nothing of a request is in force in the next
    one, nor in the lifespan.  ``request.state.usage`` is the ``RequestUsage``: calls, tokens and
    cost so far.

    Tags given nearer to the call win: the client's, then these, then ``with client.tag(...)``,
    then the call's own.

    Args:
        app: the application.
        tags: a mapping, or a function of the ASGI scope that returns one.  A plain function is
            called when a call begins, so it sees what the application has put into the scope by
            then; what it raises is raised to the caller, and nothing is sent to the provider.  An
            ``async def`` is awaited before the application gets the request, and what it raises
            fails the request.
        route: the tag that holds the template of the route (``/chats/{chat_id}``); ``None``: no
            such tag.  A request that took no route has none.
        from_headers: header to tag.  Taken if the header is there once, printable, and of at most
            256 characters.  Anybody can send a header: name only those that your proxy sets.
        request_id: the tag that holds the id of the request: ``x-request-id`` if that is sane (128
            characters at most), else a new one.  ``None``: no such tag.
        trace_id: the tag that holds the trace id of a valid ``traceparent``; ``None``: no such tag.
            Tags that differ for each request are on every record, but sums that a process keeps
            (``client.usage.summary``) tell only the first 10,000 combinations apart.
        headers: add ``X-Request-ID`` to answers, and what is known of the calls to answers that
            are no streams: ``X-LLM-Calls``, ``X-LLM-Input-Tokens``, ``X-LLM-Output-Tokens``,
            ``X-LLM-Cost-USD``.  A figure is left out while a call is in flight, and where one of
            the calls does not say it.
        event: name of an event with the same figures as JSON that ends a stream of server-sent
            events; ``None``: none.

    Raises:
        InvalidRecord: a tag is neither text, a number, a boolean, a UUID nor an enum member.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tags: TagSource | None = None,
        route: str | None = "route",
        from_headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        headers: bool = False,
        event: str | None = None,
    ) -> None:
        self.app = app
        self._constant = clean_tags(tags) if isinstance(tags, Mapping) else {}
        function = None if isinstance(tags, Mapping) else tags
        if function is not None and not callable(function):
            raise TypeError(f"tags= takes a mapping or a function, not {type(function).__name__}")
        self._first = function if _is_async(function) else None
        self._later = function if self._first is None else None
        self._route = route
        self._from_headers = {
            name.lower().encode("latin-1"): tag for name, tag in (from_headers or {}).items()
        }
        self._id_tag = request_id
        self._trace_tag = trace_id
        self._headers = headers
        if event is not None and not event.isprintable():
            raise ValueError(f"event= takes a name of one line, not {event!r}")
        self._event = event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        if scope["type"] not in ("http", "websocket"):
            with detached():
                await self.app(scope, receive, send)
            return
        with detached():  # what an earlier request of this connection has left is not ours
            usage = await self._usage(scope)
        scope[_KEY] = usage
        scope.setdefault("state", {})["usage"] = usage
        outside: Send = partial(_outside, send)
        if scope["type"] == "http" and (self._headers or self._event):
            outside = _Answer(usage, outside, headers=self._headers, event=self._event).send
        with usage.attach():
            await self.app(scope, partial(_outside, receive), outside)

    async def _usage(self, scope: Scope) -> RequestUsage:
        outer = scope.get(_KEY)
        if not isinstance(outer, RequestUsage):
            outer = None
        request = outer.request_id if outer else sane_request_id(scope)
        request = request or os.urandom(16).hex()
        trace = trace_id(scope)
        fixed = dict(self._constant)
        for name, tag in self._from_headers.items():
            if (value := header_value(scope, name)) is not None:
                fixed[tag] = value
        if self._id_tag is not None:
            fixed[self._id_tag] = request
        if self._trace_tag is not None and trace is not None:
            fixed[self._trace_tag] = trace
        if self._first is not None:
            fixed.update(clean_tags(await self._first(scope)))  # type: ignore[misc]  # it is async
        app, root_path = scope.get("app") or self.app, str(scope.get("root_path") or "")
        return RequestUsage(
            request, trace, tags=partial(self._tags, scope, app, root_path, fixed), outer=outer
        )

    def _tags(
        self, scope: Scope, app: Any, root_path: str, fixed: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The tags of a call that begins now."""
        found = dict(fixed)
        if self._route is not None and (path := route_template(scope, app, root_path)):
            found[self._route] = path
        if self._later is not None:
            made = self._later(scope)
            if inspect.isawaitable(made):
                if inspect.iscoroutine(made):
                    made.close()
                raise TypeError("tags= got an awaitable from a function that is no 'async def'")
            found.update(clean_tags(made))
        return found


async def _outside(work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run the server's part of a request as nobody's."""
    with detached():
        return await work(*args)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method, to see whether it is async
    )


class _Answer:
    """One answer on its way out, with what is known of its calls."""

    def __init__(
        self, usage: RequestUsage, send: Send, *, headers: bool, event: str | None
    ) -> None:
        self._usage = usage
        self._send = send
        self._headers = headers
        self._event = event
        self._is_events = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if self._headers:
                message = {**message, "headers": self._with_ours(message)}
            self._is_events = self._event is not None and _is_events(message)
        elif kind == "http.response.body" and self._is_events and not message.get("more_body"):
            assert self._event is not None
            body = bytes(message.get("body") or b"") + last_event(self._usage, self._event)
            message = {**message, "body": body}
        await self._send(message)

    def _with_ours(self, message: Message) -> list[tuple[bytes, bytes]]:
        there = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        names = {name.lower() for name, _ in there}
        ours = [(b"x-request-id", (self._usage.request_id or "").encode("ascii"))]
        # A stream begins before its calls end.  A whole answer says how long it is, or has no body.
        if b"content-length" in names or message.get("status") in (204, 304):
            ours += known_headers(self._usage)
        return there + [pair for pair in ours if pair[0] not in names]


def _is_events(message: Message) -> bool:
    """Whether an answer is a stream of events that text can be added to."""
    kind = b"".join(header_values(message, b"content-type")[:1]).lower()
    names = {bytes(name).lower() for name, _ in message.get("headers") or ()}
    plain = not names & {b"content-encoding", b"content-length"}
    return kind.partition(b";")[0].strip() == b"text/event-stream" and plain
