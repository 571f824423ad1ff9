"""Calls that do not go through us: LiteLLM's own functions, its Router, a framework above it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import openai
import pydantic
import pytest
from tests.leaks import collected
from tests.runs import LITELLM, until

from litellm_ledger import Ledger, LedgerClosed, LiteLLMClient, UsageRecord
from litellm_ledger.testing import Behaviour, OpenAIServer

__all__ = ["collected"]  # a fixture

pytestmark = pytest.mark.asyncio

MODEL = "openai/gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "a question of words"}]
COST = Decimal("0.0000036")
"""4 tokens in at $0.15 a million, 5 out at $0.60."""
USAGE = {"include_usage": True}
LISTS = [
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
]


@pytest.fixture
def to(server: OpenAIServer) -> dict[str, Any]:
    """Arguments that send a call to the server."""
    server.clear()
    return {"api_base": server.base_url, "api_key": "any", "max_retries": 0}


def lists() -> dict[str, list[Any]]:
    return {name: list(getattr(litellm, name)) for name in LISTS}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in LISTS:  # not ours to keep: what a Router of another test has put there
        monkeypatch.setattr(litellm, name, [])
    entries = {name: dict(entry) for name, entry in litellm.model_cost.items()}
    monkeypatch.setattr(litellm, "model_cost", entries)  # a Router puts its deployments there
    yield
    left = [callback for callbacks in lists().values() for callback in callbacks]
    left += litellm.utils.callback_list or []
    assert not [callback for callback in left if "Ledger" in type(callback).__name__]


def records(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records())


def only(path: Path) -> UsageRecord:
    (record,) = records(path)
    return record


async def read(stream: Any) -> int:
    return len([chunk async for chunk in stream])


# -- what is recorded -----------------------------------------------------------------------------


async def test_a_direct_call_is_on_record_when_its_answer_is_there(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path) as client:
        with client.capture(), client.tag(user="alice"):
            answer = await litellm.acompletion(MODEL, MESSAGES, litellm_call_id="mine", **to)
            record = only(tmp_path)  # on the disk, before we go on
            (started,) = Ledger(tmp_path).records(kinds=("started",))
    assert record.operation == started.id
    assert (record.call, record.model, record.provider) == ("acompletion", MODEL, "openai")
    assert (record.status, record.usage_source) == ("ok", "provider")
    assert (record.input_tokens, record.output_tokens, record.cost) == (4, 5, COST)
    assert (record.call_id, record.response_id) == ("mine", answer.id)
    assert record.tags == {"user": "alice"}
    assert record.latency_ms
    assert record.meta is not None
    assert record.meta["captured"] is True


async def test_the_answer_is_as_it_would_be_without_us(to: dict[str, Any], tmp_path: Path) -> None:
    bare = await litellm.acompletion(MODEL, MESSAGES, **to)
    async with LiteLLMClient(tmp_path, capture=True):
        captured = await litellm.acompletion(MODEL, MESSAGES, **to)
    ours, theirs = captured.model_dump(exclude={"id", "created"}), bare.model_dump()
    assert ours == {name: theirs[name] for name in ours}


async def test_capture_as_an_option_lasts_as_long_as_the_client(
    to: dict[str, Any], tmp_path: Path
) -> None:
    before = lists()
    await litellm.acompletion(MODEL, MESSAGES, **to)
    async with LiteLLMClient(tmp_path, capture=True):
        await litellm.acompletion(MODEL, MESSAGES, **to)
        with contextlib.suppress(openai.OpenAIError):
            headers = Behaviour(status=400).headers()
            await litellm.acompletion(MODEL, MESSAGES, extra_headers=headers, **to)
        await litellm.aembedding("openai/text-embedding-3-small", input=["two words"], **to)
        assert len(records(tmp_path)) == 3
    await litellm.acompletion(MODEL, MESSAGES, **to)
    assert lists() == before
    chat, failed, embedding = records(tmp_path)
    assert (chat.status, chat.cost) == ("ok", COST)
    assert (failed.status, failed.error) == ("error", "BadRequestError")
    assert failed.meta is not None
    assert failed.meta["http_status"] == 400
    assert (embedding.call, embedding.input_tokens) == ("aembedding", 2)
    assert embedding.cost == Decimal("0.00000004")


@pytest.mark.parametrize("name", ["aspeech", "speech"])
async def test_what_has_no_tokens_has_its_price(
    to: dict[str, Any], tmp_path: Path, name: str
) -> None:
    given = {"model": "openai/tts-1", "input": "a b", "voice": "alloy", **to}
    async with LiteLLMClient(tmp_path, capture=True):
        if name == "speech":
            await asyncio.to_thread(lambda: litellm.speech(**given))
        else:
            speech = await litellm.aspeech(**given)
            await speech.aread()
        await until(lambda: records(tmp_path))
    record = only(tmp_path)
    assert (record.call, record.characters, record.cost) == (name, 3, Decimal("0.000045"))


async def test_an_unknown_price_is_not_free(to: dict[str, Any], tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        await litellm.acompletion("openai/nobody-knows", MESSAGES, **to)
        await read(
            await litellm.acompletion(
                "openai/nobody-knows", MESSAGES, stream=True, stream_options=USAGE, **to
            )
        )
    for record in records(tmp_path):
        assert (record.input_tokens, record.output_tokens, record.cost) == (4, 5, None)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_from_outside_is_recorded_when_litellm_has_logged_it(
    to: dict[str, Any], tmp_path: Path, asked: bool
) -> None:
    options = {"stream_options": USAGE} if asked else {}
    async with LiteLLMClient(tmp_path) as client:
        with client.capture():
            stream = await litellm.acompletion(MODEL, MESSAGES, stream=True, **options, **to)
        await read(stream)  # the with has ended, and the client closes at once
    record = only(tmp_path)
    assert (record.status, record.stream) == ("ok", True)
    if asked:
        assert (record.usage_source, record.cost) == ("provider", COST)
        assert (record.input_tokens, record.output_tokens) == (4, 5)
    else:
        assert record.usage_source == "estimated"
        assert record.input_tokens
        assert record.output_tokens
        assert record.cost


@pytest.mark.parametrize("seconds", [0.3, 3600])
async def test_the_close_waits_for_litellms_log_but_not_for_ever(
    to: dict[str, Any], tmp_path: Path, seconds: float
) -> None:
    class Slow(litellm.integrations.custom_logger.CustomLogger):
        async def async_logging_hook(self, kwargs: Any, result: Any, call_type: Any) -> Any:
            await asyncio.sleep(seconds)
            return kwargs, result

    litellm.callbacks.append(Slow())
    client = LiteLLMClient(tmp_path, capture=True)
    async with client:
        stream = await litellm.acompletion(MODEL, MESSAGES, stream=True, stream_options=USAGE, **to)
        await read(stream)
        begun = time.monotonic()
        await client.aclose(timeout=20.0 if seconds < 1 else 1.0)
        assert time.monotonic() - begun < 5.0
    if seconds < 1:
        assert (only(tmp_path).status, only(tmp_path).cost) == ("ok", COST)
    else:
        assert records(tmp_path) == []
        (started,) = Ledger(tmp_path).records(kinds=("started",))
        assert started.model == MODEL


async def test_a_stream_of_responses_is_recorded_once(to: dict[str, Any], tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        await read(await litellm.aresponses(model=MODEL, input="two words", stream=True, **to))
    record = only(tmp_path)
    assert (record.call, record.usage_source) == ("aresponses", "provider")
    assert (record.input_tokens, record.output_tokens) == (2, 5)
    assert record.cost


async def test_a_stream_that_breaks_is_an_error_with_what_had_come(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        headers = Behaviour(cut_after=3).headers()
        stream = await litellm.acompletion(
            MODEL, MESSAGES, stream=True, extra_headers=headers, **to
        )
        with pytest.raises(openai.OpenAIError):
            await read(stream)
    record = only(tmp_path)
    assert (record.status, record.usage_source) == ("error", "estimated")
    assert record.output_tokens


async def test_a_call_that_litellm_never_tells_of_again_is_on_record_all_the_same(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, capture=True) as client:
        async for _ in await litellm.acompletion(MODEL, MESSAGES, stream=True, **to):
            break
        headers = Behaviour(hang=True).headers()
        call = litellm.acompletion(MODEL, MESSAGES, extra_headers=headers, **to)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.3)
        await until(lambda: gc.collect() >= 0 and not client.statistics().in_flight)
    assert Counter((record.status, record.usage_source) for record in records(tmp_path)) == {
        ("abandoned", "none"): 1,
        ("cancelled", "none"): 1,
    }


async def test_an_answer_from_litellms_cache_costs_nothing(
    to: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("soundfile", reason="LiteLLM needs it to answer from its cache")
    cache = litellm.Cache()
    monkeypatch.setattr(litellm, "cache", cache)
    async with LiteLLMClient(tmp_path, capture=True):
        for _ in range(2):
            await litellm.acompletion(MODEL, MESSAGES, **to)
            await until(lambda: cache.cache.cache_dict)  # LiteLLM fills it in the background
    first, second = records(tmp_path)
    assert (first.cost, first.cache_hit) == (COST, None)
    assert (second.cost, second.cache_hit, second.saved_cost) == (0, True, COST)


async def test_one_call_that_litellm_answers_by_another_is_one_record(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        await litellm.anthropic_messages(
            model="hosted_vllm/gpt-4o-mini", messages=MESSAGES, max_tokens=10, **to
        )
    record = only(tmp_path)
    assert (record.call, record.status) == ("anthropic_messages", "ok")
    assert (record.input_tokens, record.output_tokens) == (4, 5)


# -- the Router, a framework, threads -------------------------------------------------------------


async def test_a_stream_that_a_router_continues_elsewhere_is_two_calls_that_are_billed(
    tmp_path: Path, to: dict[str, Any]
) -> None:
    continues: dict[str, Any] = {"enable_mid_stream_fallback_continuation": True}
    if LITELLM < (1, 109):
        continues = {}  # it raises, as any other call that is cut
    cut = {"model": MODEL, **to, "extra_headers": Behaviour(cut_after=2).headers()}
    other = {"model": "deepseek/deepseek-chat", **to}
    prefill = {"supports_assistant_prefill": True}
    async with LiteLLMClient(tmp_path, capture=True):
        router = litellm.Router(
            model_list=[
                {"model_name": "first", "litellm_params": cut},
                {"model_name": "second", "litellm_params": other, "model_info": prefill},
            ],
            fallbacks=[{"first": ["second"]}],
            num_retries=0,
            **continues,
        )
        with contextlib.suppress(openai.OpenAIError):
            await read(await router.acompletion("first", MESSAGES, stream=True))
    billed = [
        (record.model, record.status, record.usage_source)
        for record in records(tmp_path)
        if record.output_tokens and record.cost
    ]
    continued = ("deepseek/deepseek-chat", "ok", "estimated")
    assert billed == [(MODEL, "error", "estimated"), *([continued] if continues else [])]


async def test_every_attempt_of_a_router_is_on_record(to: dict[str, Any], tmp_path: Path) -> None:
    router = litellm.Router(
        model_list=[
            {"model_name": "cheap", "litellm_params": {"model": MODEL, **to}},
            {"model_name": "dear", "litellm_params": {"model": "openai/gpt-4o", **to}},
        ],
        fallbacks=[{"cheap": ["dear"]}],
        num_retries=1,
        retry_after=0,
    )
    before = lists()
    async with LiteLLMClient(tmp_path) as client:
        with client.capture():
            await router.acompletion("cheap", MESSAGES)
            await read(
                await router.acompletion("dear", MESSAGES, stream=True, stream_options=USAGE)
            )
            headers = Behaviour(fail_first=1).headers()
            await router.acompletion("cheap", MESSAGES, extra_headers=headers)
            headers = Behaviour(status=500).headers()
            with pytest.raises(openai.OpenAIError):
                await router.acompletion("cheap", MESSAGES, extra_headers=headers)
    assert lists() == before
    assert Counter((record.model, record.status) for record in records(tmp_path)) == {
        (MODEL, "ok"): 2,
        ("openai/gpt-4o", "ok"): 1,
        (MODEL, "error"): 3,  # one that was retried, two that were not to be helped
        ("openai/gpt-4o", "error"): 2,
    }
    assert all(record.cost for record in records(tmp_path) if record.status == "ok")


async def test_prices_of_a_router_are_used(to: dict[str, Any], tmp_path: Path) -> None:
    prices = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}
    router = litellm.Router(
        model_list=[
            {"model_name": "own", "litellm_params": {"model": "openai/own", **prices, **to}}
        ]
    )
    async with LiteLLMClient(tmp_path, capture=True):
        await router.acompletion("own", MESSAGES)
        await read(await router.acompletion("own", MESSAGES, stream=True, stream_options=USAGE))
    assert [record.cost for record in records(tmp_path)] == [Decimal("0.014")] * 2


# -- synchronous calls, and lists that others replace ---------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
async def test_a_synchronous_stream_has_the_tags_of_its_caller_and_says_who_counted(
    to: dict[str, Any], tmp_path: Path, asked: bool
) -> None:
    options = {"stream_options": USAGE} if asked else {}
    async with LiteLLMClient(tmp_path) as client:
        with client.capture(), client.tag(user="alice"):
            stream = litellm.completion(MODEL, MESSAGES, stream=True, **options, **to)
        list(stream)  # the capture has ended, and LiteLLM logs it later still
        await until(lambda: records(tmp_path))
    record = only(tmp_path)
    assert (record.call, record.status, record.stream) == ("completion", "ok", True)
    assert record.tags == {"user": "alice"}
    assert record.usage_source == ("provider" if asked else "estimated")
    assert record.output_tokens
    assert record.cost


async def test_a_synchronous_stream_that_is_left_is_on_record(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, capture=True) as client:
        with client.tag(user="alice"):
            stream = litellm.completion(MODEL, MESSAGES, stream=True, **to)
            next(iter(stream))
        del stream
        # LiteLLM's threads log each chunk, and hold the call meanwhile.
        await until(lambda: (gc.collect(), records(tmp_path))[1])
    record = only(tmp_path)
    assert (record.status, record.usage_source, record.cost) == ("abandoned", "none", None)
    assert record.tags == {"user": "alice"}


async def test_a_synchronous_call_is_one_record_however_it_ends(
    to: dict[str, Any], tmp_path: Path
) -> None:
    bad = {**to, "extra_headers": Behaviour(status=400).headers()}
    async with LiteLLMClient(tmp_path, capture=True) as client:
        await asyncio.to_thread(litellm.completion, MODEL, MESSAGES, **to)
        with contextlib.suppress(openai.OpenAIError):
            await asyncio.to_thread(litellm.completion, MODEL, MESSAGES, **bad)
        await until(lambda: len(records(tmp_path)) >= 2)
        gc.collect()
        assert client.statistics().duplicates == 0
    good, failed = sorted(records(tmp_path), key=lambda record: record.status, reverse=True)
    assert (good.status, good.cost) == ("ok", COST)
    assert (failed.status, failed.error) == ("error", "BadRequestError")


async def test_a_synchronous_call_that_litellm_answers_by_another_is_one_record(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        ask = {"model": "text-completion-openai/gpt-3.5-turbo-instruct", "prompt": "a b"}
        await asyncio.to_thread(lambda: litellm.text_completion(**ask, **to))
        with contextlib.suppress(openai.OpenAIError):
            headers = Behaviour(status=400).headers()
            bad = {**ask, "extra_headers": headers, **to}
            await asyncio.to_thread(lambda: litellm.text_completion(**bad))
        await until(lambda: len(records(tmp_path)) >= 2)
    assert sorted(record.status for record in records(tmp_path)) == ["error", "ok"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_close_waits_for_the_log_of_a_synchronous_call_that_has_ended(
    to: dict[str, Any], tmp_path: Path, streamed: bool
) -> None:
    class Slow(litellm.integrations.custom_logger.CustomLogger):
        def logging_hook(self, kwargs: Any, result: Any, call_type: Any) -> Any:
            time.sleep(0.1)
            return kwargs, result

    litellm.callbacks.append(Slow())
    options = {"stream": True, "stream_options": USAGE} if streamed else {}
    async with LiteLLMClient(tmp_path, capture=True):
        answer = litellm.completion(MODEL, MESSAGES, **options, **to)
        if streamed:
            list(answer)
    assert (only(tmp_path).status, only(tmp_path).cost) == ("ok", COST)


async def test_the_close_does_not_wait_for_a_synchronous_call_in_flight(
    server: OpenAIServer, to: dict[str, Any], tmp_path: Path
) -> None:
    slow = {**to, "extra_headers": Behaviour(slow=1.0).headers()}
    async with LiteLLMClient(tmp_path, capture=True):
        call = asyncio.create_task(asyncio.to_thread(litellm.completion, MODEL, MESSAGES, **slow))
        await until(lambda: server.requests)
    assert not call.done()
    await call


@pytest.mark.parametrize("before", [True, False])
async def test_capture_goes_on_when_others_replace_litellms_callbacks(
    to: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    async with LiteLLMClient(tmp_path) as client:
        with client.capture(), client.tag(user="alice"):
            if before:  # a call copies what is in the list to others
                await litellm.acompletion(MODEL, MESSAGES, **to)
            monkeypatch.setattr(litellm, "callbacks", [])  # as CrewAI does for each model
            await litellm.acompletion(MODEL, MESSAGES, litellm_call_id="1", **to)
            await litellm.acompletion(MODEL, MESSAGES, litellm_call_id="2", **to)
            assert [record.call_id for record in records(tmp_path)][-2:] == ["1", "2"]
            litellm.callbacks = []
            await read(await litellm.acompletion(MODEL, MESSAGES, stream=True, **to))
            litellm.callbacks = []
            await asyncio.to_thread(litellm.completion, MODEL, MESSAGES, **to)
            await until(lambda: len(records(tmp_path)) >= 4 + before)
        litellm.callbacks = []
        await litellm.acompletion(MODEL, MESSAGES, **to)  # it has ended: nothing comes back
        assert not litellm.callbacks
    assert [record.status for record in records(tmp_path)] == ["ok"] * (4 + before)
    assert all(record.tags == {"user": "alice"} and record.cost for record in records(tmp_path))


class City(pydantic.BaseModel):
    name: str


async def test_instructor_above_litellm(to: dict[str, Any], tmp_path: Path) -> None:
    instructor = pytest.importorskip("instructor")
    retried = pytest.importorskip("instructor.core").InstructorRetryException
    asking = instructor.from_litellm(litellm.acompletion, mode=instructor.Mode.JSON)
    async with LiteLLMClient(tmp_path, capture=True) as client:
        with client.tag(feature="cities"):
            city = await asking.create(
                model=MODEL,
                messages=MESSAGES,
                response_model=City,
                mock_response='{"name": "Oslo"}',
                max_retries=0,
            )
            with pytest.raises(retried):
                await asking.create(
                    model=MODEL,
                    messages=MESSAGES,
                    response_model=City,
                    mock_response="no city",
                    max_retries=2,
                )
    assert city.name == "Oslo"
    found = records(tmp_path)
    assert len(found) >= 3  # what did not fit was paid for, each time
    for record in found:
        assert (record.status, record.tags) == ("ok", {"feature": "cities"})
        assert record.cost


class _Told(litellm.integrations.custom_logger.CustomLogger):
    """Stands behind ours in LiteLLM's list: what it has been told of, ours has been told of."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], Any, Any, Any]] = []

    def log_success_event(self, *told: Any, **named: Any) -> None:
        self.calls.append(tuple(told) or tuple(named.values()))  # type: ignore[arg-type]

    log_failure_event = log_success_event


