"""The table of calls against LiteLLM's own names, and the pure parts behind it."""

from __future__ import annotations

import inspect
import json
from operator import attrgetter
from types import SimpleNamespace as Obj
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.replies import sse

from litellm_ledger import LiteLLMClient, UsageRecord
from litellm_ledger._calls.answers import RecordedDict, hand_out
from litellm_ledger._calls.realtime import SESSIONS
from litellm_ledger._client.further import FurtherCalls, Interactions, VectorStores
from litellm_ledger._client.methods import LiteLLMCalls
from litellm_ledger._litellm.anthropic_events import MessagesReader
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.content import captured
from litellm_ledger._litellm.load import version
from litellm_ledger._litellm.offered import NOT_OFFERED, UNBILLED
from litellm_ledger._litellm.stream_readers import ResponsesReader, TextReader
from litellm_ledger._litellm.units import UNITS, add_units, search_context
from litellm_ledger._records.record import MAX_CONTENT

# --- The table -------------------------------------------------------------------------------


def test_every_row_has_its_method_and_every_method_its_row() -> None:
    spaces = {"interactions": Interactions, "vector_stores": VectorStores}
    methods = {name for kind in (LiteLLMCalls, FurtherCalls) for name in public(kind)}
    assert spaces.keys() | SESSIONS.keys() <= methods
    inside = {f"{name}.{each}" for name, kind in spaces.items() for each in public(kind)}
    assert methods - spaces.keys() - SESSIONS.keys() | inside == set(CALLS)


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def method(name: str) -> Any:
    for space, kind in (("interactions.", Interactions), ("vector_stores.", VectorStores)):
        if name.startswith(space):
            return getattr(kind, name.removeprefix(space))
    return getattr(LiteLLMClient, name)


@pytest.mark.parametrize("name", CALLS)
def test_names_and_arguments_are_litellms(name: str) -> None:
    litellm: Any = pytest.importorskip("litellm")
    row = CALLS[name]
    try:
        function = row.function(litellm)
    except AttributeError:
        assert name in JOINED  # an older LiteLLM
        return
    assert inspect.iscoroutinefunction(inspect.unwrap(function))
    theirs = list(inspect.signature(attrgetter(row.positional)(litellm)).parameters)
    ours = [
        parameter.name
        for parameter in inspect.signature(method(name)).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    ]
    if theirs == ["args", "kwargs"]:
        assert name == "aocr"  # LiteLLM itself names none of them
        return
    assert theirs[: len(ours)] == ours
    assert set(row.reads) <= set(theirs)


def litellm_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version().split(".")[:2])


JOINED = {"adecisions", "aextraction"}
"""Calls that older releases of LiteLLM lack."""


def test_of_every_coroutine_that_litellm_exports_it_is_known_what_becomes() -> None:
    litellm: Any = pytest.importorskip("litellm")
    exported = {
        name
        for name in dir(litellm)
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(litellm, name, None))
    }
    rows = {name for name in CALLS if "." not in name}
    assert exported - rows - UNBILLED - NOT_OFFERED.keys() == set()
    assert not UNBILLED & rows | UNBILLED & NOT_OFFERED.keys() | rows & NOT_OFFERED.keys()
    if litellm_version() >= (1, 110):
        assert UNBILLED | NOT_OFFERED.keys() <= exported


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("interactions", {"interactions.acreate"}),
        ("vector_stores", {"vector_stores.asearch"}),
        ("google_genai", {"agenerate_content", "agenerate_content_stream"}),
    ],
)
def test_of_what_stands_in_litellms_modules_too(path: str, known: set[str]) -> None:
    litellm: Any = pytest.importorskip("litellm")
    module = getattr(litellm, path)
    names = [name for name in module.__all__ if inspect.iscoroutinefunction(getattr(module, name))]
    unbilled = {"acancel", "adelete", "aget", "acreate"} if path != "interactions" else set()
    if path == "interactions":
        unbilled = {"acancel", "adelete", "aget"}
    left = {name for name in names if not {name, f"{path}.{name}"} & known}
    assert left <= unbilled


