"""What a provider streams is read without an error and without much time, whatever it is."""

from __future__ import annotations

import json
import time
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from litellm_ledger._litellm.anthropic_events import LONGEST, EventsReader, MessagesReader
from litellm_ledger._litellm.byte_streams import AnyReader, body
from litellm_ledger._litellm.outcome import from_response
from litellm_ledger._litellm.stream_readers import ChatReader, ResponsesReader
from litellm_ledger._litellm.wire import Wire

DEEP = '{"usage":' + "[" * 100_000
NAMES = (
    "id", "model", "usage", "choices", "delta", "content", "parts", "text", "candidates", "message",
    "response", "type", "finishReason", "usageMetadata", "promptTokenCount", "promptTokensDetails",
    "modality", "tokenCount", "prompt_tokens", "completion_tokens", "prompt_tokens_details",
    "cached_tokens", "input_tokens", "output_tokens", "iterations", "server_tool_use", "tokens",
    "billed_units", "x_groq", "service_tier", "cost", "output", "tools", "status", "error", "index",
    "content_block", "citations", "input_tokens_by_modality", "groundingMetadata", "annotations",
)  # fmt: skip
VALUES = (
    None, True, 0, 1, 5, -1, 2**53, 10**400, 1.5, float("inf"), float("nan"), "", "x", "7", "AUDIO",
    "message_start", "message_delta", "message_stop", "response.completed", "web_search_call",
)  # fmt: skip


def anything(random: Random, deep: int = 0) -> Any:
    kind = random.randrange(14)
    if (deep < 5 and kind < 4) or not deep:
        return {random.choice(NAMES): anything(random, deep + 1) for _ in range(5)}
    if deep < 5 and kind < 6:
        return [anything(random, deep + 1) for _ in range(random.randrange(4))]
    return random.choice(VALUES)


def as_object(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(each) for name, each in value.items()})
    return [as_object(each) for each in value] if isinstance(value, list) else value


def test_whatever_a_provider_says_is_read_without_an_error() -> None:
    random = Random(0)
    for _ in range(3_000):
        said = anything(random)
        line = b"data:" + json.dumps(said).encode() + b"\n"
        for form in (said, as_object(said)):
            from_response(form)
            wire = Wire()
            wire.see(form)
            assert wire.billed is None or wire.usage is not None
            for kind in (AnyReader, MessagesReader, ChatReader, ResponsesReader):
                reader = kind(iter(()))
                reader.see(form)
                if isinstance(reader, EventsReader):
                    reader.see(line)
                reader.fields(finished=True)
                reader.answer()


@pytest.mark.parametrize("kind", [AnyReader, MessagesReader])
def test_what_nests_too_deep_to_be_read_is_no_event(kind: type[EventsReader]) -> None:
    reader = kind(iter(()))
    reader.see(f"data:{DEEP}\n")
    assert "input_tokens" not in reader.fields(finished=True)
    wire = Wire()
    wire.see(DEEP)
    wire.see(DEEP.encode())
    assert wire.usage is None
    assert body(SimpleNamespace(content=DEEP.encode())) is None


def test_one_line_in_many_pieces_takes_no_longer_than_in_few() -> None:
    reader = MessagesReader(iter(()))
    piece = b"x" * 256
    began = time.process_time()
    for _ in range(LONGEST // len(piece) - 1):
        reader.see(piece)
    event = {"type": "message_start", "message": {"usage": {"input_tokens": 7}}}
    reader.see(b"\ndata:" + json.dumps(event).encode() + b"\n")
    assert time.process_time() - began < 5  # it was half a minute
    assert reader.fields(finished=False)["input_tokens"] == 7
