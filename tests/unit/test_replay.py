"""The replayed day of docs/budgets.md: what a mode promises holds in it."""

from __future__ import annotations

import pytest
from benchmarks.replay import LIMIT, Outcome, day, replay

CALLS = 3_000


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    calls = day(CALLS, seed=3, at_once=100)
    return {mode: replay(mode, calls) for mode in ("strict", "adaptive", "soft")}  # type: ignore[arg-type]


def test_every_call_is_served_refused_or_cut(outcomes: dict[str, Outcome]) -> None:
    for found in outcomes.values():
        assert found.served + found.refused + found.cut == CALLS


def test_strict_cannot_overspend_and_adaptive_serves_more(outcomes: dict[str, Outcome]) -> None:
    strict, adaptive, soft = (outcomes[mode] for mode in ("strict", "adaptive", "soft"))
    assert (strict.possible, strict.overspent, strict.cut) == (0, 0, 0)
    assert strict.settled <= 24 * LIMIT
    assert adaptive.served > strict.served
    assert adaptive.overspent <= adaptive.possible
    assert soft.served == CALLS


def test_a_budget_that_refuses_nothing_is_overspent_on_such_a_day() -> None:
    soft = replay("soft", day(40_000, seed=1, at_once=200)[:20_000])
    assert soft.overspent > 0