def test_what_is_counted_is_all_that_the_model_reads() -> None:
    def asked(name: str, **kwargs: Any) -> Any:
        return Asked(CALLS[name], kwargs).prompt

    assert asked("aembedding", input=["a", "b"]) == ["a", "b"]
    assert asked("aresponses", input="a") == "a"
    assert asked("aresponses", input="a", instructions="b") == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    chat = [{"role": "user", "content": "a"}]
    both = asked("anthropic_messages", messages=chat, system="b")
    assert both == [*chat, {"role": "user", "content": "b"}]
    assert asked("acompletion") is None


# --- Units -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kwargs", "answer", "units"),
    [
        ("aimage_generation", {}, Obj(data=[1, 2]), {"images": 2}),
        ("aimage_generation", {}, Obj(data=None), {}),
        ("aspeech", {"input": "a b"}, None, {"characters": 3}),
        ("aspeech", {"input": 5}, None, {}),
        ("atranscription", {}, {"usage": {"type": "duration", "seconds": 3}}, 3.0),
        ("atranscription", {}, Obj(usage=None, duration=2.5), 2.5),
        ("atranscription", {}, Obj(_hidden_params={"audio_transcription_duration": 4.5}), 4.5),
        ("atranscription", {}, Obj(duration=-1), {}),
        ("atranscription", {}, Obj(duration=float("nan")), {}),
        ("arerank", {}, {"meta": {"billed_units": {"search_units": 1}}}, {"search_units": 1}),
        ("arerank", {}, {"meta": {"billed_units": {"search_units": 1.0}}}, {"search_units": 1}),
        ("arerank", {}, {"meta": None}, {}),
        ("aocr", {}, {"usage_info": {"pages_processed": 7}}, {"pages": 7}),
        ("acompletion", {}, {}, {}),
        (
            "aimage_generation",
            {"size": "512x512", "quality": "auto", "steps": 30},
            Obj(data=[1], size="1024x1024", _hidden_params={"billable_input_image_count": 2}),
            {
                "images": 1,
                "meta": {"units": {"input_images": 2}, "price": {"size": "1024x1024", "steps": 30}},
            },
        ),
        (
            "aimage_generation",
            {"image_size": {"width": 1_500, "height": 700}, "quality": "low"},
            Obj(data=[Obj(provider_specific_fields={"width": 1_500, "height": 701})]),
            {
                "images": 1,
                "meta": {
                    "units": {"megapixels": 2},
                    "price": {"size": "1500x700", "quality": "low"},
                },
            },
        ),
        (
            "arerank",
            {},
            {"meta": {"billed_units": {"total_tokens": 9}}},
            {"input_tokens": 9, "usage_source": "provider"},
        ),
        (
            "aocr",
            {},
            {"usage_info": {"pages_processed": 7, "pages_processed_annotation": 2, "credits": 1.5}},
            {"pages": 7, "meta": {"units": {"annotated_pages": 2, "credits": 1.5}}},
        ),
        (
            "aembedding",
            {},
            Obj(usage={"prompt_tokens_details": {"image_count": 2, "character_count": 9}}),
            {"characters": 9, "meta": {"units": {"input_images": 2}}},
        ),
    ],
)
def test_units(name: str, kwargs: dict[str, Any], answer: Any, units: Any) -> None:
    expected = {"audio_seconds": units} if isinstance(units, float) else units
    found = CALLS[name].units(kwargs, answer)
    assert found == expected
    UsageRecord(**found)


