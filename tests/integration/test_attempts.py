"""Retries, deadlines and the limit on concurrency, with the server's own log as the witness."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from tests import forked
from tests.arguments import MESSAGES
from tests.arguments import to as asked
from tests.packages import packages
from tests.runs import LITELLM, until

from litellm_ledger import (
    InvalidRecord,
    Ledger,
    LedgerClosed,
    LedgerFailed,
    LiteLLMClient,
    UsageRecord,
)
from litellm_ledger._calls import operation as _operation
from litellm_ledger._calls.options import without_inner_retries
from litellm_ledger._litellm.load import load_sync
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

pytestmark = pytest.mark.asyncio

MODEL = "openai/gpt-4o-mini"


@pytest.fixture(autouse=True)
def cleared(server: OpenAIServer) -> None:
    server.clear()


@pytest.fixture
def broken() -> Iterator[OpenAIServer]:
    # Not every call passes the header on that asks for a behaviour.
    with OpenAIServer(default=Behaviour(status=500)) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def litellm(server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module: Any = load_sync()

    async def first() -> None:  # takes longer than the deadlines of these tests
        async with LiteLLMClient(tmp_path_factory.mktemp("first"), handle_signals=False) as client:
            await client.acompletion(**to(server))

    asyncio.run(first())
    return module


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited between attempts; nobody really waits."""
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(_operation, "sleep", sleep)
    return naps


@pytest.fixture
def client(tmp_path: Path) -> LiteLLMClient:
    return LiteLLMClient(tmp_path, handle_signals=False)


def to(server: OpenAIServer, behaviour: Behaviour | None = None, **more: Any) -> dict[str, Any]:
    headers = {} if behaviour is None else behaviour.headers()
    where = {"api_base": server.base_url, "api_key": "any", "extra_headers": headers}
    return {"model": MODEL, "messages": MESSAGES, **where, **more}


def outcomes(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records())


def begun(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records(kinds=["started"]))


async def under_way(server: OpenAIServer, count: int) -> list[ServedRequest]:
    def so_many(requests: list[ServedRequest]) -> bool:
        return len([request for request in requests if request.ended is None]) == count

    return await asyncio.to_thread(server.wait_for, so_many)


# --- Attempts --------------------------------------------------------------------------------


async def test_each_attempt_is_one_record_of_one_operation(
    client: LiteLLMClient, server: OpenAIServer, slept: list[float], tmp_path: Path
) -> None:
    flaky = Behaviour(status=429, fail_first=2, retry_after=2)
    async with client:
        answer = await client.with_options(max_retries=3).acompletion(**to(server, flaky))
        assert client.statistics().repeated == 2
    assert [request.status for request in server.requests] == [429, 429, 200]
    assert len({json.dumps(request.body) for request in server.requests}) == 1
    assert all(2 <= seconds <= 2.25 for seconds in slept)
    found, started = outcomes(tmp_path), begun(tmp_path)
    assert [record.attempt for record in found] == [record.attempt for record in started]
    assert [record.attempt for record in found] == [1, 2, 3]
    assert {record.operation for record in [*found, *started]} == {started[0].id}
    assert [record.status for record in found] == ["error", "error", "ok"]
    assert [record.error for record in found] == ["RateLimitError", "RateLimitError", None]
    assert [record.usage_source for record in found] == ["none", "none", "provider"]
    assert len({record.call_id for record in [*found, *started]}) == 1
    assert [record.ts for record in found] == [record.ts for record in started]
    assert answer.usage_record == found[-1]  # type: ignore[attr-defined]
    assert client.usage.totals().calls == 3
    assert Ledger(tmp_path).verify().ok


async def test_without_started_records_the_operation_is_the_first_outcome(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, max_retries=1, track_in_flight=False) as client:
        await client.acompletion(**to(server, Behaviour(fail_first=1)))
    first, second = outcomes(tmp_path)
    assert begun(tmp_path) == []
    assert (first.operation, second.operation) == (first.id, first.id)
    assert (first.attempt, second.attempt) == (1, 2)


