"""``usage_app``: the dashboard as a Starlette application, to be mounted or served.

Owns the routes, who may use them, and the headers of every answer.  What is in an answer is
``service``'s; the loop only passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from litellm_ledger._asgi.health import UsageHealth
from litellm_ledger._errors import MissingExtra
from litellm_ledger._reports.places import place_of

try:
    import jinja2
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import RedirectResponse, Response, StreamingResponse
    from starlette.routing import Route
except ModuleNotFoundError as exc:
    raise MissingExtra(exc.name or "starlette", "web") from exc


from .asks import ASKS
from .assets import ASSETS, assets
from .events import Broadcast, stream
from .late import Late, opened_by_browser
from .mounting import Mounted
from .openapi import description
from .service import JSON, Asked, Reply, complaint
from .verifying import Verifier, progress_page
from .viewer import Viewer
from .worker import Workers

__all__ = ["usage_app"]

See = Callable[[Request], Awaitable[Viewer | None]]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
_PAGES: Final = {"": "overview", "explore": "explore", "live": "live", "ledger": "ledger"}
_OPERATORS: Final = frozenset({"ledger"})
_JINJA: Final = jinja2.__version__
"""Pages need it, in the process that makes them: what is missing is said here."""
if find_spec("numpy") is None:  # so does what adds up; nothing here does
    raise MissingExtra("numpy", "web")


def usage_app(
    path: str | os.PathLike[str],
    *,
    viewer: See,
    process: bool = True,
) -> Starlette:
    """Make the dashboard of a ledger, for ``app.mount("/usage", usage_app("usage/", viewer=…))``.

    Args:
        path: the directory of the ledger, which need not exist yet, or the URL of a database or of
            a prefix in object storage.
        viewer: an async function of a Starlette ``Request`` that returns the ``Viewer`` who is
            asking, or ``None`` (answered by 401).  It is called for every request but those for
            style sheet, script and ``health`` (see ``UsageHealth``), and may raise Starlette's
            ``HTTPException``.
        process: compute answers in a process of its own, which begins with the first request and
            ends with the application; with ``False`` on threads.

    Raises:
        TypeError: ``viewer`` is no function.
        ValueError: a URL that no ledger is read from.
        MissingExtra: Starlette or Jinja2 is not installed (the extra ``web``).

    A request that is cancelled leaves its answer to others who wait for the same one.
    """
    if not callable(viewer):
        raise TypeError("viewer= is an async function of a request that returns a Viewer or None")
    place = place_of(path)
    root = place if isinstance(place, Path) else None
    return _Dashboard(os.fspath(path), root, viewer, process=process).app


class _Dashboard:
    def __init__(self, ledger: str, root: Path | None, viewer: See, *, process: bool) -> None:
        self._viewer = viewer
        self._news = Broadcast()
        self._workers = Workers(ledger, process=process, hear=self._news.hear)
        self._news.listen = self._workers.listen
        self._late = Late(self._workers.ask)
        self._verifier = Verifier(ledger)
        api = [
            Route(f"/api/{what}", self._api(what), name=what)
            for what in ASKS
            if what != "operation"
        ]
        self.app = Starlette(
            routes=[
                *(Route(f"/{path}", self._page(what)) for path, what in _PAGES.items()),
                Route("/operations/{id}", self._page("operation")),
                *api,
                Route("/api/operations/{id}", self._api("operation")),
                Route("/api/events", self._events),
                Route("/api/verify", self._verify),
                Route("/verify", self._verify_page),
                Route("/api/openapi.json", self._openapi),
                Route("/health", _alive if root is None else UsageHealth(ledger=root)),
                Route(f"/{ASSETS}/{{name}}", self._asset),
            ],
            middleware=[Middleware(Mounted)],
            exception_handlers={HTTPException: self._refused},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - Starlette's
        try:
            yield
        finally:
            self._late.close()
            self._news.close()
            await asyncio.to_thread(self._workers.close)

    # -- who -----------------------------------------------------------------------------------

    async def _who(self, request: Request, *, operator: bool = False) -> Viewer:
        found = await self._viewer(request)
        if found is None:
            raise HTTPException(401, "this application does not know who is asking: sign in first")
        if not isinstance(found, Viewer):
            raise TypeError(f"viewer= returned {type(found).__name__}, not a Viewer or None")
        if operator and not found.operator:
            raise HTTPException(403, "only an operator may see this")
        return found

    async def _refused(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        codes = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "not_allowed"}
        reply = complaint(exc.status_code, codes.get(exc.status_code, "refused"), str(exc.detail))
        if not _is_api(request):
            from .pages import wrong

            html = wrong(
                exc.status_code, str(exc.detail), operator=False, up=_up(request), bare=True
            )
            reply = Reply(
                status=exc.status_code, type="text/html; charset=utf-8", body=html.encode()
            )
        return _response(reply, exc.headers)

    # -- answers -------------------------------------------------------------------------------

    def _api(self, what: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await self._asked("api", what, request)

        return answer

    def _page(self, what: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not _with_slash(request):
                query = f"?{request.url.query}" if request.url.query else ""
                last = request.scope["path"].rsplit("/", 1)[-1]
                return RedirectResponse(f"{last}/{query}", headers=_HEADERS)
            return await self._asked("page", what, request)

        return answer

    async def _asked(self, kind: str, what: str, request: Request) -> Response:
        who = await self._who(request, operator=what in _OPERATORS)
        given = _given(request)
        if what == "operation":
            given = [*(pair for pair in given if pair[0] != "id"), ("id", _id(request))]
        asked = Asked(
            kind=kind,
            what=what,
            given=given,
            scope=who.scope,
            up=_up(request),
            gzip="gzip" in request.headers.get("accept-encoding", ""),
        )
        if kind != "page" or not opened_by_browser(request.headers):
            return _response(await self._workers.ask(asked))
        found = await self._late.answer(asked)
        if not isinstance(found, float):
            return _response(found)
        from .pages import waiting

        html = waiting(what, found, operator=who.operator, up=asked.up)
        reply = Reply(status=200, type="text/html; charset=utf-8", body=html.encode())
        return _response(reply, {"refresh": "1"})

    async def _openapi(self, request: Request) -> Response:
        await self._who(request)
        return _response(Reply(status=200, type=JSON, body=json.dumps(description()).encode()))

    async def _asset(self, request: Request) -> Response:
        found = assets().get(request.path_params["name"])
        if found is None:
            raise HTTPException(404, "there is no such file")
        packs = "gzip" in request.headers.get("accept-encoding", "")
        headers = {**_HEADERS, "cache-control": _FOREVER, "vary": "accept-encoding"}
        if packs:
            headers["content-encoding"] = "gzip"
        return Response(found.packed if packs else found.data, 200, headers, found.type)

    # -- streams -------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        who = await self._who(request)
        _plain(request)
        since = request.headers.get("last-event-id")
        events = stream(self._news, self._workers.ask, who.scope, since)
        return _sse(events)

    async def _verify(self, request: Request) -> Response:
        await self._who(request, operator=True)
        _plain(request)
        _same_site(request)
        return _sse(self._verifier.events())

    async def _verify_page(self, request: Request) -> Response:
        await self._who(request, operator=True)
        _plain(request)
        _same_site(request)
        return StreamingResponse(
            progress_page(self._verifier, up=_up(request)),
            200,
            _HEADERS,
            "text/html; charset=utf-8",
        )


async def _alive(request: Request) -> Response:  # noqa: ARG001 - Starlette's
    """Say that the dashboard runs: nothing is recorded here."""
    return _response(Reply(status=200, type=JSON, body=b'{"ok":true,"checks":{}}'))


def _sse(events: AsyncIterator[bytes]) -> Response:
    headers = {**_HEADERS, "x-accel-buffering": "no"}
    return StreamingResponse(events, 200, headers, "text/event-stream")


def _response(reply: Reply, more: Mapping[str, str] | None = None) -> Response:
    headers = {**_HEADERS, **dict(reply.headers), "vary": "accept-encoding, cookie", **(more or {})}
    return Response(reply.body, reply.status, headers, reply.type)


def _given(request: Request) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in request.query_params.multi_items()]


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _plain(request: Request) -> None:
    """Refuse parameters where there are none."""
    if request.query_params:
        raise HTTPException(422, "this takes no parameters")


def _same_site(request: Request) -> None:
    """Refuse what takes long to a page of another site."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "another site may not ask for this")


def _inner(request: Request) -> str:
    """The path below where the dashboard is mounted."""
    path: str = request.scope["path"]
    root: str = request.scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def _up(request: Request) -> str:
    return "../" * max(0, _inner(request).count("/") - 1)


def _with_slash(request: Request) -> bool:
    """Whether links of the page lead below it: not if it is the root without its slash."""
    return _inner(request) != ""


def _is_api(request: Request) -> bool:
    return _inner(request).startswith("/api/")
