"""The seam against the real LiteLLM and a local server: import, prices, streams, connections."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from tests import forked
from tests.children import complaints

from litellm_ledger import LiteLLMClient
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._litellm import load as _litellm
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.connections import acquire_http, release_http
from litellm_ledger._litellm.costs import compute_cost, is_priced
from litellm_ledger._litellm.estimates import estimate_stream
from litellm_ledger._litellm.load import load, load_sync, loaded, price_version, warm_up
from litellm_ledger._litellm.outcome import from_exception, from_response, from_stream
from litellm_ledger.testing import Behaviour, OpenAIServer

MODEL = "openai/gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "three words here"}]
ASKED = {"include_usage": True}


@pytest.fixture(scope="module")
def litellm() -> Any:
    module: Any = load_sync()
    module.suppress_debug_info = True
    return module


def to(server: OpenAIServer, behaviour: Behaviour | None = None, **more: Any) -> dict[str, Any]:
    headers = {} if behaviour is None else behaviour.headers()
    where = {"api_base": server.base_url, "api_key": "any", "max_retries": 0}
    return {"model": MODEL, "messages": MESSAGES, "extra_headers": headers, **where, **more}


# --- Import ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch", [False, True])
@pytest.mark.parametrize("given", [None, "False"])
def test_price_map_is_local_during_the_import_only_and_the_users_word_wins(
    monkeypatch: pytest.MonkeyPatch, given: str | None, fetch: bool
) -> None:
    seen: list[str | None] = []
    fake: Any = ModuleType("litellm")
    fake.model_cost = {}

    def imports(name: str) -> Any:
        seen.append(os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP"))
        return fake

    monkeypatch.setattr(_litellm, "_ready", None)
    monkeypatch.setattr(_litellm, "_version", None)
    monkeypatch.setattr(_litellm, "loaded", lambda: None)
    monkeypatch.setattr(importlib, "import_module", imports)
    if given is None:
        monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)
    else:
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", given)
    assert load_sync(fetch_prices=fetch) is fake
    assert seen[0] == (given or (None if fetch else "True"))
    assert os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP") == given


def test_threads_import_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("litellm")
    fake.model_cost = {}
    asked: list[str] = []
    second = threading.Event()

    def imports(name: str) -> Any:
        asked.append(name)
        if len(asked) > 1:
            second.set()
        second.wait(0.2)  # a second import would arrive by then
        return fake

    monkeypatch.setattr(_litellm, "_ready", None)
    monkeypatch.setattr(_litellm, "_price_version", lambda module: "")
    monkeypatch.setattr(importlib, "import_module", imports)
    threads = [threading.Thread(target=load_sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["litellm"]


def test_module_that_is_still_being_imported_is_not_loaded(
    litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded() is litellm
    monkeypatch.setattr(litellm.__spec__, "_initializing", True)
    assert loaded() is None
    monkeypatch.delitem(sys.modules, "litellm")
    assert loaded() is None


@pytest.mark.asyncio
async def test_loading_again_needs_no_thread(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", None)
    assert await load() is litellm


# --- Prices ----------------------------------------------------------------------------------


def test_price_version_follows_the_price_map(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = price_version()
    assert version.startswith("litellm-")
    assert len(version.rpartition("+")[2]) == 8
    assert price_version() is version
    monkeypatch.setattr(litellm, "model_cost", dict(litellm.model_cost))
    assert price_version() == version
    litellm.model_cost["a-new-one"] = {"input_cost_per_token": 1}
    assert price_version() != version


@pytest.fixture
def source(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where LiteLLM says that its price map comes from, in a process that has just begun."""
    module = importlib.import_module("litellm.litellm_core_utils.get_model_cost_map")
    found = {"source": "local", "url": None}
    monkeypatch.setattr(module, "get_model_cost_map_source_info", lambda: found)
    monkeypatch.setattr(_litellm, "_fetch_expected", False)
    monkeypatch.setattr(_litellm, "_version", None)
    monkeypatch.setattr(litellm, "model_cost", dict(litellm.model_cost))
    return found