async def test_started_is_on_disk_before_each_request_leaves(
    client: LiteLLMClient, litellm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_disk: list[list[int | None]] = []

    async def acompletion(**kwargs: Any) -> Any:
        on_disk.append([record.attempt for record in begun(tmp_path)])
        raise litellm.InternalServerError("broken", "openai", "gpt-4o-mini")

    monkeypatch.setattr(litellm, "acompletion", acompletion)
    async with client:
        with pytest.raises(openai.InternalServerError):
            await client.with_options(max_retries=2).acompletion(MODEL, MESSAGES)
    assert on_disk == [[1], [1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("status", "sent"),
    [*((status, 1) for status in (400, 401, 403, 404, 422))]
    + [(status, 2) for status in (408, 409, 500, 503, 529)],
)
async def test_what_is_worth_it_is_sent_again(
    client: LiteLLMClient, server: OpenAIServer, status: int, sent: int, tmp_path: Path
) -> None:
    async with client:
        with pytest.raises(openai.APIError) as caught:
            await client.with_options(max_retries=1).acompletion(
                **to(server, Behaviour(status=status))
            )
    assert caught.value.status_code == status  # type: ignore[attr-defined]
    assert len(server.requests) == len(outcomes(tmp_path)) == sent


async def test_a_missing_key_is_no_reason_to_ask_again(
    client: LiteLLMClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with client:
        with pytest.raises(
            openai.InternalServerError, match="Missing credentials"
        ):  # LiteLLM's 500
            await client.with_options(max_retries=3).acompletion("gpt-4o-mini", MESSAGES)
    assert len(outcomes(tmp_path)) == 1


async def test_time_outs_and_cut_answers_may_be_billed(
    client: LiteLLMClient, server: OpenAIServer, tmp_path: Path
) -> None:
    async with client:
        view = client.with_options(max_retries=1)
        with pytest.raises(openai.APITimeoutError):
            await view.acompletion(**to(server, Behaviour(hang=True), timeout=0.1))
        with pytest.raises(openai.InternalServerError):
            await view.acompletion(**to(server, Behaviour(cut_after=0)))
        with pytest.raises(openai.InternalServerError):
            await view.acompletion(**to(server, api_base="http://127.0.0.1:9/v1"))
    assert Counter(request.ended for request in server.requests) == {"disconnected": 2, "cut": 2}
    found = outcomes(tmp_path)
    assert [record.attempt for record in found] == [1, 2] * 3
    assert [record.usage_source for record in found] == [*["estimated"] * 4, *["none"] * 2]
    for record in found[:4]:
        assert record.input_tokens
        assert record.output_tokens is None
        assert record.cost
        assert record.latency_ms is not None
        assert record.latency_ms < 5000
    assert found[0].latency_ms is not None
    assert found[0].latency_ms >= 100
    assert Ledger(tmp_path).verify().ok


async def test_a_stream_is_tried_again_until_it_is_handed_out(
    client: LiteLLMClient, server: OpenAIServer, tmp_path: Path
) -> None:
    async with client:
        view = client.with_options(max_retries=3)
        stream = await view.acompletion(**to(server, Behaviour(fail_first=1)), stream=True)
        assert [chunk async for chunk in stream]
        assert stream.usage_record is not None
        assert (stream.usage_record.attempt, stream.usage_record.usage_source) == (2, "provider")
        broken = await view.acompletion(**to(server, Behaviour(error_after=2)), stream=True)
        with pytest.raises(openai.OpenAIError):
            async for _ in broken:
                pass
    assert len(server.requests) == 3
    assert [record.status for record in outcomes(tmp_path)] == ["error", "ok", "error"]


async def test_cancelled_while_it_waits_for_the_next_attempt(
    client: LiteLLMClient,
    server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(_operation, "sleep", sleep)
    async with client:
        view = client.with_options(max_retries=3)
        task = asyncio.create_task(view.acompletion(**to(server, Behaviour(status=500))))
        await waits.wait()
        statistics = client.statistics()
        assert (statistics.active, statistics.in_flight) == (0, 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(server.requests) == len(begun(tmp_path)) == len(outcomes(tmp_path)) == 1
    assert Ledger(tmp_path).verify().ok


# --- Whose retries ---------------------------------------------------------------------------


async def test_nothing_retries_below_us(
    client: LiteLLMClient,
    server: OpenAIServer,
    litellm: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(litellm, "num_retries", 2)
    broken = to(server, Behaviour(status=500))
    async with client:
        for view in (client.with_options(max_retries=0), client.with_options(deadline=60)):
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError):
                    await view.acompletion(**broken, stream=stream)
        assert len(server.requests) == len(outcomes(tmp_path)) == 4
        with pytest.raises(openai.InternalServerError):
            await client.with_options(max_retries=2).acompletion(**broken)
    assert len(server.requests) == len(outcomes(tmp_path)) == 7


# LiteLLM passes nothing on to the SDK here, which retries twice; docs/retries.md says so.  With
# images it does since 1.110.
RETRIED = {"amoderation"} | ({"aimage_generation"} if LITELLM < (1, 110) else set())
# Not among them: `atext_completion`, for which LiteLLM opens a connection that it never closes.
SENT = (
    "acompletion",
    "aembedding",
    "aresponses",
    "anthropic_messages",
    "aspeech",
    "atranscription",
    "aimage_generation",
    "amoderation",
)


@pytest.mark.parametrize("name", SENT)
async def test_requests_that_one_attempt_sends(
    client: LiteLLMClient, broken: OpenAIServer, name: str, tmp_path: Path
) -> None:
    await packages(name)
    async with client:
        call = getattr(client.with_options(max_retries=1), name)
        with pytest.raises(openai.OpenAIError):
            await call(**asked(broken, name))
    assert len(broken.requests) == (6 if name in RETRIED else 2)
    assert [record.attempt for record in outcomes(tmp_path)] == [1, 2]
    assert not any("retries" in json.dumps(request.body) for request in broken.requests)


async def test_a_plain_zero_would_not_stop_embeddings(
    client: LiteLLMClient, server: OpenAIServer, litellm: Any
) -> None:
    """The reason for ``_TrueZero``; when this fails, LiteLLM has mended it."""
    ours: dict[str, Any] = {}
    without_inner_retries(ours)
    broken = to(server, Behaviour(status=500))
    del broken["messages"]
    broken["model"] = "openai/text-embedding-3-small"
    async with client:
        await client._core.ready()  # whose end closes LiteLLM's connections
        for options, sent in (({"max_retries": 0, "num_retries": 0}, 3), (ours, 1)):
            server.clear()
            with pytest.raises(openai.InternalServerError):
                await litellm.aembedding(input="a", **broken, **options)
            assert len(server.requests) == sent
            assert "retries" not in json.dumps(server.requests[0].body)


@pytest.mark.parametrize(
    ("theirs", "models"),
    [
        ({"max_retries": 1}, ["gpt-4o-mini"] * 2),
        ({"max_retries": 0}, ["gpt-4o-mini"]),
        ({"num_retries": 0}, ["gpt-4o-mini"]),
        (
            {"fallbacks": ["openai/gpt-4o"], "max_retries": 0, "num_retries": 0},
            ["gpt-4o-mini", "gpt-4o"],
        ),
    ],
)
async def test_a_caller_who_asks_litellm_gets_litellms_retries(
    client: LiteLLMClient,
    server: OpenAIServer,
    litellm: Any,
    theirs: dict[str, Any],
    models: list[str],
    tmp_path: Path,
) -> None:
    logging.getLogger("LiteLLM").disabled = True
    async with client:
        with pytest.raises(Exception):  # noqa: B017, PT011  # of fallbacks LiteLLM raises a bare one
            await client.with_options(max_retries=3).acompletion(
                **to(server, Behaviour(status=500)), **theirs
            )
    logging.getLogger("LiteLLM").disabled = False
    assert [request.model for request in server.requests] == models
    assert len(outcomes(tmp_path)) == 1


async def test_a_fallback_is_recorded_with_the_model_that_answered(
    client: LiteLLMClient, server: OpenAIServer, tmp_path: Path
) -> None:
    logging.getLogger("LiteLLM").disabled = True
    async with client:
        flaky = to(server, Behaviour(status=400, fail_first=1), num_retries=0)
        await client.acompletion(**flaky, fallbacks=["openai/gpt-4o"])
    logging.getLogger("LiteLLM").disabled = False
    assert [request.model for request in server.requests] == ["gpt-4o-mini", "gpt-4o"]
    (record,) = outcomes(tmp_path)
    assert (record.model, record.response_model) == (MODEL, "gpt-4o")
    assert record.usage_source == "provider"


# --- Deadline --------------------------------------------------------------------------------


async def test_the_deadline_cuts_the_attempt_and_its_connection(
    client: LiteLLMClient,
    server: OpenAIServer,
    litellm: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    estimate = client._core.estimate

    async def slowly(*of: Any) -> dict[str, Any]:
        await asyncio.sleep(1)  # no part of the latency
        return await estimate(*of)

    monkeypatch.setattr(client._core, "estimate", slowly)
    async with client:
        view = client.with_options(deadline=0.2, max_retries=5)
        with pytest.raises(
            litellm.Timeout, match=r"deadline of 0\.2 s passed in attempt 1"
        ) as caught:
            await view.acompletion(**to(server, Behaviour(hang=True)))
        await asyncio.to_thread(server.wait_for, lambda requests: requests[0].disconnected)
    assert len(server.requests) == 1
    (record,) = outcomes(tmp_path)
    assert caught.value.usage_record == record
    assert (record.status, record.error, record.usage_source) == ("error", "Timeout", "estimated")
    assert record.input_tokens
    assert record.latency_ms is not None
    assert 190 < record.latency_ms < 1000


async def test_the_deadline_holds_while_a_stream_is_read(
    client: LiteLLMClient, server: OpenAIServer, litellm: Any, tmp_path: Path
) -> None:
    async with client:
        view = client.with_options(deadline=0.5)
        hangs = Behaviour(chunks=5, hang_after=2)
        stream = await view.acompletion(**to(server, hangs), stream=True)
        with pytest.raises(litellm.Timeout, match="while its stream was being read"):
            async for _ in stream:
                pass
        assert stream.usage_record is not None
        await asyncio.to_thread(server.wait_for, lambda requests: requests[0].disconnected)
        in_time = await view.acompletion(**to(server), stream=True)
        assert [chunk async for chunk in in_time]
    found = outcomes(tmp_path)[0]
    assert (found.status, found.error, found.usage_source) == ("error", "Timeout", "estimated")
    assert found.output_tokens


async def test_a_stream_that_the_deadline_cuts_before_its_first_chunk_is_estimated(
    client: LiteLLMClient, server: OpenAIServer, litellm: Any, tmp_path: Path
) -> None:
    async with client:
        await client.acompletion(**to(server))  # the first is slow
        view = client.with_options(deadline=5)
        stream = await view.acompletion(**to(server, Behaviour(hang_after=0)), stream=True)
        upstream = stream._upstream
        assert upstream.deadline is not None
        upstream.deadline.when = 0.0
        upstream.inner = SimpleNamespace(__anext__=asyncio.Event().wait)
        with pytest.raises(litellm.Timeout):
            await anext(stream)
    found = outcomes(tmp_path)[1]
    assert (found.status, found.error, found.usage_source) == ("error", "Timeout", "estimated")
    assert found.input_tokens
    assert found.cost


async def test_an_answer_in_time_is_handed_out_whatever_its_record_takes(
    client: LiteLLMClient, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge = client._core.acknowledge

    async def slowly(record: UsageRecord) -> None:
        await asyncio.sleep(1)
        await acknowledge(record)

    async with client:
        await client.acompletion(**to(server))  # the first is slow
        monkeypatch.setattr(client._core, "acknowledge", slowly)
        assert await client.with_options(deadline=0.8).acompletion(**to(server))


async def test_a_time_out_of_the_callers_own_is_a_cancellation(
    client: LiteLLMClient, server: OpenAIServer, tmp_path: Path
) -> None:
    async with client:
        view = client.with_options(deadline=60, max_retries=3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await view.acompletion(**to(server, Behaviour(hang=True)))
    (record,) = outcomes(tmp_path)
    assert (record.status, record.usage_source) == ("cancelled", "estimated")


# --- Concurrency -----------------------------------------------------------------------------


async def test_no_more_than_the_limit_are_under_way(server: OpenAIServer, tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path, max_concurrency=3, handle_signals=False) as client:
        views = [client, client.with_options(max_retries=1), client.with_options(deadline=60)]
        calls = [
            asyncio.create_task(views[number % 3].acompletion(**to(server, Behaviour(hang=True))))
            for number in range(9)
        ]
        await under_way(server, 3)
        statistics = client.statistics()
        assert (statistics.active, statistics.waiting_for_slot) == (3, 6)
        assert (statistics.max_concurrency, statistics.in_flight) == (3, 3)
        assert len(begun(tmp_path)) == 3  # who waits leaves no trace
        for call in calls[3:6]:
            call.cancel()
        await asyncio.wait(calls[3:6])
        calls[0].cancel()
        await until(lambda: len(server.requests) == 4)
        await under_way(server, 3)
        assert (client.statistics().active, client.statistics().waiting_for_slot) == (3, 2)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert (client.statistics().active, client.statistics().waiting_for_slot) == (0, 0)
    assert len(server.requests) == len(begun(tmp_path)) == len(outcomes(tmp_path)) == 4


async def test_a_call_that_may_not_begin_gives_its_slot_back(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def start(*args: Any, **kwargs: Any) -> None:
        raise LedgerFailed("broken")

    async with LiteLLMClient(tmp_path, max_concurrency=1, max_retries=3) as client:
        with monkeypatch.context() as patch:
            patch.setattr(client._core.calls, "start", start)
            with pytest.raises(LedgerFailed):
                await client.acompletion(**to(server))
        assert client.statistics().active == 0
        with pytest.raises(InvalidRecord):
            await client.acompletion(**to(server), tags={"user": object()})
        assert client.statistics().active == 0
    assert server.requests == []


async def test_calls_are_made_in_the_order_of_asking(server: OpenAIServer, tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path, max_concurrency=1, handle_signals=False) as client:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(client.acompletion(**to(server, user=str(number))))
                await asyncio.sleep(0)
    assert [request.body["user"] for request in server.requests] == [str(n) for n in range(12)]


async def test_the_deadline_holds_while_waiting_for_a_slot(
    server: OpenAIServer, litellm: Any, tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, max_concurrency=1, handle_signals=False) as client:
        first = asyncio.create_task(client.acompletion(**to(server, Behaviour(hang=True))))
        await under_way(server, 1)
        with pytest.raises(litellm.Timeout, match="waiting for one of the max_concurrency slots"):
            await client.with_options(deadline=0.1).acompletion(**to(server))
        first.cancel()
        await asyncio.wait({first})
    assert len(server.requests) == len(begun(tmp_path)) == 1


@pytest.mark.parametrize("way", ["read", "break", "aclose", "cancelled", "dropped", "failed"])
async def test_a_stream_gives_its_slot_back_however_it_ends(
    server: OpenAIServer, tmp_path: Path, way: str
) -> None:
    async with LiteLLMClient(tmp_path, max_concurrency=1, handle_signals=False) as client:
        behaviour = Behaviour(chunks=4, error_after=2 if way == "failed" else None)
        stream: Any = await client.acompletion(**to(server, behaviour), stream=True)
        assert client.statistics().active == 1
        match way:
            case "read":
                async for _ in stream:
                    assert client.statistics().active == 1
            case "failed":
                with pytest.raises(openai.OpenAIError):
                    [chunk async for chunk in stream]
            case "aclose":
                await anext(stream)
                await stream.aclose()
            case "cancelled":
                task = asyncio.create_task(_cancel_while_reading(stream))
                await asyncio.wait({task})
            case "break":
                async for _ in stream:
                    break
        del stream
        gc.collect()
        async with asyncio.timeout(5):
            await client.acompletion(**to(server))
        assert client.statistics().active == 0
    assert len(outcomes(tmp_path)) == len(server.requests) == 2


async def _cancel_while_reading(stream: Any) -> None:
    await anext(stream)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    async for _ in stream:
        pass


async def test_a_call_inside_an_open_stream_can_wait_for_itself(
    server: OpenAIServer, litellm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with LiteLLMClient(tmp_path, max_concurrency=1, handle_signals=False) as client:
        hasty = client.with_options(deadline=0.1)
        stream = await client.acompletion(**to(server), stream=True)
        async for _ in stream:
            with pytest.raises(litellm.Timeout, match="max_concurrency"):
                await hasty.acompletion(**to(server))
            break
        await stream.aclose()
        await hasty.with_options(deadline=30).acompletion(**to(server))
    assert sum("held by streams that the same task" in text for text in caplog.messages) == 1


async def test_closing_turns_away_who_waits(server: OpenAIServer, tmp_path: Path) -> None:
    client = LiteLLMClient(tmp_path, max_concurrency=1, handle_signals=False)
    first = asyncio.create_task(client.acompletion(**to(server, Behaviour(hang=True))))
    await under_way(server, 1)
    second = asyncio.create_task(client.acompletion(**to(server)))
    await until(lambda: client.statistics().waiting_for_slot == 1)
    await client.aclose()
    with pytest.raises(LedgerClosed):
        await second
    first.cancel()
    await asyncio.wait({first})
    assert len(server.requests) == len(begun(tmp_path)) == len(outcomes(tmp_path)) == 1


# --- All at once -----------------------------------------------------------------------------

# How each call behaves, the requests that it takes, and the error that it ends with.
MIX: dict[str, tuple[Behaviour, int, type[Exception] | None]] = {
    "ok": (Behaviour(), 1, None),
    "twice 500": (Behaviour(fail_first=2), 3, None),
    "once 429": (Behaviour(status=429, fail_first=1, retry_after=1), 2, None),
    "never": (Behaviour(status=503), 4, openai.APIStatusError),
    "wrong": (Behaviour(status=400), 1, openai.BadRequestError),
    "cut": (Behaviour(cut_after=0), 4, openai.InternalServerError),
    "hangs": (Behaviour(hang=True), 4, openai.APITimeoutError),
    "stream": (Behaviour(fail_first=1), 2, None),
}


async def one(client: LiteLLMClient, server: OpenAIServer, number: int, name: str) -> None:
    behaviour, _, error = MIX[name]
    if behaviour.fail_first:
        behaviour = replace(behaviour, key=str(number))
    arguments = to(server, behaviour, user=str(number), tags={"n": number})
    if name == "hangs":
        arguments["timeout"] = 4  # less, and a busy machine drops it before the server has read it
    if error is not None:
        with pytest.raises(error):
            await client.acompletion(**arguments)
    elif name == "stream":
        async for _ in await client.acompletion(**arguments, stream=True):
            pass
    else:
        await client.acompletion(**arguments)


@pytest.mark.parametrize("calls", [100, pytest.param(500, marks=pytest.mark.matrix)])
async def test_one_outcome_for_each_request_the_server_saw(
    server: OpenAIServer, tmp_path: Path, calls: int
) -> None:
    quick = [name for name in MIX if name != "hangs"]
    names = ["hangs" if n % 25 == 0 else quick[n % len(quick)] for n in range(calls)]
    async with LiteLLMClient(
        tmp_path, max_retries=3, max_concurrency=50, handle_signals=False
    ) as client:
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(names):
                group.create_task(one(client, server, number, name))
        statistics = client.statistics()
    assert (statistics.active, statistics.in_flight, statistics.unacked) == (0, 0, 0)
    seen = Counter(str(request.body["user"]) for request in server.requests)
    found = outcomes(tmp_path)
    assert Counter((record.tags or {})["n"] for record in found) == seen
    assert all(seen[str(number)] == MIX[name][1] for number, name in enumerate(names))
    assert len(begun(tmp_path)) == len(found) == len(server.requests)
    assert statistics.repeated == len(found) - calls
    attempts: dict[str | None, list[int | None]] = {}
    for record in found:
        attempts.setdefault(record.operation, []).append(record.attempt)
    assert len(attempts) == calls
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in attempts.values())
    billed = sum(request.usage is not None and request.status == 200 for request in server.requests)
    assert sum(record.usage_source == "provider" for record in found) == billed
    assert Ledger(tmp_path).verify().ok


CHILD = """
    import asyncio, sys
    from litellm_ledger import LiteLLMClient
    from litellm_ledger._calls import operation as _operation

    async def sleep(seconds):
        pass

    async def main():
        _operation.sleep = sleep
        async with LiteLLMClient(sys.argv[1], max_retries=3) as client:
            await client.acompletion(
                "openai/gpt-4o-mini", [], api_base=sys.argv[2], api_key="any",
                extra_headers={"x-test-behaviour": sys.argv[3]}, timeout=float(sys.argv[4]),
            )

    asyncio.run(main())
"""


async def test_an_attempt_that_dies_with_the_process_is_unsettled_under_its_operation(
    server: OpenAIServer, tmp_path: Path
) -> None:
    behaviour = Behaviour(hang=True)
    arguments = [str(tmp_path), server.base_url, behaviour.header(), "1"]
    child = forked.Forked(["-c", textwrap.dedent(CHILD), *arguments], modules=forked.LITELLM)
    try:
        await asyncio.to_thread(server.wait_for, lambda requests: len(requests) == 2, 40)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    async with LiteLLMClient(tmp_path, handle_signals=False):
        pass
    first, second = outcomes(tmp_path)
    assert (first.status, first.attempt) == ("error", 1)
    assert (second.status, second.attempt) == ("unsettled", 2)
    assert second.operation == first.operation
    assert len(begun(tmp_path)) == 2
