"""From a model to its entry: as LiteLLM finds it, seen again when the map changes."""

from __future__ import annotations

import socket
from decimal import Decimal
from typing import Any

import pytest

from litellm_ledger._litellm.entries import entry_of, key_of
from litellm_ledger._litellm.load import load_sync
from litellm_ledger._litellm.map_price import plain_picousd

litellm: Any = load_sync()
PRICE = "input_cost_per_token"


def price_of(model: str, provider: str, **more: Any) -> Decimal | None:
    entry = entry_of(model, provider, **more)
    return None if entry is None else entry.price(PRICE)


@pytest.mark.parametrize(
    ("model", "provider", "key"),
    [
        ("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("azure/gpt-4o", "azure", "azure/gpt-4o"),
        ("mistral-large-latest", "mistral", "mistral/mistral-large-latest"),
        ("gemini-2.5-flash", "vertex_ai", "gemini-2.5-flash"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "openai", "ft:gpt-4o-mini-2024-07-18"),
        ("openai/nobody-knows-it", "openai", None),
    ],
)
def test_a_model_is_found_where_litellm_finds_it(
    model: str, provider: str, key: str | None
) -> None:
    assert key_of(model, provider) == key


def test_the_model_that_answered_counts_if_it_has_prices() -> None:
    asked = {"model": "openai/gpt-4o", "provider": "openai"}
    for served, key in (("gpt-4o-mini", "gpt-4o-mini"), ("gpt-4o-house-blend", "gpt-4o")):
        entry = entry_of(**asked, served=served)
        assert entry is not None
        assert entry.key == key
    entry = entry_of("azure/my-deployment", "azure", served="gpt-4o", base_model="azure/gpt-4.1")
    assert entry is not None
    assert entry.key == "azure/gpt-4.1"


def test_a_price_that_is_registered_changed_or_swapped_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(litellm, "model_cost", dict(litellm.model_cost))
    assert price_of("openai/of-ours", "openai") is None
    prices = {PRICE: 1e-06, "litellm_provider": "openai", "mode": "chat"}
    litellm.model_cost["openai/of-ours"] = prices
    assert price_of("openai/of-ours", "openai") == Decimal("0.000001")
    prices[PRICE] = 2e-06
    assert price_of("openai/of-ours", "openai") == Decimal("0.000002")
    litellm.model_cost["openai/of-ours"] = {**prices, PRICE: 3e-06}
    assert price_of("openai/of-ours", "openai") == Decimal("0.000003")
    swapped = {**litellm.model_cost, "openai/of-ours": {**prices, PRICE: 4e-06}}
    monkeypatch.setattr(litellm, "model_cost", swapped)
    assert price_of("openai/of-ours", "openai") == Decimal("0.000004")


@pytest.mark.parametrize(
    "provider", ["chatgpt", "github_copilot", "huggingface", "lemonade", "ollama"]
)
def test_nobody_is_asked_over_the_network(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    entry_of(f"{provider}/nobody-knows-it", provider)


def test_a_plain_answer_is_rounded_half_to_even_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"provider": "openai", "response_model": "tiny", "output_tokens": 0}
    for price, count, pico in (
        (5e-13, 1, 0),
        (5e-13, 3, 2),
        (5e-13, 5, 2),
        (1.5000000000001e-12, 1, 2),
        (2.4e-12, 3, 7),
    ):
        entry = {PRICE: price, "output_cost_per_token": price, "litellm_provider": "openai"}
        entry |= {"cache_read_input_token_cost": price, "output_cost_per_reasoning_token": price}
        monkeypatch.setattr(litellm, "model_cost", {"tiny": {**entry, "mode": "chat"}})
        found = plain_picousd({**fields, "input_tokens": count}, "tiny")
        assert found is not None
        assert found[0] == pico, (price, count)