async def test_every_call_is_on_record_once_however_many_hooks_of_litellm_fire(
    to: dict[str, Any], tmp_path: Path
) -> None:
    told = _Told()
    embedding = {"model": "openai/text-embedding-3-small", "input": ["two words"], **to}
    messages = {"model": "anthropic/claude-3-5-haiku-latest", "max_tokens": 9, **to}
    fail = {"messages": MESSAGES, "extra_headers": Behaviour(status=400).headers(), **to}
    async with LiteLLMClient(tmp_path, capture=True) as client:
        litellm.callbacks.append(told)
        await client.acompletion(MODEL, MESSAGES, litellm_call_id="0 client", **to)
        await litellm.acompletion(MODEL, MESSAGES, litellm_call_id="1 direct", **to)
        await litellm.aembedding(litellm_call_id="2 embedding", **embedding)
        with contextlib.suppress(Exception):
            await litellm.acompletion(MODEL, litellm_call_id="3 failed", **fail)
        with contextlib.suppress(Exception):
            await litellm.anthropic_messages(litellm_call_id="4 failed", **{**fail, **messages})
        await asyncio.to_thread(
            lambda: litellm.completion(MODEL, MESSAGES, litellm_call_id="5 synchronous", **to)
        )
        await until(lambda: any(call[0]["call_type"] == "completion" for call in told.calls))
        if LITELLM >= (1, 109):
            await until(lambda: len(told.calls) >= 4)
        (ours,) = [one for one in litellm.callbacks if type(one).__name__ == "LedgerCapture"]
        before = client.statistics().duplicates
        for call in list(told.calls):  # and once more, as a LiteLLM to come might
            ours.log_success_event(*call)
        assert client.statistics().duplicates == before + len(told.calls)
    assert sorted(str(record.call_id) for record in records(tmp_path)) == [
        "0 client",
        "1 direct",
        "2 embedding",
        "3 failed",
        "4 failed",
        "5 synchronous",
    ]