def test_a_fetched_price_map_is_warned_of_once(
    litellm: Any, source: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    price_version()
    assert caplog.messages == []
    source |= {"source": "remote", "url": "https://example.com/prices.json"}
    for name in ("one", "two"):  # LiteLLM replaces the map while the program runs
        litellm.model_cost = {**litellm.model_cost, name: {"input_cost_per_token": 1}}
        price_version()
    (message,) = caplog.messages
    assert "https://example.com/prices.json" in message
    assert "LITELLM_LOCAL_MODEL_COST_MAP=True" in message


def test_a_price_map_that_was_asked_for_is_not_warned_of(
    source: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source["source"] = "remote"
    LiteLLMClient(tmp_path, fetch_prices=True)
    price_version()
    assert caplog.messages == []


def test_unknown_is_not_free(litellm: Any) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    known = litellm.ModelResponse(model="gpt-4o-mini", usage=litellm.Usage(**usage))
    assert compute_cost(known, model=MODEL, custom_llm_provider="openai") == Decimal("0.00000585")
    plain = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage}
    assert compute_cost(plain, model="gpt-4o-mini") == Decimal("0.00000585")
    stranger = {**plain, "model": "nobody"}
    assert compute_cost(stranger, model="nobody", custom_llm_provider="openai") is None
    # An entry without a price: LiteLLM says 0.
    free = {"model": "dashscope/qwen3-30b-a3b", "custom_llm_provider": "dashscope"}
    assert compute_cost(stranger, **free) is None
    # No usage: LiteLLM says 0.
    assert compute_cost(litellm.ModelResponse(model="gpt-4o-mini"), model="gpt-4o-mini") is None
    for junk in (None, {}, object(), b"x", 5):
        assert compute_cost(junk, model="gpt-4o-mini") is None


def test_free_is_zero(litellm: Any) -> None:
    usage = litellm.Usage(prompt_tokens=11, completion_tokens=7, total_tokens=18)
    name = "gemini/gemma-3-27b-it"
    answer = litellm.ModelResponse(model=name, usage=usage)
    assert compute_cost(answer, model=name, custom_llm_provider="gemini") == 0
    assert is_priced("gpt-4o-mini", "openai")
    assert is_priced(MODEL, "openai")
    assert not is_priced("nobody", "openai")


def test_anthropic_mapping_is_priced_with_its_cached_tokens(litellm: Any) -> None:
    answer = {
        "id": "msg_1",
        "type": "message",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "hello"}],
        "usage": {
            "input_tokens": 20,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "output_tokens": 9,
        },
    }
    cost = compute_cost(answer, model="anthropic/claude-haiku-4-5", custom_llm_provider="anthropic")
    assert cost == Decimal("0.0001375")


# --- Calls -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def connections() -> AsyncIterator[None]:
    """What a test's calls leave open is closed."""
    loop = asyncio.get_running_loop()
    acquire_http(loop)
    yield
    await release_http(loop)


@pytest.mark.asyncio
@pytest.mark.usefixtures("connections")
async def test_answer_of_a_call(litellm: Any, server: OpenAIServer) -> None:
    fields = from_response(await litellm.acompletion(**to(server)))
    assert (fields["input_tokens"], fields["output_tokens"]) == (3, 5)
    assert fields["cost"] == Decimal("0.00000345")
    assert fields["provider"] == "openai"
    fields = from_response(await litellm.acompletion(**to(server, Behaviour(no_usage=True))))
    assert fields["usage_source"] == "none"
    assert "cost" not in fields
    with pytest.raises(litellm.RateLimitError) as caught:
        await litellm.acompletion(**to(server, Behaviour(status=429)))
    fields = from_exception(caught.value)
    assert (fields["error"], fields["meta"]) == ("RateLimitError", {"http_status": 429})


