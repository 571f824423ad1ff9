"""`ledger_lifespan` and `get_client` through Starlette's TestClient; no model is called here."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from tests.runs import calls_of

from litellm_ledger import (
    BudgetExceeded,
    Ledger,
    LedgerClosed,
    LedgerPathError,
    LiteLLMClient,
    MissingExtra,
    UsageRecord,
)
from litellm_ledger.fastapi import Lifespan, budget_response, get_client, ledger_lifespan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer ones would rather have httpx2 than httpx
    from fastapi.testclient import TestClient

Client = Annotated[LiteLLMClient, Depends(get_client)]


@pytest.fixture(autouse=True)
def no_import_of_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def warm_up(self: LiteLLMClient) -> None:
        pass

    monkeypatch.setattr(LiteLLMClient, "warm_up", warm_up)


async def spend(client: LiteLLMClient, user: str) -> UsageRecord:
    with client.tag(user=user):
        return await client.usage.record(UsageRecord(model="m", cost=Decimal("0.5")))


def make_app(lifespan: Lifespan | None, kind: type[Starlette] = FastAPI) -> Starlette:
    """An application with `/spend`, the same one for FastAPI and Starlette."""

    async def endpoint(request: Request) -> Response:
        record = await spend(await get_client(request), request.query_params["user"])
        return JSONResponse({"id": record.id})

    return kind(routes=[Route("/spend", endpoint)], lifespan=lifespan)


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_a_request_gets_the_client_and_its_record_is_on_the_ledger(
    tmp_path: Path, kind: type[Starlette]
) -> None:
    app = make_app(ledger_lifespan(tmp_path, tags={"env": "test"}), kind)
    with TestClient(app) as http:
        client = app.state.ledger_client
        told = http.get("/spend", params={"user": "alice"}).json()["id"]
    (record,) = Ledger(tmp_path).records()
    assert (record.id, record.tags) == (told, {"env": "test", "user": "alice"})
    assert client.statistics().state == "closed"
    assert Ledger(tmp_path).verify().writers[0].clean
    assert not hasattr(app.state, "ledger_client")


def test_depends_gives_the_client_to_http_and_websocket_endpoints(tmp_path: Path) -> None:
    app = FastAPI(lifespan=ledger_lifespan(tmp_path))

    @app.get("/http")
    async def http_endpoint(client: Client, request: Request) -> bool:
        return client is request.state.ledger_client is app.state.ledger_client

    @app.get("/thread")
    def in_a_thread(client: Client) -> str:
        return client.statistics().state

    @app.websocket("/ws")
    async def ws_endpoint(socket: WebSocket, client: Client) -> None:
        await socket.accept()
        record = await spend(client, await socket.receive_text())
        await socket.send_json(record.tags)

    with TestClient(app) as http:
        assert http.get("/http").json() is True
        assert http.get("/thread").json() == "open"
        with http.websocket_connect("/ws") as socket:
            socket.send_text("alice")
            assert socket.receive_json() == {"user": "alice"}


def test_an_endpoint_of_a_mounted_application_gets_the_client(tmp_path: Path) -> None:
    app = Starlette(routes=[Mount("/inner", make_app(None))], lifespan=ledger_lifespan(tmp_path))
    with TestClient(app) as http:
        assert http.get("/inner/spend", params={"user": "alice"}).status_code == 200


# -- without the lifespan ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["not begun", "mounted", "ended"])
def test_without_the_lifespan_the_error_says_what_to_do(tmp_path: Path, kind: str) -> None:
    app = make_app(ledger_lifespan(tmp_path))
    if kind == "mounted":
        app = Starlette(routes=[Mount("/", app)])
    if kind == "ended":
        with TestClient(app):
            pass
    with contextlib.ExitStack() as stack:
        http = TestClient(app)
        if kind == "mounted":  # a running lifespan, but not ours
            stack.enter_context(http)
        with pytest.raises(LedgerClosed, match="lifespan=ledger_lifespan") as caught:
            http.get("/spend", params={"user": "alice"})
    assert "with TestClient(app) as http:" in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "litellm_ledger.fastapi")
    monkeypatch.setitem(sys.modules, "starlette.requests", None)
    with pytest.raises(MissingExtra, match=r"pip install 'litellm-ledger\[fastapi\]'"):
        importlib.import_module("litellm_ledger.fastapi")


# -- the application's own lifespan ------------------------------------------------------------


def test_the_client_is_open_before_the_own_lifespan_and_until_after_it(tmp_path: Path) -> None:
    said = []

    @contextlib.asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        client = app.state.ledger_client
        said.append(client.statistics().state)
        await spend(client, "start")
        yield {"greeting": "hello"}
        await spend(client, "stop")
        said.append(client.statistics().state)

    app = FastAPI(lifespan=ledger_lifespan(tmp_path, lifespan=own))

    @app.get("/greeting")
    async def greeting(request: Request, client: Client) -> str:
        return f"{request.state.greeting} {client.statistics().state}"

    with TestClient(app) as http:
        assert http.get("/greeting").json() == "hello open"
    assert said == ["open", "open"]
    tags = [record.tags for record in Ledger(tmp_path).records()]
    assert tags == [{"user": "start"}, {"user": "stop"}]


@pytest.mark.parametrize("when", ["start", "stop"])
def test_the_client_is_closed_when_the_own_lifespan_fails(tmp_path: Path, when: str) -> None:
    @contextlib.asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        await spend(app.state.ledger_client, "alice")
        if when == "start":
            raise ZeroDivisionError
        yield
        raise ZeroDivisionError

    app = make_app(ledger_lifespan(tmp_path, lifespan=own))
    with pytest.raises(ZeroDivisionError), TestClient(app):
        pass
    (writer,) = Ledger(tmp_path).verify().writers
    assert (writer.found, writer.clean) == (1, True)


# -- options -----------------------------------------------------------------------------------


def test_options_are_those_of_the_client_and_are_checked_where_they_are_given() -> None:
    with pytest.raises(TypeError, match="queue_sise"):
        ledger_lifespan("usage/", queue_sise=5)
    with pytest.raises(TypeError, match="not both"):
        ledger_lifespan("usage/", client=LiteLLMClient)
    with pytest.raises(TypeError, match="not both"):
        ledger_lifespan(client=LiteLLMClient, durability="synced")


def test_a_client_or_a_function_that_makes_one_takes_the_place_of_options(tmp_path: Path) -> None:
    one = LiteLLMClient(tmp_path)
    app = make_app(ledger_lifespan(client=one))
    with TestClient(app):
        assert app.state.ledger_client is one
    with pytest.raises(LedgerClosed), TestClient(app):
        pass

    made: list[LiteLLMClient] = []

    def make() -> LiteLLMClient:
        made.append(LiteLLMClient(tmp_path))
        return made[-1]

    app = make_app(ledger_lifespan(client=make))
    assert not made
    for count in (1, 2):
        with TestClient(app) as http:
            assert app.state.ledger_client is made[-1]
            http.get("/spend", params={"user": "alice"})
        assert len(made) == count
    writers = Ledger(tmp_path).verify().writers
    assert [(writer.found, writer.clean) for writer in writers] == [(1, True)] * 2


def test_a_directory_that_cannot_be_used_keeps_the_application_from_starting(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    app = make_app(ledger_lifespan(tmp_path / "file"))
    with pytest.raises(LedgerPathError), TestClient(app):
        pass


# -- warming up --------------------------------------------------------------------------------


@pytest.fixture
def warm_ups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each warm-up ended; they hang until they are cancelled."""
    ends: list[str] = []

    async def hang(self: LiteLLMClient) -> None:
        ends.append("running")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends[-1] = "cancelled"
            raise

    monkeypatch.setattr(LiteLLMClient, "warm_up", hang)
    return ends


