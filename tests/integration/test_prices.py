"""Our cost is what the price map says, to the picodollar: computed anew from its JSON in `Decimal`.

LiteLLM computes in floats; here its map is read as text and multiplied out exactly. Where the two
part, the rule that parts them has a name in this file.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.llm_cost_calc import utils as cost_utils

from litellm_ledger._litellm.costs import compute_cost
from litellm_ledger._records.money import picousd

PROVIDERS = {
    "anthropic",
    "azure",
    "bedrock",
    "bedrock_converse",
    "dashscope",
    "deepseek",
    "fireworks_ai",
    "gemini",
    "groq",
    "mistral",
    "openai",
    "perplexity",
    "xai",
}
PEAK = datetime(2026, 3, 4, 2, 30, tzinfo=UTC)
"""A Wednesday, outside every off-peak window of the map."""
OFF_PEAK = datetime(2026, 3, 7, 2, 30, tzinfo=UTC)
"""A Saturday, inside the windows of all."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Token counts; primes, so that no two sums come out alike."""

    input: int
    output: int
    read: int = 0
    written: int = 0
    reasoning: int = 0
    tier: str = ""


USAGES = {
    "plain": Usage(1_009, 503),
    "cached": Usage(2_003, 307, read=1_013),
    "reasoning": Usage(1_019, 701, reasoning=401),
    "long": Usage(300_007, 1_021, read=100_003, reasoning=211),
    "written": Usage(3_001, 101, read=499, written=709),
    "flex": Usage(1_031, 509, read=251, tier="flex"),
    "priority": Usage(1_033, 521, read=257, tier="priority"),
}


@cache
def price_map() -> dict[str, dict[str, Any]]:
    path = Path(litellm.__file__).parent / "model_prices_and_context_window_backup.json"
    found = json.loads(path.read_text(), parse_float=Decimal)
    assert isinstance(found, dict)
    return found


def models(usage: Usage) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, entry in price_map().items():
        provider = entry.get("litellm_provider")
        priced = "input_cost_per_token" in entry or "tiered_pricing" in entry
        if provider not in PROVIDERS or entry.get("mode") != "chat" or not priced:
            continue
        if usage.written and not _price(entry, "cache_creation_input_token_cost", usage):
            continue  # that provider does not write a cache for money
        if usage.tier and f"input_cost_per_token_{usage.tier}" not in entry:
            continue
        if name in SHADOWED:
            continue
        yield name, provider, entry


# -- what the map says ----------------------------------------------------------------------------

SHADOWED = {
    # LiteLLM looks for `gemini/gemini-exp-1206` first, which is another row, of a free preview.
    "gemini-exp-1206",
}
HALF_PRICE_CACHE = "fireworks_ai"
"""Its rows name no price of a cached token; LiteLLM takes half the price of one that is not."""
NO_TIERS = "fireworks_ai"
"""LiteLLM's function for it takes no service tier: a call at `priority` is priced as any other."""


def _price(entry: Mapping[str, Any], name: str, usage: Usage) -> Decimal | None:
    """The price of one token: of its tier, above its threshold, or plain."""
    tiers = entry.get("tiered_pricing")
    if tiers:
        fitting = [tier for tier in tiers if tier["range"][0] < usage.input <= tier["range"][1]]
        found = (fitting or tiers[-1:])[0].get(name)
        return None if found is None else Decimal(found)
    thresholds = sorted(
        int(key.removeprefix("input_cost_per_token_above_").removesuffix("k_tokens"))
        for key in entry
        if key.startswith("input_cost_per_token_above_") and key.endswith("k_tokens")
    )
    above = [f"_above_{size}k_tokens" for size in thresholds if usage.input > size * 1_000]
    tiered = usage.tier and entry["litellm_provider"] != NO_TIERS
    tier = f"_{usage.tier}" if tiered else ""
    names = [name + tier, name]
    if above:
        names = [name + above[-1] + tier, name + above[-1], *names]
    for key in names:
        if entry.get(key) is not None:
            return Decimal(entry[key])
    return None


def expected(entry: Mapping[str, Any], usage: Usage, *, off_peak: bool = False) -> int:
    """Picodollars, by the words of the map."""
    if off_peak and "off_peak_pricing" in entry:
        entry = {**entry, **entry["off_peak_pricing"]}
    prompt = _price(entry, "input_cost_per_token", usage) or Decimal(0)
    completion = _price(entry, "output_cost_per_token", usage) or Decimal(0)
    read = _price(entry, "cache_read_input_token_cost", usage)
    if read is None:
        read = prompt / 2 if entry["litellm_provider"] == HALF_PRICE_CACHE else prompt
    written = _price(entry, "cache_creation_input_token_cost", usage)
    reasoning = _price(entry, "output_cost_per_reasoning_token", usage)
    return picousd(
        (usage.input - usage.read - usage.written) * prompt
        + usage.read * read
        + usage.written * (prompt if written is None else written)
        + (usage.output - usage.reasoning) * completion
        + usage.reasoning * (completion if reasoning is None else reasoning)
    )