STREAMS = {
    "asked": (Behaviour(), ASKED, "provider", (3, 5)),
    "asked, on the finish chunk": (Behaviour(usage_on_finish=True), ASKED, "provider", (3, 5)),
    "asked, ignored": (Behaviour(ignore_include_usage=True), ASKED, "estimated", None),
    "not asked": (Behaviour(), None, "none", None),
}


@pytest.mark.asyncio
@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("case", STREAMS)
async def test_who_counted_a_stream(litellm: Any, server: OpenAIServer, case: str) -> None:
    behaviour, options, source, counts = STREAMS[case]
    stream = await litellm.acompletion(**to(server, behaviour, stream=True, stream_options=options))
    final = None
    async for chunk in stream:
        if getattr(chunk, "usage", None) is not None:
            final = chunk
    fields = from_stream(stream.chunks, finished=True, final=final)
    assert fields["usage_source"] == source
    if counts:
        assert (fields["input_tokens"], fields["output_tokens"]) == counts
        assert fields["cost"] == Decimal("0.00000345")
        assert compute_cost(final, model=MODEL, custom_llm_provider="openai") == fields["cost"]
    if source == "none":
        fields = estimate_stream(MODEL, MESSAGES, stream.chunks)
        assert fields["usage_source"] == "estimated"
        assert fields["output_tokens"] >= 5


@pytest.mark.asyncio
@pytest.mark.usefixtures("connections")
async def test_stream_left_early_is_estimated_and_its_connection_closed(
    litellm: Any, server: OpenAIServer
) -> None:
    server.clear()
    behaviour = Behaviour(chunks=5, hang_after=2)
    stream = await litellm.acompletion(**to(server, behaviour, stream=True, stream_options=ASKED))
    async for chunk in stream:
        if chunk.choices[0].delta.content == " word2":
            break
    await stream.aclose()
    await asyncio.to_thread(server.wait_for, lambda seen: seen[0].disconnected)
    assert from_stream(stream.chunks, finished=False)["usage_source"] == "none"
    fields = await asyncio.to_thread(estimate_stream, MODEL, MESSAGES, stream.chunks)
    assert fields["usage_source"] == "estimated"
    assert fields["output_tokens"] == 4
    assert fields["total_tokens"] == fields["input_tokens"] + 4
    assert priced(fields) > 0


@pytest.mark.asyncio
async def test_mocked_stream_is_litellms_own_count(litellm: Any) -> None:
    stream = await litellm.acompletion(
        model=MODEL, messages=MESSAGES, mock_response="hi there", stream=True, stream_options=ASKED
    )
    seen = [chunk async for chunk in stream]
    fields = from_stream(stream.chunks, finished=True, final=seen[-1])
    assert fields["usage_source"] == "estimated"
    assert fields["cost"] == Decimal("0.0000027")  # 10 in, 2 out


# --- Estimates -------------------------------------------------------------------------------


def priced(fields: dict[str, Any], model: str = MODEL) -> Any:
    asked = Asked(CALLS["acompletion"], {"model": model})
    return Pricing().complete(fields, None, asked).get("cost")


def test_call_cancelled_in_flight_counts_its_input_only(litellm: Any) -> None:
    fields = estimate_stream(MODEL, MESSAGES, [])
    assert fields["input_tokens"] == 10
    assert "output_tokens" not in fields
    assert priced(fields) == Decimal("0.0000015")


