"""What calls of a kind usually use: holds of budgets in adaptive mode."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.usual import ENOUGH, Usual

BOUND = Bound(0, 0, given=1_000, made=16_000)


def usual_of(*made: int, given: int = 250) -> tuple[Usual, tuple[str, str | None, int]]:
    usual, kind = Usual(), Usual.kind("acompletion", "gpt-4o", BOUND)
    for count in made:
        usual.seen(kind, BOUND, given, count)
    return usual, kind


def test_before_enough_calls_were_seen_the_most_is_held() -> None:
    usual, kind = usual_of(*[10] * (ENOUGH - 1))
    assert usual.hold(kind, BOUND) == (1_000, 16_000)
    usual.seen(kind, BOUND, 250, 10)
    assert usual.hold(kind, BOUND) == (250, 10)


def test_a_call_of_another_kind_says_nothing() -> None:
    usual, _ = usual_of(*[10] * 100)
    other = Usual.kind("acompletion", "gpt-4o", BOUND._replace(made=100))
    assert usual.hold(other, BOUND) == (1_000, 16_000)


@given(st.lists(st.integers(0, 20_000), min_size=ENOUGH, max_size=300))
def test_a_hold_covers_99_of_100_calls_and_not_much_more(made: list[int]) -> None:
    usual, kind = usual_of(*made)
    _, held = usual.hold(kind, BOUND)
    ranked = sorted(made)
    percentile = ranked[-(-99 * len(made) // 100) - 1]
    assert min(percentile, BOUND.made) <= held <= min(percentile * 9 // 8 + 1, BOUND.made)


def test_what_is_usual_now_counts_more_than_what_was() -> None:
    usual, kind = usual_of(*[8_000] * 10_000)
    for _ in range(60_000):
        usual.seen(kind, BOUND, 250, 100)
    assert usual.hold(kind, BOUND)[1] < 120


def test_memory_is_bounded() -> None:
    usual, rng = Usual(), random.Random(1)
    for number in range(5_000):
        kind = ("acompletion", f"model-{number}", 14)
        for _ in range(3):
            usual.seen(kind, BOUND, rng.randrange(1_000), rng.randrange(10**9))
    assert len(usual._kinds) == 1_000
    kind = ("acompletion", "one", 14)
    for _ in range(50_000):
        usual.seen(kind, BOUND, 1, rng.randrange(2**40))
    assert len(usual._kinds[kind].made.buckets) < 400
