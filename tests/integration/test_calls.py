"""Every call of LiteLLM, by every way it can end, against a local server: what is on record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.arguments import ARGUMENTS, STREAMS, check, to
from tests.ledgers import outcomes
from tests.packages import packages

from litellm_ledger import Ledger, LiteLLMClient, MissingExtra, ModelPrice, UsageRecord
from litellm_ledger._litellm import packages as needs
from litellm_ledger._litellm.calls import CALLS
from litellm_ledger._litellm.connections import Strays
from litellm_ledger._litellm.load import load_sync
from litellm_ledger._litellm.map_price import chosen
from litellm_ledger._litellm.plain import plain_fields
from litellm_ledger._records.line import encode
from litellm_ledger._tracking.calls_in_flight import CallsInFlight
from litellm_ledger.testing import Behaviour, OpenAIServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # LiteLLM's types for batches and responses do not match what it puts there.
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]

ASKED = [{"role": "user", "content": "What is a ledger?"}]

# What is on record of an answer: tokens in and out, cost, and what else is counted.
RECORDED: dict[str, dict[str, Any]] = {
    "acompletion": {"input_tokens": 3, "output_tokens": 5, "cost": "0.00000345"},
    "atext_completion": {"input_tokens": 3, "output_tokens": 5, "cost": "0.0000145"},
    "aembedding": {"input_tokens": 3, "output_tokens": 0, "cost": "0.00000006"},
    "aresponses": {"input_tokens": 3, "output_tokens": 5, "cost": "0.00000345"},
    "anthropic_messages": {"input_tokens": 3, "output_tokens": 5, "cost": "0.000028"},
    "aimage_generation": {
        "images": 2,
        "input_tokens": 3,
        "output_tokens": 200,
        "cost": "0.008015",
    },
    "aimage_edit": {"images": 1, "input_tokens": 103, "output_tokens": 100, "cost": "0.005015"},
    "atranscription": {"audio_seconds": 3.0, "input_tokens": None, "cost": "0.0003"},
    # Sixteen characters with their blanks, which LiteLLM's own figure (0.00021) leaves out.
    "aspeech": {"characters": 16, "input_tokens": None, "cost": "0.00024"},
    "amoderation": {"input_tokens": None, "cost": "0"},
    "arerank": {"search_units": 1, "input_tokens": None, "cost": "0.002"},
    "acreate_batch": {"input_tokens": None, "cost": "0"},
}


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage", max_retries=0) as opened:
        yield opened


DEAF = ("atranscription", "aspeech", "amoderation")
"""Calls for which LiteLLM sends no headers of the caller's: the whole server has to behave."""


@contextlib.contextmanager
def behaving(server: OpenAIServer, name: str, behaviour: Behaviour) -> Iterator[Any]:
    """Yield a server and the arguments that have it behave so."""
    if name in DEAF:
        with OpenAIServer(default=behaviour) as other:
            yield other, to(other, name)
    else:
        server.clear()
        yield server, to(server, name, behaviour)


def only(client: LiteLLMClient) -> UsageRecord:
    """The outcome of the one attempt, as it is on disk; it is settled."""
    assert client.usage.directory is not None
    records = list(Ledger(client.usage.directory).records(kinds=("started", "usage")))
    assert [record.kind for record in records] == ["started", "usage"]
    started, outcome = records
    assert (outcome.operation, outcome.attempt, outcome.ts) == (started.id, 1, started.ts)
    return outcome


