"""A ledger with records past their time, and the rule that lets them go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade

from litellm_ledger._maintenance.prune import Pruning, prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._records.adjustment import Adjustment, encode_addition
from litellm_ledger._records.layout import ADJUSTMENTS, SEGMENTS

DAY = timedelta(days=1)
NOW = NOON + 100 * DAY


def days(keep: float, **more: Any) -> Retention:
    return Retention(keep=keep * DAY, **more)


def pruned(root: Path, rule: Retention | None = None, **more: Any) -> Pruning:
    given = {"who": "alice", "why": "the rule", "now": NOW, **more}
    return prune(root, rule or days(50), **given)


def of_day(hand: HandMade, first: int, last: int, day: int, **more: Any) -> list[bytes]:
    return [
        hand.line(
            seq,
            ts=NOON + day * DAY,
            cost=Decimal(seq) / 1000,
            status="ok",
            input_tokens=seq,
            latency_ms=float(seq),
            tags={"user": f"u{seq % 3}"},
            **more,
        )
        for seq in range(first, last + 1)
    ]


def filled(root: Path) -> HandMade:
    """Two writers; what is older than 50 days: 1 to 12 of the one, 1 and 2 of the other."""
    hand, other = HandMade(root), HandMade(root, OTHER_WRITER)
    hand.sealed(1, 3, of_day(hand, 1, 3, 0))
    hand.sealed(4, 8, of_day(hand, 4, 8, 1))
    hand.sealed(9, 12, of_day(hand, 9, 12, 40))
    hand.sealed(13, 14, of_day(hand, 13, 14, 90))
    other.sealed(1, 2, of_day(other, 1, 2, 2))
    other.sealed(3, 4, of_day(other, 3, 4, 95))
    seal(root)
    return hand


def adjusted(root: Path, of: int, writer: str = WRITER) -> None:
    """Say that a record has no cost of 1 picodollar, but of 7."""
    adder = f"{ADJUSTMENTS}{of:016x}"
    line = Adjustment(
        v=2, id=f"{adder}-{1:016d}", seq=1, kind="adjustment", adjusts=f"{writer}-{of:016d}",
        at=datetime(2026, 1, 1, tzinfo=UTC), who="a", why="b", old_cost=1, new_cost=7, ts=NOON,
        model="m", status="ok", tags={"user": f"u{of % 3}"},
    )  # fmt: skip
    (root / SEGMENTS / f"{adder}.{1:016d}-{1:016d}.jsonl").write_bytes(encode_addition(line))
