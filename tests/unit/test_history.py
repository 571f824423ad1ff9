"""Single records: the newest first, and one operation with all that was tried."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade, spoil

from litellm_ledger import Ledger


def test_calls_come_newest_first_across_writers_and_say_how_many_there_are(hand: HandMade) -> None:
    other = HandMade(hand.root, OTHER_WRITER)
    hour = timedelta(hours=1)
    path = hand.sealed(1, 4, [hand.line(n, ts=NOON + n * hour, model=f"m{n}") for n in range(1, 5)])
    other.open(1, [other.line(1, ts=NOON + 2.5 * hour, model="between"), other.line(2, ts=None)])
    spoil(path, line=0)
    calls = Ledger(hand.root).calls(limit=3)
    assert [call.model for call in calls] == ["m4", "m3", "between"]
    assert (len(calls), calls.matched, len(calls.problems)) == (3, 5, 1)
    every = Ledger(hand.root).calls(limit=None)
    assert (len(every), every.records[-1].ts) == (5, None)
    assert Ledger(hand.root).calls(limit=0) == every
    for wrong in (-1, 2.0, "3", True):
        with pytest.raises(ValueError, match="give a whole number, 0 or None for all"):
            Ledger(hand.root).calls(limit=wrong)  # type: ignore[arg-type]
    some = Ledger(hand.root).calls(where={"model": ["m2", "m3"]}, since=NOON + 3 * hour)
    assert [call.model for call in some] == ["m3"]


def test_an_operation_has_its_attempts_in_order(hand: HandMade) -> None:
    def part(seq: int, attempt: int, **fields: object) -> bytes:
        return hand.line(seq, operation=hand.id(1), attempt=attempt, call_id="my-key", **fields)

    hand.sealed(1, 3, [part(1, 1, kind="started"), hand.line(2), part(3, 1, status="error")])
    hand.open(
        4,
        [
            part(4, 2, kind="started"),
            hand.line(5),
            part(6, 2, cost=Decimal(1), response_id="answer"),
            part(7, 3, kind="started"),
        ],
    )
    ledger = Ledger(hand.root)
    for key in (hand.id(1), hand.id(3), hand.id(6), "my-key", "answer"):
        found = ledger.operation(key)
        assert found is not None
        assert found.id == hand.id(1)
        assert [
            (tried.number, tried.started and tried.started.seq, tried.outcome and tried.outcome.seq)
            for tried in found.attempts
        ] == [(1, 1, 3), (2, 4, 6), (3, 7, None)]
    alone = ledger.operation(hand.id(2))
    assert alone is not None
    assert [(tried.started, tried.number) for tried in alone.attempts] == [(None, 1)]
    assert ledger.operation(hand.id(99)) is None
    assert ledger.operation('no "such" key') is None