# -- what we say ----------------------------------------------------------------------------------


def computed(model: str, provider: str, usage: Usage) -> int | None:
    counts = litellm.Usage(
        prompt_tokens=usage.input,
        completion_tokens=usage.output,
        total_tokens=usage.input + usage.output,
        prompt_tokens_details={
            "cached_tokens": usage.read,
            "cache_creation_tokens": usage.written,
        },
        completion_tokens_details={"reasoning_tokens": usage.reasoning},
        cache_read_input_tokens=usage.read,
        cache_creation_input_tokens=usage.written,
    )
    answer = litellm.ModelResponse(model=model, usage=counts)
    options = {"service_tier": usage.tier} if usage.tier else {}
    cost = compute_cost(answer, model=model, custom_llm_provider=provider, **options)
    return None if cost is None else picousd(cost)


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No discount, no margin, the map of the package, and a clock that stands at peak time."""
    monkeypatch.setattr(litellm, "cost_discount_config", {})
    monkeypatch.setattr(litellm, "cost_margin_config", {})
    monkeypatch.setattr(cost_utils, "current_billing_time", lambda: PEAK, raising=False)
    for name, entry in price_map().items():
        known = litellm.model_cost.get(name, {})
        for key in ("input_cost_per_token", "output_cost_per_token"):
            if entry.get(key) is not None:
                assert Decimal(repr(known.get(key))) == entry[key], f"{name} was changed"


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES)
def test_the_cost_is_the_maps(usage: Usage) -> None:
    tried: Counter[str] = Counter()
    wrong: dict[str, tuple[int | None, int]] = {}
    for model, provider, entry in models(usage):
        ours, maps = computed(model, provider, usage), expected(entry, usage)
        tried[provider] += 1
        if maps == 0:
            assert ours in (0, None), model
        elif ours != maps:
            wrong[model] = (ours, maps)
    assert not wrong, f"{len(wrong)} of {tried.total()}: {dict(list(wrong.items())[:10])}"
    few = usage.tier or usage.written  # not every provider sells these
    assert tried.total() >= (40 if few else 1_000), tried
    assert len(tried) >= (1 if few else 8), tried


def test_off_peak_prices_are_used_off_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = USAGES["cached"]
    rows = [row for row in models(usage) if "off_peak_pricing" in row[2]]
    assert rows
    for model, provider, entry in rows:
        assert computed(model, provider, usage) == expected(entry, usage)
        assert expected(entry, usage, off_peak=True) < expected(entry, usage)
    monkeypatch.setattr(cost_utils, "current_billing_time", lambda: OFF_PEAK, raising=False)
    for model, provider, entry in rows:
        assert computed(model, provider, usage) == expected(entry, usage, off_peak=True)


def test_a_row_that_another_shadows_is_priced_as_that_other() -> None:
    usage = USAGES["plain"]
    for model in SHADOWED:
        provider = price_map()[model]["litellm_provider"]
        other = price_map()[f"{provider}/{model}"]
        assert computed(model, provider, usage) == expected(other, usage)


def test_prices_differ_by_what_this_file_tells_apart() -> None:
    """Were a rule of `expected` idle, the check above would prove nothing about it."""
    for name, other, least in (
        ("cached", Usage(2_003, 307), 300),
        ("reasoning", Usage(1_019, 701), 5),
        ("long", dataclasses.replace(USAGES["long"], reasoning=0), 5),
        ("written", dataclasses.replace(USAGES["written"], written=0), 100),
        ("flex", dataclasses.replace(USAGES["flex"], tier=""), 50),
        ("priority", dataclasses.replace(USAGES["priority"], tier=""), 50),
    ):
        rows = [entry for _, _, entry in models(USAGES[name])]
        differ = sum(expected(row, USAGES[name]) != expected(row, other) for row in rows)
        assert differ >= least, f"{name}: {differ}"
    long = USAGES["long"]
    flat = [
        {name: price for name, price in entry.items() if "_above_" not in name}
        for _, _, entry in models(long)
    ]
    tiered = [entry for _, _, entry in models(long)]
    assert (
        sum(expected(a, long) != expected(b, long) for a, b in zip(flat, tiered, strict=True)) >= 50
    )