@pytest.mark.parametrize(
    ("wanted", "during", "after"), [(True, ["running"], ["cancelled"]), (False, [], [])]
)
def test_neither_start_nor_stop_waits_for_the_warm_up(
    tmp_path: Path, warm_ups: list[str], wanted: bool, during: list[str], after: list[str]
) -> None:
    with TestClient(make_app(ledger_lifespan(tmp_path, warm_up=wanted))) as http:
        http.get("/spend", params={"user": "alice"})
        assert warm_ups == during
    assert warm_ups == after


def test_a_warm_up_that_fails_is_logged_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: LiteLLMClient) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr(LiteLLMClient, "warm_up", fail)
    with TestClient(make_app(ledger_lifespan(tmp_path))) as http:
        assert http.get("/spend", params={"user": "alice"}).status_code == 200
    (entry,) = (entry for entry in caplog.records if entry.levelno >= logging.WARNING)
    assert "ahead of the first call" in entry.message


# -- calls in flight at the end ----------------------------------------------------------------


async def in_flight(client: LiteLLMClient) -> Any:
    started = UsageRecord(kind="started", model="m", attempt=1)
    return await calls_of(client.usage).start(started, ack_timeout=5)


@pytest.mark.asyncio
async def test_the_end_waits_for_calls_in_flight(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        run = ledger_lifespan(tmp_path, settle_timeout=30)(Starlette())
        client = (await stack.enter_async_context(run))["ledger_client"]
        started = await in_flight(client)

        def end() -> None:
            assert client.statistics().state == "open"
            calls_of(client.usage).end(UsageRecord(model="m", operation=started.operation), started)

        asyncio.get_running_loop().call_later(0.05, end)
    assert client.statistics().state == "closed"
    assert client.statistics().in_flight == 0
    assert Ledger(tmp_path).verify().writers[0].clean


@pytest.mark.asyncio
async def test_the_end_does_not_wait_for_ever_and_takes_late_outcomes(tmp_path: Path) -> None:
    async with ledger_lifespan(tmp_path, settle_timeout=0.05)(Starlette()) as state:
        client = state["ledger_client"]
        started = await in_flight(client)
    assert client.statistics().state == "closed"
    assert client.statistics().in_flight == 1
    calls_of(client.usage).end(UsageRecord(model="m", operation=started.operation), started)
    assert len(list(Ledger(tmp_path).records())) == 1
    assert Ledger(tmp_path).verify().writers[0].clean


@pytest.mark.asyncio
async def test_a_cancelled_lifespan_still_closes_the_client(tmp_path: Path) -> None:
    opened: asyncio.Future[LiteLLMClient] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with ledger_lifespan(tmp_path, settle_timeout=0.05)(Starlette()) as state:
            opened.set_result(state["ledger_client"])
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    client = await opened
    await in_flight(client)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.statistics().state == "closed"


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
@pytest.mark.parametrize(
    ("settled", "status", "retry_after"), [("4.99", 402, None), ("4.90", 429, "1")]
)
def test_a_refused_call_is_402_and_429_where_only_calls_in_flight_are_in_the_way(
    kind: type[Starlette], settled: str, status: int, retry_after: str | None
) -> None:
    refused = BudgetExceeded(
        budget="usd day",
        unit="usd",
        scope="user=alice",
        limit=Decimal("5.00"),
        settled=Decimal(settled),
        held=Decimal("0.09"),
        needed=Decimal("0.02"),
        resets_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    async def endpoint(_: Request) -> Response:
        raise refused

    app = kind(routes=[Route("/", endpoint)])
    app.add_exception_handler(BudgetExceeded, budget_response)
    with TestClient(app) as http:
        answer = http.get("/")
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json() == {"detail": str(refused), **refused.to_dict()}
    assert answer.json()["needed"] == "0.02"


def test_another_error_is_no_refusal_of_a_budget() -> None:
    with pytest.raises(KeyError):
        asyncio.run(budget_response(None, KeyError("x")))  # type: ignore[arg-type]
