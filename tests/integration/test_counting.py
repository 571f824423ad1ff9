"""The tokens of the pieces of a text are never fewer than those of the whole."""

from __future__ import annotations

import random
from pathlib import Path

import litellm
import pytest

from litellm_ledger._budgets.meter import with_margin
from litellm_ledger._litellm import counting
from litellm_ledger._litellm.counting import counter

TEXTS = [
    Path(__file__).read_text(),
    "The quick brown fox jumps over the lazy dog. " * 20,
    "Donaudampfschifffahrtsgesellschaftskapitän über Äpfel und Öl. " * 10,
    "猫は高いところが好きです。今日は天気がいいですね。" * 10,
    "Привет, как дела? Всё хорошо, спасибо. " * 10,
    "🐈🐕👩‍👩‍👧‍👦 🇩🇪 ✨" * 20,
    '{\'a\': [1, 2.5e-7, null], "b": "\\n\\t"}    \n\n\n        return x' * 10,
    "1234567890" * 40,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 10,
    "مرحبا بالعالم " * 20,
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_sum_of_the_parts_is_never_below_the_whole(text: str) -> None:
    count, whole, rng = counter("openai"), counter("openai")(text), random.Random(1)
    for most in (1, 2, 5, 12, 40, 200):
        for _ in range(6):
            at, total = 0, 0
            while at < len(text):
                step = rng.randint(1, most)
                total += count(text[at : at + step])
                at += step
            assert with_margin(total) >= whole


def test_other_providers_are_counted_twice_and_never_over_the_bytes() -> None:
    text = "The quick brown fox"
    assert counter("anthropic")(text) == 2 * counter("openai")(text) == 8
    assert counter("anthropic")("x") == 1


def test_without_a_tokenizer_bytes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "encoding", None)
    assert counting.counter("openai")("héllo") == 6
