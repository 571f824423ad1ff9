"""``Spans`` against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litellm_ledger._records.ranges import Spans

NUMBERS = st.integers(1, 40)
RANGES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


@given(RANGES, NUMBERS, NUMBERS)
def test_spans_are_a_set_of_numbers(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    spans, plain = Spans(), set[int]()
    for low, high in ranges:
        if low == high:
            assert spans.add(low) == (low not in plain)
        else:
            spans.add_range(low, high)  # empty when the ends are the wrong way round
        plain |= set(range(low, high + 1))
        assert spans.count == len(plain)
    assert {n for a, b in spans for n in range(a, b + 1)} == plain
    assert [n in spans for n in range(42)] == [n in plain for n in range(42)]
    assert spans.last == max(plain, default=0)
    holes = [n for a, b in spans.missing(first, last) for n in range(a, b + 1)]
    assert holes == [n for n in range(first, last + 1) if n not in plain]


@given(st.permutations(range(1, 12)))
def test_ranges_that_touch_are_joined(order: list[int]) -> None:
    spans = Spans()
    for number in order:
        spans.add(number)
    assert list(spans) == [(1, 11)]
