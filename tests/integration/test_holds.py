"""No answer costs more than was held for it: for every model of the installed price map, by random
calls and random answers within what the calls allow, priced by the rules that price a record.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from tests.price_map import models

from litellm_ledger._budgets import ceiling as ceilings
from litellm_ledger._budgets.hold import RULES
from litellm_ledger._budgets.meter import with_margin
from litellm_ledger._calls.bounds import Bounds
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._calls.realtime import SESSIONS
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.counting import counter
from litellm_ledger._litellm.entries import entry_of
from litellm_ledger._litellm.unit_entries import unit_entry
from litellm_ledger._prices.own import ModelPrice
from litellm_ledger._prices.price import price
from litellm_ledger._prices.quantities import conditions, used
from litellm_ledger._records.money import picousd

CALL_OF: Final = {
    "audio_speech": "aspeech",
    "chat": "acompletion",
    "completion": "atext_completion",
    "embedding": "aembedding",
    "image_edit": "aimage_edit",
    "image_generation": "aimage_generation",
    "moderation": "amoderation",
    "ocr": "aocr",
    "rerank": "arerank",
    "responses": "aresponses",
    "search": "asearch",
    "vector_store": "vector_stores.asearch",
    "video_generation": "avideo_generation",
}
TIERS: Final = (None, "default", "flex", "priority", "balanced", "ultrafast")
WORDS: Final = "the quick brown fox jumps over the lazy dog again and again. "
LETTERS: Final = ("x", "é", "猫", "🐈", "\ud800", "\n", " ")
LENGTHS: Final = (0, 1, 40, 3_000, 40_000, 140_000, 290_000)


def some_text(rng: random.Random) -> str:
    length = rng.choice(LENGTHS) if rng.random() < 0.3 else rng.randrange(200)
    unit = rng.choice((WORDS, rng.choice(LETTERS)))
    return (unit * (length // len(unit) + 1))[:length]


def chat(rng: random.Random, key: str, call: str) -> tuple[dict[str, Any], int, int, bool]:
    """Arguments; the most tokens of text that they have, images among them, and audio."""
    text = some_text(rng)
    size, images, audio = len(text.encode("utf-8", "surrogatepass")), 0, False
    kwargs: dict[str, Any] = {"model": key}
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if call == "acompletion" and rng.random() < 0.2:
        images = rng.randrange(1, 3)
        parts += [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}] * images
    if call == "acompletion" and rng.random() < 0.2:
        audio = True
        sound = {"data": "A" * 4_000, "format": "wav"}
        parts.append({"type": "input_audio", "input_audio": sound})
        size += 4_000
    plain = not images and not audio and rng.random() < 0.5
    if call == "atext_completion":
        kwargs["prompt"] = text
    elif call == "aresponses":
        kwargs["input"] = text
    else:
        kwargs["messages"] = [{"role": "user", "content": text if plain else parts}]
    if rng.random() < 0.7:
        name = "max_output_tokens" if call == "aresponses" else "max_tokens"
        kwargs[name] = rng.choice((0, 1, 100, 5_000))
        if call == "acompletion" and rng.random() < 0.2:
            kwargs["max_completion_tokens"] = rng.choice((50, 7_000))
    if call != "aresponses" and rng.random() < 0.3:
        kwargs["n"] = rng.randrange(1, 5)
    if rng.random() < 0.3:
        kwargs["service_tier"] = rng.choice(TIERS[1:])
    if rng.random() < 0.1:
        kwargs["speed"] = "fast"
    if rng.random() < 0.1:
        kwargs["inference_geo"] = rng.choice(("us", "global"))
    if rng.random() < 0.2:
        kwargs["tools"] = [{"type": "function", "function": {"name": "f" * 30}}]
    return kwargs, size, images, audio


def answer(
    rng: random.Random, kwargs: Mapping[str, Any], most: tuple[int, int], media: Mapping[str, int]
) -> dict[str, Any]:
    """What a record of an answer may say."""
    given, made = (rng.choice((whole, rng.randint(0, whole))) for whole in most)
    cached = rng.choice((0, rng.randint(0, given)))
    written = rng.choice((0, given - cached, rng.randint(0, given - cached)))
    tokens: dict[str, int] = {}
    if written:
        tokens["cache_write_1h"] = rng.choice((0, written))
        tokens["cache_write_12h"] = rng.choice((0, written - tokens["cache_write_1h"]))
    for kind, count in media.items():
        tokens[f"{kind}_input"] = rng.randint(0, min(count, given))
        tokens[f"{kind}_cached"] = rng.randint(0, tokens[f"{kind}_input"])
    for kind in ("audio", "image", "video"):
        if rng.random() < 0.2:
            tokens[f"{kind}_output"] = rng.randint(0, made)
    chose: dict[str, Any] = {"off_peak": rng.random() < 0.5}
    asked = kwargs.get("service_tier")
    chose["service_tier"] = rng.choice((asked, None)) if asked else rng.choice(TIERS)
    chose["inference_geo"] = kwargs.get("inference_geo") or rng.choice((None, "us", "global"))
    chose["speed"] = rng.choice((kwargs.get("speed"), None))
    return {
        "input_tokens": given,
        "output_tokens": made,
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "reasoning_tokens": rng.choice((0, made, rng.randint(0, made))),
        "meta": {"tokens": {n: c for n, c in tokens.items() if c}, "price": chose},
    }


def token_calls(seed: int, each: int) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Model, what was held, what the answer costs, and the answer: of each that has both."""
    bounds, rng = Bounds(Pricing()), random.Random(seed)
    for key, provider, entry in models("chat", "completion", "responses"):
        call = CALL_OF[entry["mode"]]
        found = entry_of(key, provider)
        if found is None:
            continue
        for _ in range(each):
            kwargs, size, images, audio = chat(rng, key, call)
            kwargs["custom_llm_provider"] = provider
            held = bounds.of(Asked(CALLS[call], kwargs))
            if held.usd is None:
                assert held.reason
                continue
            given, made, media = size, held.made, dict[str, int]()
            if images:
                media["image"] = min(images * 1_000, entry.get("max_input_tokens") or 1_000)
                given += media["image"]
            if audio:
                media["audio"] = 4_000
            assert given <= held.given, (key, kwargs)
            said = answer(rng, kwargs, (given, made), media)
            said |= {"call": call, "provider": provider}
            priced = price(used(said), conditions(said), found)
            if priced.cost is not None:
                assert held.tokens is not None
                assert said["input_tokens"] + said["output_tokens"] <= held.tokens
                yield key, held.usd, picousd(priced.cost), said


