"""The newest calls that are held are those that the ends of the files tell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, HandMade

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.last_written import last_written
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._web import recent as module
from litellm_ledger._web.recent import HELD, Recent
from litellm_ledger._web.standing import Standing

ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"where": {"tag:user": "u1"}},
    {"where": {"tag:user": "nobody"}},
    {"where_not": {"status": "ok"}},
    {"since": NOON + timedelta(minutes=150)},
)


class Afresh(Standing):
    """Looks at the directory each time."""

    def look(self) -> Snapshot:
        return Snapshot.take(self._root)


def recent(root: Path) -> Recent:
    return Recent(root, Afresh(root))


def same(held: Recent, root: Path) -> None:
    for asked in ASKED:
        selection = Selection(**asked)
        found = held.last(selection, 10)
        told = last_written(root, selection, 10)
        assert found is not None
        assert told is not None
        assert [call.id for call in found] == [call.id for call in reversed(told)], asked
        assert all(call.content is None for call in found)


def call(hand: HandMade, seq: int, **more: Any) -> bytes:
    given = {"ts": NOON + timedelta(minutes=seq), "tags": {"user": f"u{seq % 3}"}, **more}
    return hand.line(seq, **{"status": "ok", "content": {"messages": ["x"]}, **given})


def test_what_is_written_comes_in_and_what_is_sealed_stays(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 160, [call(hand, seq) for seq in range(1, 161)])
    seal(hand.root)
    path = hand.open(161, [call(hand, 161)])
    held = recent(hand.root)
    same(held, hand.root)
    for seq in range(162, 170):
        late = {"latency_ms": 600_000.0} if seq == 165 else {}
        line = call(hand, seq, status="error" if seq % 2 else "ok", **late)
        with path.open("ab") as file:
            file.write(line[:30])
        same(held, hand.root)
        with path.open("ab") as file:
            file.write(line[30:])
        same(held, hand.root)
    path.rename(path.with_name(f"{hand.writer}.{161:016d}-{169:016d}.jsonl"))
    same(held, hand.root)
    hand.open(170, [call(hand, 170)])
    same(held, hand.root)


def test_what_is_written_is_read_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, [call(hand, 1)])
    held = recent(hand.root)
    same(held, hand.root)
    monkeypatch.setattr(module, "newest", None)  # is not asked again
    for seq in range(2, 300):
        with path.open("ab") as file:
            file.write(call(hand, seq))
        if seq % 50 == 0:
            same(held, hand.root)
    found = held.last(Selection(), HELD)
    assert found is not None
    assert [one.seq for one in found] == [*range(299, 299 - HELD, -1)]
    assert held.last(Selection(), HELD + 1) is None
    assert held.last(Selection(since=NOON), HELD + 1) is None


def test_an_outcome_takes_the_place_of_a_call_taken_for_unsettled(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, [hand.started(1), hand.outcome(2, 1, status="unsettled")])
    held = recent(hand.root)
    same(held, hand.root)
    with path.open("ab") as file:
        file.write(hand.outcome(3, 1, status="ok"))
    same(held, hand.root)
    with path.open("ab") as file:
        file.write(hand.outcome(4, 1, status="unsettled"))
    same(held, hand.root)


def test_what_is_erased_is_forgotten(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.sealed(1, 20, [call(hand, seq) for seq in range(1, 21)])
    held = recent(hand.root)
    same(held, hand.root)
    path.unlink()
    hand.sealed(1, 20, [call(hand, seq, tags={"user": "(erased)"}) for seq in range(1, 21)])
    same(held, hand.root)
    found = held.last(Selection(), 20)
    assert found is not None
    assert {str(one.tags) for one in found} == {"{'user': '(erased)'}"}


def test_one_that_is_too_far_behind_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEWS", 5)
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, [call(hand, 1)])
    held = recent(hand.root)
    same(held, hand.root)
    for seq in range(2, 20):
        with path.open("ab") as file:
            file.write(call(hand, seq, tags={"user": "u1"}))
        assert held.last(Selection(where={"tag:user": "u1"}), 3)
    same(held, hand.root)
