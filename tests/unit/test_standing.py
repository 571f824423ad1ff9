"""Sums that are kept are those of the report: on damaged ledgers, and while these are written."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade
from tests.pruned import filled, pruned

from litellm_ledger import Ledger
from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.groups import check_by
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._web import kept, segments
from litellm_ledger._web.standing import Standing

BYS = ([], ["model"], ["status", "model"], ["day"], ["hour", "tag:user"], ["tag:user", "tag:env"])
WHERES: tuple[dict[str, Any], ...] = (
    {},
    {"where": {"tag:user": "u1"}},
    {"where_not": {"model": "gpt-4o-mini"}},
    {"where": {"tag:user": ["u1", "u2"], "status": "ok"}},
    {"where": {"tag:user": "(none)"}},
)

TOLD = ("adjusted", "aggregated", "unmeasured", "pruned", "pruned_until")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines damaged, doubled and torn, gaps, calls unsettled; half of it has manifests."""
    root = tmp_path_factory.mktemp("standing") / "usage"
    make_ledger(root, 2_000, seed=5, segment=60_000)
    seal(root)
    for number, path in enumerate(sorted(root.glob("manifests/*.json"))):
        if number % 3 == 0:
            path.unlink()
    return root


def same(standing: Standing, root: Path, by: list[str], **asked: Any) -> None:
    tz = asked.pop("tz", "UTC")
    quantiles = asked.pop("quantiles", False)
    ledger = Snapshot.take(root)
    selection = Selection(**asked, calendar=calendar(tz))
    found = standing.report(check_by(by), selection, quantiles=quantiles, ledger=ledger)
    told = Ledger(root).report(by, tz=tz, quantiles=quantiles, **asked)
    assert (found.rows, found.total) == (told.rows, told.total)
    assert [getattr(found, name) for name in TOLD] == [getattr(told, name) for name in TOLD]


