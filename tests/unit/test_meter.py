"""How far the money of a stream reaches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.meter import Meter

BOUND = Bound(0, 0, given=100, made=1_000, given_price=2 * 10**6, made_price=10 * 10**6, fixed=7)


def test_what_is_held_is_always_ahead_of_what_was_written() -> None:
    meter = Meter(BOUND, 100, 20, limited=True)
    meter.count(4, 0.0)
    assert not meter.is_short()
    meter.count(1, 0.0)
    assert meter.is_short()
    assert list(meter.targets()) == [277, 85, 37, 25, 22, 21]


def test_the_faster_the_provider_the_more_is_kept_ahead() -> None:
    meter = Meter(BOUND, 100, 100, limited=True)
    for number in range(11):
        meter.count(10, number / 10)
    assert 25 <= meter.ahead() <= 30  # about 100 tokens a second, for a quarter of one


def test_no_more_than_the_call_may_write_is_held() -> None:
    meter = Meter(BOUND, 100, 990, limited=True)
    meter.count(936, 0.0)
    assert list(meter.targets()) == [1_000]
    meter.made = 1_000
    meter.count(500, 0.0)
    assert not meter.is_short()


def test_without_a_limit_there_is_always_more_to_ask_for() -> None:
    meter = Meter(BOUND._replace(made=0), 100, 0, limited=False)
    meter.count(5_000, 0.0)
    assert meter.is_short()
    assert min(meter.targets()) == 5_000 * 17 // 16 + 16
    assert meter.whole() is None


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 900))
def test_what_is_held_in_steps_is_never_less_than_what_is_held_at_once(
    pieces: list[int], made: int
) -> None:
    meter = Meter(BOUND, 100, made, limited=True)
    held = BOUND.costs(100, made)
    for number, tokens in enumerate(pieces):
        meter.count(tokens, float(number))
        if meter.is_short():
            target = next(meter.targets())
            held += meter.costs(target)[0]
            meter.made = target
    assert held == BOUND.costs(100, meter.made)
    assert meter.made >= min(meter.used, BOUND.made)
