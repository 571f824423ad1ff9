"""`UsageTagsMiddleware`: whose a call is, for all that a request starts, and for nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route
from tests import fakes
from tests.runs import usage

from litellm_ledger import InvalidRecord, Ledger, LiteLLMClient, ResponseCache, UsageTracker
from litellm_ledger._asgi.identity import header_value, sane_request_id, trace_id
from litellm_ledger._tracking.tags import current_request
from litellm_ledger.asgi import RequestUsage, UsageTagsMiddleware, detached

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer ones would rather have httpx2 than httpx
    from fastapi.testclient import TestClient

Headers = Mapping[str, str]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> fakes.FakeLiteLLM:
    return fakes.install(monkeypatch)


@pytest_asyncio.fixture
async def client(tmp_path: Path, litellm: fakes.FakeLiteLLM) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path, tags={"env": "test"}) as client:
        yield client


def http_scope(path: str = "/", headers: Headers | None = None, **more: Any) -> dict[str, Any]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
    return {**scope, "query_string": b"", "root_path": "", "headers": pairs, **more}


async def ask(
    app: Callable[..., Awaitable[None]],
    path: str = "/",
    headers: Headers | None = None,
    **more: Any,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request through an application, as a server would; return the answer."""
    sent: list[Any] = []
    over = asyncio.Event()
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app(http_scope(path, headers, **more), receive, send)
    finally:
        over.set()
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return (
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        body,
    )


async def until(happens: Callable[[], object]) -> None:
    """Let others run until something happens, within a bound that is never reached."""
    for _ in range(10_000):
        if happens():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def call(client: LiteLLMClient, **tags: str) -> Any:
    return await client.acompletion(model="m", messages=[], tags=tags or None)


def tags_on(root: Path) -> list[dict[str, str]]:
    return [
        {name: value for name, value in (record.tags or {}).items() if name != "env"}
        for record in Ledger(root).records()
    ]


# -- whose tags --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_every_source_of_tags_and_the_one_nearest_to_the_call_wins(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    app = FastAPI()

    @app.get("/chats/{chat}")
    async def chat(chat: str, request: Request) -> None:
        request.state.user = "alice"
        await call(client)
        with client.tag(tenant="scoped", user="scoped"):
            await call(client, user="own")

    wrapped = UsageTagsMiddleware(
        app,
        tags=lambda scope: {"user": scope["state"].get("user"), "n": 7, "env": "request"},
        from_headers={"X-Tenant": "tenant", "X-Missing": "missing"},
        request_id="request",
        trace_id="trace",
    )
    headers = {"x-tenant": "acme", "X-Request-ID": "r-1", "traceparent": TRACE}
    await ask(wrapped, "/chats/17", headers)
    first, second = (record.tags for record in Ledger(tmp_path).records())
    common = {"env": "request", "n": "7", "request": "r-1", "route": "/chats/{chat}"}
    common["trace"] = "0af7651916cd43dd8448eb211c80319c"
    assert first == {**common, "tenant": "acme", "user": "alice"}
    assert second == {**common, "tenant": "scoped", "user": "own"}