def test_estimate_of_texts_numbers_and_strangers(
    litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert estimate_stream("m", "a b c", [])["input_tokens"] == 3
    assert estimate_stream("m", ["a b", "c"], [])["input_tokens"] >= 3
    assert estimate_stream("m", [5, 6, 7], [])["input_tokens"] == 3
    assert priced(estimate_stream("nobody/m", MESSAGES, []), "nobody/m") is None
    asked: list[Any] = []
    count = litellm.token_counter
    monkeypatch.setattr(litellm, "token_counter", lambda **kw: asked.append(kw) or count(**kw))
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/never-fetched.png"}}
    seen = [{"role": "user", "content": [image]}]
    assert estimate_stream(MODEL, seen, [])["input_tokens"] > 50
    assert asked[0]["use_default_image_token_count"] is True  # else it fetches the image
    for junk in (None, [], [None], object()):
        assert estimate_stream(MODEL, junk, [])["usage_source"] == "none"


def test_estimate_keeps_what_the_provider_counted_and_counts_the_rest(litellm: Any) -> None:
    usage = litellm.Usage(
        prompt_tokens=170, completion_tokens=1, total_tokens=171, cache_read_input_tokens=100
    )
    first = litellm.ModelResponseStream(model="m", choices=[{"delta": {"content": ""}}])
    first.usage = usage
    tool = {"index": 0, "id": "t", "function": {"name": "look_up", "arguments": '{"of": "words"}'}}
    rest = [
        litellm.ModelResponseStream(model="m", choices=[{"delta": {"content": "one two three"}}]),
        litellm.ModelResponseStream(model="m", choices=[{"delta": {"tool_calls": [tool]}}]),
    ]
    fields = estimate_stream("claude-haiku-4-5", MESSAGES, [first, *rest])
    assert (fields["input_tokens"], fields["cache_read_tokens"]) == (170, 100)
    assert fields["output_tokens"] > 6
    assert priced(fields, "claude-haiku-4-5") > 0


# --- Connections -----------------------------------------------------------------------------


def clients(litellm: Any) -> list[Any]:
    """The clients in LiteLLM's cache that belong to the running loop."""
    cache = litellm.in_memory_llm_clients_cache
    ending = cache.update_cache_key_with_event_loop("")
    return [client for key, client in cache.cache_dict.items() if key.endswith(ending)]


def sessions(litellm: Any) -> list[Any]:
    """The open aiohttp sessions of these, if they are OpenAI's."""
    return [client._client._transport.client for client in clients(litellm)]


@pytest.mark.asyncio
async def test_last_release_closes_and_the_next_call_still_works(
    litellm: Any, server: OpenAIServer
) -> None:
    loop = asyncio.get_running_loop()
    acquire_http(loop)
    acquire_http(loop)
    await litellm.acompletion(**to(server))
    (session,) = sessions(litellm)
    await release_http(loop)
    assert not session.closed
    await release_http(loop)
    assert session.closed
    assert sessions(litellm) == []
    acquire_http(loop)
    await litellm.acompletion(**to(server))
    await release_http(loop)
    await release_http(loop)  # once too often


@pytest.mark.asyncio
async def test_client_that_somebody_still_holds_goes_on_working(
    litellm: Any, server: OpenAIServer
) -> None:
    loop = asyncio.get_running_loop()
    acquire_http(loop)
    await litellm.acompletion(**to(server))
    held = clients(litellm)
    await release_http(loop)
    await held[0].chat.completions.create(model="m", messages=MESSAGES)
    await held[0].close()


@pytest.mark.asyncio
async def test_what_was_there_before_stays(litellm: Any, server: OpenAIServer) -> None:
    loop = asyncio.get_running_loop()
    await litellm.acompletion(**to(server))
    (session,) = sessions(litellm)
    acquire_http(loop)
    await litellm.acompletion(**to(server, timeout=77))  # another client
    assert len(sessions(litellm)) == 2
    await release_http(loop)
    assert sessions(litellm) == [session]
    assert not session.closed
    await session.close()


@pytest.mark.asyncio
async def test_call_in_flight_is_not_disturbed(litellm: Any, server: OpenAIServer) -> None:
    loop = asyncio.get_running_loop()
    acquire_http(loop)
    stream = await litellm.acompletion(
        **to(server, Behaviour(chunk_delay=0.05), stream=True, stream_options=ASKED)
    )
    await anext(stream)
    await release_http(loop)
    assert len([chunk async for chunk in stream]) > 5
    acquire_http(loop)  # it was there before; so close it by hand
    (session,) = sessions(litellm)
    await release_http(loop)
    await session.close()


def test_another_loop_is_not_disturbed(litellm: Any, server: OpenAIServer) -> None:
    ours_done, theirs_open = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def theirs() -> None:
        loop = asyncio.get_running_loop()
        acquire_http(loop)
        await litellm.acompletion(**to(server))
        (session,) = sessions(litellm)
        theirs_open.set()
        await asyncio.to_thread(ours_done.wait, 10)
        assert not session.closed
        await litellm.acompletion(**to(server))
        assert sessions(litellm) == [session]
        await release_http(loop)
        assert session.closed

    def run() -> None:
        try:
            asyncio.run(theirs())
        except BaseException as exc:
            failed.append(exc)
            theirs_open.set()

    async def ours() -> None:
        acquire_http(asyncio.get_running_loop())
        thread.start()  # their connection is younger than our client, and idle when it goes
        await asyncio.to_thread(theirs_open.wait, 10)
        await litellm.acompletion(**to(server))
        await release_http(asyncio.get_running_loop())

    thread = threading.Thread(target=run)
    asyncio.run(ours())
    ours_done.set()
    thread.join(10)
    assert failed == []


LOADS = """
    import asyncio, sys, threading
    from litellm_ledger._litellm.load import load, load_sync, loaded, warm_up
    assert loaded() is None and "litellm" not in sys.modules
    found = []
    async def loads():
        found.extend(await asyncio.gather(load(), load()))
    threads = [threading.Thread(target=asyncio.run, args=(loads(),)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and set(found) == {loaded()}, found
    litellm = loaded()
    litellm.suppress_debug_info = True
    def settings():
        kept = {k: v for k, v in vars(litellm).items() if k[0] != "_"}
        return {k: repr(v) for k, v in kept.items() if isinstance(v, (list, bool, int, str))}
    before = settings()
    asyncio.run(warm_up())
    after = settings()
    changed = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
    assert changed == {}, changed
"""
USES = """
    import asyncio, sys
    from litellm_ledger._litellm.connections import acquire_http, release_http
    litellm.suppress_debug_info = True
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 60
        base, release = sys.argv[1], sys.argv[2]
        loop = asyncio.get_running_loop()
        to = {"api_base": base, "api_key": "any"}
        messages = [{"role": "user", "content": "hi"}]
        for _ in range(2):
            acquire_http(loop)
            await litellm.acompletion(model="openai/gpt-4o-mini", messages=messages, **to)
            await litellm.aembedding(model="openai/text-embedding-3-small", input=["a"], **to)
            await litellm.acompletion(model="hosted_vllm/m", messages=messages, **to)
            async for _ in await litellm.acompletion(
                model="openai/gpt-4o-mini", messages=messages, stream=True, **to
            ):
                pass
            if release == "yes":
                await release_http(loop)
    for _ in range(10 if sys.argv[2] == "yes" else 1):
        asyncio.run(main())
"""


DEV = ("-X", "dev", "-W", "error::ResourceWarning")


def test_nothing_is_left_to_warn_about(server: OpenAIServer) -> None:
    done = subprocess.run(
        [sys.executable, *DEV, "-c", textwrap.dedent(LOADS + USES), server.base_url, "yes"],
        capture_output=True,
        text=True,
        timeout=200,
        env={k: v for k, v in os.environ.items() if k != "LITELLM_LOCAL_MODEL_COST_MAP"},
        check=False,
    )
    assert (done.returncode, done.stdout + complaints(done.stderr)) == (0, "")


@pytest.mark.alike
def test_without_us_there_is_something_to_warn_about(server: OpenAIServer) -> None:
    """The control."""
    code = f"import litellm{textwrap.dedent(USES)}"
    done = forked.run(["-c", code, server.base_url, "no"], options=DEV, modules=forked.LITELLM)
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" in done.stderr


@pytest.mark.asyncio
async def test_warm_up_may_be_repeated(litellm: Any) -> None:
    await asyncio.gather(warm_up(), warm_up())