def test_no_answer_by_tokens_costs_more_than_was_held_on_the_whole_map() -> None:
    count = 0
    for key, held, cost, said in token_calls(seed=1, each=4):
        assert cost <= held, (key, held, cost, said)
        count += 1
    assert count > 8_000


@pytest.mark.parametrize("dropped", ["cache_creation_input_token_cost", "input_cost_per_token"])
def test_a_hold_without_one_of_the_prices_is_caught(
    monkeypatch: pytest.MonkeyPatch, dropped: str
) -> None:
    kept = tuple(name for name in ceilings._TEXT_IN if name != dropped)
    monkeypatch.setattr(ceilings, "_TEXT_IN", kept)
    ceilings.ceiling.cache_clear()
    try:
        assert any(cost > held for _, held, cost, _ in token_calls(seed=2, each=6))
    finally:
        ceilings.ceiling.cache_clear()


def test_a_hold_at_the_standard_tier_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litellm_ledger._budgets.token_calls.tiers", lambda *_: frozenset({""}))
    assert any(cost > held for _, held, cost, _ in token_calls(seed=3, each=3))


# --- Calls that are billed by other units --------------------------------------------------------


def unit_case(
    rng: random.Random, key: str, entry: Mapping[str, Any], call: str, provider: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments, and what a record of the answer says."""
    text = some_text(rng) or "x"
    kwargs: dict[str, Any] = {"model": key, "custom_llm_provider": provider}
    said: dict[str, Any] = {"call": call, "provider": provider, "meta": {}}
    meta: dict[str, Any] = said["meta"]
    if call in ("aimage_generation", "aimage_edit"):
        count = rng.randint(1, 4)
        size = rng.choice(("256x256", "1024x1024", "1024x1792", "1536x1024"))
        quality = rng.choice(("hd", "high", "low", "standard"))
        resolution = rng.choice((None, "1k", "2k", "1024"))
        kwargs |= {"n": count, "size": size, "prompt": text}
        meta["price"] = {"size": size, "quality": quality, "resolution": resolution}
        said["images"] = rng.randint(1, count)
        if call == "aimage_edit":
            kwargs["image"] = [b"x", b"y"]
            meta["units"] = {"input_images": rng.randint(0, 2)}
        if rng.random() < 0.3:
            said |= {"input_tokens": rng.randint(1, len(text.encode("utf-8", "surrogatepass")))}
            said["output_tokens"] = rng.randint(
                0, count * (entry.get("max_output_tokens") or 1_000)
            )
            meta["tokens"] = {"image_output": said["output_tokens"]}
    elif call == "aspeech":
        kwargs["input"] = text
        said["characters"] = len(text)
        if rng.random() < 0.5:
            said |= {
                "input_tokens": rng.randint(1, len(text)),
                "output_tokens": rng.randint(0, 500),
            }
            meta["tokens"] = {"audio_output": said["output_tokens"]}
    elif call == "avideo_generation":
        seconds = rng.choice((1, 4, 8, 12.5))
        kwargs |= {"prompt": text, "seconds": str(seconds)}
        meta["units"] = {"video_seconds": seconds}
        meta["price"] = {"resolution": rng.choice((None, "720p", "1080p", "4k"))}
    elif call == "arerank":
        text = text[:5_000]
        kwargs |= {"query": "what?", "documents": [text] * rng.choice((1, 99, 250))}
        if rng.random() < 0.5:
            said["search_units"] = -(-len(kwargs["documents"]) // 100)
        else:
            said["input_tokens"] = rng.randint(1, len(text) * len(kwargs["documents"]))
    elif call == "aembedding":
        many = rng.randint(1, 3)
        kwargs["input"] = [text] * many
        size = len(text.encode("utf-8", "surrogatepass")) * many
        said["input_tokens"] = rng.randint(1, size)
        meta["price"] = {"service_tier": rng.choice(TIERS)}
        if rng.random() < 0.3:
            said["characters"] = rng.randint(1, len(text) * many)
    elif call == "aocr":
        kwargs |= {"document": {"type": "document_url"}, "pages": list(range(7))}
        said["pages"] = rng.randint(1, 7)
        meta["units"] = {"annotated_pages": rng.randint(0, said["pages"])}
    elif call == "asearch":
        results = rng.choice((None, 5, 20, 100))
        name, _, depth = key.partition("/search")
        kwargs = {"search_provider": name, "query": ["a", "b"], "max_results": results}
        extra = max(0, (results or 0) - 10)
        units = {"queries": 2, "additional_results": extra if name == "parallel_ai" else 0}
        meta |= {"units": units, "price": {"max_results": results, "mode": depth[1:] or None}}
    elif call == "vector_stores.asearch":
        kwargs = {"custom_llm_provider": provider, "query": text}
        meta["units"] = {"queries": 1}
    else:
        kwargs["input"] = text
        said["input_tokens"] = rng.randint(1, len(text))
    return kwargs, said


def test_no_answer_by_other_units_costs_more_than_was_held_on_the_whole_map() -> None:
    bounds, rng, counts = Bounds(Pricing()), random.Random(4), dict.fromkeys(CALL_OF.values(), 0)
    for key, provider, raw in models(*(m for m in CALL_OF if m not in ("chat", "completion"))):
        call = CALL_OF[raw["mode"]]
        if call == "aresponses":
            continue
        for _ in range(2 if provider == "fal_ai" else 6):
            kwargs, said = unit_case(rng, key, raw, call, provider)
            held = bounds.of(Asked(CALLS[call], kwargs))
            if held.usd is None:
                assert held.reason
                continue
            chose = conditions(said)
            model = Asked(CALLS[call], kwargs).model
            found = (
                entry_of(key, provider)
                if call == "aembedding"
                else unit_entry(call, model or "", provider, said, chose)
            )
            if found is None:
                continue
            priced = price(used(said), chose, found)
            if priced.cost is not None:
                assert picousd(priced.cost) <= held.usd, (key, kwargs, said, priced)
                counts[call] += 1
    lacking = {call for call, count in counts.items() if not count}
    assert lacking == {"acompletion", "aresponses", "atext_completion"}


def test_the_straight_line_bounds_a_chat_as_the_general_way_does() -> None:
    bounds, rng, plain = Bounds(Pricing()), random.Random(5), 0
    for key, _, _ in models("chat"):
        for _ in range(2):
            text = some_text(rng)
            kwargs = {"model": key, "messages": [{"role": "user", "content": text}]}
            if rng.random() < 0.7:
                kwargs[rng.choice(("max_tokens", "max_completion_tokens"))] = rng.randrange(9_999)
            asked = Asked(CALLS["acompletion"], kwargs)
            found = bounds._plain(asked, kwargs)
            if found is not None:
                assert found == bounds._any(asked), key
                plain += 1
    assert plain > 1_000


def test_every_kind_of_call_has_a_rule() -> None:
    assert RULES.keys() == {*CALLS, *SESSIONS}


@pytest.mark.parametrize(
    ("call", "kwargs", "reason"),
    [
        ("acompletion", {"model": "nobody/knows"}, "no limit; give the call max_tokens"),
        ("acompletion", {"model": "nobody/knows", "max_tokens": 1}, "has no price; give it one"),
        ("acompletion", {"model": "gpt-4o", "fallbacks": ["x"]}, "fallbacks: it may go to another"),
        (
            "acompletion",
            {"model": "gpt-4o", "messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
            None,
        ),
        ("aresponses", {"model": "gpt-4o", "previous_response_id": "x"}, "previous_response_id"),
        (
            "aresponses",
            {"model": "gpt-4o", "input": "x", "tools": [{"type": "web_search"}]},
            "give it max_uses, or the call max_tool_calls",
        ),
        ("atranscription", {"model": "whisper-1", "file": b"x"}, "the length of a recording"),
        ("acreate_batch", {"input_file_id": "x"}, "what is in the file of a batch"),
        ("acreate_fine_tuning_job", {"model": "gpt-4o"}, "a training is billed"),
        ("avideo_generation", {"model": "openai/sora-2", "prompt": "x"}, "give the call seconds"),
        ("aocr", {"model": "mistral/mistral-ocr-latest", "document": {}}, "give the call pages"),
        ("arealtime", {"model": "gpt-realtime"}, "a session has no end"),
        ("allm_passthrough_route", {"model": "gpt-4o"}, "passed through is not read"),
    ],
)
def test_what_has_no_bound_says_what_is_missing(
    call: str, kwargs: dict[str, Any], reason: str | None
) -> None:
    held = Bounds(Pricing()).of(Asked({**CALLS, **SESSIONS}[call], kwargs))
    if reason is None:
        assert held.usd is not None
        assert held.given >= 128_000  # the whole context
    else:
        assert held.usd is None
        assert reason in held.reason


def test_prices_of_the_users_bound_a_call_and_come_first() -> None:
    prices = {
        "gpt-4o": ModelPrice(input="2", output="4", cache_write="8", reasoning="16"),
        "gpt-4": ModelPrice(request="0.5"),
        "gpt-5": ModelPrice(input="1"),
    }
    bounds = Bounds(Pricing(prices))
    kwargs = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1_000}
    held = bounds.of(Asked(CALLS["acompletion"], {"model": "gpt-4o", **kwargs}))
    assert held.usd == held.given * 8 * 10**6 + 1_000 * 16 * 10**6
    held = bounds.of(Asked(CALLS["acompletion"], {"model": "gpt-4", **kwargs}))
    assert held.usd == 5 * 10**11
    held = bounds.of(Asked(CALLS["acompletion"], {"model": "gpt-5", **kwargs}))
    assert held.reason == "prices= has no output: give one"


def test_tokens_that_are_counted_are_fewer_than_bytes_and_no_fewer_than_the_tokens() -> None:
    count = counter("openai")
    bounds, text = Bounds(Pricing()), WORDS * 500
    kwargs = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 9}
    asked = Asked(CALLS["acompletion"], kwargs)
    by_bytes = bounds.of(asked)
    counted = bounds.counted(asked, lambda text: with_margin(count(text)))
    assert count(text) < counted.given < by_bytes.given // 3
    assert counted.made == by_bytes.made
    assert counted.usd is not None
    assert by_bytes.usd is not None
    assert counted.usd < by_bytes.usd


def test_limits_in_extra_body_count() -> None:
    kwargs = {"model": "gpt-4o", "messages": [], "max_tokens": 10, "extra_body": {"max_tokens": 99}}
    assert Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs)).made == 99
    kwargs["extra_body"] = {"n": 5}
    assert Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs)).made == 50


def test_a_limit_under_a_providers_own_name_may_only_be_above_the_others() -> None:
    kwargs = {"model": "gpt-4o", "messages": [], "max_tokens": 10, "max_new_tokens": 99}
    assert Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs)).made == 99
    kwargs = {"model": "gpt-4o", "messages": [], "num_predict": 99}
    assert Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs)).made == 16_384


def test_an_image_counts_as_the_model_behind_a_deployment_reads_it() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    kwargs = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    asked = {**kwargs, "model": "azure/ours", "base_model": "azure/gpt-4o-mini"}
    assert Bounds(Pricing()).of(Asked(CALLS["acompletion"], asked)).given > 48_000
    asked = {**kwargs, "model": "gpt-4o"}
    assert 12_000 < Bounds(Pricing()).of(Asked(CALLS["acompletion"], asked)).given < 13_000


def test_without_a_price_the_tokens_have_a_bound_all_the_same() -> None:
    kwargs = {"model": "nobody/knows", "messages": [], "max_tokens": 10}
    held = Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs))
    assert (held.usd, held.tokens, held.made) == (None, held.given + 10, 10)
    kwargs = {"model": "gpt-4o", "messages": [], "max_tokens": 10, "input_cost_per_token": 1.0}
    held = Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs))
    assert (held.usd, held.tokens) == (None, held.given + 10)


def test_a_call_that_brings_its_price_has_no_bound() -> None:
    kwargs = {"model": "gpt-4o", "messages": [], "input_cost_per_token": 1.0}
    held = Bounds(Pricing()).of(Asked(CALLS["acompletion"], kwargs))
    assert held.usd is None
    assert "prices= of the client" in held.reason