@pytest.mark.parametrize("by", BYS)
def test_every_question_has_the_same_answer_twice(root: Path, by: list[str]) -> None:
    standing, lots = Standing(root), random.Random(",".join(by))
    first = datetime(2025, 3, 27, tzinfo=UTC)
    for number in range(8):
        since = first + timedelta(minutes=lots.randrange(300_000))
        span = {"since": since, "until": since + timedelta(minutes=lots.randrange(400_000))}
        asked = {**WHERES[number % len(WHERES)], **lots.choice([{}, span])}
        tz = lots.choice(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
        for _ in range(2):
            same(standing, root, by, tz=tz, quantiles=number % 3 == 0, **asked)


def test_what_is_appended_is_added(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, [hand.line(1)])
    standing = Standing(hand.root)
    for seq in range(2, 8):
        same(standing, hand.root, ["model"], quantiles=True)
        line = hand.line(seq, cost=Decimal("0.5"), latency_ms=3.0, tags={"user": "u1"})
        with path.open("ab") as file:  # a line that is only half there, too
            file.write(line[:40])
        same(standing, hand.root, ["model"])
        with path.open("ab") as file:
            file.write(line[40:])
        same(standing, hand.root, ["tag:user"])


def test_a_segment_is_sealed_and_another_begins(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.open(1, hand.lines(1, 3))
    standing = Standing(hand.root)
    same(standing, hand.root, ["model"])
    path.rename(path.with_name(f"{hand.writer}.{1:016d}-{3:016d}.jsonl"))
    same(standing, hand.root, ["model"])
    hand.open(4, hand.lines(4, 5))
    same(standing, hand.root, ["model"])
    seal(hand.root)
    same(standing, hand.root, ["model"])


def test_an_unsettled_call_counts_until_its_outcome_is_there(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 2, [hand.started(1), hand.outcome(2, 1, status="unsettled")])
    seal(hand.root)
    standing = Standing(hand.root)
    same(standing, hand.root, ["status"])
    hand.open(3, [hand.outcome(3, 1, status="ok")])
    same(standing, hand.root, ["status"])


def test_a_segment_that_was_changed_is_read_again(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    path = hand.sealed(1, 3)
    seal(hand.root)
    standing = Standing(hand.root)
    same(standing, hand.root, ["model"])
    path.write_bytes(b"".join(hand.lines(1, 3, model="other")))
    same(standing, hand.root, ["model"])


def test_an_escape_hides_no_call(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    written = hand.line(2, tags={"user": "anna", "env": "b"})
    odd = hand.foreign(3, '"ts":"2025-01-01T12:00:00Z","tags":{"user":"\\u0061nna","env":"b"}')
    hand.sealed(1, 3, [hand.line(1, tags={"user": "other", "env": "anna"}), written, odd])
    seal(hand.root)
    standing = Standing(hand.root)
    for by in (["tag:env"], ["model"]):
        same(standing, hand.root, by, where={"tag:user": "anna"})
    found = standing.report(["tag:env"], Selection(where={"tag:user": "anna"}))
    assert found.total.calls == 2


def test_lines_that_no_manifest_tells_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, other = HandMade(tmp_path / "usage"), HandMade(tmp_path / "usage", OTHER_WRITER)
    path = hand.sealed(1, 3)
    lines = [other.started(1), other.outcome(2, 1, status="unsettled"), b"no line\n"]
    other.sealed(1, 2, lines)
    standing = Standing(hand.root)
    asked: dict[str, Any] = {"quantiles": True, "since": NOON - timedelta(days=1)}
    same(standing, hand.root, ["status"], **asked)
    reads = list[object]()
    real = segments.entries

    def counted(*given: Any, **more: Any) -> Any:
        reads.append(given)
        return real(*given, **more)

    monkeypatch.setattr(segments, "entries", counted)
    same(standing, hand.root, ["status"], **asked)
    found = standing.report(["status"], Selection(since=NOON + timedelta(days=1)), quantiles=True)
    assert found.total.calls == 0
    assert len(found.problems) == 1  # what is damaged is told each time
    assert reads == []
    path.write_bytes(b"".join(hand.lines(1, 3, model="other")))
    same(standing, hand.root, ["status"], **asked)
    assert len(reads) == 1


def test_an_outcome_comes_after_its_call_was_taken_for_unsettled(tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 2, [hand.started(1), hand.outcome(2, 1, status="unsettled")])
    path = hand.open(3, [hand.line(3)])
    standing = Standing(hand.root)
    same(standing, hand.root, ["status"])
    with path.open("ab") as file:
        file.write(hand.outcome(4, 1, status="ok"))
    same(standing, hand.root, ["status"])


@pytest.mark.parametrize("by", [[], ["model"], ["tag:user", "model"]])
@pytest.mark.parametrize("quantiles", [False, True])
def test_what_was_pruned_stays_in_the_sums(
    tmp_path: Path, by: list[str], *, quantiles: bool
) -> None:
    hand = HandMade(tmp_path / "usage")
    for day in range(4):
        first, told = 1 + 3 * day, {"ts": NOON + timedelta(days=day), "latency_ms": 5.0}
        lines = hand.lines(first, first + 2, **told, tags={"user": f"u{day}"})
        hand.sealed(first, first + 2, lines)
    hand.open(13, [hand.line(13, ts=NOON + timedelta(days=5))])
    seal(hand.root)
    standing = Standing(hand.root)
    for gone in (6, 3):
        for since in (None, NOON - timedelta(days=1), NOON + timedelta(minutes=3)):
            same(standing, hand.root, by, quantiles=quantiles, since=since)
        now = NOON + timedelta(days=4 if gone == 6 else 5)
        rule = Retention(keep=timedelta(days=2))
        assert prune(hand.root, rule, who="alice", why="the rule", now=now).records == gone
    found = standing.report([], Selection(), ledger=Snapshot.take(hand.root))
    assert (found.aggregated, found.total.calls) == (9, 13)


def test_of_a_pruned_person_who_was_erased_nothing_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    filled(root)
    pruned(root)
    standing = Standing(root)
    same(standing, root, ["tag:user"])
    erase(root, Person(["user=u1"]), who="officer", why="asked for")
    same(standing, root, ["tag:user"])
    report = standing.report(["tag:user"], Selection(), ledger=Snapshot.take(root))
    assert "u1" not in {row.group["tag:user"] for row in report.rows}


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 500)
    hand = HandMade(tmp_path / "usage")
    outcomes = [{"ts": NOON + timedelta(hours=n), "tags": {"user": f"u{n}"}} for n in range(200)]
    hand.filled(*outcomes)
    seal(hand.root)
    standing = Standing(hand.root)
    for at in range(6):
        same(standing, hand.root, ["tag:user"], where={"tag:user": [f"u{at}", f"u{at + 100}"]})
        same(standing, hand.root, ["tag:user"])
        size = sum(one.held() for one in standing._shelf.shapes.values())
        assert size < 500 + 2 * 200


def test_other_writers_are_no_matter(tmp_path: Path) -> None:
    hand, other = HandMade(tmp_path / "usage"), HandMade(tmp_path / "usage", OTHER_WRITER)
    hand.open(1, hand.lines(1, 3))
    other.open(1, other.lines(1, 2))
    standing = Standing(hand.root)
    same(standing, hand.root, ["model"])
