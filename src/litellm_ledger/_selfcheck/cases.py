"""The calls of the self-check: what each is asked with, and what belongs on its record.

Owns the table and the comparison of a record with it.  Prices are taken from the price map that is
installed, so that a new price is not a fault.  Makes no call (that is ``_selfcheck.run``).
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._litellm.calls import CALLS
from litellm_ledger._litellm.self_check import Mismatch
from litellm_ledger._records.record import UsageRecord

__all__ = ["FREE", "KINDS", "SOME", "UNCHECKED", "Kind", "cost_of", "mismatches", "sound"]

SOME: Final = "more than 0"
"""Expected of what was estimated."""
FREE: Final = "none or 0"
"""Expected of the cost of what the provider refused."""

UNCHECKED: Final = frozenset(
    {
        "acompact_responses",
        "acreate_container",
        "acreate_fine_tuning_job",
        "adecisions",
        "aextraction",
        "agenerate_content",
        "agenerate_content_stream",
        "aimage_variation",
        "allm_passthrough_route",
        "asearch",
        "avideo_edit",
        "avideo_extension",
        "avideo_generation",
        "avideo_remix",
        "interactions.acreate",
        "vector_stores.asearch",
    }
)
"""Calls whose endpoints the local server does not have."""

_WORDS: Final = "three words here"
_MESSAGES: Final = [{"role": "user", "content": _WORDS}]
_ANSWERED: Final = {"input_tokens": 3, "output_tokens": 5}
_TOKENS: Final = {"input_cost_per_token": 3, "output_cost_per_token": 5}


def sound(seconds: int) -> tuple[str, bytes]:
    """Return a file of silence, as a call takes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8_000)
        audio.writeframes(bytes(16_000 * seconds))
    return ("sound.wav", file.getvalue())


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call, answered by ``litellm_ledger.testing.OpenAIServer``.

    Attributes:
        name: LiteLLM's.
        given: the arguments.
        counts: fields of the record of an answer, apart from its cost.
        entry: the price map's name of the model; empty: the call is not billed.
        prices: the keys of that entry that make up the cost, each with how often.
        root: whether the address is given without ``/v1``.
        synchronous: LiteLLM's synchronous function that is checked, too.
    """

    name: str
    given: Mapping[str, Any]
    counts: Mapping[str, Any] = field(default_factory=dict)
    entry: str = ""
    prices: Mapping[str, int] = field(default_factory=dict)
    root: bool = False
    synchronous: str = ""

    @property
    def streams(self) -> bool:
        """Whether it can be a stream that is billed."""
        return CALLS[self.name].reader is not None and not CALLS[self.name].job


KINDS: Final = (
    Kind(
        "acompletion",
        {"model": "openai/gpt-4o-mini", "messages": _MESSAGES},
        _ANSWERED,
        "gpt-4o-mini",
        _TOKENS,
        synchronous="completion",
    ),
    Kind(
        "atext_completion",
        {"model": "text-completion-openai/gpt-3.5-turbo-instruct", "prompt": _WORDS},
        _ANSWERED,
        "gpt-3.5-turbo-instruct",
        _TOKENS,
        synchronous="text_completion",
    ),
    Kind(
        "aembedding",
        {"model": "openai/text-embedding-3-small", "input": [_WORDS]},
        {"input_tokens": 3},
        "text-embedding-3-small",
        {"input_cost_per_token": 3},
        synchronous="embedding",
    ),
    Kind(
        "aresponses",
        {"model": "openai/gpt-4o-mini", "input": _WORDS},
        _ANSWERED,
        "gpt-4o-mini",
        _TOKENS,
    ),
    Kind(
        "anthropic_messages",
        {"model": "anthropic/claude-haiku-4-5", "messages": _MESSAGES, "max_tokens": 10},
        _ANSWERED,
        "claude-haiku-4-5",
        _TOKENS,
        root=True,
    ),
    Kind(
        "aimage_generation",
        {"model": "openai/gpt-image-1", "prompt": _WORDS, "n": 2},
        {"images": 2, "input_tokens": 3, "output_tokens": 200},
        "gpt-image-1",
        {"input_cost_per_token": 3, "output_cost_per_image_token": 200},
    ),
    Kind(
        "aimage_edit",
        {"model": "openai/gpt-image-1", "prompt": _WORDS, "image": b"\x89PNG\r\n\x1a\n"},
        {"images": 1, "input_tokens": 103, "output_tokens": 100},
        "gpt-image-1",
        {
            "input_cost_per_token": 3,
            "input_cost_per_image_token": 100,
            "output_cost_per_image_token": 100,
        },
    ),
    Kind(
        "atranscription",
        {"model": "openai/whisper-1", "file": sound(3)},
        {"audio_seconds": 3.0},
        "whisper-1",
        {"input_cost_per_second": 3},
    ),
    Kind(
        "aspeech",
        {"model": "openai/tts-1", "input": "speech", "voice": "alloy"},
        {"characters": 6},
        "tts-1",
        {"input_cost_per_character": 6},
    ),
    Kind("amoderation", {"model": "omni-moderation-latest", "input": _WORDS}),
    Kind(
        "arerank",
        {"model": "cohere/rerank-v3.5", "query": "one", "documents": ["two", "three"]},
        {"search_units": 1},
        "rerank-v3.5",
        {"input_cost_per_query": 1},
        root=True,
    ),
    Kind(
        "aocr",
        {
            "model": "mistral/mistral-ocr-latest",
            "document": {"type": "document_url", "document_url": "https://example.com/page.pdf"},
        },
        {"pages": 1},
        "mistral/mistral-ocr-latest",
        {"ocr_cost_per_page": 1},
    ),
    Kind(
        "acreate_batch",
        {
            "completion_window": "24h",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
        },
    ),
    Kind(
        "aretrieve_batch",
        {},
        {"input_tokens": 6, "output_tokens": 10},
        "gpt-4o-mini",
        {"input_cost_per_token_batches": 6, "output_cost_per_token_batches": 10},
    ),
    Kind(
        "aget_responses",
        {"custom_llm_provider": "openai"},
        _ANSWERED,
        "gpt-4o-mini",
        _TOKENS,
    ),
)


def cost_of(kind: Kind, price_map: Mapping[str, Any]) -> Decimal | None:
    """What an answer costs by the price map; ``None`` if a price is missing there."""
    entry = price_map.get(kind.entry) or {}
    if any(entry.get(name) is None for name in kind.prices):
        return None
    return sum(
        (count * Decimal(repr(entry[name])) for name, count in kind.prices.items()), Decimal(0)
    )


def mismatches(
    expected: Mapping[str, Any], records: Sequence[UsageRecord], starts: int | None
) -> Iterator[Mismatch]:
    """Compare all that is on record of one call with the fields of the outcome that belongs there,
    and with the number of its ``started`` records; ``None``: no matter.
    """
    outcomes = [record for record in records if record.kind == "usage"]
    if len(outcomes) != 1:
        yield Mismatch(what="records", expected="1", found=str(len(outcomes)))
    begun = len(records) - len(outcomes)
    if starts is not None and begun != starts:
        yield Mismatch(what="started records", expected=str(starts), found=str(begun))
    for outcome in outcomes[:1]:
        for name, value in expected.items():
            found = getattr(outcome, name)
            if not _is(found, value):
                yield Mismatch(what=name, expected=_text(value), found=_text(found))


def _is(found: Any, expected: Any) -> bool:
    if expected is SOME:
        return found is not None and found > 0
    if expected is FREE:
        return not found
    return bool(found == expected)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
