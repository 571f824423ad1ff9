"""The table of calls against LiteLLM's own names, and the pure parts behind it."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace as Obj
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.replies import sse

from litellm_ledger import LiteLLMClient, UsageRecord
from litellm_ledger._calls.answers import RecordedDict, hand_out
from litellm_ledger._client.methods import LiteLLMCalls
from litellm_ledger._litellm.anthropic_events import MessagesReader
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.content import captured
from litellm_ledger._litellm.stream_readers import ResponsesReader, TextReader
from litellm_ledger._records.record import MAX_CONTENT

# --- The table -------------------------------------------------------------------------------


def test_every_row_has_its_method_and_every_method_its_row() -> None:
    methods = {name for name in dir(LiteLLMCalls) if not name.startswith("_")}
    assert methods == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_names_and_arguments_are_litellms(name: str) -> None:
    litellm: Any = pytest.importorskip("litellm")
    row = CALLS[name]
    assert inspect.iscoroutinefunction(inspect.unwrap(getattr(litellm, name)))
    theirs = list(inspect.signature(getattr(litellm, row.positional)).parameters)
    ours = [
        parameter.name
        for parameter in inspect.signature(getattr(LiteLLMClient, name)).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    ]
    if theirs == ["args", "kwargs"]:
        assert name == "aocr"  # LiteLLM itself names none of them
        return
    assert theirs[: len(ours)] == ours
    assert set(row.reads) <= set(theirs)


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
    ],
)
def test_units(name: str, kwargs: dict[str, Any], answer: Any, units: Any) -> None:
    expected = {"audio_seconds": units} if isinstance(units, float) else units
    found = CALLS[name].units(kwargs, answer)
    assert found == expected
    UsageRecord(**found)


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
