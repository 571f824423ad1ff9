"""Pruning killed, failed and cut off from power at every step: no total is ever wrong."""

from __future__ import annotations

import errno
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.crash.steps import Steps, survives_failures, survives_kills
from tests.crash.test_power import Scratch, scratch  # noqa: F401 - a fixture
from tests.disks import QUICK
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade
from tests.ledgers import contents
from tests.power import Medium, Recorder, states
from tests.tally import Tally

from litellm_ledger import Ledger
from litellm_ledger._maintenance import prune as _pruning
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.prune import Pruning, prune
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.anchor import Anchor, anchor
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.layout import ADJUSTMENTS

WHAT = "pruning, killed or failed at a step"
DAY = timedelta(days=1)
NOW = NOON + 100 * DAY
KEPT = Retention(keep=50 * DAY)
REMOVED = Retention(keep=50 * DAY, keep_aggregates=97 * DAY)


def of_day(hand: HandMade, first: int, last: int, day: int) -> list[bytes]:
    costs = {"cost": Decimal(1), "status": "ok", "tags": {"user": "u"}}
    return [hand.line(seq, ts=NOON + day * DAY, **costs) for seq in range(first, last + 1)]


def begun(root: Path) -> Path:
    """Two writers; some segments are compacted, and one was pruned before."""
    hand, other = HandMade(root), HandMade(root, OTHER_WRITER)
    hand.sealed(1, 1, of_day(hand, 1, 1, 0))
    other.sealed(1, 2, of_day(other, 1, 2, 2))
    seal(root)
    prune(root, Retention(keep=99.5 * DAY), who="a", why="b", now=NOW, fs=QUICK)
    compact(root, until=(NOON + 3 * DAY).date(), fs=QUICK)
    hand.sealed(2, 4, [*of_day(hand, 2, 2, 3), hand.gap(3, 3), *of_day(hand, 4, 4, 3)])
    hand.sealed(5, 8, of_day(hand, 5, 8, 40))
    hand.sealed(9, 9, of_day(hand, 9, 9, 90))
    other.sealed(3, 3, of_day(other, 3, 3, 30))
    other.sealed(4, 5, of_day(other, 4, 5, 90))
    seal(root)
    return root


class Case:
    """A ledger that is pruned; many steps leave the very files that another left."""

    def __init__(self, tmp_path: Path, rule: Retention) -> None:
        self.rule = rule
        self.original, self.root = begun(tmp_path / "original"), tmp_path / "usage"
        self.anchor = anchor(self.original)
        self.before = self.says(self.original)
        self.steps = Steps(self.original, self.root, self.again)
        self.after = self.says(self.root)
        self.done = self.files(self.root)
        self._checked: set[object] = set()

    def again(self, root: Path, disk: Any = QUICK) -> Pruning:
        return prune(root, self.rule, who="a", why="b", now=NOW, fs=disk)

    @staticmethod
    def says(root: Path) -> Any:
        ledger = Ledger(root)
        return [(one.rows, one.total) for one in (ledger.report(["day"]), ledger.report(["user"]))]

    @staticmethod
    def files(root: Path) -> list[str]:
        names = (str(path.relative_to(root)) for path in root.rglob("*"))
        return sorted(name for name in names if ADJUSTMENTS not in name)

    def is_fine(self, root: Path, *anchors: Anchor) -> None:
        found = verify(root, anchors=[self.anchor, *anchors])
        assert all(one.ok for one in found.anchors)
        assert not found.adjustments
        for writer in found.writers:
            assert not writer.problems
            assert not writer.unexplained
            assert writer.lost == (1 if writer.writer != OTHER_WRITER else 0), writer.sentence()

    def is_between(self, root: Path) -> None:
        """What keeps its sums counts, and all that has not gone where the sums go as well."""
        said = self.says(root)
        if self.before == self.after:
            assert said == self.before
        else:
            calls = [says[0][1].calls for says in (self.after, said, self.before)]
            assert calls == sorted(calls)

    def check(self, root: Path) -> None:
        """Nothing counts twice or not at all, and the next run ends it."""
        state = frozenset(contents(root))
        if state in self._checked:
            return
        self._checked.add(state)
        self.is_between(root)
        self.is_fine(root)
        now = anchor(root)
        self.again(root)
        assert self.says(root) == self.after
        self.is_fine(root, now)
        left = [name for name in self.files(root) if not name.endswith(".tmp")]
        assert left == [name for name in self.done if not name.endswith(".tmp")]


@pytest.fixture(params=[KEPT, REMOVED], ids=["kept", "removed"])
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return Case(tmp_path, request.param)


def test_killed_at_every_step_no_total_is_wrong_and_the_next_run_ends_it(
    case: Case, tally: Tally
) -> None:
    assert case.steps.count > 15
    assert (case.before == case.after) == (case.rule == KEPT)
    survives_kills(case, tally, WHAT, 12)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_step_that_fails_is_an_error_and_the_next_run_ends_it(
    case: Case, tally: Tally, number: int
) -> None:
    failed = survives_failures(case, number, tally, WHAT, 12)
    assert failed > case.steps.count // 2


def check_power(case: Case, scratch: Scratch, disk: Recorder) -> int:  # noqa: F811
    base, running = case.original, case.steps.fresh()
    case.again(running, disk)
    count = 0
    for _, root in states(disk.events, Medium(running, base), scratch.fresh):
        count += 1
        case.check(root)
    return count


def test_a_power_cut_at_any_time_is_no_worse(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    assert check_power(Case(tmp_path, KEPT), scratch, Recorder()) > 20


class NeverSyncs(Recorder):
    def sync(self, fd: int) -> None:
        pass


def test_an_audit_that_is_not_synced_before_files_go_is_caught(
    tmp_path: Path,
    scratch: Scratch,  # noqa: F811 - the fixture
) -> None:
    case = Case(tmp_path, KEPT)
    with pytest.raises(AssertionError):
        check_power(case, scratch, NeverSyncs())


def test_a_saboteur_that_removes_before_it_writes_the_audit_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    case = Case(tmp_path, KEPT)
    write = _pruning._Run._write_audits

    def sabotaged(self: Any, who: str, why: str) -> None:
        for one in self.found.due:
            self._unlink_segment(one)
        write(self, who, why)

    monkeypatch.setattr(_pruning._Run, "_write_audits", sabotaged)
    with pytest.raises(AssertionError):
        survives_kills(case, tally, WHAT, 12)


def test_a_saboteur_that_removes_before_gaps_stand_for_the_numbers_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    case = Case(tmp_path, KEPT)
    put = _pruning._Run._put

    def sabotaged(self: Any, stand: Any) -> None:
        for one in stand.due:
            self._unlink_segment(one)
        put(self, stand)

    monkeypatch.setattr(_pruning._Run, "_put", sabotaged)
    with pytest.raises(AssertionError):
        survives_kills(case, tally, WHAT, 12)