# --- Answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
async def test_an_answer_is_on_record_with_its_units_and_cost(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    answer = await getattr(client, name)(**to(server, name), tags={"user": "alice"})
    record = only(client)
    check(record, name, status="ok", stream=False, tags={"user": "alice"}, **RECORDED[name])
    assert answer.usage_record == record
    assert record.cost_source in ("price_map", "unbilled")
    assert record.meta is not None
    assert record.meta["litellm"]
    assert (record.cost_source != "unbilled") == (record.price_version is not None)
    assert record.provider in ("openai", "anthropic", "cohere", "text-completion-openai")


@pytest.mark.parametrize("name", RECORDED)
async def test_an_answer_dumps_and_compares_as_litellms_own(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    litellm: Any = load_sync()
    ours = await getattr(client, name)(**to(server, name))
    strays = Strays()  # what LiteLLM leaves open is no matter here
    theirs = await strays.watch(getattr(litellm, name)(**to(server, name), num_retries=0))
    await strays.close()
    assert isinstance(ours, type(theirs))
    assert hasattr(ours, "usage_record")
    if name == "aspeech":
        assert ours.content == theirs.content
        return
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        assert "usage_record" not in json.dumps(ours)
        assert ours == dict(ours)
        assert json.loads(json.dumps(ours)) == dict(ours)
        assert pickle.loads(pickle.dumps(ours)) == ours
        return
    assert set(ours.model_dump()) == set(theirs.model_dump())
    assert "usage_record" not in ours.model_dump_json()
    assert "usage_record" not in ours.model_copy(deep=True).model_dump()
    assert ours == ours.model_copy()


async def test_positional_arguments_reach_litellm(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    given = to(server, "aembedding")
    model, texts = given.pop("model"), given.pop("input")
    await client.aembedding(model, texts, 3, **given)  # dimensions
    assert server.requests[-1].body["dimensions"] == 3
    with pytest.raises(TypeError, match="too many"):
        await client.aembedding(model, texts, *range(100))


async def test_nothing_of_ours_reaches_the_provider(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    server.clear()
    for name in RECORDED:
        if CALLS[name].need({}) is None:
            await getattr(client, name)(**to(server, name), tags={"user": "alice"})
    sent = json.dumps([dict(request.body) for request in server.requests])
    assert not [word for word in ("call_id", "alice", "num_retries", "max_retries") if word in sent]


# --- The other endings -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_an_error_is_on_record_and_costs_nothing(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    with behaving(server, name, Behaviour(status=400, message="no-luck")) as (_, given):
        with pytest.raises(Exception, match="no-luck") as caught:
            await getattr(client, name)(**given)
    check(only(client), name, status="error", error=type(caught.value).__name__)
    assert only(client).cost in (None, 0)
    assert only(client).usage_source == "none"


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_time_out_is_on_record(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    if name == "amoderation":  # LiteLLM takes no notice of ``timeout`` there
        client = client.with_options(deadline=0.2)
    with behaving(server, name, Behaviour(hang=True)) as (_, given):
        with pytest.raises(Exception, match=r"(?i)time") as caught:
            await getattr(client, name)(**given | {"timeout": 0.2})
    record = only(client)
    check(record, name, status="error", error=type(caught.value).__name__)
    billed = CALLS[name].tokens
    assert record.usage_source == ("estimated" if billed else "none")
    assert (record.input_tokens is not None) == billed


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_cancelled_call_is_on_record(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    with behaving(server, name, Behaviour(hang=True)) as (asked, given):
        task = asyncio.create_task(getattr(client, name)(**given))
        await asyncio.to_thread(asked.wait_for, len)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await client.flush()
    record = only(client)
    check(record, name, status="cancelled")
    assert (record.input_tokens is not None) == CALLS[name].tokens


# --- Streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_read_to_its_end_is_the_providers_count(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name, stream=True)
    stream = await getattr(client, name)(**to(server, name), stream=True)
    seen = [chunk async for chunk in stream]
    assert seen
    record = only(client)
    check(record, name, status="ok", stream=True, usage_source="provider", **RECORDED[name])
    assert stream.usage_record == record
    assert record.ttft_ms is not None
    assert record.cost_source == "price_map"


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_left_is_closed_and_estimated(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name, stream=True)
    server.clear()
    stream = await getattr(client, name)(**to(server, name, Behaviour(hang_after=2)), stream=True)
    async for chunk in stream:
        if "word2" in str(chunk):
            break
    await stream.aclose()
    record = only(client)
    check(record, name, status="abandoned", stream=True, usage_source="estimated")
    assert record.output_tokens
    assert record.cost
    await asyncio.to_thread(server.wait_for, lambda seen: any(r.disconnected for r in seen))


@pytest.mark.parametrize("how", ["error_after", "cut_after"])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_fails_is_an_error_with_what_came_before(
    server: OpenAIServer, client: LiteLLMClient, name: str, how: str
) -> None:
    await packages(name, stream=True)
    behaviour = Behaviour(**{how: 2})  # type: ignore[arg-type]
    stream = await getattr(client, name)(**to(server, name, behaviour), stream=True)
    try:
        async for _ in stream:
            pass
        raised = None
    except Exception as exc:
        raised = type(exc).__name__
    # An event of Anthropic's raises nothing in LiteLLM, and is an error all the same.
    silent = (name, how) == ("anthropic_messages", "error_after")
    check(only(client), name, status="error", error="overloaded_error" if silent else raised)
    assert raised is None if silent else raised
    record = only(client)
    assert record.usage_source == "estimated"
    assert record.provider == ARGUMENTS[name]["model"].partition("/")[0]
    assert record.output_tokens
    assert record.cost


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_refused_costs_nothing(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name, stream=True)
    behaviour = Behaviour(status=400, message="no-luck")

    async def read() -> None:
        async for _ in await getattr(client, name)(**to(server, name, behaviour), stream=True):
            pass

    with pytest.raises(Exception, match="no-luck"):
        await read()
    check(only(client), name, status="error", usage_source="none", cost=None)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_reader_that_is_cancelled_leaves_a_record(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name, stream=True)
    read = asyncio.Event()

    async def reading() -> None:
        behaviour = Behaviour(hang_after=2)
        async for chunk in await getattr(client, name)(**to(server, name, behaviour), stream=True):
            if "word2" in str(chunk):
                read.set()

    task = asyncio.create_task(reading())
    await asyncio.wait_for(read.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.flush()
    check(only(client), name, status="cancelled", usage_source="estimated")


# --- Prices ----------------------------------------------------------------------------------


async def test_the_users_price_wins_and_litellms_map_is_left_alone(
    server: OpenAIServer, tmp_path: Path
) -> None:
    litellm: Any = load_sync()
    before = json.dumps(litellm.model_cost, default=repr)
    own = ModelPrice(input="0.20", output="0.60", per=1_000_000)
    async with LiteLLMClient(
        tmp_path, prices={"hosted_vllm/qwen3": own, "openai/gpt-4o-mini": own}
    ) as client:
        for model in ("hosted_vllm/qwen3", "openai/gpt-4o-mini", "hosted_vllm/unknown"):
            await client.acompletion(**to(server, "acompletion") | {"model": model})
        stream = await client.acompletion(**to(server, "acompletion"), stream=True)
        async for _ in stream:
            pass
        left = await client.acompletion(**to(server, "acompletion"), stream=True)
        async for _ in left:
            break
        await left.aclose()
    assert json.dumps(litellm.model_cost, default=repr) == before
    one, two, unknown, streamed, abandoned = Ledger(tmp_path).records()
    for record in (one, two, streamed):
        assert record.cost == Decimal("0.0000036")
        assert (record.cost_source, record.price_version) == ("user", own.version)
    assert (unknown.cost, unknown.cost_source, unknown.price_version) == (None, None, None)
    assert abandoned.cost_source == "user"
    assert abandoned.input_tokens is not None
    assert abandoned.output_tokens is not None
    picos = abandoned.input_tokens * 200_000 + abandoned.output_tokens * 600_000
    assert abandoned.cost == Decimal(picos).scaleb(-12)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_provider_says_that_it_bills_is_taken(
    server: OpenAIServer, client: LiteLLMClient, stream: bool
) -> None:
    given = to(server, "acompletion", Behaviour(cost=0.0123))
    for model in ("openrouter/openai/gpt-4o-mini", "openai/gpt-4o-mini"):
        answer = await client.acompletion(**given | {"model": model}, stream=stream)
        if stream:
            async for _ in answer:
                pass
    for record in outcomes(client):
        assert (record.cost, record.cost_source) == (Decimal("0.0123"), "provider")
        assert record.usage_source == "provider"
        assert record.price_version is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_says_nothing_is_priced_by_the_map(
    server: OpenAIServer, client: LiteLLMClient, stream: bool
) -> None:
    given = to(server, "acompletion") | {"model": "openrouter/openai/gpt-4o-mini"}
    answer = await client.acompletion(**given, stream=stream)
    if stream:
        async for _ in answer:
            pass
    assert only(client).cost_source in ("litellm", "price_map", None)


async def test_what_chose_the_price_is_noted(server: OpenAIServer, client: LiteLLMClient) -> None:
    flex = to(server, "acompletion", Behaviour(service_tier="flex")) | {"model": "openai/gpt-5"}
    await client.acompletion(**flex, service_tier="flex")
    long = to(server, "acompletion", Behaviour(prompt_tokens=300_000))
    await client.acompletion(**long | {"model": "gemini/gemini-2.5-pro", "mock_response": "x"})
    await client.acompletion(**to(server, "acompletion"))
    first, _, plain = outcomes(client)
    assert first.meta is not None
    assert first.meta["price"] == {"service_tier": "flex"}
    assert first.cost == Decimal("0.000026875")  # half of 3 x 1.25 + 5 x 10 dollars a million
    assert plain.meta is not None
    assert "price" not in plain.meta


async def test_what_of_the_context_and_the_hour_chose_the_price(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    litellm: Any = load_sync()
    off_peak = {"hours_utc": "00:00-00:00", "input_cost_per_token": 1}
    entry = {
        "input_cost_per_token": 2,
        "input_cost_per_token_above_128k_tokens": 3,
        "input_cost_per_token_above_200k_tokens": 4,
    }
    monkeypatch.setitem(litellm.model_cost, "openai/tiered", entry)
    monkeypatch.setitem(litellm.model_cost, "openai/nightly", {"off_peak_pricing": off_peak})
    for tokens, above in (
        (128_000, {}),
        (128_001, {"above": 128_000}),
        (10**6, {"above": 200_000}),
    ):
        assert chosen({"input_tokens": tokens}, "openai/tiered", "openai") == above
    assert chosen({"input_tokens": 200_001}, "tiered", "openai") == {"above": 200_000}
    assert chosen({"input_tokens": 1}, "openai/nightly", "openai") == {"off_peak": True}
    never = {"off_peak_pricing": {**off_peak, "hours_utc": []}}
    monkeypatch.setitem(litellm.model_cost, "openai/nightly", never)
    assert chosen({"input_tokens": None}, "openai/nightly", "openai") == {"off_peak": False}
    assert chosen({"input_tokens": 10**6}, "openai/nobody", "openai") == {}


async def test_a_plain_call_writes_the_lines_that_the_general_way_writes(
    server: OpenAIServer, client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def noting(answer: Any) -> Any:
        fields = plain_fields(answer)
        read.append(fields is not None)
        return fields

    async def both_kinds() -> list[dict[str, Any]]:
        await client.acompletion(**to(server, "acompletion"), tags={"user": "alice"})
        given = {"model": "gpt-4o-mini", "messages": ASKED, "mock_response": "An answer."}
        answer = await client.acompletion(**given)
        records = list(Ledger(directory).records(kinds=("started", "usage")))
        assert answer.usage_record == records[-1]
        return [json.loads(encode(record)) for record in records[-4:]]

    await client.usage.open()
    directory = client.usage.directory
    assert directory is not None
    monkeypatch.setattr("litellm_ledger._calls.call.plain_fields", noting)
    plain = await both_kinds()
    assert read == [True, True]
    for room in ("_calls.call", "_litellm.outcome"):
        monkeypatch.setattr(f"litellm_ledger.{room}.plain_fields", lambda _: None)
    general = await both_kinds()
    for one, other in zip(plain, general, strict=True):
        assert list(one) == list(other)  # the same members, in the same order
        own = ("id", "seq", "ts", "operation", "call_id", "response_id", "latency_ms", "crc")
        assert {**one, **{name: other[name] for name in own if name in one}} == other


async def test_a_call_on_the_straight_line_writes_the_lines_that_the_general_way_writes(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the call ends; a limit makes it a general one."""
    refused = {"extra_headers": Behaviour(status=400).headers()}
    given = {"model": "gpt-4o-mini", "messages": ASKED, "mock_response": "An answer."}
    calls: list[tuple[dict[str, Any], bool]] = [
        (given, True),
        (to(server, "acompletion"), True),
        ({**given, "tags": {"user": "alice"}}, True),
        ({**given, "service_tier": "flex"}, True),  # its price hung on something
        ({**given, "mock_response": RuntimeError("refused")}, True),
        ({**to(server, "acompletion"), **refused}, True),
        ({**given, "custom_llm_provider": "cohere"}, False),  # its usage is read on the wire
        ({**given, "litellm_call_id": "mine"}, True),
        ({**given, "litellm_call_id": "\u00e9"}, False),
    ]

    async def lines(client: LiteLLMClient) -> list[list[dict[str, Any]]]:
        found = []
        for kwargs, _ in calls:
            answer: Any
            try:
                answer = await client.acompletion(**kwargs)
            except Exception as exc:
                answer = exc
            directory = client.usage.directory
            assert directory is not None
            records = list(Ledger(directory).records(kinds=("started", "usage")))
            assert answer.usage_record == records[-1]
            assert client.statistics().active == client.statistics().in_flight == 0
            found.append([json.loads(encode(record)) for record in records[-2:]])
        return found

    taken: list[str | None] = []
    start = CallsInFlight.began

    def noting(calls: CallsInFlight, record: UsageRecord) -> UsageRecord:
        taken.append(record.model)
        return start(calls, record)

    monkeypatch.setattr(CallsInFlight, "began", noting)
    async with LiteLLMClient(tmp_path / "straight") as client:
        with client.tag(team="blue"):
            await client.acompletion(**given)  # its segment is made by the task
            taken.clear()
            plain = await lines(client)
    straight = sum(straight for _, straight in calls)
    assert straight - 2 <= len(taken) <= straight  # one that meets a sync is a general one
    async with LiteLLMClient(tmp_path / "general", max_concurrency=5) as client:
        with client.tag(team="blue"):
            await client.acompletion(**given)
            taken.clear()
            general = await lines(client)
    assert taken == []
    own = ("id", "seq", "ts", "operation", "call_id", "response_id", "latency_ms", "crc")
    for both, others in zip(plain, general, strict=True):
        for one, other in zip(both, others, strict=True):
            assert list(one) == list(other)  # the same members, in the same order
            assert {**one, **{name: other[name] for name in own if name in one}} == other


# --- Packages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more", "package", "install"),
    [
        ("acompletion", {"tools": [{"type": "function"}]}, "mcp", "[responses]"),
        ("aresponses", {}, "mcp", "[responses]"),
        ("anthropic_messages", {"stream": True}, "soundfile", "[messages]"),
    ],
)
async def test_a_missing_package_is_named_before_anything_is_spent(
    server: OpenAIServer,
    client: LiteLLMClient,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    more: dict[str, Any],
    package: str,
    install: str,
) -> None:
    def missing(module: str) -> Any:
        if module == "litellm.utils":
            return load_sync().utils  # type: ignore[attr-defined]
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(needs, "_found", set())
    monkeypatch.setattr(needs.importlib, "import_module", missing)
    server.clear()
    with pytest.raises(MissingExtra, match=f"{package} is not installed") as caught:
        await getattr(client, name)(**to(server, name), **more)
    assert f"pip install 'litellm-ledger{install}'" in str(caught.value)
    assert name in str(caught.value)
    assert server.requests == []
    assert outcomes(client) == []


async def test_only_the_newest_name_that_litellm_knows_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def imports(name: str) -> None:  # litellm.old is there as well, and deprecated
        asked.append(name)
        if name == "litellm.newer":
            raise ModuleNotFoundError(name="litellm.newer")

    monkeypatch.setattr(needs, "_found", set())
    monkeypatch.setattr(needs.importlib, "import_module", imports)
    modules = (("litellm.newer", "litellm.new", "litellm.old"), ("litellm.other",))
    await needs.require(modules, "messages", "anthropic_messages")
    assert asked == ["litellm.newer", "litellm.new", "litellm.other"]


async def test_models_without_anthropics_interface_need_no_proxy(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    assert not needs.needs_messages_stream("openai/gpt-4o-mini", None)
    assert needs.needs_messages_stream("anthropic/claude-haiku-4-5", None)
    assert needs.needs_messages_stream("claude-haiku-4-5", None)
    assert needs.needs_messages_stream("nobody-knows", None)