@pytest.mark.parametrize(
    ("name", "kwargs", "answer", "meta"),
    [
        (
            "avideo_generation",
            {"size": "1280x720"},
            Obj(usage={"duration_seconds": 8.0, "video_count": 2, "video_resolution": "720p"}),
            {
                "units": {"video_seconds": 16.0},
                "price": {"resolution": "720p", "size": "1280x720"},
            },
        ),
        ("avideo_generation", {}, Obj(usage=None, seconds="4"), {"units": {"video_seconds": 4.0}}),
        (
            "asearch",
            {"search_provider": "tavily", "query": ["a", "b"], "search_depth": "advanced"},
            None,
            {"units": {"queries": 2}, "price": {"mode": "advanced"}},
        ),
        (
            "asearch",
            {"search_provider": "parallel_ai", "query": ["a", "b"], "max_results": 15},
            None,
            {"units": {"queries": 1, "additional_results": 5}, "price": {"max_results": 15}},
        ),
    ],
)
def test_units_of_calls_that_are_no_tokens_at_all(
    name: str, kwargs: dict[str, Any], answer: Any, meta: Any
) -> None:
    assert UNITS[name](kwargs, answer) == {"meta": meta}


def test_what_an_answer_says_of_its_price_comes_before_what_was_asked_for() -> None:
    found = {"images": 1, "meta": {"price": {"size": "1x1", "service_tier": "flex"}}}
    fields = {"meta": {"price": {"service_tier": "priority"}, "tools": {"web_searches": 1}}}
    assert add_units(fields, found) == {
        "images": 1,
        "meta": {
            "price": {"size": "1x1", "service_tier": "priority"},
            "tools": {"web_searches": 1},
        },
    }


def test_the_context_of_a_search_is_the_size_that_was_asked_for() -> None:
    asked = {"web_search_options": {"search_context_size": "high"}}
    assert search_context(asked) == "high"
    assert (
        search_context({"tools": [{"type": "web_search", "search_context_size": "low"}]}) == "low"
    )
    assert search_context({"tools": "x", "web_search_options": {"search_context_size": 1}}) is None


# --- Anthropic's events ----------------------------------------------------------------------

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude",
        "usage": {"input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 1},
    },
}
TEXT = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "häl\nlo"}}
TOOL = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}
END = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}
STOP = {"type": "message_stop"}


def read(*chunks: Any) -> MessagesReader:
    reader = MessagesReader(None)
    for chunk in chunks:
        reader.see(chunk)
    return reader


WHOLE = {
    "response_model": "claude",
    "response_id": "msg_1",
    "input_tokens": 120,
    "output_tokens": 9,
    "cache_read_tokens": 100,
    "usage_source": "provider",
}


@given(st.lists(st.integers(1, 60), max_size=30))
def test_events_are_read_wherever_the_bytes_are_cut(sizes: list[int]) -> None:
    data, chunks = sse(START, TEXT, TOOL, END, STOP), []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    reader = read(*chunks, data)
    assert reader.fields(finished=True) == WHOLE
    assert reader.text == "häl\nlo{}"
    answer = reader.answer()
    assert answer is not None
    assert answer["usage"]["output_tokens"] == 9


def test_events_may_be_mappings_or_text() -> None:
    assert read(START, END, STOP).fields(finished=True) == WHOLE
    assert read(sse(START, END, STOP).decode()).fields(finished=True) == WHOLE


def test_a_stream_without_its_end_is_a_floor() -> None:
    reader = read(sse(START, TEXT))
    fields = reader.fields(finished=False)
    assert (fields["usage_source"], fields["input_tokens"]) == ("estimated", 120)
    assert "total_tokens" not in fields
    assert reader.answer() is None
    assert read().fields(finished=False) == {"usage_source": "none"}
    cut = {"status": "error", "error": "StreamCut"}
    assert reader.fields(finished=True) == fields | cut


def test_an_error_is_known_by_its_name_and_by_no_other_text() -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "s3cr3t"}}
    strange = {"type": "error", "error": {"type": "s3cr3t", "message": "s3cr3t"}}
    for event, name in (
        (overloaded, "overloaded_error"),
        (strange, "api_error"),
        ({"type": "error"}, "api_error"),
    ):
        fields = read(sse(START, event)).fields(finished=True)
        assert (fields["status"], fields["error"]) == ("error", name)