async def test_a_call_that_began_before_the_capture_is_not_taken_for_a_synchronous_one(
    server: OpenAIServer, to: dict[str, Any], tmp_path: Path
) -> None:
    told = _Told()
    slow = {**to, "extra_headers": Behaviour(slow=0.5).headers()}
    async with LiteLLMClient(tmp_path) as client:
        begun = asyncio.create_task(client.acompletion(MODEL, MESSAGES, **slow))
        await until(lambda: server.requests)
        with client.capture():
            litellm.callbacks.append(told)
            await client.acompletion(MODEL, MESSAGES, **to)  # has LiteLLM copy its lists
            await begun
            await asyncio.to_thread(lambda: litellm.completion(MODEL, MESSAGES, **to))
            await until(lambda: any(call[0]["call_type"] == "completion" for call in told.calls))
    assert Counter(record.call for record in records(tmp_path)) == {
        "acompletion": 2,
        "completion": 1,
    }


async def test_calls_on_another_loop_and_synchronous_ones(
    to: dict[str, Any], tmp_path: Path
) -> None:
    async def elsewhere() -> None:
        await litellm.acompletion(MODEL, MESSAGES, **to)

    async with LiteLLMClient(tmp_path, capture=True) as client:
        await asyncio.to_thread(asyncio.run, elsewhere())
        await asyncio.to_thread(litellm.completion, MODEL, MESSAGES, **to)
        await until(lambda: client.usage.totals().calls == 2)
    assert {(record.call, record.cost) for record in records(tmp_path)} == {
        ("acompletion", COST),
        ("completion", COST),
    }