@pytest.mark.asyncio
async def test_an_async_function_is_awaited_before_the_application_and_may_refuse(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    seen = []

    async def who(scope: Any) -> dict[str, str]:
        await asyncio.sleep(0)
        seen.append(current_request())
        if scope["path"] == "/refused":
            raise PermissionError("not you")
        return {"user": "alice"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await call(client)
        await PlainTextResponse("ok")(scope, receive, send)

    class Who:
        async def __call__(self, scope: Any) -> dict[str, str]:
            return await who(scope)

    for function in (who, Who()):
        await ask(UsageTagsMiddleware(app, tags=function))
    with pytest.raises(PermissionError, match="not you"):
        await ask(UsageTagsMiddleware(app, tags=who), "/refused")
    assert tags_on(tmp_path) == [{"user": "alice"}] * 2
    assert seen == [None] * 3


@pytest.mark.asyncio
async def test_what_a_function_for_tags_raises_keeps_the_call_from_leaving(
    client: LiteLLMClient, litellm: fakes.FakeLiteLLM, tmp_path: Path
) -> None:
    """A call that could be charged to nobody is not made; no slot and no count is left behind."""
    limited = LiteLLMClient(tmp_path / "limited", max_concurrency=1)
    cached = LiteLLMClient(tmp_path / "cached", cache=ResponseCache())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for one in (client, limited, limited, cached):
            with pytest.raises(KeyError):
                await call(one)
        with pytest.raises(KeyError):
            await client.usage.record(usage())
        with pytest.raises(KeyError):
            client.usage.record_nowait(usage())
        assert scope["state"]["usage"].in_flight == 0

    with pytest.raises(IndexError):  # the application has not answered
        await ask(UsageTagsMiddleware(app, tags=lambda scope: {"user": scope["nobody"]}))
    assert litellm.calls == 0
    async with limited, cached:
        await call(limited)
        assert limited.statistics().active == 0
    assert tags_on(tmp_path) == []


@pytest.mark.asyncio
async def test_a_plain_function_that_returns_an_awaitable_is_refused_by_name(
    client: LiteLLMClient,
) -> None:
    async def later() -> dict[str, str]:
        return {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(TypeError, match="no 'async def'"):
            await call(client)
        await PlainTextResponse("ok")(scope, receive, send)

    await ask(UsageTagsMiddleware(app, tags=lambda scope: later()))


def test_what_cannot_work_is_refused_when_the_middleware_is_made() -> None:
    async def app(*_: Any) -> None: ...

    with pytest.raises(InvalidRecord, match="'x'"):
        UsageTagsMiddleware(app, tags={"x": object()})
    with pytest.raises(TypeError, match="a mapping or a function"):
        UsageTagsMiddleware(app, tags=17)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one line"):
        UsageTagsMiddleware(app, event="usage\ndata: x")


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (TRACE, "0af7651916cd43dd8448eb211c80319c"),
        (TRACE[:-2] + "00", "0af7651916cd43dd8448eb211c80319c"),
        ("cc" + TRACE[2:] + "-what-the-future-brings", "0af7651916cd43dd8448eb211c80319c"),
        ("cc" + TRACE[2:], "0af7651916cd43dd8448eb211c80319c"),
        (TRACE + "-more", None),  # not in version 00
        ("cc" + TRACE[2:] + "more", None),
        ("ff" + TRACE[2:], None),
        (TRACE.upper(), None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        (TRACE[:36] + "0" * 16 + TRACE[52:], None),
        (TRACE[:-1], None),
        (TRACE[1:], None),
        ("", None),
        ("00-xyz", None),
    ],
)
def test_a_traceparent_is_taken_by_the_rules_of_the_w3c(value: str, found: str | None) -> None:
    assert trace_id(http_scope(headers={"traceparent": value})) == found


def test_two_traceparents_are_none() -> None:
    twice = [(b"traceparent", TRACE.encode())] * 2
    assert trace_id({"headers": twice}) is None


@pytest.mark.parametrize(
    ("value", "sane"),
    [
        ("r-1", True),
        ("a" * 128, True),
        ("018f:a/b+c=.~@_", True),
        ("a" * 129, False),
        ("-begins", False),
        ("two words", False),
        ("<script>", False),
        ("", False),
        ("ü", False),
    ],
)
def test_a_request_id_is_taken_if_it_could_be_one(value: str, sane: bool) -> None:
    assert sane_request_id(http_scope(headers={"X-Request-ID": value})) == (value if sane else None)


@pytest.mark.asyncio
async def test_a_request_without_a_sane_id_gets_one_of_its_own() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["usage"].request_id)
        await PlainTextResponse("ok")(scope, receive, send)

    wrapped = UsageTagsMiddleware(app, headers=True)
    for given in ("r-1", "two words", "two words"):
        _, headers, _ = await ask(wrapped, headers={"X-Request-ID": given})
        assert headers["x-request-id"] == seen[-1]
    assert seen[0] == "r-1"
    assert len({*seen}) == 3
    assert all(len(made) == 32 for made in seen[1:])


@pytest.mark.parametrize("value", ["x" * 257, "two\tlines", "", "  ", "\x7f"])
def test_a_header_that_is_too_long_or_not_printable_is_no_tag(value: str) -> None:
    assert header_value(http_scope(headers={"x-tenant": value}), b"x-tenant") is None


def test_a_header_that_is_there_twice_is_no_tag() -> None:
    assert header_value({"headers": [(b"x", b"a"), (b"x", b"b")]}, b"x") is None
    assert header_value({"headers": [(b"x", b" a ")]}, b"x") == "a"


# -- the route ---------------------------------------------------------------------------------


async def spend(client: LiteLLMClient) -> None:
    await call(client)


@pytest.mark.asyncio
async def test_the_route_is_the_template_that_the_router_has_chosen(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    async def endpoint(request: Request) -> Response:
        await call(client)
        return PlainTextResponse("ok")

    inner = FastAPI()
    inner.add_api_route("/deep/{x}", endpoint, response_model=None)
    sub = APIRouter(prefix="/sub")
    sub.add_api_route("/{y}", endpoint, response_model=None)
    router = APIRouter(prefix="/v1/{version}")
    router.add_api_route("/chats/{chat}", endpoint, response_model=None)
    router.include_router(sub, prefix="/in")
    app = FastAPI()
    app.include_router(router, prefix="/api")
    app.add_api_route("/plain", endpoint, response_model=None)
    app.mount("/mounted/{tenant}", inner)
    app.mount(
        "/starlette",
        Starlette(routes=[Mount("/a", Starlette(routes=[Route("/{id:int}", endpoint)]))]),
    )
    app.add_middleware(UsageTagsMiddleware)
    asked = {
        "/plain": "/plain",
        "/api/v1/2/chats/17": "/api/v1/{version}/chats/{chat}",
        "/api/v1/2/in/sub/z": "/api/v1/{version}/in/sub/{y}",
        "/mounted/acme/deep/1": "/mounted/{tenant}/deep/{x}",
        "/starlette/a/5": "/starlette/a/{id:int}",
    }
    for path in asked:
        assert (await ask(app, path))[0] == 200, path
        assert (await ask(app, f"/behind{path}", root_path="/behind"))[0] == 200, path
    found = [tags.get("route") for tags in tags_on(tmp_path)]
    assert found == [route for route in asked.values() for _ in range(2)]


@pytest.mark.asyncio
async def test_before_the_router_has_chosen_there_is_no_route(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    app = FastAPI()

    @app.get("/x")
    async def x() -> None:
        await call(client)

    async def early(request: Request, call_next: Any) -> Response:
        await call(client)
        answer: Response = await call_next(request)
        return answer

    app.add_middleware(BaseHTTPMiddleware, dispatch=early)
    app.add_middleware(UsageTagsMiddleware, route="where")
    await ask(app, "/x")
    await ask(app, "/not-there")
    assert tags_on(tmp_path) == [{}, {"where": "/x"}, {}]


@pytest.mark.asyncio
async def test_a_router_that_says_only_the_endpoint_is_understood_where_that_is_one_route(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    """Starlette before 1.0."""

    async def one() -> None: ...
    async def twice() -> None: ...

    routes = [
        SimpleNamespace(path="/one/{x}", endpoint=one),
        SimpleNamespace(
            path="/in", app=SimpleNamespace(routes=[SimpleNamespace(path="/a", endpoint=twice)])
        ),
        SimpleNamespace(path="/b", endpoint=twice),
    ]

    class App:
        def __init__(self) -> None:
            self.routes = routes

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            for endpoint in (one, twice, None):
                scope["endpoint"] = endpoint
                await call(client)
            scope["path_template"] = "/litestar/{x}"
            await call(client)
            await PlainTextResponse("ok")(scope, receive, send)

    await ask(UsageTagsMiddleware(UsageTagsMiddleware(App(), route=None)))
    found = [tags.get("route") for tags in tags_on(tmp_path)]
    assert found == ["/one/{x}", None, None, "/litestar/{x}"]


# -- how far they reach ------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_all_that_a_request_starts_is_its_own_and_nothing_of_it_is_the_next_ones(
    client: LiteLLMClient, tmp_path: Path, litellm: fakes.FakeLiteLLM
) -> None:
    """Many at once, with streams, background tasks, threads and tasks that outlive them."""
    app = FastAPI()
    outliving: set[asyncio.Task[Any]] = set()
    release = asyncio.Event()

    async def tagged(request: Request) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield
        await call(client, what="dependency")

    @app.get("/all", dependencies=[Depends(tagged)])
    async def endpoint(request: Request, tasks: BackgroundTasks) -> StreamingResponse:
        await call(client, what="endpoint")

        async def detached_task() -> None:
            await release.wait()
            await call(client, what="task")

        outliving.add(asyncio.create_task(detached_task()))
        await asyncio.gather(*(call(client, what="gathered") for _ in range(2)))
        loop = asyncio.get_running_loop()

        def in_thread() -> None:
            asyncio.run_coroutine_threadsafe(client.flush(), loop).result()
            client.usage.record_threadsafe(usage(tags={"what": "thread"})).result()

        await asyncio.to_thread(in_thread)

        async def body() -> AsyncIterator[str]:
            for _ in range(2):
                await asyncio.sleep(0)
                await call(client, what="stream")
                yield "x"

        async def background() -> None:
            await asyncio.sleep(0)
            await call(client, what="background")

        tasks.add_task(background)
        return StreamingResponse(body(), background=tasks)

    usages: list[RequestUsage] = []

    async def observe(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        usages.append(scope["state"]["usage"])

    wrapped = UsageTagsMiddleware(observe, from_headers={"x-user": "user"})
    users = [f"user-{number}" for number in range(8)]
    answers = await asyncio.gather(*(ask(wrapped, "/all", {"x-user": user}) for user in users))
    assert [status for status, _, _ in answers] == [200] * 8
    assert [one.calls for one in usages] == [8] * 8
    release.set()
    await asyncio.gather(*outliving)
    assert [one.calls for one in usages] == [9] * 8
    assert {one.cost for one in usages} == {9 * Decimal("0.02")}
    found = [(tags["user"], tags["what"]) for tags in tags_on(tmp_path)]
    kinds = ["background", "dependency", "endpoint", "gathered", "gathered", "stream", "stream"]
    kinds += ["task", "thread"]
    for user in users:
        assert sorted(what for who, what in found if who == user) == kinds
    assert current_request() is None


@pytest.mark.asyncio
async def test_a_request_that_the_last_one_has_started_is_not_the_last_ones(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    """As uvicorn starts a pipelined request: from the ``send`` that ended the one before it."""
    seen: list[Any] = []
    next_ones: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await call(client)
        await PlainTextResponse("ok")(scope, receive, send)

    async def bare(*_: Any) -> None:
        seen.append(current_request())
        await call(client)

    async def send(message: Any) -> None:
        seen.append(current_request())
        if message["type"] == "http.response.body":
            next_ones.append(asyncio.create_task(wrapped(http_scope("/2"), receive, quiet)))
            next_ones.append(asyncio.create_task(bare()))

    async def quiet(message: Any) -> None:
        seen.append(current_request())

    async def receive() -> Any:
        seen.append(current_request())
        return {"type": "http.request", "body": b"", "more_body": False}

    wrapped = UsageTagsMiddleware(app, tags=lambda scope: {"path": scope["path"]})
    await wrapped(http_scope("/1"), receive, send)
    await asyncio.gather(*next_ones)
    assert seen == [None] * len(seen)
    assert sorted(tags.get("path", "none") for tags in tags_on(tmp_path)) == ["/1", "/2", "none"]


@pytest.mark.asyncio
async def test_a_lifespan_is_no_request_and_neither_is_what_it_starts(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert current_request() is None
        await call(client)

    leaked = RequestUsage(tags=lambda: {"leaked": "yes"})
    with leaked.attach():
        await UsageTagsMiddleware(app)({"type": "lifespan", "state": {}}, None, None)  # type: ignore[arg-type]
    assert leaked.calls == 0
    assert tags_on(tmp_path) == [{}]


@pytest.mark.asyncio
async def test_a_pool_of_workers_takes_the_request_along_with_the_work(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    """Started by the first request, it lives in that request's context, unless ``detached``."""
    queue: asyncio.Queue[tuple[RequestUsage, asyncio.Event]] = asyncio.Queue()
    pool: list[asyncio.Task[Any]] = []

    async def worker() -> None:
        assert current_request() is None
        while True:
            request, done = await queue.get()
            with request.attach():
                await call(client)
            done.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not pool:
            with detached():
                pool.extend(asyncio.create_task(worker()) for _ in range(2))
        done = asyncio.Event()
        queue.put_nowait((scope["state"]["usage"], done))
        await done.wait()
        await PlainTextResponse("ok")(scope, receive, send)

    wrapped = UsageTagsMiddleware(app, tags=lambda scope: {"path": scope["path"]})
    paths = [f"/{number}" for number in range(6)]
    await asyncio.gather(*(ask(wrapped, path) for path in paths))
    assert sorted(tags["path"] for tags in tags_on(tmp_path)) == paths
    for task in pool:
        task.cancel()


@pytest.mark.asyncio
async def test_what_a_client_starts_in_a_request_belongs_to_no_request(
    tmp_path: Path, litellm: fakes.FakeLiteLLM
) -> None:
    """A client that is opened by the first call lives on after the request that made it."""
    client = LiteLLMClient(tmp_path)
    whose: dict[str, Any] = {}

    def make_task(loop: Any, work: Any, **given: Any) -> Any:
        context = given.get("context") or contextvars.copy_context()
        whose[work.__qualname__] = context.run(current_request)
        return asyncio.Task(work, loop=loop, **given)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().set_task_factory(make_task)
        litellm.result = lambda: fakes.Stream(3)
        stream = await client.acompletion(model="m", messages=[], stream=True)
        await anext(stream)
        await stream.aclose()
        asyncio.get_running_loop().set_task_factory(None)
        await PlainTextResponse("ok")(scope, receive, send)

    await ask(UsageTagsMiddleware(app, tags={"user": "alice"}))
    assert len(whose) >= 2  # the writer, the end of the stream
    lasting = whose.keys() - {"Writer._open"}
    assert {name for name in lasting if whose[name] is not None} == set()
    litellm.result = fakes.answer
    await call(client)
    await client.aclose()
    assert sorted(map(str, tags_on(tmp_path))) == ["{'user': 'alice'}", "{}"]


def test_a_websocket_is_one_request_and_the_next_connection_another(tmp_path: Path) -> None:
    tracker = UsageTracker(tmp_path)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with tracker:
            await tracker.record(usage("lifespan"))
            yield

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws/{room}")
    async def ws(socket: WebSocket, room: str) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await tracker.record(usage())
            await socket.send_json(socket.state.usage.calls)

    app.add_middleware(UsageTagsMiddleware, from_headers={"x-user": "user"})
    with TestClient(app) as http:
        for user, asked in (("alice", 3), ("bob", 2)):
            with http.websocket_connect("/ws/7", headers={"x-user": user}) as socket:
                for number in range(1, asked + 1):
                    socket.send_text("?")
                    assert socket.receive_json() == number
    ws_tags = {"route": "/ws/{room}"}
    expected = [{}, *[{**ws_tags, "user": "alice"}] * 3, *[{**ws_tags, "user": "bob"}] * 2]
    assert tags_on(tmp_path) == expected


@pytest.mark.asyncio
async def test_one_inside_the_other_adds_its_tags_and_both_see_the_totals(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    usages: list[RequestUsage] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        usages.append(scope["state"]["usage"])
        await call(client)
        await PlainTextResponse("ok")(scope, receive, send)

    inner = UsageTagsMiddleware(app, tags={"a": "inner", "b": "inner"}, request_id="id")

    async def around(scope: Any, receive: Any, send: Any) -> None:
        usages.append(scope["state"]["usage"])
        await inner(scope, receive, send)

    await ask(UsageTagsMiddleware(around, tags={"b": "outer", "c": "outer"}))
    outer_usage, inner_usage = usages
    assert outer_usage is not inner_usage
    assert outer_usage.request_id == inner_usage.request_id
    assert outer_usage.calls == inner_usage.calls == 1
    assert (outer_usage.in_flight, inner_usage.in_flight) == (0, 0)
    expected = {"a": "inner", "b": "inner", "c": "outer", "id": outer_usage.request_id}
    assert tags_on(tmp_path) == [expected]


# -- totals ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_totals_are_live_and_count_every_way_that_a_call_ends(
    client: LiteLLMClient, litellm: fakes.FakeLiteLLM, tmp_path: Path
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = scope["state"]["usage"]
        assert (seen.calls, seen.cost, seen.total_tokens, seen.in_flight) == (0, 0, 0, 0)
        litellm.gate = gate = fakes.Gate()
        task = asyncio.create_task(call(client))
        await gate.entered.wait()
        assert (seen.calls, seen.in_flight) == (0, 1)
        gate.leave.set()
        await task
        litellm.gate = None
        assert (seen.calls, seen.in_flight, seen.cost) == (1, 0, Decimal("0.02"))
        assert (seen.input_tokens, seen.output_tokens, seen.total_tokens) == (100, 50, 150)
        litellm.result = lambda: ValueError("refused")
        with pytest.raises(ValueError, match="refused"):
            await call(client)
        assert (seen.calls, seen.totals().error) == (2, 1)
        litellm.gate = gate = fakes.Gate()
        task = asyncio.create_task(call(client))
        await gate.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        litellm.gate = None
        assert (seen.calls, seen.totals().cancelled, seen.in_flight) == (3, 1, 0)
        litellm.result = lambda: fakes.Stream(3)
        async for _ in await client.acompletion(model="m", messages=[], stream=True):
            assert seen.in_flight == 1
        assert (seen.calls, seen.totals().ok, seen.in_flight) == (4, 2, 0)
        stream = await client.acompletion(model="m", messages=[], stream=True)
        await anext(stream)
        del stream
        gc.collect()
        await client.flush()
        await until(lambda: not seen.in_flight)
        assert (seen.calls, seen.totals().abandoned) == (5, 1)
        await client.usage.record(usage())
        client.usage.record_nowait(usage())
        assert seen.calls == 7
        await PlainTextResponse("ok")(scope, receive, send)

    await ask(UsageTagsMiddleware(app, tags={"user": "alice"}))
    await client.flush()
    assert tags_on(tmp_path) == [{"user": "alice"}] * 7


@pytest.mark.asyncio
async def test_a_call_that_is_cancelled_before_it_leaves_counts_as_on_the_ledger(
    tmp_path: Path, litellm: fakes.FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while its ``started`` record waits for the disk, it is on record as cancelled."""
    begins = RequestUsage.begins

    def begins_and_is_cancelled(self: RequestUsage) -> None:
        begins(self)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    monkeypatch.setattr(RequestUsage, "begins", begins_and_is_cancelled)
    async with LiteLLMClient(tmp_path, durability="synced") as client:
        usages: list[RequestUsage] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            usages.append(scope["state"]["usage"])
            await asyncio.wait({asyncio.create_task(call(client))})
            await PlainTextResponse("ok")(scope, receive, send)

        await ask(UsageTagsMiddleware(app))
        assert (usages[0].calls, usages[0].in_flight) == (1, 0)
    assert [record.status for record in Ledger(tmp_path).records()] == ["cancelled"]
    assert litellm.calls == 0


def test_adding_up_takes_records_from_any_thread_and_loses_none() -> None:
    totals = RequestUsage()
    readers_done = threading.Event()

    def record() -> None:
        for _ in range(500):
            totals.begins()
            totals.ends(usage())

    def read() -> None:
        while not readers_done.is_set():
            assert totals.totals().calls <= 2_000

    threads = [threading.Thread(target=record) for _ in range(4)]
    reader = threading.Thread(target=read)
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    readers_done.set()
    reader.join()
    assert (totals.calls, totals.in_flight, totals.cost) == (2_000, 0, Decimal(40))


def test_a_record_that_ends_while_the_sums_are_read_is_not_waited_for() -> None:
    """From a finalizer that runs inside of ``totals``, on the same thread."""
    totals = RequestUsage()
    totals.begins()
    with totals._lock:
        totals.ends(usage())
    assert totals.calls == 1


# -- what an answer says -----------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_plain_answer_says_what_is_known_and_a_stream_does_not(
    client: LiteLLMClient, litellm: fakes.FakeLiteLLM
) -> None:
    app = FastAPI()
    waiting: set[asyncio.Task[Any]] = set()

    @app.get("/{what}")
    async def endpoint(what: str) -> Response:
        await call(client)
        if what == "unpriced":
            await client.usage.record(usage(cost=None))
        if what == "uncounted":
            await client.usage.record(usage(input_tokens=None, output_tokens=None))
        if what == "estimated":
            await client.usage.record(usage(usage_source="estimated"))
        if what == "in-flight":
            litellm.gate = fakes.Gate()
            waiting.add(asyncio.create_task(call(client)))
            await litellm.gate.entered.wait()
        if what == "stream":
            return StreamingResponse(iter(["x"]))
        if what == "empty":
            return Response(status_code=204)
        return JSONResponse({}, headers={"x-llm-calls": "mine"} if what == "own" else None)

    app.add_middleware(UsageTagsMiddleware, headers=True)

    async def said(what: str) -> dict[str, str]:
        _, headers, _ = await ask(app, f"/{what}")
        prefix = "x-llm-"
        return {
            name.removeprefix(prefix): it for name, it in headers.items() if name.startswith(prefix)
        }

    tokens = {"input-tokens": "100", "output-tokens": "50"}
    assert await said("plain") == {"calls": "1", **tokens, "cost-usd": "0.02"}
    assert await said("empty") == await said("plain")
    assert await said("stream") == {}
    tokens = {"input-tokens": "200", "output-tokens": "100"}
    assert await said("unpriced") == {"calls": "2", **tokens}
    assert await said("uncounted") == {"calls": "2", "cost-usd": "0.04"}
    assert await said("estimated") == {
        "calls": "2",
        **tokens,
        "cost-usd": "0.04",
        "calls-estimated": "1",
    }
    assert (await said("own"))["calls"] == "mine"
    assert await said("in-flight") == {"calls": "1", "calls-in-flight": "1"}
    assert litellm.gate is not None
    litellm.gate.leave.set()
    await asyncio.gather(*waiting)


@pytest.mark.asyncio
async def test_headers_are_added_only_where_asked_for(client: LiteLLMClient) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await call(client)
        await PlainTextResponse("ok")(scope, receive, send)

    _, headers, _ = await ask(UsageTagsMiddleware(app))
    assert sorted(headers) == ["content-length", "content-type"]


@pytest.mark.parametrize(
    ("kind", "more", "added"),
    [
        ("text/event-stream", {}, True),
        ("Text/Event-Stream; charset=utf-8", {}, True),
        ("text/plain", {}, False),
        ("text/event-stream", {"content-encoding": "gzip"}, False),
        ("text/event-stream", {"content-length": "9"}, False),
    ],
)
@pytest.mark.asyncio
async def test_a_stream_of_events_ends_with_what_its_calls_used(
    client: LiteLLMClient, kind: str, more: dict[str, str], added: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def body() -> AsyncIterator[str]:
            yield "data: x\n\n"
            await call(client)

        answer = StreamingResponse(body(), headers={"content-type": kind, **more})
        await answer(scope, receive, send)

    _, _, content = await ask(UsageTagsMiddleware(app, event="usage"))
    first, _, last = content.decode().partition("\n\n")
    assert first == "data: x"
    if not added:
        assert last == ""
        return
    name, _, data = last.rstrip("\n").partition("\n")
    assert (name, last[-2:]) == ("event: usage", "\n\n")
    assert json.loads(data.removeprefix("data: ")) == {
        "calls": 1,
        "input_tokens": 100,
        "output_tokens": 50,
        "cost_usd": "0.02",
    }


def test_the_module_needs_no_framework() -> None:
    from tests.unit.test_public_api import loaded_by

    loaded = loaded_by("import litellm_ledger.asgi")
    assert not {"starlette", "fastapi", "litellm", "duckdb"} & loaded


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert current_request() is None
