"""``statusline`` and ``watch``: today, this hour, in flight, errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import OTHER_WRITER, HandMade
from tests.terminal import as_json, on_a_terminal, run, told

from litellm_ledger import Ledger
from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._cli import now as _now
from litellm_ledger._reports import today
from litellm_ledger._reports.today import look, midnight

NOW = datetime(2025, 3, 30, 10, 40, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "usage")


def fill(hand: HandMade, now: datetime) -> None:
    """A sealed segment and an open one: yesterday, today, this hour, in flight."""
    start = midnight(calendar(), now)
    hand.filled(
        {"cost": Decimal(100), "ts": start - timedelta(microseconds=1)},
        {"cost": Decimal(2), "ts": start},
        {"cost": Decimal(1), "ts": start, "status": "error", "error": "APIError"},
    )
    other = HandMade(hand.root, OTHER_WRITER)
    other.open(
        1,
        [
            other.line(1, cost=Decimal("0.25"), ts=now, model="[bold]\x1b[31mred"),
            other.line(2, ts=now, model="new", status="ok"),
            other.line(3, kind="started", operation=other.id(3), attempt=1, ts=now),
        ],
        tail=b'{"v":1',
    )


def test_a_day_begins_at_midnight_of_its_zone(hand: HandMade) -> None:
    fill(hand, NOW)
    other = HandMade(hand.root, OTHER_WRITER)
    with other.alive(accepted=3):
        other.live(accepted=3, oldest=3)
        found = look(Ledger(hand.root), now=NOW)
        assert (found.day, found.hour) == ("2025-03-30", "2025-03-30T10:00+00:00")
        assert (found.total.cost, found.total.calls, found.total.error) == (Decimal("3.25"), 4, 1)
        assert (found.this_hour.cost, found.this_hour.calls) == (Decimal("0.25"), 2)
        assert (found.in_flight, found.cut_off) == (1, 0)
        found = look(Ledger(hand.root), tz="Europe/Berlin", now=NOW)
        assert found.total.cost == Decimal("103.25"), (
            "the day is an hour shorter, and began earlier"
        )
        assert found.hour == "2025-03-30T12:00+02:00"
    later = look(Ledger(hand.root), now=NOW + HOUR)
    assert (later.this_hour.calls, later.this_hour.cost) == (0, Decimal(0))
    assert (later.in_flight, later.cut_off) == (0, 1)


class _Clock(datetime):
    """It is always noon."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return NOW if tz is None else NOW.astimezone(tz)


def test_the_line_and_its_json_say_the_same(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(today, "datetime", _Clock)
    fill(hand, NOW)
    line = told("statusline", hand.root)
    assert line == "today $3.25+, this hour $0.25+, 0 in flight, 1 error\n"
    plain = as_json("statusline", hand.root)
    assert plain["today"]["cost"] == "3.25"
    assert plain["this_hour"]["unpriced"] == 1
    assert plain["cut_off"] == 0
    assert "statusline" not in run("statusline", hand.root / "nowhere").stdout


def test_watch_needs_a_terminal(hand: HandMade) -> None:
    done = run("watch", hand.root)
    assert done.exit_code == 2
    assert "statusline" in done.stderr
    assert done.stderr.count("\n") == 1


def test_watch_draws_again_and_ends_with_ctrl_c(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(hand, datetime.now(UTC))
    turns = []

    def sleep(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 2:
            raise KeyboardInterrupt
        late = HandMade(hand.root, "20250103T000000Z-00000000000000dd")
        late.open(1, [late.line(1, cost=Decimal(40), ts=datetime.now(UTC), model="late")])

    monkeypatch.setattr(_now.time, "sleep", sleep)
    shown = on_a_terminal("watch", hand.root, "--interval", "3", columns=100, color=True)
    assert turns == [3, 3]
    first, _, second = shown.partition("late")
    assert "$3.25+" in first
    assert "$43.25+" in first + second
    assert "in flight, 1 error, 1 without a price" in first
    assert "[bold]\\x1b[31mred" in first, "what others named is text"
    assert shown.endswith("\x1b[?1049l\x1b[?25h") or "\x1b[?1049l" in shown, "the screen is back"