# -- each once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_synchronous_call_whose_beginning_litellm_shows_is_on_record_with_its_end(
    to: dict[str, Any], tmp_path: Path, stream: bool
) -> None:
    def ask() -> None:
        answer = litellm.responses("two words", model=MODEL, stream=stream, **to)
        if stream:
            list(answer)

    async with LiteLLMClient(tmp_path, capture=True):
        await asyncio.to_thread(ask)
        await until(lambda: records(tmp_path))
    record = only(tmp_path)
    assert (record.call, record.status, record.stream) == ("responses", "ok", stream)
    assert record.usage_source == "provider"
    assert record.cost
    assert record.output_tokens


async def test_our_own_calls_are_not_recorded_twice(to: dict[str, Any], tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    async with LiteLLMClient(mine) as other, LiteLLMClient(theirs, capture=True) as client:
        for ours in (other, client):
            await ours.acompletion(MODEL, MESSAGES, **to)
            await read(await ours.acompletion(MODEL, MESSAGES, stream=True, **to))
            with contextlib.suppress(openai.OpenAIError):
                headers = Behaviour(status=400).headers()
                await ours.acompletion(MODEL, MESSAGES, extra_headers=headers, **to)
            async with await ours.acompletion(MODEL, MESSAGES, stream=True, **to) as stream:
                await anext(stream)
        await litellm.acompletion(MODEL, MESSAGES, **to)
    own = {("ok", None): 2, ("error", None): 1, ("abandoned", None): 1}
    for path, expected in ((mine, own), (theirs, own | {("ok", True): 1})):
        found = Counter(
            (record.status, (record.meta or {}).get("captured")) for record in records(path)
        )
        assert found == expected


async def test_captures_may_nest_and_overlap(to: dict[str, Any], tmp_path: Path) -> None:
    before = lists()
    a, b = tmp_path / "a", tmp_path / "b"
    async with LiteLLMClient(a) as one, LiteLLMClient(b) as two:
        first, second = one.capture(), two.capture()
        first.__enter__()
        await litellm.acompletion(MODEL, MESSAGES, **to)  # one
        with one.capture():
            second.__enter__()
            await litellm.acompletion(MODEL, MESSAGES, **to)  # both
        await litellm.acompletion(MODEL, MESSAGES, **to)  # both
        first.__exit__(None, None, None)
        await litellm.acompletion(MODEL, MESSAGES, **to)  # two
        assert len(litellm.callbacks) == 1
        second.__exit__(None, None, None)
        assert lists() == before
        await litellm.acompletion(MODEL, MESSAGES, **to)  # nobody
    assert (len(records(a)), len(records(b))) == (3, 3)


async def test_callbacks_are_as_they_were_after_an_exception_and_after_a_close_inside(
    to: dict[str, Any], tmp_path: Path
) -> None:
    class Own(litellm.integrations.custom_logger.CustomLogger):
        pass

    own = Own()
    litellm.callbacks.append(own)
    await litellm.acompletion(MODEL, MESSAGES, **to)  # has LiteLLM copy it to its other lists
    before = lists()
    client = LiteLLMClient(tmp_path)
    with contextlib.suppress(ZeroDivisionError):
        with client.capture():
            await litellm.acompletion(MODEL, MESSAGES, **to)
            assert lists() != before
            raise ZeroDivisionError
    assert lists() == before
    with client.capture():
        await client.aclose()
        assert lists() == before
        await litellm.acompletion(MODEL, MESSAGES, **to)
    assert lists() == before
    with pytest.raises(LedgerClosed):
        client.capture().__enter__()
    assert len(records(tmp_path)) == 1


async def test_a_client_that_nobody_closes_does_not_stay_in_litellm(
    to: dict[str, Any], tmp_path: Path
) -> None:
    before = lists()
    client: LiteLLMClient | None = LiteLLMClient(tmp_path)
    capture = client.capture()
    capture.__enter__()
    await litellm.acompletion(MODEL, MESSAGES, **to)
    core = client._core
    client = None
    del capture
    await core.aclose()
    del core
    gc.collect()
    assert lists() == before


async def test_what_goes_wrong_with_us_does_not_reach_the_caller(
    to: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ours")

    async with LiteLLMClient(tmp_path, capture=True) as client:
        monkeypatch.setattr(client._core.pricing, "complete", broken)
        answer = await litellm.acompletion(MODEL, MESSAGES, **to)
        assert answer.choices
    assert "could not be recorded" in caplog.text


async def test_a_burst_is_on_record_to_the_last_call(to: dict[str, Any], tmp_path: Path) -> None:
    async with LiteLLMClient(tmp_path, capture=True):
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                stream = {"stream": True, "stream_options": USAGE} if number % 2 else {}
                group.create_task(burst(stream))
    found = records(tmp_path)
    assert len(found) == 200
    assert all(record.status == "ok" and record.cost for record in found)
    assert Ledger(tmp_path).verify().ok


async def burst(options: dict[str, Any]) -> None:
    answer = await litellm.acompletion(MODEL, MESSAGES, mock_response="five words", **options)
    if options:
        await read(answer)