@pytest.mark.parametrize(
    "junk",
    [b"data: {", b"data: []\n", b"data: \xff\xfe\n", None, 5, b"", {"type": 5}, {}, object()],
)
def test_junk_is_passed_over(junk: Any) -> None:
    assert read(junk, b"\n", sse(START, END, STOP)).fields(finished=True) == WHOLE
    for usage in ("x", [], {"input_tokens": -1}, {"output_tokens": 2**60}):
        read({"type": "message_start", "message": {"usage": usage}}).fields(finished=False)


# --- Other streams ---------------------------------------------------------------------------


def test_a_response_that_failed_is_an_error() -> None:
    reader = ResponsesReader(Obj(custom_llm_provider="openai"))
    usage = {"input_tokens": 3, "output_tokens": 1, "input_tokens_details": {}}
    for event in (
        Obj(type="response.created", response=Obj(id="r", model="m", usage=None)),
        Obj(type="response.output_text.delta", delta="a"),
        Obj(type="response.failed", response=Obj(id="r", model="m", usage=usage)),
    ):
        reader.see(event)
    fields = reader.fields(finished=True)
    assert (fields["status"], fields["error"]) == ("error", "ResponseFailed")
    assert (fields["input_tokens"], reader.text) == (3, "a")


def test_a_response_that_only_began_counts_nothing() -> None:
    reader = ResponsesReader(Obj())
    assert reader.text is None
    reader.see(Obj(type="response.created", response=Obj(id="r", model="m", usage=None)))
    assert reader.fields(finished=False)["usage_source"] == "none"
    assert reader.text == ""


async def _generator(stream: Any) -> Any:
    async for chunk in stream:
        yield chunk


class _Chunks:
    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.closed = False

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Any:
        self.chunks.append("x")
        return "x"

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.asyncio
async def test_the_stream_behind_generators_is_found_and_closed() -> None:
    behind = _Chunks()
    outer = _generator(_generator(behind))
    reader = TextReader(Obj(completion_stream=outer))
    assert reader.chunks == []
    reader.see(await outer.__anext__())
    assert reader.chunks == ["x"]
    await reader.aclose()
    assert behind.closed
    assert reader.chunks == ["x"]  # also when the generators and their frames are gone


# --- Handing out -----------------------------------------------------------------------------


def test_a_dict_stays_a_dict() -> None:
    record = UsageRecord(model="m")
    answer = hand_out({"a": 1}, record)
    assert answer == {"a": 1}
    assert json.dumps(answer) == '{"a": 1}'
    assert isinstance(answer, RecordedDict)
    assert answer.usage_record is record


@pytest.mark.parametrize("odd", [b"bytes", 5, None, (1, 2)])
def test_what_takes_no_attribute_is_handed_out_as_it_is(odd: Any) -> None:
    assert hand_out(odd, UsageRecord(model="m")) is odd


# --- Content ---------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values, values)
def test_any_content_fits_a_record(request_: Any, answer: Any) -> None:
    UsageRecord(content=captured({"input": request_}, answer))


@pytest.mark.parametrize(
    "huge",
    [
        "\x00" * 10**6,
        ["\u2603" * 1000] * 10_000,
        [[["a"] * 100] * 100] * 100,
        {str(n): "x" * 100 for n in range(10**5)},
        b"\xff" * 10**6,
        Obj(a=1),
        "\ud800",
    ],
)
def test_huge_and_odd_content_is_cut(huge: Any) -> None:
    content = captured({"input": huge}, huge)
    UsageRecord(content=content)
    assert len(json.dumps(content)) < MAX_CONTENT


def test_content_that_loops_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    UsageRecord(content=captured({"input": loop}, None))


def test_content_that_cannot_be_read_is_named() -> None:
    class Odd:
        def model_dump(self, **kwargs: Any) -> Any:
            raise ValueError("s3cr3t")

    assert captured({"input": "a"}, Odd()) == {"request": {"input": "a"}, "answer": "<Odd>"}
