"""The price of any record by any entry, whichever they are: a sum of terms, or a plain refusal."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from litellm_ledger import ModelPrice
from litellm_ledger._errors import InvalidRecord
from litellm_ledger._maintenance.reprice import _may_change
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import AMOUNTS
from litellm_ledger._records.money import picousd, usd

CALLS = (
    "acompletion", "aembedding", "aimage_edit", "aimage_generation", "amoderation", "aocr",
    "arerank", "aresponses", "asearch", "aspeech", "atranscription", "avideo_generation",
    "arealtime", "vector_stores.asearch", "adecisions", "x", None,
)  # fmt: skip
PROVIDERS = (
    "openai", "gemini", "xai", "perplexity", "vertex_ai", "groq", "anthropic", "fireworks_ai", None,
)  # fmt: skip
COUNTS = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "images", "characters", "pages", "search_units",
)  # fmt: skip
GROUPS = {
    "tokens": (
        "audio_input", "image_input", "audio_output", "image_output", "cache_write_1h",
        "tool_input", "audio_cached", "image_cached", "citation", "billed_input", "billed_output",
    ),
    "tools": (
        "web_searches", "file_searches", "containers", "maps_groundings", "browser_opens", "more",
    ),
    "units": (
        "video_seconds", "input_images", "queries", "credits", "annotated_pages", "megapixels",
        "text_messages", "additional_results",
    ),
}  # fmt: skip
CONDITIONS = (
    "service_tier", "above", "off_peak", "batch", "data_residency", "vertex_location", "speed",
    "inference_geo", "search_context", "size", "quality", "resolution", "cache_type", "max_results",
)  # fmt: skip
MEMBERS = (
    "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost",
    "cache_creation_input_token_cost", "input_cost_per_token_above_200k_tokens",
    "output_cost_per_token_above_200k_tokens_priority", "input_cost_per_token_priority",
    "input_cost_per_audio_token", "output_cost_per_reasoning_token", "output_cost_per_image",
    "output_cost_per_pixel", "input_cost_per_query", "ocr_cost_per_page", "input_cost_per_second",
    "input_cost_per_character", "output_cost_per_second", "input_cost_per_request",
    "tiered_pricing", "off_peak_pricing", "provider_specific_entry", "default_fees",
    "search_context_cost_per_query", "guardrail_cost_per_unit", "mode", "litellm_provider",
    "file_search_cost_per_1k_calls", "regional_processing_uplift_multiplier_eu",
)  # fmt: skip
INSIDE = (
    "range", "hours_utc", "windows", "weekdays", "weekday_timezone", "max_results_range",
    "search_context_size_medium", "input_cost_per_token", "fast", "queries",
)  # fmt: skip
WORDS = (
    "", "x", "1e-6", "NaN", "-Infinity", "-1", "16:30-00:30", "batch", "priority", "flex", "low",
    "1024x1024", "eu", "fast", "chat", "search", "ocr", "xai", "Mars/Phobos", "../x\0",
)  # fmt: skip
NUMBERS = (
    0, 1, 5, -1, 1_000, 2**53 - 1, 2**53, 10**400, 0.1, 1.5, -0.5, 1e-7, 1e-300, 1e308, 1e-6, 3e-6,
)  # fmt: skip


class Anybody:
    """Writes entries and records without knowing what they mean."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def value(self, deep: int = 0) -> Any:
        pick = self.random.choice
        kinds: list[Callable[[], Any]] = [
            lambda: pick((None, True, False)),
            lambda: pick(NUMBERS),
            lambda: pick(NUMBERS),
            lambda: pick(WORDS),
        ]
        if deep < 3:
            kinds += [
                lambda: [self.value(deep + 1) for _ in range(self.random.randrange(3))],
                lambda: {pick(INSIDE): self.value(deep + 1) for _ in range(3)},
            ]
        return pick(kinds)()

    def members(self, names: tuple[str, ...]) -> Any:
        some = self.random.sample(names, self.random.randrange(len(names)))
        return self.value() if self.random.random() < 0.1 else {n: self.value() for n in some}

    def entry(self) -> Entry | ModelPrice:
        if self.random.random() < 0.3:
            amounts = ("0", "0.1", "1e-9", "0." + "3" * 80, 1_000_000)
            some = self.random.sample(AMOUNTS, 3)
            prices: Any = {name: self.random.choice(amounts) for name in some}
            return ModelPrice(**prices, per=self.random.choice((1, 3, 1_000_000, 7**40)))
        some = self.random.sample(MEMBERS, self.random.randrange(len(MEMBERS)))
        entry = {name: self.random.choice(NUMBERS) for name in some}
        strange = {name: self.value() for name in self.random.sample(MEMBERS, 4)}
        return Entry("gpt-4o-mini", {**entry, **strange})

    def record(self) -> dict[str, Any]:
        pick = self.random.choice
        fields = {name: pick((None, 0, 1, 1_000, 250_000, 2**53 - 1)) for name in COUNTS}
        year = pick((1, 2026, 9999))
        times = (datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, 23, 59, tzinfo=UTC))
        return {
            **fields,
            "audio_seconds": pick((None, 0.0, 1.5, 1e-308)),
            "call": pick(CALLS),
            "provider": pick(PROVIDERS),
            "ts": pick((None, *times)),
            "meta": {
                **{name: self.members(parts) for name, parts in GROUPS.items()},
                "price": self.members(CONDITIONS),
                "unpriced": self.value(),
                **({"parts": self.value()} if self.random.random() < 0.2 else {}),
            },
        }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_any_price_is_the_sum_of_its_terms_and_none_is_negative(seed: int) -> None:
    anybody = Anybody(seed)
    exact = decimal.Context(prec=3_000)
    known = 0
    for _ in range(500):
        entry, fields = anybody.entry(), anybody.record()
        try:
            priced = compute(entry, fields, lambda _version, entry=entry: entry)
        except (InvalidRecord, DecimalException):  # more than anything can have cost
            continue
        assert all(min(term.quantity, term.price, term.amount) >= 0 for term in priced.lines)
        if priced.cost is not None:
            known += 1
            amounts = Decimal(0)
            for term in priced.lines:
                amounts = exact.add(amounts, term.amount)
            assert priced.cost == usd(picousd(exact.quantize(amounts, Decimal("1e-12"))))
    assert known > 50


def test_whether_a_record_may_be_priced_again_can_be_told_of_any() -> None:
    anybody = Anybody(0)
    none = dict.fromkeys(("cache_hit", "usage_source", "cost_source", "cost", "price_version"))
    for _ in range(2_000):
        fields = {**none, **anybody.record()}
        _may_change(cast(Any, SimpleNamespace(**fields)), fields)
