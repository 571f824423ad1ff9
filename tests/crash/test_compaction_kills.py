"""Compaction killed or failed at every step of itself: nothing lost, nothing doubled."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.disks import QUICK
from tests.ledger_by_hand import OTHER_WRITER, HandMade, spoil
from tests.ledgers import contents

from litellm_ledger import Ledger, LedgerPathError
from litellm_ledger._maintenance import compact as _compacting
from litellm_ledger._maintenance import parquet as _staging
from litellm_ledger._maintenance.compact import Compaction, compact
from litellm_ledger.testing import FaultyFileSystem, Killed

LATER = date(2030, 1, 1)
MADE = re.compile(rb'"(sealed|previous)":"[^"]*"|"crc":"\w{8}"}(?=\n\Z)')
"""In a manifest: when it was made, the checksum over that, and the hash of the one before."""


class Case:
    """A ledger of two writers, and what it says.

    Many steps leave the very files that another left: what was checked is not checked again.
    """

    def __init__(self, tmp_path: Path) -> None:
        self._checked: dict[object, Compaction] = {}
        self.original, self._root = tmp_path / "original", tmp_path / "usage"
        hand, other = HandMade(self.original), HandMade(self.original, OTHER_WRITER)
        hand.sealed(1, 3, [hand.started(1), hand.outcome(2, of=1), hand.started(3)])
        hand.sealed(3, 5, [hand.started(3), hand.line(4), hand.gap(5, 5)])  # overlaps
        hand.sealed(6, 6, [hand.outcome(6, of=3, status="unsettled")])
        spoil(hand.sealed(7, 9), line=1)
        other.sealed(1, 2)
        other.open(3, other.lines(3, 4))
        self.said = self.says(self.original)
        disk = FaultyFileSystem(QUICK)
        self.whole = compact(self.fresh(), until=LATER, fs=disk)
        self.steps = len(disk.calls)
        assert self.whole.segments == 4
        assert self.says(self._root) == self.said

    def fresh(self) -> Path:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self.original, self._root)
        return self._root

    def disturbed(self, *faults: Callable[[FaultyFileSystem], None]) -> Compaction:
        """Run with one fault after the other; then check."""
        root = self.fresh()
        for fault in faults:
            disk = FaultyFileSystem(QUICK)
            fault(disk)
            with suppress(Killed, OSError):
                compact(root, until=LATER, fs=disk)
        return self.check(root)

    @staticmethod
    def says(root: Path) -> Any:
        ledger = Ledger(root)
        records = list(ledger.records(kinds=("usage", "started", "gap")))
        return records, ledger.verify().writers, ledger.report(["model"]).rows

    def check(self, root: Path) -> Compaction:
        state = frozenset((name, MADE.sub(b"", data or b"")) for name, data in contents(root))
        done = self._checked.get(state)
        if done is None:
            assert self.says(root) == self.said
            done = compact(root, until=LATER, fs=QUICK)
            assert self.says(root) == self.said
            assert not [path for path in (root / "archive").iterdir() if path.suffix == ".tmp"]
            assert len(list((root / "segments").iterdir())) == 2  # the damaged and the open one
            self._checked[state] = done
        return done


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


def kill_at_every_step(case: Case) -> int:
    """Return how many segments were left to a next run that removed them.

    From the last step to the first: what is done too early is found at a late one.
    """
    return sum(
        case.disturbed(lambda disk, step=step: disk.kill(step)).finished
        for step in range(case.steps, 0, -1)
    )


def test_killed_at_every_step_nothing_is_lost_or_doubled_and_the_next_run_ends_it(
    case: Case,
) -> None:
    assert case.steps >= 10
    assert kill_at_every_step(case)


def test_a_saboteur_that_removes_segments_before_the_file_has_its_name_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)  # one that has checked nothing yet
    write = _compacting._Run._write

    def sabotaged(self: Any, database: Any, path: Any, sources: Any, moved: Any, how: Any) -> bool:
        done = write(self, database, path, sources, moved, how)
        for candidate in moved:
            self._remove(candidate)
        return done

    monkeypatch.setattr(_compacting._Run, "_write", sabotaged)
    with pytest.raises(AssertionError):
        kill_at_every_step(case)


def test_killed_twice_it_is_no_worse(case: Case) -> None:
    for first in range(3, case.steps + 1, 2):
        case.disturbed(lambda disk, nth=first: disk.kill(nth), lambda disk: disk.kill(4))


def test_a_step_that_fails_is_an_error_that_says_where_and_the_next_run_ends_it(
    case: Case,
) -> None:
    for step in range(1, case.steps + 1):
        case.disturbed(lambda disk, nth=step: disk.fail("*", nth=nth, error=errno.EIO))


def test_a_temporary_file_of_a_run_that_was_killed_is_removed(case: Case) -> None:
    root = case.fresh()
    (root / "archive").mkdir()
    (root / "archive" / "half.tmp").write_bytes(b"PAR1 and no end")
    case.check(root)


def test_a_disk_that_is_full_for_the_database_leaves_everything(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = case.fresh()
    statement = _staging.statement

    def elsewhere(name: str) -> str:
        text = statement(name)
        return text.replace("TO {path}", "TO '/dev/full'") if name == "archive" else text

    with monkeypatch.context() as patched:
        patched.setattr(_staging, "statement", elsewhere)
        with pytest.raises(LedgerPathError, match="cannot write"):
            compact(root, until=LATER)
    case.check(root)


def test_a_segment_put_in_place_of_its_source_meanwhile_is_not_removed(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = case.fresh()

    class Meddling(FaultyFileSystem):
        def rename(self, old: Path, new: Path) -> None:
            super().rename(old, new)
            for path in (root / "segments").iterdir():
                shutil.copy(path, path.with_suffix(".copy"))
                path.with_suffix(".copy").rename(path)

    done = compact(root, until=LATER, fs=Meddling(QUICK))
    assert done.segments == 4
    assert len(list((root / "segments").iterdir())) == 6
    assert case.says(root) == case.said
    assert case.check(root).finished == 4
